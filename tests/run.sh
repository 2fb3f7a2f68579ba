#!/usr/bin/env bash
# Runs test suites (unit fuzz e2e ...) and ends with "N passed, N failed, N skipped". Every test speaks TAP; cmocka
# programs through CMOCKA_MESSAGE_OUTPUT=TAP. A program that dies, prints no plan or leaves its plan unfinished counts
# as failed. Status 1 if anything failed.
set -u
cd "$(dirname "$0")/.." || exit 1
B=${B:-build}
export B CMOCKA_MESSAGE_OUTPUT=TAP
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0} UBSAN_OPTIONS=print_stacktrace=1
# RocksDB's own globals are still reachable at exit
export LSAN_OPTIONS=suppressions=$PWD/tests/lsan.supp:print_suppressions=0
limit=${TEST_SECONDS:-600}
passed=0 failed=0 skipped=0
out=$(mktemp) || exit 1
trap 'rm -f "$out"' EXIT

one() { # name, command...
    local name=$1 start=$SECONDS rc ok nok skip
    shift
    timeout -k 10 "$limit" "$@" >"$out" 2>&1 </dev/null
    rc=$?
    sed -i -E 's/^not (ok .*# *SKIP)/\1/I' "$out" # cmocka says "not ok 3 # SKIP name"
    ok=$(grep -cE '^ok\b' "$out")
    skip=$(grep -ciE '^ok\b.*# *skip' "$out")
    nok=$(grep -cE '^not ok\b' "$out")
    if [ "$rc" != 0 ] && [ "$nok" = 0 ]; then nok=1; fi
    if [ "$ok" = 0 ] && [ "$nok" = 0 ]; then nok=1; fi
    passed=$((passed + ok - skip)) failed=$((failed + nok)) skipped=$((skipped + skip))
    if [ "$nok" = 0 ]; then
        printf 'ok   %-34s %3d passed %2d skipped %4ds\n' "$name" $((ok - skip)) "$skip" $((SECONDS - start))
        grep -iE '^ok\b.*# *skip' "$out" | sed 's/^/     /'
    else
        printf 'FAIL %-34s %3d passed %2d failed (status %s) %4ds\n' "$name" "$ok" "$nok" "$rc" $((SECONDS - start))
        tail -n 60 "$out" | sed 's/^/     | /'
    fi
}

for suite in "$@"; do
    case $suite in
    unit | sim) for t in $(find "$B/tests/$suite" -type f -name 'test_*' ! -name '*.*' 2>/dev/null | sort); do
        src=tests/${t#"$B"/tests/}.c
        [ -f "$src" ] && one "${t#"$B"/tests/}" "$t"; done ;;
    fuzz) for t in $(find "$B/tests/fuzz" -type f -name 'fuzz_*' ! -name '*.*' 2>/dev/null | sort); do
        one "fuzz/$(basename "$t")" "$t" --replay; done ;;
    *) for t in $(find "tests/$suite" -name 'test_*' -perm -u+x -type f 2>/dev/null | sort); do
        one "${t#tests/}" "$t"; done ;;
    esac
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
