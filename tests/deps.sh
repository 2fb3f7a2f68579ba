#!/bin/sh
# Installs the Debian packages the toolkit needs (and those named), and only what is missing. Quiet when there is nothing
# to do.
set -eu
want="gcc libc6-dev binutils make pkg-config git
libwebsockets-dev libev-dev libhiredis-dev redis-server haproxy librocksdb-dev libsodium-dev libjansson-dev libcmocka-dev libnl-3-dev libnl-route-3-dev
zlib1g-dev libzstd-dev libpcap-dev libcurl4-openssl-dev libfuse3-dev fuse3 iproute2 iputils-ping iperf3 procps
python3 python3-websockets curl clang clang-format cppcheck $*"
missing=""
for p in $want; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
sudo=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "deps: need root or sudo to install:$missing" >&2; exit 77; }
    sudo=sudo
fi
echo "deps: installing$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for try in 1 2 3; do
    if $sudo apt-get update -qq >"$log" 2>&1 &&
        $sudo apt-get install -y -qq --no-install-recommends $missing >"$log" 2>&1; then exit 0; fi
    echo "deps: try $try failed" >&2
done
cat "$log" >&2
exit 69
