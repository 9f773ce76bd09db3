// Publishes one message by the server API, with Go's standard library.
//
//	FANFARE_API=http://127.0.0.1:8001 FANFARE_KEY=… go run publish.go orders:1 '{"state":"shipped"}'
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

var client = http.Client{Timeout: 5 * time.Second}

func publish(channel string, data json.RawMessage, tries int) (string, error) {
	// The key makes it the same publication, however often it is sent.
	key := make([]byte, 16)
	rand.Read(key)
	body, err := json.Marshal(map[string]any{"channel": channel, "data": data, "key": hex.EncodeToString(key)})
	if err != nil {
		return "", err
	}
	for {
		tries--
		answer, status, err := post(body)
		if status == http.StatusOK {
			return answer, nil
		}
		// 0, nothing came; 503, the broker is away for a moment. Everything else would fail again.
		if tries == 0 || (status != 0 && status != http.StatusServiceUnavailable) {
			return "", fmt.Errorf("not published: %s %v", answer, err)
		}
		time.Sleep(time.Second)
	}
}

func post(body []byte) (string, int, error) {
	request, err := http.NewRequest("POST", os.Getenv("FANFARE_API")+"/api/publish", bytes.NewReader(body))
	if err != nil {
		return "", 0, err
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("FANFARE_KEY"))
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return "", 0, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return string(answer), response.StatusCode, err
}

func main() {
	answer, err := publish(os.Args[1], json.RawMessage(os.Args[2]), 5)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(answer)
}
