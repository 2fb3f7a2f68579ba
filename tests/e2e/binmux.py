"""chat.v1.bin and chat.mux.v1 written down a second time, from messages.def and the headers' text alone, so that the
server is judged by a peer that shares no code with it."""
import asyncio
import os
import re
import struct
import uuid

import chat
from chat import websockets

SHAPES = {"U64S": 0, "INT": 0, "U32": 0, "BOOL": 0, "ID": 1}


def _table():
    with open(os.path.join(chat.ROOT, "lib/proto/messages.def")) as f:
        text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    names, fields = ["none"], [[]]
    for m in re.finditer(r'M\(\w+, "(\w+)", \w+\)|F\(\w+, "(\w+)", (\w+), ([01])\)', text):
        if m.group(1):
            names.append(m.group(1))
            fields.append([])
        else:
            fields[-1].append((m.group(2), m.group(3)))
    return names, fields


NAMES, FIELDS = _table()
LIMITS = ["body", "batch", "rate_per_s", "chats"]


def varint(v):
    out = bytearray()
    while v >= 0x80:
        out.append(v & 0x7F | 0x80)
        v >>= 7
    out.append(v)
    return bytes(out)


def _blob(b):
    return varint(len(b)) + b


def encode(t, **m):
    number = NAMES.index(t)
    out = varint(number)
    for i, (name, kind) in enumerate(FIELDS[number]):
        if name not in m:
            continue
        v = m[name]
        out += varint((i + 1) << 2 | SHAPES.get(kind, 2))
        if kind in ("U64S", "INT", "U32", "BOOL"):
            out += varint(int(v))
        elif kind == "ID":
            out += uuid.UUID(v).bytes
        elif kind == "STR":
            out += _blob(v.encode())
        elif kind == "BYTES":
            out += _blob(v)
        elif kind == "U64S_LIST":
            out += _blob(b"".join(varint(int(x)) for x in v))
        elif kind == "CLAIMS":
            body, before = b"", 0
            for c, e, s in v:
                body += varint(int(c)) + varint(int(e) ^ before) + varint(s)
                before = int(e)
            out += _blob(body)
    return _blob(out)


class _In:
    def __init__(self, b):
        self.b, self.at = b, 0

    def more(self):
        return self.at < len(self.b)

    def take(self, n):
        if self.at + n > len(self.b):
            raise ValueError("truncated")
        self.at += n
        return self.b[self.at - n:self.at]

    def varint(self):
        v = shift = 0
        while True:
            c = self.take(1)[0]
            v |= (c & 0x7F) << shift
            shift += 7
            if not c & 0x80:
                return v

    def blob(self):
        return self.take(self.varint())


def _message(b):
    r = _In(b)
    number = r.varint()
    m = {"t": NAMES[number]}
    while r.more():
        key = r.varint()
        name, kind = FIELDS[number][(key >> 2) - 1]
        if key & 3 == 0:
            v = r.varint()
            v = bool(v) if kind == "BOOL" else str(v) if kind == "U64S" else v
        elif key & 3 == 1:
            v = str(uuid.UUID(bytes=r.take(16)))
        else:
            inner = _In(r.blob())
            if kind == "STR":
                v = inner.b.decode()
            elif kind == "BYTES":
                v = inner.b
            elif kind == "LIMITS":
                v = dict(zip(LIMITS, iter(lambda: inner.varint() if inner.more() else None, None)))
            elif kind == "CLAIMS":
                v, epoch = [], 0
                while inner.more():
                    c = inner.varint()
                    epoch ^= inner.varint()
                    v.append([str(c), str(epoch), inner.varint()])
            else:
                v = []
                while inner.more():
                    v.append(str(inner.varint()) if kind == "U64S_LIST" else inner.blob().decode())
        m[name] = v
    return m


def decode(frame):
    r = _In(frame)
    out = []
    while r.more():
        out.append(_message(r.blob()))
    return out


class BinClient(chat.Client):
    """chat.Client over chat.v1.bin."""
    protocol = "chat.v1.bin"

    def decode(self, frame):
        return decode(frame)

    async def say(self, t, **m):
        await self.ws.send(encode(t, **m))


OPEN, DATA, CREDIT, CUT, CLOSE, BEATS = 1, 2, 3, 4, 5, 6


def record(session, op, payload=b""):
    return struct.pack(">IB", session, op) + len(payload).to_bytes(3, "big") + payload


def records(frame):
    at = 0
    while at < len(frame):
        session, op = struct.unpack_from(">IB", frame, at)
        n = int.from_bytes(frame[at + 5:at + 8], "big")
        yield session, op, frame[at + 8:at + 8 + n]
        at += 8 + n


class Mux:
    """One connection; a session's messages gather in got[session], its bytes in down[session]."""

    def __init__(self, server, token):
        self.server, self.token = server, token
        self.got, self.down, self.closed = {}, {}, {}
        self.over = None
        self.credit = None
        self.out = bytearray()

    async def connect(self):
        self.ws = await websockets.connect(f"ws://127.0.0.1:{self.server.port}/", subprotocols=["chat.mux.v1"],
                                           max_size=None, ping_interval=None, close_timeout=2)
        self.news = asyncio.Event()
        self.reader = asyncio.ensure_future(self._read())
        if self.token is not None:
            self.put(0, OPEN, self.token.encode())
            await self.flush()
            await self.until(lambda: self.credit or self.over)
        return self

    async def _read(self):
        try:
            async for frame in self.ws:
                for session, op, payload in records(frame):
                    if op == OPEN:
                        self.credit = int.from_bytes(payload, "big")
                    elif op == DATA:
                        self.got.setdefault(session, []).extend(decode(payload))
                        self.down[session] = self.down.get(session, 0) + len(payload)
                    elif op == CLOSE:
                        self.closed[session] = int.from_bytes(payload[:2], "big")
                self.news.set()
        except (websockets.ConnectionClosed, OSError):
            pass
        self.over = self.ws.close_code or -1
        self.news.set()

    def put(self, session, op, payload=b""):
        self.out += record(session, op, payload)

    async def flush(self):
        out, self.out = bytes(self.out), bytearray()
        await self.ws.send(out)

    def open(self, session, user, device=1, resume=()):
        self.got.pop(session, None)
        self.closed.pop(session, None)
        self.put(session, OPEN, struct.pack(">Q", user))
        self.say(session, "hello", token="", device=device, net="wifi", resume=list(resume))

    def say(self, session, t, **m):
        self.put(session, DATA, encode(t, **m))

    def seen(self, session, t, **match):
        return [m for m in self.got.get(session, []) if m["t"] == t and all(m.get(k) == v for k, v in match.items())]

    async def until(self, cond, timeout=20):
        deadline = asyncio.get_event_loop().time() + timeout
        while not cond():
            left = deadline - asyncio.get_event_loop().time()
            if left <= 0:
                return False
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), left)
            except asyncio.TimeoutError:
                pass
        return True

    async def close(self):
        await self.ws.close()
        await self.reader
