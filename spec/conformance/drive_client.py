# SPDX-License-Identifier: MIT
"""Cases of drive.py: a real client (driven.lua), whose server and peer are played here. Sections: docs/PROTOCOL.md."""

import os
import random
import select
import struct
import time

import noise
import wire
from fixture import HERE, SLACK, Process, Sock, between, case, check, equal, on_schedule

CASES = []
LOW, HIGH = 0, 1  # the role of the peer: its id is the smaller one, so that it controls, or the larger
FIRST = [0, 0.02, 0.04, 0.08, 0.16, 0.32]


def client_case(seconds=2, long=False):
    def mark(fn):
        CASES.append(case(seconds, long)(fn))
        return fn

    return mark


class Seen:
    """A datagram of the client's: name is "test", "confirm" or a frame's kind; m its fields or plaintext."""

    def __init__(self, sock, name, m, when, size, counter=None, phase=None):
        self.sock, self.name, self.m, self.when, self.size = sock, name, m, when, size
        self.counter, self.phase = counter, phase


class World:
    """The client's server and its peer, who has some sockets and does of itself only what `does` names."""

    def __init__(self, command="join", peer=HIGH, does="confirm answer ack", start_in_ms=0, listed=1, keys=None):
        self.server, self.proof, self.secret = Sock(), os.urandom(20), os.urandom(32)
        self.key_of_server = noise.public_of(self.secret)
        self.socks = [Sock() for _ in range(listed)]
        self.role, self.does, self.start_in_ms = peer, set(does.split()), start_in_ms
        self.rx_index, self.tx_index, self.counter = 0xABCD0123, None, 5
        self.match, self.key, self.boot = os.urandom(16), os.urandom(32), os.urandom(8)
        self.log, self.queue, self.asked, self.client, self.link = [], [], set(), None, None
        self.answers = {}  # to first messages
        self.outcomes = []
        keys = ",".join(wire.to_text(k) for k in keys or [self.key_of_server])
        url = "bodkin://127.0.0.1:%d#%s" % (self.server.addr[1], keys)
        self.process = Process("run", HERE + "/driven.lua", url, command, "x")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()

    # --- the server

    def plain(self, seconds=2.0):
        """(name, fields, from, when, bytes) of the next datagram, which is a message that is not sealed."""
        item = self.server.get(seconds)
        if not item:
            return None
        name, m = wire.decode(item[0])
        check(name not in wire.SEALED, name, "came plain")
        return name, m, item[1], item[2], item[0]

    def request(self, seconds=2.0, maintain=False):
        """(name, fields, from, when, bytes) of the next request out of an association, repeats and maintain left out,
        and outcomes, which are kept; what comes plain before it is answered. A frame of another kind than messages: its kind in place of the name."""
        while True:
            while self.queue:
                r = self.queue.pop(0)
                repeated = r[0] != "matched_ack" and r[1]["tx"] in self.asked
                self.asked.add(r[1]["tx"])
                if r[0] == "outcome":
                    self.outcomes += [] if repeated else [r[1]]
                    continue
                if not repeated and (r[0] != "maintain" or maintain):
                    return r
            item = self.server.get(seconds)
            if not item:
                return None
            data, at, when = item
            if data[0] != 0xC1:
                self.server.keep(item)
                r = self.plain()
                if r[0] == "open" and r[1]["proof"]:
                    self.opened(r)
                elif r[0] != "maintain":
                    self.report(r[1]["tx"], r[2])
                continue
            kind, text = self.link.read(data)
            if kind != wire.MESSAGE:
                return kind, text, at, when, data
            self.queue += self.inside(text, at, when)

    def inside(self, text, at, when):
        got = [wire.decode(x) + (at, when, x) for x in wire.split(text)]
        check(got and all(r[0] in wire.SEALED or r[0] == "maintain" for r in got), [r[0] for r in got])
        return got

    def report(self, tx, to, proof=None):
        xaddr = wire.mask(wire.pack_addr(to), tx)
        self.server.send(to, wire.encode("address_report", tx=tx, xaddr=xaddr, proof=proof or self.proof))

    def first(self):
        """Serves the client until it opens an association with a proof: that request."""
        while True:
            r = self.plain()
            check(r, "no request")
            if r[0] == "open" and r[1]["proof"]:
                return r
            if r[0] != "maintain":
                self.report(r[1]["tx"], r[2])

    def associate(self, r, messages=b""):
        """What answers an `open`; the link is there, and the requests inside are in the queue."""
        if r[1]["noise"] in self.answers:  # a repeat
            return self.answers[r[1]["noise"]]
        hs, index, text = wire.take_association(self.secret, r[1]["noise"])
        check(1 <= index <= 65535, "the client's index is", index)
        self.client, self.client_key, mine = r[2], hs.rs, random.randrange(65536, 1 << 32)
        answer = hs.write(mine.to_bytes(4, "big") + messages)
        self.link = wire.Link(hs, mine, index)
        self.queue += self.inside(text, r[2], r[3])
        self.answers[r[1]["noise"]] = wire.encode("opened", tx=r[1]["tx"], noise=answer)
        return self.answers[r[1]["noise"]]

    def opened(self, r, messages=b""):
        self.server.send(r[2], self.associate(r, messages))

    def push(self, name, sock=None, /, **values):
        """A message to the client, in the association."""
        data = self.link.write(wire.MESSAGE, wire.encode(name, **values))
        (sock or self.server).send(self.client, data)
        return data

    def selection(self):
        """Serves the client until it selects: that request."""
        r = self.request()
        equal("select", r and r[0])
        return r

    def meet(self, ephemeral):
        """A peer for the client, whose ephemeral this is: the keys of its match."""
        self.own, client_id = ephemeral[:8], noise.key_id(self.client_key)
        self.peer, self.peer_ephemeral = wire.Identity(), wire.Identity()
        while (self.peer.id < client_id) != (self.role == LOW):
            self.peer = wire.Identity()
        return wire.Keys(self.match, self.key, self.peer.secret, self.peer_ephemeral.secret, self.client_key, ephemeral)

    def match_fields(self, **more):
        values = dict(match=self.match, key=self.key, peer_key=self.peer.public, own=self.own, name="", props={},
                      peer_ephemeral=self.peer_ephemeral.public, pubs=[wire.pack_addr(s.addr) for s in self.socks],
                      locals=[], of_n=2, start_in_ms=self.start_in_ms, age_ms=0, data=None, seat=None, relays=[],
                      ticket=None, again=0)
        return {**values, **more}

    def matched(self, sock=None, tx=None, **more):
        tx = tx or os.urandom(12)
        self.push("matched", sock, tx=tx, **self.match_fields(**more))
        return tx

    def begin(self):
        """Up to the match: when `matched` was sent."""
        _, m, _, _, _ = self.selection()
        self.keys = self.meet(m["ephemeral"])
        self.push("selected", tx=m["tx"], match=self.match, of_n=2)
        now = time.time()
        tx = self.matched()
        r = self.request()
        equal(("matched_ack", tx), (r[0], r[1]["tx"]))
        return now

    # --- the peer

    def test(self, sock=None, nonce=None):
        nonce = nonce or os.urandom(8)
        (sock or self.socks[0]).send(self.client, self.keys.test(self.rx_index, nonce))
        return nonce

    def confirm(self, sock, m):
        sock.send(self.client, self.keys.confirm(self.rx_index, m["nonce"], self.client))

    def frame(self, kind, text=b"", sock=None, counter=None, index=None, phase=None):
        if counter is None:
            self.counter += 1
            counter = self.counter
        data = self.keys.seal(self.tx_index if index is None else index, kind, counter, text, phase)
        (sock or self.socks[0]).send(self.client, data)
        return data

    def take(self, sock, data, when):
        if data[0] == 0xC1:
            index, kind, counter, text, phase = self.keys.open_frame(data)
            equal(self.rx_index, index, "the index of a frame")
            seen = Seen(sock, kind, text, when, len(data), counter, phase)
            if kind == wire.CONSENT and "answer" in self.does:
                self.frame(wire.CONSENT_ANSWER, text, sock)
            if kind == wire.SELECT and "ack" in self.does:
                self.frame(wire.SELECT_ACK, text, sock)
        else:
            name, m = self.keys.open_probe(data)
            check(m["rx_index"] >= 65536 and self.tx_index in (None, m["rx_index"]), "rx_index", m["rx_index"])
            self.tx_index = m["rx_index"]
            seen = Seen(sock, name, m, when, len(data))
            if name == "test" and "confirm" in self.does:
                self.confirm(sock, m)
        self.log.append(seen)
        return seen

    def pump(self, seconds, until=None, name=None):
        """Plays the peer for so long; with `until` or `name` until such a datagram came, which is returned."""
        until = until or (name is not None and (lambda x: x.name == name)) or None
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            if left <= 0:
                return None
            for s in self.socks:
                if not select.select([s.s], [], [], 0)[0]:
                    continue
                seen = self.take(s, *(lambda x: (x[0], x[2]))(s.get()))
                if until and until(seen):
                    return seen
            select.select([s.s for s in self.socks], [], [], min(left, 0.05))

    def open(self):
        """Up to a confirmed path, both ways."""
        self.begin()
        check(self.pump(2, name="test"), "no test")
        self.test()
        seen = self.pump(2, name="confirm")
        check(seen, "no confirm")
        check(self.process.event("path"), "no path")

    def seen(self, name):
        return [x for x in self.log if x.name == name]


@client_case(6)
def request_repeats():
    """section 4: the first request is repeated after 50, 100, 200, 400 ms and so on, with a new tx, and given up after 5 s"""
    with World() as w:
        got = w.server.all(6)
        due = [0, 0.05, 0.1, 0.2, 0.4] + [0.8 + 0.5 * i for i in range(9)]
        on_schedule([x[2] for x in got], due, "request")
        equal(len(due), len(got))
        equal(len(due), len({wire.decode(x[0])[1]["tx"] for x in got}))
        equal({("address_request", 128)}, {(wire.decode(x[0])[0], len(x[0])) for x in got})
        equal("timeout", w.process.event("failed")["code"])


@client_case()
def proofs():
    """section 3: a request is repeated with the proof of its report, at most four; foreign replies do not count"""
    with World() as w:
        first = w.first()
        client, tx, proofs = first[2], first[1]["tx"], [first[1]["proof"]]
        equal(w.proof, proofs[0])
        other = Sock()
        other.send(client, wire.encode("refused", tx=tx, code=1001, text="from another address"))
        w.server.send(client, wire.encode("refused", tx=os.urandom(12), code=1001, text="to another request"))
        w.server.send(client, wire.encode("done", tx=tx))
        w.server.send(client, wire.encode("maintained", tx=tx, boot=bytes(8)))
        sent = []
        for _ in range(8):
            sent.append(os.urandom(20))
            w.report(tx, client, sent[-1])
            r = w.plain(0.1)
            if r and r[1]["proof"] == sent[-1]:
                equal((tx, first[1]["noise"]), (r[1]["tx"], r[1]["noise"]))
                proofs.append(sent[-1])
            w.report(tx, client, sent[-1])  # once more: not a new one
        check(len(proofs) <= 5, len(proofs), "proofs were taken")
        check(len(proofs) >= 4, len(proofs), "proofs were taken")
        w.server.send(client, wire.encode("refused", tx=tx, code=1008, text="at last"))
        e = w.process.event("failed")
        equal(("limit", "at last"), (e["code"], e["message"]))


@client_case()
def refused_in_any_version():
    """section 1: a client understands refused in every version"""
    for version in (1, 2, 0x1FF):
        with World() as w:
            r = w.first()
            w.server.send(r[2], wire.encode("opened", 2, tx=r[1]["tx"], noise=bytes(52)))
            w.server.send(r[2], wire.encode("refused", version, tx=r[1]["tx"], code=1006, text="version 9"))
            e = w.process.event("failed")
            equal(("too_old", "version 9"), (e["code"], e["message"]))


@client_case()
def matched_acknowledged():
    """section 4: each copy of matched is acknowledged, from its server alone, and acted on once"""
    with World() as w:
        w.begin()
        w.matched(sock=Sock(), match=os.urandom(16))
        check(w.request(0.15) is None, "acknowledged to another address")
        tx = os.urandom(12)
        for _ in range(2):
            w.matched(tx=tx, key=os.urandom(32), age_ms=20)  # a second one for the same peer: its key is void
            equal(("matched_ack", tx), (lambda r: (r[0], r[1]["tx"]))(w.request()))
        check(w.pump(1, name="test"), "the first key counts")
        w.process.write("leave")
        equal("leave", w.request()[0])


@client_case(4)
def silence():
    """section 8: a silent second opens a fresh port, proves and tells it; scheduled again, both are tested from there"""
    with World(does="", listed=1) as w:
        begun, fresh = w.begin(), Sock()
        r = w.plain()
        equal("address_request", r[0])
        between(1 - SLACK, r[3] - begun, 1 + 4 * SLACK, "a silent second")
        check(r[2] != w.client, "no fresh port")
        port, proof = r[2], os.urandom(20)
        w.report(r[1]["tx"], port, proof)
        r = w.request()
        equal(("renew", w.match, w.peer.id, 1), (r[0], r[1]["match"], r[1]["peer"], r[1]["epoch"]))
        equal([wire.pack_addr(port) + proof], r[1]["pubs"])
        equal(w.client, r[2], "the association's address is as before")
        w.push("done", tx=r[1]["tx"])
        told, tx = time.time(), os.urandom(12)
        again = w.match_fields(pubs=[wire.pack_addr(fresh.addr)], start_in_ms=200, again=1)
        for _ in range(2):
            w.push("matched", tx=tx, **again)
            equal(("matched_ack", tx), (lambda r: (r[0], r[1]["tx"]))(w.request()))
        data, at, when = fresh.get(2)
        equal(port, at)
        between(0.2 - 0.002, when - told, 0.2 + 4 * SLACK, "start_in_ms")
        equal(("test", 1), (lambda x: (x[0], x[1]["epoch"]))(wire.decode(data)))
        check(w.pump(1, name="test"), "the other path is tested on")


@client_case()
def armed():
    """section 8: ARMED until start_in has passed: no test before"""
    with World(start_in_ms=400) as w:
        begun = w.begin()
        first = w.pump(2, name="test")
        between(0.4 - 0.002, first.when - begun, 0.4 + 2 * SLACK, "the first test")


@client_case()
def armed_and_heard():
    """section 8: a peer heard while ARMED makes the session OPEN at once"""
    with World(start_in_ms=5000, does="") as w:
        begun = w.begin()
        w.test()
        check(w.process.event("connected", 1))
        check(w.pump(1, name="test").when - begun < 1, "tested at once")


@client_case(12)
def probing():
    """section 8: PROBING tests at 0, 20, 40, 80, 160, 320 ms, then each 500 ms ±10 %, at most 25; no_path at 10 s"""
    with World(does="", listed=3) as w:
        begun = w.begin()
        nonces = set()
        check(w.pump(10.6) is None)
        for sock in w.socks:
            got = [x for x in w.seen("test") if x.sock is sock]
            check(len(got) <= 25, len(got), "tests")
            on_schedule([x.when for x in got], FIRST, "test")
            for a, b in zip(got[5:], got[6:]):
                between(0.45 - SLACK, b.when - a.when, 0.55 + SLACK, "late test")
            nonces |= {x.m["nonce"] for x in got}
            check(got[-1].when - begun > 9.3)
        equal(len(nonces), len(w.log), "a nonce twice")
        equal(0, w.log[0].m["role"])
        equal(0, w.log[0].m["epoch"])
        e = w.process.event("closed")
        equal("no_path", e["reason"])
        check(time.time() - begun < 11.5)


@client_case(3)
def usable():
    """section 8: a test makes the path USABLE: confirmed with its origin, tested anew, and at most 16 frames go there"""
    with World(does="") as w:
        w.begin()
        check(w.pump(2, name="test"))
        nonce = w.test()
        confirm = w.pump(1, name="confirm")
        equal((nonce, w.socks[0].addr, 0), (confirm.m["nonce"], confirm.m["origin"], confirm.m["role"]))
        check(w.process.event("connected"))
        anew = w.pump(1, name="test")
        between(0, anew.when - confirm.when, 0.1, "tested anew")
        for i in range(30):
            w.process.write("send %d" % i)
        w.pump(1)
        frames = [x for x in w.log if x.name == wire.DATA]
        equal([b"%d" % i for i in range(16)], [x.m for x in frames])
        equal("limit", w.process.event("unsent")["code"])
        equal([frames[0].counter + i for i in range(16)], [x.counter for x in frames], "one counter, no gaps")
        between(6, len(w.seen("test")), 14, "tests")


@client_case(3)
def unlisted():
    """section 8: an address that nobody listed gets at most three times the bytes it sent, until it confirms"""
    with World(does="") as w:
        w.begin()
        check(w.pump(2, name="test"))
        quiet, new = w.socks[0], Sock()
        w.socks = [quiet, new]
        length = len(w.keys.test(w.rx_index, bytes(8)))
        w.test(new)
        check(w.process.event("connected"))
        for _ in range(20):
            w.process.write("send " + "x" * 40)
        w.pump(1.5)
        got = [x for x in w.log if x.sock is new]
        check({"confirm", "test"} <= {x.name for x in got}, "not tested there")
        check(sum(x.size for x in got) <= 3 * length, sum(x.size for x in got), "bytes for", length)
        equal([], [x for x in w.log if x.sock is quiet and x.name == wire.DATA])


@client_case(3)
def confirms_that_do_not_count():
    """section 6: a confirm counts once, from where the test went, authentic, with its nonce; tests only of the peer's"""
    with World(does="") as w:
        w.begin()
        m = w.pump(2, name="test").m
        sock = w.socks[0]
        good = w.keys.confirm(w.rx_index, m["nonce"], w.client)
        Sock().send(w.client, good)
        for bad in (good[:-1] + bytes([good[-1] ^ 1]), w.keys.confirm(w.rx_index, os.urandom(8), w.client),
                    good + b"\0", good[:-1], good.replace(b"\x99\x21\x01", b"\x99\x21\x02", 1)):
            sock.send(w.client, bad)
        ids = w.peer.id, noise.key_id(w.client_key)
        sock.send(w.client, wire.Probes(os.urandom(16), w.key, *ids).test(w.rx_index, os.urandom(8)))
        mirrored = wire.Probes(w.match, w.key, *ids[::-1])
        sock.send(w.client, mirrored.test(w.rx_index, os.urandom(8)))
        check(w.pump(0.3, name="confirm") is None, "confirmed what is not the peer's")
        check(w.process.event("connected", 0.1) is None, "one of them counted")
        sock.send(w.client, good)
        check(w.process.event("path", 1), "the good one did not count")


@client_case(14)
def consent():
    """section 8: VALID paths are asked for consent each 5 s ±20 %, tested no more, and answer where they are asked"""
    with World() as w:
        w.open()
        tests = len(w.seen("test"))
        w.pump(13)
        asked = w.seen(wire.CONSENT)
        check(len(asked) >= 2)
        for a, b in zip(asked, asked[1:]):
            between(4 - SLACK, b.when - a.when, 6 + SLACK, "consent")
        check(len({x.m for x in asked}) == len(asked) and all(len(x.m) == 8 for x in asked))
        check(len(w.seen("test")) <= tests + 1, "tests go on")
        w.frame(wire.CONSENT, b"12345678")
        equal(b"12345678", w.pump(1, name=wire.CONSENT_ANSWER).m)


@client_case(4)
def consent_until_selected():
    """section 8: the controlled side asks after 250 ms ±20 % already, in doubling steps, until the first select"""
    with World(peer=LOW) as w:
        w.begin()
        w.pump(2, name="test")
        w.test()
        valid = time.time()
        w.pump(2.6)
        at = [x.when - valid for x in w.seen(wire.CONSENT)]
        check(3 <= len(at) <= 5, at)
        between(0.2 - SLACK, at[0], 0.3 + 2 * SLACK)
        check(at[2] - at[1] > at[1] - at[0] > 0.15, at)
        w.frame(wire.SELECT, struct.pack(">II", 0, 1))
        w.pump(1)
        before = len(w.seen(wire.CONSENT))
        w.pump(2.5)
        check(len(w.seen(wire.CONSENT)) <= before + 1, "goes on after the select")


@client_case(5)
def select_controlling():
    """section 8: the controlling side sends SELECT when the path is VALID, again after 100, 300, 700 ms, until the ack"""
    with World(peer=HIGH, does="confirm answer") as w:
        w.open()
        w.pump(1.75)
        got = w.seen(wire.SELECT)
        on_schedule([x.when for x in got], [0, 0.1, 0.3, 0.7, 1.5], "select")
        equal(5, len(got))
        equal({struct.pack(">II", 0, 1)}, {x.m for x in got})
        w.frame(wire.SELECT_ACK, struct.pack(">II", 0, 2))
        w.frame(wire.SELECT_ACK, struct.pack(">II", 1, 1))
        check(w.pump(2, name=wire.SELECT), "an acknowledgement of another n or epoch counted")
        w.frame(wire.SELECT_ACK, got[0].m)
        check(w.pump(2.2, name=wire.SELECT) is None, "goes on after the acknowledgement")


@client_case(4)
def select_controlled():
    """section 8: the controlled side follows SELECT with a new n, acknowledges an old one, and ignores it by a path not VALID"""
    with World(peer=LOW, listed=2) as w:
        w.open()
        a, b = w.socks
        w.pump(0.5)
        equal([], w.seen(wire.SELECT), "it is not its to select")

        def told(n, sock, goes_to, acked=True):
            w.frame(wire.SELECT, struct.pack(">II", 0, n), sock)
            got = w.pump(0.5, name=wire.SELECT_ACK)
            if acked:
                equal((struct.pack(">II", 0, n), sock), (got.m, got.sock))
            else:
                equal(None, got)
            w.process.write("send after %d" % n)
            equal(goes_to, w.pump(1, name=wire.DATA).sock, "n =", n)

        told(1, a, a)
        told(2, b, b)
        told(1, a, b)
        told(2, a, b)
        told(9, a, a)
        w.does.remove("confirm")
        fresh = Sock()
        w.socks.append(fresh)
        told(10, fresh, a, acked=False)


@client_case(4)
def rebind():
    """section 8: the newest frame from a new address is followed once that confirms; an older one is not"""
    with World() as w:
        w.open()
        old = w.socks[0]
        w.pump(0.3)
        stale = w.counter + 1
        w.counter += 1
        w.frame(wire.DATA, b"here")
        equal("here", w.process.event("message")["data"])
        new, elsewhere = Sock(), Sock()
        w.socks = [old, new, elsewhere]
        w.does.remove("confirm")
        w.frame(wire.DATA, b"late", elsewhere, counter=stale)
        equal("late", w.process.event("message")["data"])
        w.pump(0.3)
        w.process.write("send to where you were")
        equal(old, w.pump(1, name=wire.DATA).sock)
        w.frame(wire.DATA, b"moved", new)
        test = w.pump(1, lambda x: x.name == "test" and x.sock is new)
        check(test, "the new address was not tested")
        w.process.write("send not yet")
        equal(old, w.pump(1, name=wire.DATA).sock, "followed before the confirm")
        w.confirm(new, test.m)
        equal("127.0.0.1:%d" % new.addr[1], w.process.event("path")["remote"])
        w.process.write("send to where you are")
        equal(new, w.pump(1, name=wire.DATA).sock)


@client_case()
def replay():
    """section 7: a counter counts once, and none 1,024 or more below the highest; another index, kind or length is dropped"""
    with World() as w:
        w.open()
        w.pump(0.2)
        top = w.counter + 5000
        data = w.frame(wire.DATA, b"top", counter=top)
        w.socks[0].send(w.client, data)
        w.frame(wire.DATA, b"too old", counter=top - 1024)
        w.frame(wire.DATA, b"old", counter=top - 1023)
        w.frame(wire.DATA, b"other index", counter=top + 1, index=w.tx_index ^ 65536)
        w.frame(9, b"", counter=top + 2)
        w.frame(wire.CONSENT, b"1234567", counter=top + 3)
        w.frame(wire.DATA, bytes(1121), counter=top + 4)
        w.frame(wire.CLOSE, b"x", counter=top + 5)
        bad = bytearray(w.keys.seal(w.tx_index, wire.DATA, top + 6, b"bad"))
        bad[-1] ^= 1
        w.socks[0].send(w.client, bytes(bad))
        w.frame(wire.DATA, b"z" * 1120, counter=top + 7)
        equal(["top", "old", "z" * 1120], [w.process.event("message")["data"] for _ in range(3)])
        equal(None, w.process.event("message", 0.2))


@client_case()
def data_before_connected():
    """section 8: data that come before a test or confirm are dropped, and those after it are told after `connected`"""
    with World(does="") as w:
        w.begin()
        check(w.pump(2, name="test") and w.tx_index)
        w.frame(wire.DATA, b"before")
        equal(None, w.process.event_of("connected", "message", seconds=0.2))
        w.test()
        check(w.pump(1, name="confirm"))
        w.frame(wire.DATA, b"after")
        e = [w.process.event_of("connected", "message") for _ in range(2)]
        equal(["connected", "message"], [x["event"] for x in e])
        equal("after", e[1]["data"])


@client_case(3)
def patience():
    """section 8: a send unanswered for 300 ms makes the selected path be tested"""
    with World() as w:
        w.open()
        w.pump(0.3)
        w.log.clear()
        w.process.write("send anybody?")
        sent = w.pump(1, name=wire.DATA)
        test = w.pump(1, name="test")
        check(test, "not tested")
        between(0.3 - SLACK, test.when - sent.when, 0.3 + 2 * SLACK, "after")
        check(w.pump(1, name="test") is None, "tested again though answered")


@client_case()
def close():
    """section 8: close is sent three times, with a counter each, and nothing after it; the server is told"""
    with World() as w:
        w.open()
        w.pump(0.3)
        w.process.write("leave")
        w.pump(0.5)
        got = w.seen(wire.CLOSE)
        equal(3, len(got))
        equal(3, len({x.counter for x in got}))
        equal("closed", w.process.event("closed")["reason"])
        equal(wire.CLOSE, w.log[-1].name)
        r = w.request()
        equal(("leave", w.match), (r[0], r[1]["match"]))
        told = w.outcomes[-1]
        equal(w.match, told["match"])
        number, state, reason, path, via, first, confirmed, rtt, lasted, behaviour, count, paths = told["report"]
        equal((3, 3, None), (state, reason, behaviour), "closed, closed")
        check(number >= 1 and path in (1, 2) and via in (1, 4, 5) and len(paths) == count >= 1, told["report"])
        check(0 <= first <= confirmed <= lasted <= 20000 and rtt <= 10000, told["report"])
        check(any(len(p) == 6 and len(p[0]) == 6 and p[2] == 4 for p in paths), "no path valid", paths)


@client_case()
def closed_by_peer():
    """section 8: who receives close is CLOSED(left), and sends the peer nothing more"""
    with World() as w:
        w.open()
        w.pump(0.3)
        w.frame(wire.CLOSE)
        equal("left", w.process.event("closed")["reason"])
        w.log.clear()
        w.test()
        w.frame(wire.CONSENT, bytes(8))
        w.pump(0.3)
        equal([], [x.name for x in w.log])


@client_case(100, long=True)
def consent_lost():
    """section 8: 30 s without an answer fail the path, 60 s more without a path end the session: consent_lost"""
    with World() as w:
        w.open()
        w.pump(0.3)
        w.does = set()
        last = time.time()
        w.log.clear()
        w.pump(29)
        check(w.process.event("closed", 0.01) is None)
        equal([], [x for x in w.seen("test")], "tested while VALID")
        w.pump(3)
        check(w.seen("test"), "not SEEKING after 30 s")
        w.log.clear()
        e = None
        while not e and time.time() - last < 100:
            w.pump(0.5)
            e = w.process.event("closed", 0.01)
        check(e, "not closed")
        equal("consent_lost", e["reason"])
        between(84, time.time() - last, 92)


@client_case(50, long=True)
def found_again():
    """section 8: a session that lost its paths is OPEN again when the peer is heard within the 60 s"""
    with World() as w:
        w.open()
        w.pump(0.3)
        w.does = set()
        w.pump(40)
        w.does = {"confirm", "answer", "ack"}
        check(w.process.event("path", 0.01) is None)
        w.pump(2)
        w.test()
        w.pump(1)
        check(w.process.event("path", 1), "not found again")
        w.process.write("send back")
        check(w.pump(1, name=wire.DATA))


@client_case(95, long=True)
def registration_upkeep():
    """section 4: a registration is refreshed at half its lifetime, maintained each 15 s ±10 %, and renewed at another boot"""
    with World("host") as w:
        times, boot, registered, ephemerals = [], os.urandom(8), [], set()
        end = time.time() + 80
        while time.time() < end:
            r = w.request(1, maintain=True)
            if not r:
                continue
            name, m, at, when, _ = r
            if name == "maintain":
                times.append(when)
                if len(times) == 4:
                    boot = os.urandom(8)
                w.push("maintained", tx=m["tx"], boot=boot)
            elif name == "register":
                registered.append(when)
                ephemerals.add(m["ephemeral"])
                xaddr = wire.mask(wire.pack_addr(at), m["tx"])
                w.push("registered", tx=m["tx"], xaddr=xaddr, lifetime_s=60, boot=boot)
            elif name == "room_open":
                check(m["code"] in (None, "bodav-lirom-tifug"), m)
                w.push("room_opened", tx=m["tx"], code="bodav-lirom-tifug", match=w.match)
        check(len(ephemerals) >= 2, "an ephemeral is fresh at each refresh")
        for a, b in zip(times, times[1:]):
            between(13.5 - SLACK, b - a, 16.5 + SLACK, "maintenance")
        between(30 - SLACK, registered[1] - registered[0], 30.5, "refresh")
        between(-SLACK, registered[2] - times[3], 0.5, "renewed")
