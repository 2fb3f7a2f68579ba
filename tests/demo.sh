#!/bin/sh
# make demo: incident 1, mobile-loss, as it was and as it is, at the same time on links of its own. About a minute.
set -u
cd "$(dirname "$0")/.." || exit 1
B=${B:-build}
out=${DEMO_REPORT:-reports/out/mobile-loss}
sudo=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "demo: network namespaces need root: run it as root, or install sudo" >&2; exit 77; }
    sudo=sudo
fi
parallel=--parallel
[ "$(nproc)" -ge 2 ] || parallel=--no-parallel # a single core would make the load generators lag: a result of unknown
echo "mobile-loss, before and after, on lossy LTE and on WiFi: about a minute"
$sudo "$B/chat-chaos" run scenarios/01-mobile-loss/scenario.json \
    --variant before --variant after $parallel --report "$out" "$@"
status=$?
case $status in
0) echo "before: the losses are there; after: none. The whole story: $out/report.html" ;;
1 | 2) echo "not as expected (status $status); see $out/report.html" ;;
*) echo "demo: the runs could not be made (status $status)" >&2 ;;
esac
exit $status
