#!/usr/bin/env bash
# The long run behind reports/02-group-fanout: 1,000 members, 200 B, 60 s a step (SECONDS_A_STEP), peers in turns at each rate;
# then what coalescing does, two threads against one, and the rate at which one node ends (20 s a step). About 20 minutes.
#     tests/bench/fanout_reference.sh [peers|coalesce|threads|limit ...]
# One JSON line a step goes to reports/out/fanout-*.jsonl. "others" in the table is what other processes of the machine took: a
# run during which it was busy says little.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
long=${SECONDS_A_STEP:-60}
short=$((long < 20 ? long : 20))
bench=$B/tests/bench/bench_fanout
out=reports/out
mkdir -p $out
[ -x "$bench" ] || { echo "$bench is not built: make build $bench"; exit 1; }
ws=${WS:-$out/peers}
[ -d "$ws/node_modules/ws" ] || npm install --silent --prefix "$ws" ws@8 >/dev/null 2>&1 || echo "npm ws could not be installed"
run() { # NAME ARGS...
    local name=$1
    shift
    "$bench" --ws "$ws" --json "$out/fanout-$name.jsonl" "$@" || exit 1
}
for part in ${*:-peers coalesce threads limit}; do
    echo "== $part"
    case $part in
    peers)
        run low --seconds "$long" --rates 25,50 --peers chatd,mosquitto,ws
        run high --seconds "$long" --rates 100,250 --peers chatd,nats,redis
        ;;
    coalesce)
        run on --seconds "$short" --rates 100,250 --peers chatd
        run off --seconds "$short" --rates 100,250 --peers chatd --server-args "--coalesce 1"
        ;;
    threads) # both may use all cores: else two threads would share one
        for i in 1 2; do
            run "threads1-$i" --seconds "$short" --rates 25,100,250 --peers chatd --place free
            run "threads2-$i" --seconds "$short" --rates 25,100,250 --peers chatd --place free --server-args "--threads 2"
        done
        ;;
    limit)
        run limit --seconds "$short" --rates 500,1000,1500,2000,3000,4000 --peers chatd
        ;;
    *)
        echo "$part: none of peers, coalesce, threads, limit"
        exit 64
        ;;
    esac
done
