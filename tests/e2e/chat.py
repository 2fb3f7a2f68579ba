"""What the end-to-end tests share: TAP, a server process, and a stock WebSocket client (python3-websockets)."""
import asyncio
import json
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("B", "build")) if not os.environ.get("B", "").startswith("/") \
    else os.environ["B"]
try:
    import websockets
except ImportError:
    websockets = None

_count = 0
_failed = 0


def ok(cond, name, why=""):
    global _count, _failed
    _count += 1
    print(f"{'ok' if cond else 'not ok'} {_count} - {name}", flush=True)
    if not cond:
        _failed += 1
        for line in str(why).splitlines():
            print("# " + line, flush=True)
    return cond


def skip(name, why):
    global _count
    _count += 1
    print(f"ok {_count} - {name} # SKIP {why}", flush=True)


def done():
    print(f"1..{_count}")
    sys.exit(1 if _failed else 0)


def uuid7(ms=None):
    ms = int(time.time() * 1000) if ms is None else ms
    b = bytearray(ms.to_bytes(6, "big") + secrets.token_bytes(10))
    b[6] = 0x70 | (b[6] & 0x0F)
    b[8] = 0x80 | (b[8] & 0x3F)
    h = b.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


class Server:
    """A chatd-server in a folder of its own. start() waits until it listens."""

    def __init__(self, folder=None, data=None):
        self.folder = folder or tempfile.mkdtemp(prefix="chatd-e2e-")
        self.data = data or os.path.join(self.folder, "chatd-data")
        self.keys = os.path.join(self.folder, "chatd-keys")
        self.log = os.path.join(self.folder, "server.log")
        self.port = 0
        self.proc = None

    def start(self, *args, wait=True, env=None):
        with open(self.log, "ab") as log:
            at = log.tell()
            self.proc = subprocess.Popen(
                [os.path.join(BUILD, "chatd-server"), "--listen", f"127.0.0.1:{self.port}", "--data", self.data,
                 "--keys", self.keys, *args], stderr=log, stdout=log, stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})})
        if wait:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                with open(self.log, "rb") as f:
                    f.seek(at)
                    m = re.search(rb"listening on .*\(port (\d+)\)", f.read())
                if m:
                    self.port = int(m.group(1))
                    return self
                if self.proc.poll() is not None:
                    break
                time.sleep(0.01)
            raise RuntimeError("server did not start: " + self.tail())
        return self

    def tail(self, n=2000):
        with open(self.log, "rb") as f:
            return f.read()[-n:].decode(errors="replace")

    def kill(self, sig=signal.SIGKILL, timeout=15):
        if self.proc and self.proc.poll() is None:
            self.proc.send_signal(sig)
            return self.proc.wait(timeout)
        return self.proc.returncode if self.proc else None

    def token(self, user, *args):
        return subprocess.check_output([os.path.join(BUILD, "chatd-server"), "token", "--keys", self.keys, "--user",
                                        str(user), *args], text=True).strip()

    def get(self, path, token=None):
        """(status, body)"""
        req = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}",
                                     headers={"Authorization": f"Bearer {token}"} if token else {})
        try:
            with urllib.request.urlopen(req, timeout=10) as r:
                return r.status, r.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()

    def history(self, chat, token):
        out, after = [], 0
        while True:
            status, body = self.get(f"/history/{chat}?after={after}&limit=1000", token)
            if status != 200:
                raise RuntimeError(f"history: {status} {body}")
            page = json.loads(body)["messages"]
            out += page
            if not page:
                return out
            after = page[-1]["seq"]

    def clean(self):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Client:
    """A session; every object received goes to `got` and, by type, wakes whoever waits. `acks`: it acknowledges what it
    is pushed, as clients must who stay longer than the server waits for that."""
    protocol = "chat.v1"

    def __init__(self, server, user, device=1, token=None, acks=False):
        self.server, self.user, self.device, self.acks = server, user, device, acks
        self.token = token or server.token(user)
        self.got = []
        self.welcome = None
        self.closed = None

    async def connect(self, resume=()):
        self.ws = await websockets.connect(f"ws://127.0.0.1:{self.server.port}/", subprotocols=[self.protocol],
                                           max_size=None, ping_interval=None, close_timeout=2)
        self.news = asyncio.Event()
        self.reader = asyncio.ensure_future(self._read())
        await self.say(t="hello", token=self.token, device=self.device, net="wifi", resume=list(resume))
        self.welcome = await self.wait("welcome")
        return self

    async def _read(self):
        try:
            async for text in self.ws:
                news = self.decode(text)
                self.got += news
                self.news.set()
                if self.acks:
                    for chat, seq in {o["chat"]: o["seq"] for o in news if o["t"] == "msg"}.items():
                        await self.say(t="ack", chat=chat, seq=seq)
        except (websockets.ConnectionClosed, OSError) as e:
            pass
        self.closed = self.ws.close_code or -1
        self.news.set()

    def decode(self, text):
        frame = json.loads(text)
        return frame if isinstance(frame, list) else [frame]

    async def say(self, **m):
        await self.ws.send(json.dumps(m))

    async def send(self, chat, body, mid=None):
        mid = mid or uuid7()
        await self.say(t="send", id=mid, chat=str(chat), kind="text", body=body)
        return mid

    async def wait(self, t, timeout=10, **match):
        """The first object of type t with these fields; removed from `got`."""
        deadline = time.monotonic() + timeout
        while True:
            for i, o in enumerate(self.got):
                if o["t"] == t and all(o.get(k) == v for k, v in match.items()):
                    return self.got.pop(i)
            left = deadline - time.monotonic()
            if left <= 0 or (self.closed is not None):
                raise TimeoutError(f"no {t} {match}; closed={self.closed} got={self.got[-3:]}")
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), left)
            except asyncio.TimeoutError:
                pass

    async def wait_closed(self, timeout=15):
        deadline = time.monotonic() + timeout
        while self.closed is None and time.monotonic() < deadline:
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), 0.2)
            except asyncio.TimeoutError:
                pass
        return self.closed

    async def close(self):
        await self.ws.close()
        await self.reader
