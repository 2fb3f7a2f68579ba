#!/usr/bin/python3
"""Layering lint: each quoted #include of a file under lib/ must be one that its room may know (layers.txt)."""
import os
import re
import sys

root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
rules = {}
for line in open(os.path.join(root, "tests/lint/layers.txt")):
    line = line.split("#")[0].strip()
    if line:
        room, allowed = line.split(":", 1)
        rules[room.strip()] = allowed.split()


def prefix(path, candidates):
    """The longest candidate that is `path` itself or a folder above it."""
    best = None
    for c in candidates:
        if (path == c or path.startswith(c + "/")) and (best is None or len(c) > len(best)):
            best = c
    return best


def check(rel, text):
    room = prefix(rel, rules)
    if room is None:
        yield 0, f"{rel} lies in no room of layers.txt"
        return
    for number, line in enumerate(text.splitlines(), 1):
        m = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if not m:
            continue
        target = m.group(1)
        if target.endswith(".c"):
            yield number, f"includes a source file: {target}"
            continue
        if target.endswith("_impl.h") and prefix(target, rules) != room:
            yield number, f"{target} is internal to its room"
        owner = prefix(target, rules)
        ok = prefix(target, rules[room])
        if ok is None or (owner and len(owner) > len(ok)):
            yield number, f"{room} may not know {target}"


bad = seen = 0
for folder, _, names in os.walk(os.path.join(root, "lib")):
    for name in sorted(names):
        if name.endswith((".c", ".h", ".def")):
            path = os.path.join(folder, name)
            rel = os.path.relpath(path, os.path.join(root, "lib"))
            seen += 1
            for number, what in check(rel, open(path).read()):
                print(f"lib/{rel}:{number}: {what}")
                bad += 1
if "--self-test" in sys.argv:
    planted = list(check("core/x.c", '#include "transport/ws_server.h"\n#include "util/err.h"\n'))
    assert len(planted) == 1, planted
    planted = list(check("node/x.c", '#include "store/rocksdb/kv.h"\n'))
    assert len(planted) == 1, planted
    print("layers: self-test ok")
print(f"layers: {seen} files, {bad} forbidden includes")
sys.exit(1 if bad else 0)
