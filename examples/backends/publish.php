<?php
/**
 * Publishes one message by the server API, with what PHP has.
 *
 *     FANFARE_API=http://127.0.0.1:8001 FANFARE_KEY=… php publish.php orders:1 '{"state":"shipped"}'
 */

function publish(string $channel, mixed $data, int $tries = 5): array
{
    // The key makes it the same publication, however often it is sent.
    $body = json_encode(['channel' => $channel, 'data' => $data, 'key' => bin2hex(random_bytes(16))], JSON_THROW_ON_ERROR);
    $context = stream_context_create(['http' => [
        'method' => 'POST',
        'header' => ['Authorization: Bearer ' . getenv('FANFARE_KEY'), 'Content-Type: application/json'],
        'content' => $body,
        'timeout' => 5,
        'ignore_errors' => true,
    ]]);
    for ($left = $tries - 1; ; $left--) {
        $answer = @file_get_contents(getenv('FANFARE_API') . '/api/publish', false, $context);
        $status = $answer === false ? 0 : (int) explode(' ', $http_response_header[0])[1];
        if ($status === 200) {
            return json_decode($answer, true, flags: JSON_THROW_ON_ERROR);
        }
        // 0, nothing came; 503, the broker is away for a moment. Everything else would fail again.
        if (!in_array($status, [0, 503], true) || $left === 0) {
            throw new RuntimeException("not published: $answer");
        }
        sleep(1);
    }
}

echo json_encode(publish($argv[1], json_decode($argv[2], flags: JSON_THROW_ON_ERROR))), "\n";
