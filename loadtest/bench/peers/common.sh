# shellcheck shell=bash
# Sourced by every `peer`. A peer is a program with three commands, run by scripts/bench and by
# `fanfare-loadtest bench`:
#
#     peer install    makes the server available, below $BENCH_CACHE where it is not on the machine already
#     peer version    prints what it is, on one line
#     peer serve      becomes the server, in the foreground, until SIGTERM
#
# `serve` is told by the environment: $PORT and $INTERNAL_PORT, loopback ports to listen on (the first for
# clients); $SCRATCH, an empty directory of its own; $REDIS_PORT, when it is a node of a cluster; $TLS_CERT and
# $TLS_KEY, files in PEM, when it is spoken to over TLS.

here=$(cd -- "$(dirname -- "${BASH_SOURCE[1]}")" && pwd)
cache=${BENCH_CACHE:?where downloads go}/$(basename -- "$here")
mkdir -p "$cache"

# Debian keeps daemons where only root's PATH looks.
PATH=$PATH:/usr/sbin:/sbin

# unpack PACKAGE…: Debian packages into $cache/root, without installing them: no root, no daemon that starts.
unpack() {
    local directory
    directory=$(mktemp -d)
    # The lists of packages may be missing or old; to renew them takes root.
    (cd "$directory" && { apt-get download -q "$@" || { apt-get update -q && apt-get download -q "$@"; }; } >/dev/null)
    mkdir -p "$cache/root"
    for package in "$directory"/*.deb; do
        dpkg -x "$package" "$cache/root"
    done
    rm -rf "$directory"
}

command=${1:?install, version or serve}
case $command in
    install | version | serve) ;;
    *) echo "$0: there is no command $command" >&2; exit 2 ;;
esac
