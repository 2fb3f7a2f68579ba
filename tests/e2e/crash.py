"""The rule of crashes: nothing that was answered `accepted` is missing afterwards, nothing is there twice.

A few writers keep sending; the server is brought down again and again in the middle of it; a writer sends again, with
the same id, what was not answered. At the end every chat's history is compared with the writers' own books."""
import asyncio
import random
import time

from chat import Client, uuid7

CHATS = 4


class Writer:
    """One user with a chat of its own, a watcher in it, and a book of what was accepted."""

    def __init__(self, server, number, token, watcher_token):
        self.server, self.user, self.chat = server, 100 + number, 1000 + number
        self.token, self.watcher_token = token, watcher_token
        self.accepted = {}
        self.outbox = []
        self.sent = 0
        self.created = False

    async def run(self, stop):
        while not stop.is_set():
            try:
                c = await Client(self.server, self.user, token=self.token).connect()
            except Exception:  # noqa: BLE001 - the server is down: try again
                await asyncio.sleep(0.02)
                continue
            try:
                await self.talk(c, stop)
            except Exception:  # noqa: BLE001
                pass
            self.take(c)
            try:
                await asyncio.wait_for(c.close(), 1)
            except Exception:  # noqa: BLE001
                pass

    def take(self, c):
        for o in c.got:
            if o["t"] == "accepted":
                self.accepted.setdefault(o["id"], set()).add((o["epoch"], o["seq"]))
        c.got = []
        self.outbox = [i for i in self.outbox if i not in self.accepted]

    async def talk(self, c, stop):
        if not self.created:
            await c.say(t="create", chat=str(self.chat), users=[str(self.user), str(self.user + 100)])
            await c.wait("done", timeout=5, re="create")
            self.created = True
        for mid in list(self.outbox):
            await c.send(self.chat, "m " + mid, mid)
        while not stop.is_set() and c.closed is None:
            while len(self.outbox) < 64:
                mid = uuid7()
                self.outbox.append(mid)
                self.sent += 1
                await c.send(self.chat, "m " + mid, mid)
            c.news.clear()
            try:
                await asyncio.wait_for(c.news.wait(), 0.5)
            except asyncio.TimeoutError:
                pass
            self.take(c)


async def more_accepted(writers, n):
    """Until so many more were accepted, or 20 s."""
    want, deadline = sum(len(w.accepted) for w in writers) + n, time.monotonic() + 20
    while sum(len(w.accepted) for w in writers) < want and time.monotonic() < deadline:
        await asyncio.sleep(0.005)


async def load(server, writers, crash, rounds, rng):
    """Crash `rounds` times under load, then let the writers finish; `crash` brings the server down and up again."""
    stop = asyncio.Event()
    tasks = [asyncio.ensure_future(w.run(stop)) for w in writers]
    loop = asyncio.get_running_loop()
    for _ in range(rounds):
        await more_accepted(writers, 50)
        await asyncio.sleep(rng.random() * 0.1)
        await loop.run_in_executor(None, crash)
    await more_accepted(writers, 50)
    stop.set()
    await asyncio.gather(*tasks)


def audit(server, writers):
    """What is wrong, as a list of sentences; and how many messages were looked at."""
    wrong, seen = [], 0
    for w in writers:
        rows = server.history(w.chat, w.token)
        ids = [r["id"] for r in rows]
        seqs = [(r["epoch"], r["seq"]) for r in rows]
        where = dict(zip(ids, seqs))
        seen += len(rows)
        if len(set(ids)) != len(ids):
            wrong.append(f"chat {w.chat}: {len(ids) - len(set(ids))} ids are stored twice")
        for mid, places in w.accepted.items():
            if mid not in where:
                wrong.append(f"chat {w.chat}: {mid} was accepted and is gone")
            elif {where[mid]} != places:
                wrong.append(f"chat {w.chat}: {mid} was accepted at {places} and is at {where[mid]}")
        known = set(w.accepted) | set(w.outbox)
        wrong += [f"chat {w.chat}: {r['id']} was never sent" for r in rows if r["id"] not in known]
        if [s for _, s in seqs] != list(range(1, len(seqs) + 1)):
            wrong.append(f"chat {w.chat}: seqs are not 1..{len(seqs)}")
        wrong += [f"chat {w.chat}: {r['id']} has another body" for r in rows if r["body"] != "m " + r["id"]]
    return wrong, seen


def make_writers(server):
    return [Writer(server, n, server.token(100 + n), server.token(200 + n)) for n in range(CHATS)]
