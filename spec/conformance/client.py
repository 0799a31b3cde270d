#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A client of Bodkin's protocol, written from docs/PROTOCOL.md alone; section numbers below are the document's.

    client.py host|join CODE|select ID --server bodkin://IP:PORT#KEY[,KEY] [--address-server IP:PORT] [--app A]
              [--name N] [--send TEXT] [--expect N] [--timeout S] [--rekey S]

Prints one JSON object a line, with the names of Bodkin's own events. Ends with 0 once N messages came (and a second
passed, so that its own are heard), 4 without a peer, 5 without a path, 6 when refused, 3 when N were not reached.
With --rekey it takes an id so small that it is to replace the keys, does so after S seconds, and says TEXT once more.
"""

import argparse
import json
import os
import random
import select
import socket
import sys
import time

import noise
import wire
from wire import Bad

RETRY_S, RETRY_MORE_S, GIVE_UP_S = (0.2, 0.4), 0.5, 5.0  # section 4, Requests
MAINTAIN_S = 15.0
PROBES_S = (0, 0.02, 0.04, 0.08, 0.16, 0.32)  # section 8, then each 500 ms
ROUND_TESTS, BUCKET, BUCKET_RATE, UNCONFIRMED_FRAMES = 25, 60, 100, 16
SILENT_IP_TESTS, SILENT_IP_LATER = 100, 10
NO_PATH_S, LOST_S, CONSENT_S, CONSENT_LOST_S = 10.0, 60.0, 5.0, 30.0
REKEY_S, REKEY_FIRST_S, REKEY_MORE_S, OLD_KEY_S = 120.0, 0.5, 5.0, 10.0  # section 7
PROMPT, RTTS = {"address_report", "opened", "maintained", "done", "page", "key_report"}, 8  # section 4, Round trips
EPHEMERAL_S, RENEW_S, HANDSHAKE_S = 120.0, 600.0, 1.0  # section 4


def around(seconds, part):
    return seconds * random.uniform(1 - part, 1 + part)


class Path:
    """One address of the peer's."""

    def __init__(self, addr, kind, listed):
        self.addr, self.kind, self.listed = addr, kind, listed
        self.state, self.was_valid = "frozen", False
        self.nonces = []  # (nonce, when) of the latest 8 tests
        self.tests, self.began, self.due = 0, 0.0, 0.0
        self.bytes_in = self.bytes_out = self.frames = 0
        self.rtt, self.better = None, 0
        self.consent_due = self.heard = 0.0
        self.consent_sent = None

    def probe(self, now):
        self.state, self.tests, self.began, self.due = "probing", 0, now, now

    def next_test(self):
        self.tests += 1
        if self.tests < len(PROBES_S):
            self.due = self.began + PROBES_S[self.tests]
        else:
            self.due += around(0.5, 0.1)


class Session:
    """All there is with one peer of one match (section 8). Bytes go out by send(addr, bytes), news by tell(...)."""

    def __init__(self, now, keys, peer, candidates, start_in, send, tell):
        self.keys, self.peer, self.send_to, self.tell = keys, peer, send, tell
        self.added, self.state, self.reason = now, "armed", None
        self.starts, self.give_up = now + start_in, None
        self.rx_index = random.randrange(65536, 1 << 32)
        self.tx_index, self.counter, self.window = None, random.getrandbits(55), wire.Window()
        self.paths = {addr: Path(addr, kind, True) for addr, kind in candidates}
        self.selected, self.told, self.queue, self.rebound = None, None, [], None
        self.tokens, self.filled, self.round, self.silent = BUCKET, now, 1, {}
        self.n, self.peer_n, self.select_due, self.select_wait = 0, 0, None, 0.1
        self.unanswered = None
        self.again, self.renewed = 0, []  # schedules of the server's followed so far; (when, candidates) of them
        self.rekey_due, self.rekey_wait, self.question = now + REKEY_S, REKEY_FIRST_S, None
        self.newest_phase, self.erase = 0, None  # erase: (phase, when)

    # --- out

    def _send(self, path, data):
        path.bytes_out += len(data)
        self.send_to(path.addr, data)

    def _test(self, now, path):
        self.tokens = min(BUCKET, self.tokens + (now - self.filled) * BUCKET_RATE)
        self.filled = now
        nonce = os.urandom(8)
        data = self.keys.test(self.rx_index, nonce)
        limit = SILENT_IP_TESTS if self.round == 1 else SILENT_IP_LATER
        ip = path.addr[0]
        if self.tokens < 1 or (path.bytes_in == 0 and self.silent.get(ip, 0) >= limit):
            return
        if not path.listed and not path.was_valid and path.bytes_out + len(data) > 3 * path.bytes_in:
            return
        self.tokens -= 1
        self.silent[ip] = self.silent.get(ip, 0) + 1
        path.nonces = path.nonces[-7:] + [(nonce, now)]
        self._send(path, data)

    def _frame(self, path, kind, text=b""):
        if path.state != "valid":
            if path.frames >= UNCONFIRMED_FRAMES:
                return False
            if not path.listed and path.bytes_out + len(text) + 29 > 3 * path.bytes_in:
                return False
            path.frames += 1
        data = self.keys.seal(self.tx_index, kind, self.counter, text)
        self.counter += 1
        self._send(path, data)
        return True

    def send(self, now, text):
        """Application data; False where no path takes it now."""
        if self.state != "open" or not self.selected or len(text) > wire.MAX_DATA:
            return False
        if self.unanswered is None:
            self.unanswered = now
        return self._frame(self.selected, wire.DATA, text)

    def close(self, reason="closed"):
        if self.state == "closed":
            return
        if reason == "closed" and self.selected and self.tx_index is not None:
            for _ in range(3):
                self._frame(self.selected, wire.CLOSE)
        self.state, self.reason = "closed", reason
        self.tell("closed", self, reason=reason)

    # --- in

    def input(self, now, addr, data):
        """False where it is of no concern to this session."""
        try:
            if data[0] == 0xC1:
                if wire.frame_head(data)[0] != self.rx_index:
                    return False
                _, kind, counter, text, phase = self.keys.open_frame(data)
            else:
                kind, m = self.keys.open_probe(data)
        except Bad:
            return False
        if self.state == "closed":
            return True
        path = self.paths.get(addr)
        if kind == "test":
            path = self._path(now, addr)
            self._heard(now, path, data, m["rx_index"])
            self._send(path, self.keys.confirm(self.rx_index, m["nonce"], addr))
            if path.state != "valid":
                self._test(now, path)
        elif kind == "confirm":
            sent = path and next((t for nonce, t in path.nonces if nonce == m["nonce"]), None)
            if sent is None:
                return True
            self._heard(now, path, data, m["rx_index"])
            self._confirmed(now, path, now - sent)
        else:
            newest = self.window.accept(counter)
            if newest is None:
                return True
            known = path is not None
            path = self._path(now, addr)
            self._heard(now, path, data, None)
            if newest and not known and self.selected:
                self.rebound = path
                self._test(now, path)
            self._phase(now, phase)
            self._kind(now, path, kind, text)
        return True

    def _phase(self, now, phase):
        """The first frame of new keys: the old ones have some seconds left."""
        if len(self.keys.frames) == 2 and self.erase is None and phase == self.newest_phase:
            self.keys.phase = phase
            self.erase = 1 - phase, now + OLD_KEY_S

    def _rekeyed(self, now, phase):
        self.newest_phase, self.rekey_due, self.question = phase, now + REKEY_S, None
        self.tell("rekeyed", self)

    def _on_rekey(self, now, path, kind, text):
        try:
            if kind == wire.REKEY and self.keys.role == 1:
                before = self.keys.answered
                self._frame(path, wire.REKEY_ANSWER, self.keys.answer(text))
                if self.keys.answered is not before:
                    self._rekeyed(now, 1 - self.keys.phase)
            elif kind == wire.REKEY_ANSWER and self.question:
                self.keys.rekeyed(text)
                self._rekeyed(now, self.keys.phase)
        except (Bad, noise.Failed):
            pass

    def _path(self, now, addr):
        if addr not in self.paths:
            self.paths[addr] = Path(addr, "prflx", False)
            self.paths[addr].probe(now)
        return self.paths[addr]

    def _heard(self, now, path, data, index):
        path.bytes_in += len(data)
        self.silent.pop(path.addr[0], None)
        self.unanswered = None
        if index is not None:
            self.tx_index = index
        if path.state in ("frozen", "probing", "failed"):
            path.probe(now)
            path.state = "usable"
        if self.state in ("armed", "seeking") and self.tx_index is not None:
            self.state, self.give_up = "open", None
            self._choose(now)
            self.tell("connected", self, path=self._class(path), remote=path.addr, first_ms=self._ms(now))
        self._choose(now)

    def _confirmed(self, now, path, rtt):
        if path.rtt and self.selected and path is not self.selected and self.selected.rtt:
            better = rtt < self.selected.rtt - max(self.selected.rtt / 8, 0.002)
            path.better = path.better + 1 if better else 0
        path.rtt = rtt if path.rtt is None else path.rtt + (rtt - path.rtt) / 8
        path.heard = now
        if path.state != "valid":
            path.state, path.was_valid = "valid", True
            path.consent_due = now + around(CONSENT_S, 0.2)
        if path is self.rebound:
            old, self.rebound = self.selected, None
            if old and old is not path:
                old.state = "failed"
            self._select(now, path)
        self._choose(now)

    def _kind(self, now, path, kind, text):
        if kind == wire.DATA:
            self.tell("message", self, data=text)
        elif kind == wire.SELECT and len(text) == 8 and self.keys.role == 1 and path.state == "valid":
            n = int.from_bytes(text[4:], "big")
            self._frame(path, wire.SELECT_ACK, text)
            if n > self.peer_n:
                self.peer_n = n
                self._select(now, path)
        elif kind == wire.SELECT_ACK and self.select_due and text == self._select_text():
            self.select_due = None
        elif kind == wire.CONSENT and len(text) == 8:
            self._frame(path, wire.CONSENT_ANSWER, text)
        elif kind == wire.CONSENT_ANSWER and path.consent_sent and text == path.consent_sent[0]:
            path.rtt, path.heard, path.consent_sent = now - path.consent_sent[1], now, None
        elif kind == wire.CLOSE:
            self.close("left")
        elif kind in (wire.REKEY, wire.REKEY_ANSWER) and len(text) == 48:
            self._on_rekey(now, path, kind, text)

    # --- which path

    def _class(self, path):
        return "lan" if path.kind == "local" else "direct"

    def _rank(self, path):
        kind = 0 if path.kind == "local" else 1 if ":" in path.addr[0] else 3
        return {"valid": 0, "usable": 1}.get(path.state, 9), kind

    def _choose(self, now):
        live = [p for p in self.paths.values() if p.state in ("usable", "valid")]
        if not live:
            if self.state == "open":
                self._lost(now)
            return
        if self.keys.role == 1 and self.peer_n > 0 and self.selected in live:
            return
        best = min(live, key=self._rank)
        now_best = self.selected if self.selected in live else None
        if now_best is None or self._rank(best) < self._rank(now_best):
            self._select(now, best)
        else:
            for p in live:
                if p.better >= 3 and self._rank(p) == self._rank(now_best):
                    self._select(now, p)
                    break
        if self.selected.state == "valid" and self.told is not self.selected:
            self.told = self.selected
            if self.keys.role == 0:
                self.n, self.select_due, self.select_wait = self.n + 1, now, 0.1
            self.tell("path", self, path=self._class(self.told), remote=self.told.addr, confirmed_ms=self._ms(now),
                      rtt_ms=(self.told.rtt or 0) * 1000)

    def _select_text(self):
        return bytes(4) + self.n.to_bytes(4, "big")

    def _select(self, now, path):
        if path is self.selected:
            return
        self.selected = path
        for p in self.paths.values():
            p.better = 0

    def _lost(self, now):
        self.state, self.selected, self.round, self.give_up = "seeking", None, self.round + 1, now + LOST_S
        self.silent = {}
        for path in self.paths.values():
            path.probe(now)

    # --- time

    def _ms(self, now):
        return round((now - self.added) * 1000, 3)

    def renew(self, now, again, start_in, candidates):
        """The server scheduled the match again (section 8, Silence)."""
        if again > self.again:
            self.again = again
            self.renewed.append((now + start_in, candidates))

    def tick(self, now):
        for item in [x for x in self.renewed if now >= x[0]]:
            self.renewed.remove(item)
            for addr, kind in item[1]:
                if addr not in self.paths:
                    self.paths[addr] = Path(addr, kind, True)
                    self.paths[addr].probe(now)
        if self.state == "armed" and now >= self.starts:
            self.state, self.give_up = "seeking", now + NO_PATH_S
            for path in self.paths.values():
                path.probe(now)
        if self.state == "closed" or self.state == "armed":
            return
        if self.give_up and now >= self.give_up:
            return self.close("no_path" if self.give_up == self.starts + NO_PATH_S or self.tx_index is None
                              else "consent_lost")
        for path in list(self.paths.values()):
            while path.state in ("probing", "usable") and now >= path.due and path.tests < ROUND_TESTS:
                self._test(now, path)
                path.next_test()
            if path.state == "valid":
                if now >= path.consent_due:
                    path.consent_due = now + around(CONSENT_S, 0.2)
                    text = os.urandom(8)
                    path.consent_sent = text, now
                    self._frame(path, wire.CONSENT, text)
                if now - path.heard >= CONSENT_LOST_S:
                    path.state = "failed"
                    self._choose(now)
        if self.state != "open":
            return
        if self.select_due and now >= self.select_due:
            self._frame(self.selected, wire.SELECT, self._select_text())
            self.select_due, self.select_wait = now + self.select_wait, min(2 * self.select_wait, 2.0)
        self._rekey(now)
        if self.unanswered and self.selected.state == "valid":
            if now - self.unanswered >= max(0.3, 2 * (self.selected.rtt or 0)):
                self._test(now, self.selected)
                self.unanswered = now

    def _rekey(self, now):
        if self.erase and now >= self.erase[1]:
            del self.keys.frames[self.erase[0]]
            self.erase = None
        if self.keys.role == 1 or now < self.rekey_due or self.selected.state != "valid":
            return
        if self.question is None and len(self.keys.frames) == 2:
            return
        if self.question is None:
            self.question, self.rekey_wait = self.keys.rekey(), REKEY_FIRST_S
        self._frame(self.selected, wire.REKEY, self.question)
        self.rekey_due, self.rekey_wait = now + self.rekey_wait, min(2 * self.rekey_wait, REKEY_MORE_S)


class Refused(Exception):
    def __init__(self, code, text):
        super().__init__("%d %s" % (code, text))
        self.code = code


SEALED = "the association"  # where a message came from, in place of an address


class Client:
    """Sections 3 and 4: one socket, its association, its requests, its registration and its matches."""

    def __init__(self, server, keys, app="conform/1", name="", props=None, address_server=None, bind="0.0.0.0"):
        self.server, self.server_keys, self.address_server = server, keys, address_server
        self.app, self.name, self.props = app, name, props
        self.me = wire.Identity()
        self.sock = socket.socket(socket.AF_INET6 if ":" in server[0] else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((bind, 0))
        self.sock.setblocking(False)
        self.proof, self.public, self.boot = {}, {}, None
        self.link, self.before, self.opened = None, None, -HANDSHAKE_S  # the association and the one it replaced
        self.held = None  # while one is being opened: frames that may be of it
        self.ephemerals = []  # (pair, when)
        self.sessions, self.matched, self.events = [], {}, []
        self.maintain_due = self.refresh_due = None
        self.rtts = []

    def locals(self):
        """The address of the interface that leads to the server, where it is private."""
        probe = socket.socket(self.sock.family, socket.SOCK_DGRAM)
        probe.connect(self.server)
        ip = probe.getsockname()[0]
        probe.close()
        private = ip.startswith(("10.", "192.168.", "100.")) or ip.startswith("172.") and 16 <= int(ip.split(".")[1]) < 32
        return [wire.pack_addr((ip, self.sock.getsockname()[1]))] if private else []

    def pubs(self):
        if not self.address_server:
            return []
        if self.address_server not in self.proof:
            self.request("address_request", to=self.address_server)
        return [wire.pack_addr(self.public[self.address_server]) + self.proof[self.address_server]]

    def send_to(self, addr, data):
        try:
            self.sock.sendto(data, addr)
        except OSError:
            pass  # as lost

    def tell(self, event, session, **more):
        self.events.append((event, session, more))

    # --- the association

    def open(self, messages):
        """Opens one with these first requests; what came with the answer. Tries the other key where one is refused."""
        while time.monotonic() < self.opened + HANDSHAKE_S:
            self.step(self.opened + HANDSHAKE_S)
        for key in self.server_keys:
            index = random.randrange(1, 65536)
            hs, first = wire.open_association(self.me.secret, key, index, b"".join(messages))
            self.held = []
            try:
                payload = hs.read(self.request("open", noise=first)[1]["noise"])
            except Refused as e:
                if e.code != 1005 or key == self.server_keys[-1]:
                    raise
                continue
            except noise.Failed:  # forged: begin anew
                return []
            finally:
                self.opened = time.monotonic()
            self.link, self.before = wire.Link(hs, index, int.from_bytes(payload[:4], "big")), self.link or self.before
            came, self.held = self.held, None
            got = [m for x in wire.split(payload[4:]) for m in self.inner(x)]
            return got + [m for x in came for m in self.frame(x)]

    def frame(self, data):
        """The messages of a frame of the server's."""
        for link in (self.link, self.before):
            try:
                kind, text = link.read(data) if link else (None, b"")
            except Bad:
                continue
            if kind == wire.CHALLENGE and len(text) == 8:
                self.send_to(self.server, link.write(wire.CHALLENGE_ANSWER, text))
                self.refresh_due = self.refresh_due and time.monotonic()
            if kind == wire.MESSAGE:
                return [m for x in wire.split(text) for m in self.inner(x)]
        if self.held is not None:
            self.held.append(data)
        return []

    def inner(self, data):
        try:
            m = wire.decode(data)
        except Bad:
            return []
        if m[0] == "matched":
            self.on_matched(time.monotonic(), m[1])
        elif m[0] == "maintained":
            self.on_boot(m[1]["boot"])
        return [(SEALED, m)]

    def on_boot(self, boot):
        if boot != self.boot:
            self.refresh_due = time.monotonic()

    def on_lost(self, tx):
        if self.link and self.link.sent(tx):
            self.link, self.before = None, self.link
            self.refresh_due = self.refresh_due and time.monotonic()

    # --- requests

    def request(self, what, to=None, **values):
        """The reply (name, fields); raises Refused or TimeoutError."""
        to, tx, begun = to or self.server, os.urandom(12), time.monotonic()
        due, waits, sealed, ready = begun, list(RETRY_S), what in wire.SEALED, []
        sent, direct = 0, True
        while True:
            now = time.monotonic()
            if now - begun >= GIVE_UP_S:
                self.link, self.before = (None, self.link) if sealed else (self.link, self.before)
                raise TimeoutError(what)
            if now >= due:
                if what == "open":
                    values["proof"] = self.proof.get(to)
                data = wire.encode(what, tx=tx, **values)
                if not sealed:
                    self.send_to(to, data)
                elif self.link:
                    self.send_to(to, self.link.write(wire.MESSAGE, data))
                else:
                    direct, ready = False, self.open([data])
                sent += 1
                due = time.monotonic() + (waits.pop(0) if waits else RETRY_MORE_S)
            for addr, m in ready or self.step(min(due, begun + GIVE_UP_S)):
                if addr != (SEALED if sealed else to) or m[1].get("tx") != tx or m[0] == "matched":
                    continue
                if sent == 1 and direct and to == self.server and m[0] in PROMPT:
                    self.rtts = self.rtts[1 - RTTS:] + [time.monotonic() - begun]
                if m[0] == "address_report":
                    new = m[1]["proof"] != self.proof.get(to)
                    self.public[to] = wire.unpack_addr(wire.mask(m[1]["xaddr"], tx))
                    self.proof[to] = m[1]["proof"]
                    if what != "address_request":
                        due = now if new else due
                        continue
                if m[0] == "refused":
                    raise Refused(m[1]["code"], m[1]["text"])
                if what == "open" and m[0] != "opened":
                    continue
                return m
            ready = []

    def ephemeral(self):
        """A fresh one; those that are too old are gone."""
        now = time.monotonic()
        self.ephemerals = [e for e in self.ephemerals if now - e[1] < EPHEMERAL_S] + [(wire.Identity(), now)]
        return self.ephemerals[-1][0].public

    def person(self):
        return dict(ephemeral=self.ephemeral(), pubs=self.pubs(), locals=self.locals(), app=self.app, name=self.name,
                    props=self.props, rtt_ms=self.rtt_ms())

    def rtt_ms(self):
        """Section 4, Round trips: the shortest of the latest, None while there is none."""
        if not self.rtts:
            return None
        ms = round(min(self.rtts) * 1000)
        return ms if ms <= 10000 else None

    def register(self):
        if self.link and time.monotonic() - self.opened >= RENEW_S:
            self.link, self.before = None, self.link
        reply = self.request("register", **self.person())[1]
        self.boot = reply["boot"]
        self.refresh_due = time.monotonic() + reply["lifetime_s"] / 2
        self.maintain_due = self.maintain_due or time.monotonic() + MAINTAIN_S

    def room(self):
        return self.request("room_open")[1]["code"]

    def select(self, **whom):
        return self.request("select", **self.person(), **whom)[1]

    def on_matched(self, now, m):
        if self.link:
            self.send_to(self.server, self.link.write(wire.MESSAGE, wire.encode("matched_ack", tx=m["tx"])))
        mine = next((e.secret for e, _ in self.ephemerals if e.public[:8] == m["own"]), None)
        peer = noise.key_id(m["peer_key"])
        known = [s for s in self.sessions if s.peer == peer and s.keys.match == m["match"] and s.state != "closed"]
        candidates = {wire.unpack_addr(a): "public" for a in m["pubs"]}
        for a in m["locals"]:
            candidates.setdefault(wire.unpack_addr(a), "local")
        if m["tx"] in self.matched or mine is None:
            return
        self.matched[m["tx"]] = True
        if known or m["again"]:
            for s in known:
                s.renew(now, m["again"], m["start_in_ms"] / 1000, list(candidates.items()))
            return
        try:
            keys = wire.Keys(m["match"], m["key"], self.me.secret, mine, m["peer_key"], m["peer_ephemeral"])
        except noise.Failed:
            return
        session = Session(now, keys, peer, candidates.items(), m["start_in_ms"] / 1000, self.send_to, self.tell)
        self.sessions.append(session)
        self.tell("matched", session, name=m["name"], of_n=m["of_n"])

    def step(self, until):
        """Waits until then at most, serves the sessions, and returns the messages from servers that came, each with
        where it came from: an address, or SEALED."""
        now = time.monotonic()
        for s in self.sessions:
            s.tick(now)
        if self.maintain_due and now >= self.maintain_due and self.link:
            self.maintain_due = now + around(MAINTAIN_S, 0.1)
            maintain = wire.encode("maintain", tx=os.urandom(12), id=self.me.id)
            self.send_to(self.server, self.link.write(wire.MESSAGE, maintain))
        select.select([self.sock], [], [], max(0.0, min(until - now, 0.005 if self.sessions else 0.05)))
        out = []
        while True:
            try:
                data, addr = self.sock.recvfrom(2048)
            except BlockingIOError:
                return out
            except OSError:
                continue  # an ICMP error of an earlier datagram
            addr, now = addr[:2], time.monotonic()
            if not data or any(s.input(now, addr, data) for s in self.sessions):
                continue
            if data[0] == 0xC1:
                out += self.frame(data) if addr == self.server else []
                continue
            try:
                m = wire.decode(data)
            except Bad:
                continue
            if m[0] == "lost" and addr == self.server:
                self.on_lost(m[1]["tx"])
            elif m[0] not in wire.SEALED:
                out.append((addr, m))

    def run(self, seconds):
        """Lets time pass until an event is there: the event, or None."""
        end = time.monotonic() + seconds
        while not self.events and time.monotonic() < end:
            self.step(end)
            if self.refresh_due and time.monotonic() >= self.refresh_due:
                self.register()
        return self.events.pop(0) if self.events else None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["host", "join", "select"])
    parser.add_argument("whom", nargs="?")
    for option in ("--server", "--address-server", "--send"):
        parser.add_argument(option)
    parser.add_argument("--app", default="conform/1")
    parser.add_argument("--name", default="")
    parser.add_argument("--expect", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=30)
    parser.add_argument("--rekey", type=float)
    o = parser.parse_args()

    def say(event, **fields):
        print(json.dumps({"event": event, **fields}), flush=True)

    def addr(text):
        text = text.partition("#")[0]
        host, port = text.replace("bodkin://", "").rsplit(":", 1) if ":" in text.replace("bodkin://", "") else (
            text.replace("bodkin://", ""), 4433)
        return host, int(port)

    client = Client(addr(o.server), wire.keys_of_url(o.server), o.app, o.name, None,
                    addr(o.address_server) if o.address_server else None)
    if o.rekey:
        global REKEY_S
        REKEY_S = o.rekey
        while client.me.id[0] > 0:
            client.me = wire.Identity()
    end, code, got = time.monotonic() + o.timeout, 4, 0
    try:
        if o.command == "host":
            client.register()
            say("registered", id=client.me.id.hex())
            say("hosting", code=client.room())
        else:
            client.select(**({"code": o.whom} if o.command == "join" else {"target": bytes.fromhex(o.whom)}))
    except Refused as e:
        say("error", code="refused", message=str(e))
        return 6
    except TimeoutError as e:
        say("error", code="timeout", message=str(e))
        return 1
    while time.monotonic() < end:
        news = client.run(end - time.monotonic())
        if not news:
            break
        event, session, more = news
        if "remote" in more:
            more["remote"] = "%s:%d" % more["remote"]
        if event == "message":
            more["data"], got = more["data"].decode(), got + 1
        say(event, match=session.keys.match.hex(), peer=session.peer.hex(), **more)
        if event == "connected":
            code = 3
        if event in ("connected", "rekeyed") and o.send:
            session.send(time.monotonic(), o.send.encode())
        if event == "closed" and code != 0:
            code = 5 if more["reason"] == "no_path" else code
            break
        if o.expect and got >= o.expect and code != 0:
            code, end = 0, time.monotonic() + 1
    for s in client.sessions:
        s.close()
    return code


if __name__ == "__main__":
    sys.exit(main())
