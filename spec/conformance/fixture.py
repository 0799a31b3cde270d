# SPDX-License-Identifier: MIT
"""What the cases of drive.py share: a server or a client to drive, sockets with the kernel's receive times, and time."""

import atexit
import json
import os
import random
import re
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import time

import noise
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


class Late(AssertionError):
    """Not on time, which a busy machine may be the cause of."""


def on_schedule(got, due, what):
    """Times, from whichever was least late: most of the others hardly are, and none much."""
    if len(got) < len(due):  # the end came before the last of them
        raise Late("%s: %d of %d" % (what, len(got), len(due)))
    late = [t - at for t, at in zip(got, due)]
    late = [x - min(late) for x in late]
    if sorted(late)[len(late) // 2] > SLACK or max(late) > 0.2:
        raise Late("%s late by %s" % (what, ["%.3f" % x for x in late]))


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
    """With a key file: `keys` are the public ones its URL says, `key` the first of them."""

    def __init__(self, *options, listen="127.0.0.1:0", config="", secret=None, other=None):
        self.dir = directory()
        self.admin, self.secret = self.dir + "/admin", secret or os.urandom(32)
        with open(self.dir + "/key", "w") as f:
            os.fchmod(f.fileno(), 0o600)
            f.write(self.secret.hex() + "\n" + (other.hex() + "\n" if other else ""))
        with open(self.dir + "/config.lua", "w") as f:
            f.write("return require('bodkin').config { key_file = %s, %s }" % (repr(self.dir + "/key"), config))
        super().__init__("serve", "--json", "--listen", listen, "--admin", self.admin, "--config",
                         self.dir + "/config.lua", *options)
        e = self.event("listening", 5)
        check(e, "no server:", e is None and self.p.poll() is not None and self.p.stderr.read())
        self.addr = ("127.0.0.1", int(e["addr"].rsplit(":", 1)[1]))
        self.keys = wire.keys_of_url(e["url"])
        self.key = noise.public_of(self.secret)
        equal(self.key, self.keys[0], "the key in", e["url"])

    def counters(self):
        out = subprocess.run([BODKIN, "status", "--json", "--admin", self.admin], capture_output=True, check=True)
        return {c["name"]: c["value"] for c in json.loads(out.stdout)["counters"]}


class Asker:
    """Asks a server by hand: no retransmission, no handshake but what is told."""

    def __init__(self, server, bind="127.0.0.1"):
        self.to, self.server_key, self.sock, self.me = server.addr, server.key, Sock(bind), wire.Identity()
        self.ephemeral = wire.Identity()
        self.proof, self.link, self.matched, self.known, self.told = None, None, [], set(), []

    def restart(self):
        """What a client of a server that began anew has."""
        self.proof, self.link, self.matched = None, None, []

    def send(self, what, version=1, **values):
        """Plain."""
        values.setdefault("tx", os.urandom(12))
        data = wire.encode(what, version, **values)
        self.sock.send(self.to, data)
        return values["tx"], data

    def seal(self, what, version=1, **values):
        """In the association."""
        values.setdefault("tx", os.urandom(12))
        self.sealed(wire.encode(what, version, **values))
        return values["tx"]

    def sealed(self, data, kind=wire.MESSAGE, **how):
        frame = self.link.write(kind, data, **how)
        self.sock.send(self.to, frame)
        return frame

    def prove(self):
        if self.proof is None:
            tx, _ = self.send("address_request")
            name, m = self.reply()
            equal(("address_report", tx), (name, m["tx"]))
            self.proof = m["proof"]
        return self.proof

    def first(self, messages=b"", index=None, key=None, proof=True):
        """Sends `open`: (tx, its handshake, index, the datagram)."""
        index = index or random.randrange(1, 65536)
        hs, noise_1 = wire.open_association(self.me.secret, key or self.server_key, index, messages)
        tx, data = self.send("open", proof=self.prove() if proof is True else proof, noise=noise_1)
        return tx, hs, index, data

    def associate(self, messages=b"", **how):
        """Opens an association: the messages that came with the answer."""
        tx, hs, index, _ = self.first(messages, **how)
        name, m = self.plain()
        equal(("opened", tx), (name, m["tx"]), m)
        payload = hs.read(m["noise"])
        self.link = wire.Link(hs, index, int.from_bytes(payload[:4], "big"))
        return [wire.decode(x) for x in wire.split(payload[4:])]

    def plain(self, seconds=1.0):
        """(name, fields) of the next message that is not sealed, or None after so long."""
        end = time.monotonic() + seconds
        while True:
            item = self.sock.get(end - time.monotonic())
            if not item or item[0][0] != 0xC1:
                return item and wire.decode(item[0])

    def open(self, item):
        """The messages of a datagram, each (name, fields)."""
        data = item[0]
        if data[0] != 0xC1:
            return [wire.decode(data)]
        kind, text = self.link.read(data)
        equal(wire.MESSAGE, kind, "a frame of kind")
        out = [wire.decode(x) for x in wire.split(text)]
        check(all(name in wire.SEALED or name in ("refused", "maintained") for name, _ in out), out)
        return out

    def take(self, item):
        """The same less what is `matched`, or told of a ticket, a room or a watch: it is acknowledged and kept."""
        out = []
        for name, m in self.open(item):
            if name == "matched":
                if m["tx"] not in self.known:
                    self.matched.append((m, item[2]))
                self.known.add(m["tx"])
                self.seal("matched_ack", tx=m["tx"])
            elif name in ("proposed", "waiting", "ended", "room_host", "changed"):
                if m["tx"] not in self.known:
                    self.told.append((name, m))
                self.known.add(m["tx"])
                self.seal("matched_ack", tx=m["tx"])
            else:
                out.append((name, m))
        return out

    def reply(self, seconds=1.0):
        """(name, fields) of the next message that is no `matched`; None after so long."""
        end = time.monotonic() + seconds
        while True:
            item = self.sock.get(end - time.monotonic())
            if not item:
                return None
            got = self.take(item)
            if got:
                check(len(got) == 1, got)
                return got[0]

    def ask(self, what, version=1, **values):
        """The reply to one request, sealed where it is to be."""
        if what in wire.SEALED:
            if not self.link:
                self.associate()
            tx = self.seal(what, version, **values)
        else:
            tx = self.send(what, version, **values)[0]
        got = self.reply()
        check(got, "no reply to", what)
        equal(tx, got[1]["tx"], what)
        return got

    def quiet(self, seconds=0.15):
        """Nothing comes, but for repeats of `matched`."""
        got = [x for item in self.sock.all(seconds) for x in self.take(item)]
        check(not got and not self.matched, "silence expected, got", got, self.matched)

    def person(self, **more):
        return {"ephemeral": self.ephemeral.public, "pubs": [], "locals": [], "app": "conform/1", "name": "",
                "props": None, **more}

    def register(self, **more):
        name, m = self.ask("register", **self.person(**more))
        equal("registered", name, m)
        return m

    def select(self, **more):
        return self.ask("select", **self.person(**more))

    def room(self):
        name, m = self.ask("room_open")
        equal("room_opened", name, m)
        return m

    def refused(self, code, got):
        equal("refused", got[0], got)
        equal(code, got[1]["code"], got)
        check(0 < len(got[1]["text"].encode()) <= 40, got)

    def next_told(self, name, seconds=1.0):
        """The fields of the next that is told, which has this name."""
        while not self.told:
            item = self.sock.get(seconds)
            check(item, "nothing came, not", name)
            self.take(item)
        got = self.told.pop(0)
        equal(name, got[0], got)
        return got[1]

    def next_matched(self, seconds=1.0):
        while not self.matched:
            item = self.sock.get(seconds)
            check(item, "no matched came")
            self.take(item)
        m = self.matched.pop(0)[0]
        equal(self.ephemeral.public[:8], m["own"])
        return m


def vectors():
    """{name: bytes} of the document's hex blocks."""
    with open(os.path.join(HERE, "../../docs/PROTOCOL.md"), encoding="utf-8") as f:
        text = f.read()
    out = {}
    for name, body in re.findall(r"```hex ([^\n]+)\n(.*?)```", text, re.S):
        out[name] = bytes.fromhex("".join(line.split(";")[0] for line in body.splitlines()))
    return out
