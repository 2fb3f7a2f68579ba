"""What the tests of links share: chat-netem with a runtime folder and a marker of its own, and the search for remains."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from chat import BUILD  # noqa: E402

NETEM = os.path.join(BUILD, "chat-netem")


def can_run():
    return os.geteuid() == 0 and os.path.exists("/dev/net/tun")


class Lab:
    """Everything that is started here, and what that starts, carries one environment variable."""

    def __init__(self):
        self.marker = f"NETEM_TEST={uuid.uuid4()}"
        self.folder = tempfile.mkdtemp(prefix="netem-lab-")
        self.env = dict(os.environ, XDG_RUNTIME_DIR=self.folder, NETEM_TEST=self.marker[11:])
        self.runtime = os.path.join(self.folder, "chat-netem")
        self.rules = self.host()

    @staticmethod
    def host():
        """Devices and rules of the host's own namespace."""
        out = ""
        for what in ("link", "rule", "route", "addr"):
            out += subprocess.run(["ip", "-o", what], capture_output=True, text=True).stdout
        out = re.sub(r"(valid_lft|preferred_lft) \S+", "", out)
        return {line for line in out.splitlines() if re.search(r"tun\d|198\.1[89]\.", line)}

    def write(self, name, data):
        path = os.path.join(self.folder, name)
        with open(path, "w") as f:
            json.dump(data, f) if not isinstance(data, str) else f.write(data)
        return path

    def run(self, *args, timeout=60, **kw):
        return subprocess.run([NETEM, *args], env=self.env, capture_output=True, text=True, timeout=timeout, **kw)

    def start(self, *args, **kw):
        kw = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **kw}
        return subprocess.Popen([NETEM, *args], env=self.env, **kw)

    def status(self):
        r = self.run("status", "--json")
        return {o["name"]: o for o in json.loads(r.stdout)["links"]}, r

    def processes(self):
        """(pid, name, namespace) of all that carry the marker and are no zombies."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            if int(pid) == os.getpid():
                continue
            try:
                with open(f"/proc/{pid}/environ", "rb") as f:
                    if self.marker.encode() not in f.read():
                        continue
                with open(f"/proc/{pid}/comm") as f:
                    name = f.read().strip()
                found.append((int(pid), name, os.readlink(f"/proc/{pid}/ns/net")))
            except OSError:
                pass
        return found

    def remains(self, namespaces=()):
        """What is left: processes of ours, and whatever still holds one of these namespaces."""
        left = [f"process {p}" for p in self.processes()]
        left += [f"host: {line}" for line in self.host() - self.rules]
        listed = subprocess.run(["lsns", "-t", "net", "-n", "-o", "NS"], capture_output=True, text=True).stdout.split()
        for ns in namespaces:
            if ns[5:-1] in listed:
                left.append(f"lsns: {ns}")
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                holds = {os.readlink(f"/proc/{pid}/ns/net")}
                for fd in os.listdir(f"/proc/{pid}/fd"):
                    holds.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
                left += [f"{pid} holds {ns}" for ns in holds & set(namespaces)]
            except OSError:
                pass
        with open("/proc/self/mountinfo") as f:
            mounts = f.read()
        left += [f"mounted {ns}" for ns in namespaces if ns in mounts]
        return left

    def gone(self, namespaces=(), seconds=5):
        """Waits until nothing remains; what does after that time."""
        end = time.monotonic() + seconds
        while True:
            left = self.remains(namespaces)
            if not left or time.monotonic() > end:
                return left
            time.sleep(0.02)

    def close(self):
        self.run("down", "-q")
        shutil.rmtree(self.folder, ignore_errors=True)
