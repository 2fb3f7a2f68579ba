"""Several nodes over a real Redis: processes, a forwarder in each node's way to Redis that can be cut, and phones that
follow the rules of clients (outbox, cursors, resume, sync)."""
import asyncio
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from chat import BUILD, Server, uuid7, websockets


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Redis:
    def __init__(self, folder):
        self.port, self.folder = free_port(), folder
        self.start()

    def start(self):
        self.proc = subprocess.Popen(["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                                      "--appendonly", "no", "--dir", self.folder],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError("redis-server did not start")

    def kill(self):
        self.proc.kill()
        self.proc.wait()

    def signal(self, sig):
        self.proc.send_signal(sig)


def readable(sockets, ms):
    """select() knows no descriptor above 1,023."""
    poll, of = select.poll(), {s.fileno(): s for s in sockets}
    for fd in of:
        poll.register(fd, select.POLLIN)
    return [of[fd] for fd, _ in poll.poll(ms)]


class Way:
    """TCP to Redis that can be cut as a network is: nothing arrives, nobody is told."""

    def __init__(self, to):
        self.to, self.cut, self.ended = to, False, False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        pairs = {}
        while not self.ended:
            for s in readable([self.listener] + ([] if self.cut else list(pairs)), 50):
                if s is self.listener:
                    a = s.accept()[0]
                    try:
                        b = socket.create_connection(("127.0.0.1", self.to), 1)
                    except OSError:
                        a.close()
                        continue
                    pairs[a], pairs[b] = b, a
                    continue
                if s not in pairs:
                    continue
                try:
                    data = s.recv(1 << 18)
                    if data:
                        pairs[s].sendall(data)
                except OSError:
                    data = b""
                if not data:
                    other = pairs.pop(s)
                    pairs.pop(other, None)
                    s.close()
                    other.close()
        for s in [self.listener, *pairs]:
            s.close()


class Node(Server):
    def __init__(self, cluster, number):
        super().__init__(folder=os.path.join(cluster.folder, f"node{number}"))
        os.makedirs(self.folder, exist_ok=True)
        self.keys = os.path.join(cluster.folder, "keys")
        self.cluster, self.number = cluster, number
        self.way = Way(cluster.redis.port)

    def up(self, *args):
        return self.start("--bus", f"redis://127.0.0.1:{self.way.port}/test", "--node", str(self.number), "--nodes",
                          str(self.cluster.size), *args)

    def metric(self, name):
        _, body = self.get("/metrics")
        for line in body.splitlines():
            if line.startswith(f"chatd_{name} "):
                return float(line.split()[1])
        return None


class Cluster:
    def __init__(self, size=3):
        self.size = size
        self.folder = tempfile.mkdtemp(prefix="chatd-cluster-")
        self.redis = Redis(self.folder)
        self.nodes = [Node(self, i) for i in range(size)]
        for n in self.nodes:
            n.up()
        self.wait_joined()

    def wait_joined(self, others=None, nodes=None, timeout=20):
        """Each of these nodes (all) sees so many others (all)."""
        deadline = time.monotonic() + timeout
        others = self.size - 1 if others is None else others
        while time.monotonic() < deadline:
            if all(n.metric("bus_nodes_up") == others for n in nodes or self.nodes):
                return True
            time.sleep(0.05)
        return False

    def owned(self, node, start=1000):
        """A chat number of this node's share: shard.c's mix, mod 256, mod nodes."""
        chat = start
        while shard(chat) % self.size != node:
            chat += 1
        return chat

    def clean(self):
        for n in self.nodes:
            if n.proc and n.proc.poll() is None:
                n.proc.send_signal(signal.SIGCONT)
            n.kill()
            n.way.ended = True
        self.redis.signal(signal.SIGCONT)
        self.redis.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def shard(chat):
    m = (1 << 64) - 1
    x = (chat + 0x9e3779b97f4a7c15) & m
    x = ((x ^ (x >> 30)) * 0xbf58476d1ce4e5b9) & m
    x = ((x ^ (x >> 27)) * 0x94d049bb133111eb) & m
    return (x ^ (x >> 31)) % 256


class Phone:
    """A client by the rules. `shown` is what its person sees, per chat, in order."""

    def __init__(self, cluster, user, token, rng, born):
        self.cluster, self.user, self.token, self.rng, self.born = cluster, user, token, rng, born
        self.have, self.cursor, self.epoch = {}, {}, {}
        self.shown, self.accepted, self.outbox = {}, {}, {}
        self.seen_at, self.wrong, self.ends = {}, [], 0
        self.ws = None

    async def run(self, stop):
        while not stop.is_set():
            node = self.rng.choice(self.cluster.nodes)
            try:
                async with websockets.connect(f"ws://127.0.0.1:{node.port}/", subprotocols=["chat.v1"], max_size=None,
                                              ping_interval=None, open_timeout=2, close_timeout=0.5) as ws:
                    await self.talk(ws, stop)
            except Exception:  # noqa: BLE001 - that node is away: another
                pass
            self.ws = None
            self.ends += 1
            await asyncio.sleep(0.05 + self.rng.random() * 0.3)

    async def say(self, **m):
        if self.ws:
            await self.ws.send(json.dumps(m))

    async def talk(self, ws, stop):
        self.ws = ws
        resume = [[str(c), self.epoch[c], s] for c, s in self.cursor.items() if c in self.epoch]
        await self.say(t="hello", token=self.token, device=1, net="wifi", resume=resume)
        hello, heard, ready, last_sync = time.monotonic(), time.monotonic(), False, 0
        while not stop.is_set():
            try:
                text = await asyncio.wait_for(ws.recv(), 0.1)
                heard = time.monotonic()
                for m in (lambda f: f if isinstance(f, list) else [f])(json.loads(text)):
                    ready |= m["t"] == "welcome"
                    await self.on(m)
            except asyncio.TimeoutError:
                pass
            now = time.monotonic()
            if not ready and now - hello > 4:
                return
            if not ready:
                continue
            for mid, (chat, due) in list(self.outbox.items()):
                if due <= now:
                    self.outbox[mid] = (chat, now + 2)
                    await self.say(t="send", id=mid, chat=str(chat), kind="text", body=mid)
            if now - last_sync > 1:
                last_sync = now
                await self.say(t="beat")
                for c, seqs in self.have.items():
                    if seqs and max(seqs) > self.cursor.get(c, 0):
                        await self.say(t="sync", chat=str(c), after=self.cursor.get(c, 0), limit=500)
            if self.outbox and now - heard > 6:
                return  # half open: nothing answers

    async def on(self, m):
        if m["t"] == "accepted":
            if m["id"] in self.accepted and self.accepted[m["id"]] != (m["epoch"], m["seq"]):
                self.wrong.append(f"{m['id']} accepted twice: {self.accepted[m['id']]} and {m['epoch']}, {m['seq']}")
            self.accepted[m["id"]] = (m["epoch"], m["seq"])
            self.outbox.pop(m["id"], None)
            self.note(int(m["chat"]), m["epoch"], m["seq"], m["id"])
        elif m["t"] == "msg":
            if int(m["from"]) == self.user and m["kind"] == "text":
                self.accepted.setdefault(m["id"], (m["epoch"], m["seq"]))
                self.outbox.pop(m["id"], None)
            self.note(int(m["chat"]), m["epoch"], m["seq"], m["id"])
            await self.say(t="ack", chat=m["chat"], seq=self.cursor[int(m["chat"])])
        elif m["t"] == "error" and m.get("id") in self.outbox:
            chat, _ = self.outbox[m["id"]]
            self.outbox[m["id"]] = (chat, time.monotonic() + m.get("retry_ms", 1000) / 1000)
            if not m.get("retry_ms"):
                self.wrong.append(f"refused for good: {m}")

    def note(self, chat, epoch, seq, mid):
        have = self.have.setdefault(chat, {})
        if have.get(seq, mid) != mid:
            self.wrong.append(f"chat {chat}: seq {seq} is {have[seq]} and {mid}")
        self.epoch[chat] = epoch
        have[seq] = mid
        self.seen_at.setdefault(mid, time.monotonic())
        at = self.cursor.setdefault(chat, 0)
        while at + 1 in have:
            at += 1
            self.shown.setdefault(chat, []).append(have[at])
        self.cursor[chat] = at

    def submit(self, chat):
        mid = uuid7()
        self.born[mid] = (chat, time.monotonic())
        self.outbox[mid] = (chat, 0)


async def load(phones, chats, stop, rate, rng):
    while not stop.is_set():
        chat = rng.choice(chats)
        rng.choice(phones).submit(chat)
        await asyncio.sleep(rng.expovariate(rate))


async def create(cluster, chat, users, token):
    from chat import Client
    c = await Client(cluster.nodes[0], users[0], token=token, device=9).connect()
    deadline = time.monotonic() + 20
    while True:
        await c.say(t="create", chat=str(chat), users=[str(u) for u in users])
        try:
            await c.wait("done", timeout=3, re="create")
            break
        except TimeoutError:
            if time.monotonic() > deadline:
                raise
    await c.close()


def converged(phones, born):
    wanted = {}
    for mid, (chat, _) in born.items():
        wanted.setdefault(chat, set()).add(mid)
    left = sum(len(p.outbox) for p in phones)
    missing = sum(len(ids - set(p.shown.get(chat, []))) for p in phones for chat, ids in wanted.items())
    return left + missing


def audit(cluster, phones, born, chats, token):
    """What is wrong, as sentences: the stores against the phones' books."""
    wrong = [w for p in phones for w in p.wrong]
    for chat in chats:
        node = cluster.nodes[shard(chat) % cluster.size]
        rows = node.history(chat, token)
        ids = [r["id"] for r in rows]
        if len(ids) != len(set(ids)):
            wrong.append(f"chat {chat}: ids stored twice")
        if [r["seq"] for r in rows] != list(range(1, len(rows) + 1)):
            wrong.append(f"chat {chat}: seqs are not 1..{len(rows)}")
        for p in phones:
            if p.shown.get(chat, []) != ids:
                wrong.append(f"chat {chat}: user {p.user} shows {len(p.shown.get(chat, []))} of {len(ids)}, "
                             "or in another order")
            for mid, place in p.accepted.items():
                if born[mid][0] == chat and mid not in ids:
                    wrong.append(f"chat {chat}: {mid} was accepted and is gone")
    return wrong
