"""Inside user-mode Linux, which has sch_netem: the rules for real. Speaks TAP; lines with JSON are calibrations."""
import ctypes
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

NETEM = os.environ["BUILD"] + "/chat-netem"
SECONDS = os.environ.get("SECONDS_PER_PHASE", "20")
NAMED_SECONDS = os.environ.get("NAMED_SECONDS", "4")
KILLS = int(os.environ.get("KILLS", "50"))
MODULES = ["drivers/net/veth", "net/sched/sch_netem", "net/sched/sch_tbf", "net/sched/sch_ingress", "net/sched/cls_u32",
           "net/sched/act_mirred", "net/sched/act_police"]
count = failed = 0


def ok(cond, name, why=""):
    global count, failed
    count += 1
    print(f"{'ok' if cond else 'not ok'} {count} - {name}", flush=True)
    if not cond:
        failed += 1
        for line in str(why).splitlines():
            print("# " + line[:1500], flush=True)
    return cond


def load_modules():
    libc = ctypes.CDLL(None, use_errno=True)
    base = f"/usr/lib/uml/modules/{os.uname().release}/kernel/"

    def load(name, args=b""):
        fd = os.open(base + name + ".ko", os.O_RDONLY)
        r = libc.syscall(313, fd, args, 0)  # finit_module on x86-64
        os.close(fd)
        return r == 0 or ctypes.get_errno() == 17
    bad = [m for m in MODULES if not load(m)]
    if not load("drivers/net/ifb", b"numifbs=0"):
        bad.append("ifb")
    ok(not bad, "sch_netem and its company are loaded", bad)


def run(*args, **kw):
    return subprocess.run(args, capture_output=True, text=True, timeout=3600, **kw)


def netem(*args):
    return run(NETEM, *args)


def state():
    """All rules and devices, without counters and handles that the kernel chooses."""
    q = json.loads(run("tc", "-j", "qdisc", "show").stdout)
    text = json.dumps(sorted(q, key=lambda x: json.dumps(x, sort_keys=True)), sort_keys=True)
    filters = "".join(run("tc", "filter", "show", "dev", "v0", d).stdout for d in ("ingress", "egress"))
    filters = re.sub(r"index \d+ ref|0x[0-9a-f]+ ?|police \d+", "", filters)
    links = sorted(x["ifname"] for x in json.loads(run("ip", "-j", "link", "show").stdout))
    return re.sub(r'"refcnt": \d+', "", text), filters, links


def clean():
    q, f, links = state()
    left = [p for p in ps() if p[1] in ("netem-keeper", "chat-netem")]
    return "4e4" not in q and "clsact" not in q and not f and links == ["lo", "v0"] and not left, (q, f, links, left)


def ps():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as f:
                s = f.read()
            if s[s.rindex(")") + 2] != "Z":
                found.append((int(pid), s[s.index("(") + 1:s.rindex(")")]))
        except OSError:
            pass
    return found


def world():
    os.makedirs("/run/netns")
    for line in ("ip link set lo up", "ip netns add far", "ip link add v0 type veth peer name v1 netns far",
                 "ip addr add 10.0.0.1/24 dev v0", "ip link set v0 up", "ip -n far addr add 10.0.0.2/24 dev v1",
                 "ip -n far link set v1 up", "ip -n far link set lo up",
                 "ip netns list"):
        r = run(*line.split())
        if r.returncode:
            print("#", line, r.stderr, flush=True)
    run("ping", "-c", "1", "10.0.0.2")


FULL = ("down.rate=10mbit,up.rate=2mbit,delay=40ms,jitter=5ms,loss=2%,burst=4,corrupt=0.1%,duplicate=1%,"
        "up.reorder=3%,queue=64kB")


def read_back():
    r = netem("apply", "v0", FULL)
    ok(r.returncode == 0, "a profile is applied", r.stderr)
    by = {(q["dev"], q["kind"]): q for q in json.loads(run("tc", "-j", "qdisc", "show").stdout)}
    n = by[("v0", "netem")]["options"]
    loss = n["loss-gemodel"]
    good = (abs(n["delay"]["delay"] - 0.04) < 1e-5 and abs(n["delay"]["jitter"] - 0.005) < 1e-5 and
            abs(loss["p"] - 0.02 / 0.98 / 4) < 1e-6 and abs(loss["r"] - 0.25) < 1e-6 and loss["1-h"] == 1 and
            abs(n["corrupt"]["corrupt"] - 0.001) < 1e-6 and abs(n["duplicate"]["duplicate"] - 0.01) < 1e-6 and
            abs(n["reorder"]["reorder"] - 0.03) < 1e-6 and n["rate"]["rate"] == 250000 and n["limit"] > 1000)
    ok(good, "tc reads back what was asked", json.dumps(n))
    s = json.loads(netem("show-dev", "v0", "--json").stdout)
    up, down = s["up"], s["down"]
    good = (s["rules"] and s["profile"] == FULL and up["rate_bps"] == 2000000 and down["rate_bps"] == 10000000 and
            up["delay_ms"] == 40 and down["jitter_ms"] == 5 and abs(up["loss"] - 0.02) < 1e-5 and
            abs(down["burst"] - 4) < 1e-3 and abs(up["queue_bytes"] - 64000) < 100 and
            abs(down["queue_bytes"] - 64000) < 100 and abs(up["reorder"] - 0.03) < 1e-6 and down["reorder"] == 0)
    ok(good, "show-dev reads back what was asked", json.dumps(s))
    ours = state()
    r = netem("apply", "v0", FULL)
    ok(r.returncode == 0 and state() == ours, "applied again it is the same", (r.stderr, ours, state()))
    netem("clear", "v0")
    good, left = clean()
    ok(good, "clear takes all of it off", left)
    lines = netem("apply", "v0", FULL, "--dry-run").stdout
    for line in lines.splitlines():
        r = run(*line.split())
        if r.returncode:
            print("#", line, r.stderr, flush=True)
    ok(state() == ours, "the lines of --dry-run, run by ip and tc, make the same rules", (ours, state()))
    netem("clear", "v0")


def foreign():
    run("tc", "qdisc", "add", "dev", "v0", "root", "netem", "delay", "1ms")
    before = state()
    r = netem("apply", "v0", "delay=10ms")
    c = netem("clear", "v0")
    ok(r.returncode == 69 and "not ours" in r.stderr and c.returncode == 0 and state() == before,
       "somebody else's qdisc is refused and left alone", (r.returncode, r.stderr))
    run("tc", "qdisc", "del", "dev", "v0", "root")


def ping_times():
    netem("apply", "v0", "delay=40ms")
    out = run("ping", "-q", "-i", "0.02", "-c", "100", "10.0.0.2").stdout
    low, avg, high = map(float, re.search(r"= ([\d.]+)/([\d.]+)/([\d.]+)/", out).groups())
    ok(80 <= low and avg <= 90 and "100 received" in out, f"ping: 40 ms each way ({low}, {avg}, {high} ms)", out)
    netem("clear", "v0")


def windows():
    """A blackout at a known time, by the clock, seen by pings."""
    p = subprocess.Popen([NETEM, "apply", "v0", "delay=5ms,blackout_at=1s+1s", "--for", "4s"], stderr=subprocess.PIPE,
                         text=True)
    deadline = time.monotonic() + 5
    while not json.loads(netem("show-dev", "v0", "--json").stdout)["rules"] and time.monotonic() < deadline:
        time.sleep(0.01)
    out = run("ping", "-D", "-i", "0.01", "-c", "250", "10.0.0.2").stdout
    at = [float(t) for t in re.findall(r"\[([\d.]+)\] 64 bytes", out)]
    gaps = [b - a for a, b in zip(at, at[1:])]
    p.wait()
    ok(gaps and abs(max(gaps) - 1) < 0.03, f"a blackout of 1 s is {max(gaps, default=0):.3f} s long", (out, p.stderr.read()))
    good, left = clean()
    ok(good, "--for ends and nothing is left", left)


def kills():
    rng = random.Random(7)
    left = []
    for i in range(KILLS):
        args = ["--for", "60s"] if i % 2 else ["--", "sleep", "60"]
        p = subprocess.Popen([NETEM, "apply", "v0", "rate=1mbit,delay=10ms,stall_every=200ms,stall_for=50ms", *args],
                             stderr=subprocess.DEVNULL)
        time.sleep(rng.random() * 0.25)
        keepers = [pid for pid, name in ps() if name == "netem-keeper"]
        if i % 5 >= 3 and keepers:  # a keeper first: another one takes its place
            os.kill(rng.choice(keepers), signal.SIGKILL)
            time.sleep(rng.random() * 0.02)
        p.kill()
        p.wait()
        deadline = time.monotonic() + 5
        good, what = clean()
        while not good and time.monotonic() < deadline:
            time.sleep(0.01)
            good, what = clean()
        if not good:
            left.append((i, what))
            netem("clear", "v0")
    ok(not left, f"kill -9 at random, {KILLS} times: no rule, device or process is left", left)


def ceiling():
    """What this machine carries from one namespace to the other without any rule: no rate above it can be confirmed."""
    found = {}
    for what, args in [("udp_1400_mbit", ["-u", "-l", "1372", "-b", "0"]), ("udp_64_packets", ["-u", "-l", "36", "-b", "0"]),
                       ("tcp_mbit", [])]:
        server = subprocess.Popen(["ip", "netns", "exec", "far", "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        deadline, r = time.monotonic() + 10, {}
        while "end" not in r and time.monotonic() < deadline:
            out = run("iperf3", "-J", "-t", "5", *args, "-c", "10.0.0.2").stdout
            r = json.loads(out) if out.startswith("{") else {}
            r = r if "error" not in r else {}
        server.kill()
        server.wait()
        end = r.get("end", {})
        if "udp" in what and end:
            arrived = (end["sum"]["packets"] - end["sum"]["lost_packets"]) / end["sum"]["seconds"]
            found[what] = round(arrived if "packets" in what else arrived * 1400 * 8 / 1e6, 1)
        elif end:
            found[what] = round(end["sum_received"]["bits_per_second"] / 1e6, 1)
    print("CEILING " + json.dumps(found), flush=True)
    ok(len(found) == 3, f"without rules this machine carries {found}")


def stream(*args):
    """Mbit/s of a TCP stream's payload; 0: none came."""
    server = subprocess.Popen(["ip", "netns", "exec", "far", "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    deadline, got = time.monotonic() + 20, 0
    while not got and time.monotonic() < deadline:
        out = run("iperf3", "-J", "-t", "6", "-O", "2", *args, "-c", "10.0.0.2").stdout
        r = json.loads(out) if out.startswith("{") else {}
        got = r.get("end", {}).get("sum_received", {}).get("bits_per_second", 0) / 1e6
    server.kill()
    server.wait()
    return got


def fast_rates():
    """Rates that this machine can't reach packet by packet, by TCP, which it sends 64 kB at a time."""
    found = {}
    for profile, up, down in (("rate=30mbit,delay=1ms,queue=100ms", 30, 30), ("firefox-wifi", 15, 30),
                              ("down.rate=100mbit,up.rate=10mbit,delay=25ms,queue=100ms", 10, 100)):
        r = netem("apply", "v0", profile)
        got = {"up": stream(), "down": stream("-R")}
        netem("clear", "v0")
        # of an IP packet of 1500 bytes 1448 are payload; TCP itself may leave some of the rate unused, and can't take more
        share = {d: got[d] / want for d, want in (("up", up), ("down", down))}
        found[profile] = {d: round(v, 2) for d, v in got.items()}
        ok(r.returncode == 0 and all(0.9 < s < 0.975 for s in share.values()),
           f"{profile}: a TCP stream gets {got['up']:.2f} of {up} Mbit/s up, {got['down']:.2f} of {down} down", (r.stderr, share))
    print("STREAMS " + json.dumps(found), flush=True)


def once(profile, seconds):
    r = netem("calibrate", profile, "--driver", "kernel", "--tolerance", "10ms", "--time", f"{seconds}s", "--packets",
              "20000", "--seed", "1", "--json")
    return json.loads(r.stdout)["profiles"][0]


def calibrate(profile, seconds):
    """A host that is busy meanwhile stops this machine's clocks: what fails is tried twice more."""
    for turn in range(1, 4):
        out = once(profile, seconds)
        bad = [row for row in out["rows"] if row["verdict"] == "fail"]
        if not bad:
            break
    out["asked"], out["tries"] = profile, turn
    print("CALIBRATION " + json.dumps(out), flush=True)
    tally = {v: sum(row["verdict"] == v for row in out["rows"]) for v in ("pass", "unknown", "fail")}
    ok(not bad, f"calibrate {profile}: {tally['pass']} rows pass, {tally['unknown']} unknown (try {turn})",
       "\n".join(f"{row['direction']} {row['what']}: asked {row['asked']}, achieved {row['achieved']} {row['unit']}: "
                 f"{row['why']}" for row in bad))


def main():
    load_modules()
    world()
    for test in (read_back, foreign, ping_times, windows, kills, ceiling, fast_rates):
        try:
            test()
        except Exception:  # noqa: BLE001
            import traceback
            ok(False, test.__name__, traceback.format_exc())
            netem("clear", "v0")
    named = [line.split()[0] for line in netem("list").stdout.splitlines()] if float(NAMED_SECONDS) > 0 else []
    asked = list(filter(None, os.environ.get("PROFILES", "").split(";")))
    for p, seconds in [(p, SECONDS) for p in asked] + [(p, NAMED_SECONDS) for p in named]:
        try:
            calibrate(p, seconds)
        except (ValueError, KeyError, IndexError) as e:
            ok(False, f"calibrate {p}", repr(e))
    print(f"1..{count}", flush=True)
    sys.exit(1 if failed else 0)


main()
