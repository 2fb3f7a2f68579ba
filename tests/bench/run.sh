#!/usr/bin/env bash
# Runs every benchmark, shows what it prints, and keeps all of it in reports/out/bench.txt. A program that fails to run is an
# error; a missed budget is only shown (BENCH_STRICT=1: an error too): timings are noisy where other work shares the host.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
mkdir -p reports/out
out=reports/out/bench.txt
: >"$out"
rc=0
# bench_fanout measures itself beside others; those that can't be had are said and skipped
peers="mosquitto nats-server redis-server"
command -v node >/dev/null || peers="$peers nodejs npm"
# shellcheck disable=SC2086
tests/deps.sh $peers || echo "not all of the peers could be installed"
[ -d reports/out/peers/node_modules/ws ] || npm install --silent --prefix reports/out/peers ws@8 >/dev/null 2>&1 ||
    echo "npm ws could not be installed"
for src in tests/bench/bench_*.c; do
    name=$(basename "$src" .c)
    echo "== $name" | tee -a "$out"
    if ! "$B/tests/bench/$name" 2>&1 | tee -a "$out"; then rc=1; fi
    [ "${PIPESTATUS[0]}" = 0 ] || { echo "$name failed" | tee -a "$out"; rc=1; }
done
echo "== summary"
grep '^BENCH' "$out"
if grep -q '^BENCH.*MISSED' "$out"; then
    echo "some budgets were missed"
    [ "${BENCH_STRICT:-0}" = 0 ] || rc=1
fi
exit $rc
