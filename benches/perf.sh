#!/usr/bin/env bash
# Records where a node spends its CPU time, with whole stacks: builds it with frame pointers, starts it on a free port,
# fills and loads it with benches/load, records that process, prints the hottest functions.
#
#   PID=1234       attach to a running node instead; build it by `make profile`, or stacks are cut
#   MIX=90/10      share of GET and SET; PIPELINE=16; TIME=10 (s of recording)
#   BASE=old.data  compare with an earlier recording
set -euo pipefail
cd "$(dirname "$0")/.."
mix=${MIX:-90/10} pipeline=${PIPELINE:-16} time=${TIME:-10} pid=${PID:-} base=${BASE:-}
out=target/perf
mkdir -p "$out"

if ! command -v perf >/dev/null; then
    echo 'perf is not installed; on Debian: apt install linux-perf' >&2
    exit 2
fi
paranoid=$(cat /proc/sys/kernel/perf_event_paranoid)
if [ "$paranoid" -gt 2 ] && [ "$(id -u)" -ne 0 ]; then
    echo "kernel.perf_event_paranoid is $paranoid; set it: sudo sysctl kernel.perf_event_paranoid=1" >&2
    exit 2
fi

started=()
trap '[ ${#started[@]} -eq 0 ] || kill "${started[@]}" 2>/dev/null || true' EXIT
if [ -z "$pid" ]; then
    make --no-print-directory profile >/dev/null
    cargo bench --quiet --bench load --no-run
    : >"$out/node.log"
    target/perf/profiling/olivia --config /dev/null --port 0 2>"$out/node.log" &
    pid=$!
    started+=("$pid")
    addr=
    for _ in $(seq 50); do
        addr=$(sed -n 's/.* listens on \([^;]*\);.*/\1/p' "$out/node.log")
        [ -n "$addr" ] && break
        sleep 0.1
    done
    [ -n "$addr" ] || { cat "$out/node.log" >&2; exit 1; }
    echo "node $pid on $addr; filling, then $mix GET/SET at pipeline $pipeline"
    cargo bench --quiet --bench load -- --addr "$addr" --fill --mix "$mix" --pipeline "$pipeline" --requests 1000
    cargo bench --quiet --bench load -- --addr "$addr" --mix "$mix" --pipeline "$pipeline" --seconds $((time + 2)) &
    started+=("$!")
    sleep 1
fi

[ ! -e "$out/perf.data" ] || mv "$out/perf.data" "$out/perf.old.data"
perf record --quiet -F 999 --call-graph fp -o "$out/perf.data" -p "$pid" -- sleep "$time"
report() { perf report --stdio --no-children -g none --percent-limit 0 -i "$out/perf.data" "$@" 2>/dev/null | grep -v '^#' | grep -v '^$'; }
echo; echo 'User and kernel:'
report --sort dso | head -5 || true
echo; echo 'The 25 hottest functions ([.] user, [k] kernel):'
report --sort symbol | head -25 || true
if command -v inferno-flamegraph >/dev/null; then
    perf script -i "$out/perf.data" | inferno-collapse-perf | inferno-flamegraph >"$out/flame.svg"
    echo; echo "Flame graph: $out/flame.svg"
else
    echo; echo 'For a flame graph: cargo install inferno'
fi
if [ -n "$base" ]; then
    echo; echo "Against $base:"
    perf diff "$base" "$out/perf.data" 2>/dev/null | head -30
fi
echo; echo "Call graphs: perf report -i $out/perf.data"
