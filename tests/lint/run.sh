#!/bin/sh
# make lint: layering, headers alone, warnings as errors, clang-format, cppcheck. Says each failure; status 1 if any.
set -u
cd "$(dirname "$0")/../.." || exit 1
CC=${CC:-gcc}
flags="-std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Werror -Ilib -I. -DCHAT_VERSION=__FILE__ $(pkg-config --cflags fuse3 libnl-route-3.0 2>/dev/null)"
bad=0
step() { printf '%-14s ' "$1"; }
verdict() { if [ "$1" = 0 ]; then echo ok; else echo FAILED; bad=1; fi; }

step layering
out=$(/usr/bin/python3 tests/lint/layers.py --self-test) ; rc=$?
[ $rc = 0 ] || echo "$out"
verdict $rc

step headers
rc=0
for h in $(git ls-files -co --exclude-standard 'lib/*.h' 'cmd/*.h'); do
    # shellcheck disable=SC2086
    echo "#include \"${h#lib/}\"" | $CC $flags -I. -fsyntax-only -x c - || { echo "  $h does not compile alone"; rc=1; }
done
verdict $rc

step warnings
git ls-files -co --exclude-standard 'lib/*.c' 'cmd/*.c' 'tests/*.c' |
    xargs -P 2 -n 8 sh -c "for f; do $CC $flags -O1 -fsyntax-only \"\$f\" || exit 255; done" sh
verdict $?

step clang-format
git ls-files -co --exclude-standard '*.c' '*.h' | xargs clang-format --dry-run -Werror
verdict $?

step cppcheck
git ls-files -co --exclude-standard 'lib/*.c' 'cmd/*.c' |
    xargs cppcheck --quiet -j 2 --enable=warning,performance,portability --error-exitcode=1 --inline-suppr \
        --suppress=missingIncludeSystem --suppress=unknownMacro -Ilib -D_GNU_SOURCE --std=c11 2>&1
verdict $?
exit $bad
