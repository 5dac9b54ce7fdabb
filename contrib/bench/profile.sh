#!/bin/sh
# Where a server spends its processor time: perf's cpu-clock samples of one context under load.
#
#   contrib/bench/profile.sh [SECONDS] [PATH] -- COMMAND...     starts COMMAND, loads it, reports
#   contrib/bench/profile.sh -p PID PORT [SECONDS] [PATH]       samples a server that runs already
#
# The server must listen on 127.0.0.1:$PORT (8077 by default, set PORT to change it). CONNECTIONS
# (64) and SCRIPT (a wrk script) change the load. Hardware counters are not asked for: virtual
# machines seldom have them. The profile stays in build/bench/perf.data; a folded call graph is
# one `perf report -g` away. Frames of the C extension need -fno-omit-frame-pointer or -g.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
out=$root/build/bench
mkdir -p "$out"
connections=${CONNECTIONS:-64}
seconds=5
path=/plain
pid=

if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
    sed -n '2,11s/^# \{0,1\}//p' "$0"
    exit 0
fi
if [ "${1:-}" = -p ]; then
    pid=$2
    PORT=$3
    shift 3
    seconds=${1:-5}
    path=${2:-/plain}
else
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        case $1 in
        /*) path=$1 ;;
        *) seconds=$1 ;;
        esac
        shift
    done
    [ $# -gt 1 ] || { echo "profile.sh: no command given; see --help" >&2; exit 2; }
    shift
    PORT=${PORT:-8077}
    taskset -c "${SERVER_CORE:-0}" "$@" &
    pid=$!
    trap 'kill "$pid" 2>/dev/null || :' EXIT
    tries=0
    until curl -s -o /dev/null "http://127.0.0.1:$PORT$path"; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || { echo "profile.sh: nothing answers on port $PORT" >&2; exit 1; }
        sleep 0.1
    done
fi

# All processes of the tree: only the busy one will have samples worth looking at.
family() {
    echo "$1"
    for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do family "$child"; done
}
pids=$(family "$pid" | paste -sd, -)

taskset -c "${LOAD_CORE:-1}" wrk -t1 -c"$connections" -d"$((seconds + 2))s" --latency \
    ${SCRIPT:+-s "$SCRIPT"} "http://127.0.0.1:$PORT$path" >"$out/wrk.txt" &
load=$!
sleep 1
perf record -q -e cpu-clock -F 1999 -g -p "$pids" -o "$out/perf.data" -- sleep "$seconds" || :
wait "$load"
cat "$out/wrk.txt"
echo "== by object"
perf report -i "$out/perf.data" --no-children -g none --fields overhead,dso --stdio 2>/dev/null |
    grep -v '^#' | grep -v '^$' | head -12
echo "== by function"
perf report -i "$out/perf.data" --no-children -g none --fields overhead,symbol,dso --stdio 2>/dev/null |
    grep -v '^#' | grep -v '^$' | head -"${TOP:-60}"
