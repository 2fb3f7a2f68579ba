#!/usr/bin/env bash
# Known bugs, planted one at a time into the production code (util/mutant.h), must each be found by exploring at most
# $SEEDS seeds, and the clean build must stay clean. The checker is the same file in all: each mutant is one recompiled
# object linked before the same library. Speaks TAP.
set -u
cd "$(dirname "$0")/../.." || exit 1
B=${B:-build}
SEEDS=${SEEDS:-2000}
CC=${CC:-gcc}
out=$B/mutants
mkdir -p "$out"
# what the Makefile would use, and how chat-chaos is linked
flags=$(make -s --no-print-directory B="$B" print-flags) || exit 1
libs=$(make -s --no-print-directory B="$B" print-libs) || exit 1
mutants=$(grep -rhoE 'MUTANT\([A-Z_]+\)' lib --include='*.c' | sed -E 's/MUTANT\((.*)\)/\1/' | sort -u)
[ $# -gt 0 ] && mutants=$*
n=0 failed=0
say() { n=$((n + 1)); echo "$1 $n - $2"; [ "$1" = "ok" ] || failed=$((failed + 1)); }

build() { # name: the program with this mutant in it
    local name=$1 objects="" file
    for file in $(grep -rlE "MUTANT\($name\)" lib --include='*.c'); do
        local o=$out/$name.$(basename "$file" .c).o
        # shellcheck disable=SC2086
        $CC $flags -DMUTANT_"$name"=1 -c -o "$o" "$file" || return 1
        objects="$objects $o"
    done
    # shellcheck disable=SC2086
    $CC -o "$out/$name" $B/cmd/chat-chaos/*.o $objects "$B/libchat.a" $libs
}

for name in $mutants; do
    if ! build "$name"; then
        say "not ok" "$name could not be built"
        continue
    fi
    json=$("$out/$name" explore --seeds "1..$SEEDS" --json 2>"$out/$name.err")
    rc=$?
    rm -f "$out/$name"
    seeds=$(sed -E 's/.*"seeds":([0-9]+).*/\1/' <<<"$json")
    what=$(sed -nE 's/.*"what":"([a-z_]+)".*/\1/p' <<<"$json")
    seconds=$(sed -E 's/.*"seconds":([0-9.]+).*/\1/' <<<"$json")
    if [ "$rc" = 1 ] && [ -n "$what" ]; then
        say ok "$name is found as $what after $seeds seeds ($seconds s)"
    else
        say "not ok" "$name was not found in $SEEDS seeds (status $rc)"
        sed 's/^/# /' "$out/$name.err"
    fi
done
if [ $# = 0 ]; then
    if json=$("$B/chat-chaos" explore --seeds "1..$SEEDS" --json); then
        say ok "without a mutant $SEEDS seeds are clean"
    else
        say "not ok" "without a mutant: $json"
    fi
fi
echo "1..$n"
exit $((failed > 0))
