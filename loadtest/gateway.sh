# shellcheck shell=bash disable=SC2034
# Sourced by the scripts beside this file: builds the release gateway and the load generator, and runs one
# gateway on free loopback ports for as long as the script lives.
#
# Sets $root, $generator, $gateway_pid, $url (ws://…/ws) and $api (http://…). Any setting of the gateway can be
# given in the environment as FANFARE__SECTION__KEY; the others are those of scripts/bench.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
generator=$target/release/fanfare-loadtest
gateway_log=$(mktemp)
gateway_pid=

# Below the range that the kernel takes the clients' own ports from.
free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
}

ready() {
    local status
    status=$(
        { exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || exit 1
        printf 'GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
        head -n 1 <&3
    ) || return 1
    [[ $status == *" 200 "* ]]
}

stop_gateway() {
    if [ -n "$gateway_pid" ]; then
        kill "$gateway_pid" 2>/dev/null || true
        wait "$gateway_pid" 2>/dev/null || true
    fi
    rm -f "$gateway_log"
}

start_gateway() {
    (cd "$root" && cargo build --release --quiet -p fanfare-gateway -p fanfare-loadtest)
    local public internal deadline
    public=$(free_port)
    while internal=$(free_port) && [ "$internal" = "$public" ]; do :; done
    trap stop_gateway EXIT
    PORT=$public INTERNAL_PORT=$internal FANFARE_BIN=$target/release BENCH_CACHE=$target/bench \
        "$root/loadtest/bench/peers/fanfare/peer" serve >"$gateway_log" 2>&1 &
    gateway_pid=$!
    url=ws://127.0.0.1:$public/ws
    api=http://127.0.0.1:$internal
    deadline=$((SECONDS + 30))
    until ready "$public"; do
        if ! kill -0 "$gateway_pid" 2>/dev/null || [ "$SECONDS" -gt "$deadline" ]; then
            echo "the gateway does not become ready:" >&2
            cat "$gateway_log" >&2
            exit 2
        fi
        sleep 0.1
    done
}
