# SPDX-License-Identifier: MIT
"""What the cases of drive.py share: a server or a client to drive, sockets with the kernel's receive times, and time."""

import atexit
import json
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import time

import wire

BODKIN = os.environ.get("BODKIN", "build/release/bodkin")
HERE = os.path.dirname(os.path.abspath(__file__))
SO_TIMESTAMPNS = 35
SLACK = 0.030  # what a busy machine may be late by


def case(seconds=1, long=False):
    def mark(fn):
        fn.seconds, fn.long = seconds, long
        return fn

    return mark


def check(condition, *said):
    if not condition:
        raise AssertionError(" ".join(str(x) for x in said) or "not so")


def equal(expected, got, *said):
    check(expected == got, *said, "expected", expected, "got", got)


def between(low, got, high, *said):
    check(low <= got <= high, *said, "expected %.3f to %.3f, got %.3f" % (low, high, got))


def on_schedule(got, due, what):
    """Times, from whichever was least late: most of the others hardly are, and none much."""
    late = [t - at for t, at in zip(got, due)]
    late = [x - min(late) for x in late]
    check(len(got) >= len(due) and sorted(late)[len(late) // 2] <= SLACK and max(late) <= 0.2, what,
          "late by", ["%.3f" % x for x in late])


class Sock:
    """A UDP socket on loopback; each datagram comes with the time the kernel got it."""

    def __init__(self, bind="127.0.0.1"):
        self.s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.s.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.s.bind((bind, 0))
        self.addr = self.s.getsockname()
        self.kept = []

    def send(self, to, data):
        self.s.sendto(data, to)
        return time.time()

    def get(self, seconds=1.0):
        """(bytes, from, when), or None after so long."""
        if self.kept:
            return self.kept.pop(0)
        if not select.select([self.s], [], [], max(0, seconds))[0]:
            return None
        data, more, _, addr = self.s.recvmsg(2048, 64)
        sec, ns = struct.unpack("qq", more[0][2][:16])
        return data, addr, sec + ns / 1e9

    def keep(self, item):
        self.kept.append(item)

    def all(self, seconds):
        """All that comes in that time."""
        end, out = time.monotonic() + seconds, []
        while True:
            item = self.get(end - time.monotonic())
            if item:
                out.append(item)
            elif time.monotonic() >= end:
                return out

    def silent(self, seconds=0.15):
        item = self.get(seconds)
        check(item is None, "silence expected, got", item and item[0].hex())


class Process:
    """Its output a line an event of JSON."""

    def __init__(self, *words):
        self.p = subprocess.Popen([BODKIN, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, bufsize=0)
        self.buffer, self.events = b"", []
        atexit.register(self.kill)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def write(self, line):
        self.p.stdin.write(line.encode() + b"\n")

    def event(self, name, seconds=3.0):
        """The next event of that name, which takes those before it away; None after so long."""
        return self.event_of(name, seconds=seconds)

    def event_of(self, *names, seconds=3.0):
        end = time.monotonic() + seconds
        while True:
            while self.events:
                e = self.events.pop(0)
                if e["event"] in names:
                    return e
            left = end - time.monotonic()
            if not select.select([self.p.stdout], [], [], max(0, left))[0]:
                return None
            data = os.read(self.p.stdout.fileno(), 65536)
            if not data:
                return None
            self.buffer += data
            *lines, self.buffer = self.buffer.split(b"\n")
            self.events += [json.loads(x) for x in lines]

    def exited(self, seconds=5.0):
        return self.p.wait(seconds)

    def kill(self):
        if self.p.poll() is None:
            self.p.kill()
            self.p.wait()
        for f in (self.p.stdin, self.p.stdout, self.p.stderr):
            f.close()


def directory():
    path = tempfile.mkdtemp(prefix="bodkin-conform-")
    atexit.register(shutil.rmtree, path, True)
    return path


class Server(Process):
    def __init__(self, *options, listen="127.0.0.1:0", config=None):
        self.dir = directory()
        self.admin = self.dir + "/admin"
        if config:
            with open(self.dir + "/config.lua", "w") as f:
                f.write("return require('bodkin').config { %s }" % config)
            options += ("--config", self.dir + "/config.lua")
        super().__init__("serve", "--json", "--listen", listen, "--admin", self.admin, *options)
        e = self.event("listening", 5)
        check(e, "no server:", e is None and self.p.poll() is not None and self.p.stderr.read())
        self.addr = ("127.0.0.1", int(e["addr"].rsplit(":", 1)[1]))

    def counters(self):
        out = subprocess.run([BODKIN, "status", "--json", "--admin", self.admin], capture_output=True, check=True)
        return {c["name"]: c["value"] for c in json.loads(out.stdout)["counters"]}


class Asker:
    """Asks a server by hand: no retransmission, no proof but what is given."""

    def __init__(self, server, bind="127.0.0.1"):
        self.to, self.sock, self.me = server.addr, Sock(bind), wire.Identity()
        self.proof, self.matched = None, []

    def send(self, what, version=1, **values):
        values.setdefault("tx", os.urandom(12))
        data = wire.encode(what, version, **values)
        self.sock.send(self.to, data)
        return values["tx"], data

    def reply(self, seconds=1.0):
        """(name, fields) of the next message that is no `matched`; those are kept. None after so long."""
        end = time.monotonic() + seconds
        while True:
            item = self.sock.get(end - time.monotonic())
            if not item:
                return None
            name, m = wire.decode(item[0])
            if name != "matched":
                return name, m
            self.matched.append((m, item[2]))
            self.send("matched_ack", tx=m["tx"])

    def ask(self, what, **values):
        """The reply to one request."""
        tx, _ = self.send(what, **values)
        got = self.reply()
        check(got, "no reply to", what)
        equal(tx, got[1]["tx"], what)
        return got

    def proven(self, what, **values):
        if self.proof is None:
            self.proof = self.ask("address_request")[1]["proof"]
        return self.ask(what, proof=self.proof, **values)

    def person(self, **more):
        return {"key": self.me.public, "secret": self.me.secret, "pubs": [], "locals": [], "app": "conform/1",
                "name": "", "props": None, **more}

    def register(self, **more):
        name, m = self.proven("register", **self.person(**more))
        equal("registered", name, m)
        return m

    def select(self, **more):
        return self.proven("select", **self.person(**more))

    def room(self):
        name, m = self.proven("room_open", id=self.me.id, secret=self.me.secret)
        equal("room_opened", name, m)
        return m

    def refused(self, code, got):
        equal("refused", got[0], got)
        equal(code, got[1]["code"], got)
        check(0 < len(got[1]["text"].encode()) <= 40, got)

    def next_matched(self, seconds=1.0):
        while not self.matched:
            item = self.sock.get(seconds)
            check(item, "no matched came")
            name, m = wire.decode(item[0])
            if name == "matched":
                self.matched.append((m, item[2]))
                self.send("matched_ack", tx=m["tx"])
        return self.matched.pop(0)[0]


def vectors():
    """{name: bytes} of the document's hex blocks."""
    with open(os.path.join(HERE, "../../docs/PROTOCOL.md"), encoding="utf-8") as f:
        text = f.read()
    out = {}
    for name, body in re.findall(r"```hex ([^\n]+)\n(.*?)```", text, re.S):
        out[name] = bytes.fromhex("".join(line.split(";")[0] for line in body.splitlines()))
    return out
