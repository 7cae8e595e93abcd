#!/usr/bin/env bash
# Records where a node spends its CPU time, with whole stacks: builds it with frame pointers, starts it on a free port,
# fills and loads it with `olivia bench`, records that process only, prints the hottest functions and draws a flame graph.
#
#   PID=1234       attach to a running node instead; build it by `make profile`, or stacks are cut
#   MIX=90/10      share of GET and SET; PIPELINE=16; TIME=10 (s of recording)
#   BASE=old.data  compare with an earlier recording
#
# Needs perf and the permission to use it. Installs inferno, which draws the graph, into target/perf/tools.
set -euo pipefail
cd "$(dirname "$0")/.."
mix=${MIX:-90/10} pipeline=${PIPELINE:-16} time=${TIME:-10} pid=${PID:-} base=${BASE:-}
out=target/perf
mkdir -p "$out"

fail() { printf '%s\n' "$@" >&2; exit 2; }
command -v perf >/dev/null || fail 'perf is not installed; on Debian: apt install linux-perf'
[ -z "$base" ] || [ -r "$base" ] || fail "BASE=$base is not a readable recording; earlier ones are $out/perf.data and $out/perf.old.data"
[ -z "$pid" ] || [ -d "/proc/$pid" ] || fail "PID=$pid is not a running process; pgrep -x olivia lists nodes"
# A recording of this script itself shows whether recording is allowed, whatever forbids it.
if ! why=$(perf record --quiet -o "$out/probe.data" -p $$ -- true 2>&1); then
    paranoid=$(cat /proc/sys/kernel/perf_event_paranoid 2>/dev/null || echo unknown)
    fail "perf cannot record (kernel.perf_event_paranoid is $paranoid): $why" \
        'As root: sysctl kernel.perf_event_paranoid=1. In a container: --cap-add PERFMON, or record on the host with PID='
fi
rm -f "$out/probe.data"

tools=$out/tools/bin
if [ ! -x "$tools/inferno-flamegraph" ]; then
    echo "installing inferno into $out/tools"
    cargo install --quiet --locked --root "$out/tools" inferno@0.12.8 ||
        echo "inferno cannot be installed; no flame graph will be drawn" >&2
fi

started=()
trap '[ ${#started[@]} -eq 0 ] || kill "${started[@]}" 2>/dev/null || true' EXIT
if [ -z "$pid" ]; then
    make --no-print-directory profile >/dev/null
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
    load() { target/perf/profiling/olivia bench "$addr" --mix "$mix" --pipeline "$pipeline" "$@" 2>/dev/null; }
    load --fill --requests 1000 >/dev/null
    load --seconds $((time + 2)) &
    started+=("$!")
    sleep 1
fi

[ ! -e "$out/perf.data" ] || mv "$out/perf.data" "$out/perf.old.data"
perf record --quiet -F 999 --call-graph fp -o "$out/perf.data" -p "$pid" -- sleep "$time"
[ ${#started[@]} -lt 2 ] || wait "${started[1]}"
stacks=$(perf script -i "$out/perf.data" 2>/dev/null | grep -c '^$' || true)
[ "$stacks" -gt 0 ] || fail "process $pid used no CPU in $time s; load it meanwhile, as by: olivia bench HOST:PORT --seconds 60"
report() {
    perf report --stdio --no-children -g none --percent-limit 0 -i "$out/perf.data" "$@" 2>/dev/null |
        grep -v '^#' | grep -v '^$'
}
echo
echo "Samples by program and kernel:"
report --sort dso | head -4 || true
echo
echo 'The 25 hottest functions of the program:'
report --sort symbol | sed 's, *- *- *$,,' | grep -F '[.]' | head -25 || true
echo
echo 'The 25 hottest functions of the kernel:'
report --sort symbol | sed 's, *- *- *$,,' | grep -F '[k]' | head -25 || true
if [ -x "$tools/inferno-flamegraph" ]; then
    perf script -i "$out/perf.data" 2>/dev/null | "$tools/inferno-collapse-perf" >"$out/stacks.txt"
    "$tools/inferno-flamegraph" --title "olivia, $mix GET/SET, pipeline $pipeline" "$out/stacks.txt" >"$out/flame.svg"
    echo
    echo "Flame graph: $out/flame.svg, for a browser"
fi
if [ -n "$base" ]; then
    echo
    echo "Against $base: its share, the change, the function"
    perf diff --sort symbol "$base" "$out/perf.data" 2>/dev/null | grep -v '^#' | grep -v '^$' | head -30 || true
fi
echo
echo "Call graphs: perf report --no-children -i $out/perf.data"
