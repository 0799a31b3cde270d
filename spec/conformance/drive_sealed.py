# SPDX-License-Identifier: MIT
"""Cases of drive.py: a real client's association, and how it replaces keys with its peer. Sections: docs/PROTOCOL.md."""

import os
import time

import noise
import wire
from drive_client import HIGH, LOW, World, client_case
from fixture import SLACK, Sock, between, check, equal, on_schedule


@client_case(6)
def open_repeats():
    """section 4: open is repeated as requests are, its noise byte by byte the same, with the first requests inside"""
    with World() as w:
        r = w.first()
        got = [r] + [(wire.decode(x[0]) + (x[1], x[2])) for x in w.server.all(5.6)]
        equal({"open"}, {x[0] for x in got})
        equal(1, len({(x[1]["tx"], x[1]["noise"], x[1]["proof"]) for x in got}))
        on_schedule([x[3] for x in got], [0, 0.05, 0.1, 0.2, 0.4] + [0.8 + 0.5 * i for i in range(9)], "open")
        hs, index, text = wire.take_association(w.secret, r[1]["noise"])
        between(1, index, 65535, "index")
        equal({"select"}, {wire.decode(x)[0] for x in wire.split(text)} - {"maintain"})
        equal("timeout", w.process.event("failed")["code"])


@client_case()
def other_key():
    """section 4: refused with bad_key, a client tries its other key, with a new ephemeral; without one it fails"""
    for count in (1, 2):
        stale = noise.public_of(os.urandom(32))
        with World() as w:
            right = w.key_of_server
        with World(keys=[stale, right][:count]) as w:
            w.secret, w.key_of_server = None, None
            r = w.first()
            w.server.send(r[2], wire.encode("refused", tx=r[1]["tx"], code=1005, text="another key"))
            if count == 1:
                equal("bad_key", w.process.event("failed")["code"])
            else:
                again = w.first()
                while again[1]["tx"] == r[1]["tx"]:
                    again = w.first()
                check(again[1]["noise"][:32] != r[1]["noise"][:32], "the same ephemeral")
                w.server.send(again[2], wire.encode("refused", tx=again[1]["tx"], code=1005, text="nor this"))
                equal("bad_key", w.process.event("failed")["code"], "both refused")


@client_case()
def second_key():
    """section 4: the association is opened by the second key where the server has that"""
    secret = os.urandom(32)
    with World(keys=[noise.public_of(os.urandom(32)), noise.public_of(secret)]) as w:
        w.secret = secret
        r = w.first()
        try:
            wire.take_association(secret, r[1]["noise"])
            check(False, "the first key was not tried first")
        except noise.Failed:
            pass
        w.server.send(r[2], wire.encode("refused", tx=r[1]["tx"], code=1005, text="another key"))
        w.begin()
        check(w.pump(2, name="test"))


@client_case(3)
def forged_answer():
    """section 4: a forged opened is dropped, and the client waits for the true one"""
    with World() as w:
        r = w.first()
        good = wire.decode(w.associate(r))[1]["noise"]
        w.queue.clear()
        bad = bytearray(good)
        bad[-1] ^= 1
        w.server.send(r[2], wire.encode("opened", tx=os.urandom(12), noise=bytes(52)))
        Sock().send(r[2], wire.encode("opened", tx=r[1]["tx"], noise=bytes(52)))
        check((w.plain(0.15) or r)[1]["noise"] == r[1]["noise"], "another's answer counted")
        w.server.send(r[2], wire.encode("opened", tx=r[1]["tx"], noise=bytes(bad)))
        check((w.plain(0.6) or r)[1]["noise"] == r[1]["noise"], "the forged one counted")
        w.server.send(r[2], wire.encode("opened", tx=r[1]["tx"], noise=good))
        w.begin()
        check(w.pump(2, name="test"))


@client_case()
def unsealed():
    """section 4: what must come in the association counts in it alone: selected, matched, refused"""
    with World() as w:
        _, m, client, _, _ = w.selection()
        w.keys = w.meet(m["ephemeral"])
        for name, values in (("selected", dict(match=w.match, of_n=2)), ("refused", dict(code=1001, text="plain"))):
            w.server.send(client, wire.encode(name, tx=m["tx"], **values))
        w.server.send(client, wire.encode("matched", tx=os.urandom(12), **w.match_fields()))
        check(w.process.event("failed", 0.2) is None, "refused by a plain one")
        check(w.pump(0.3, name="test") is None, "matched by a plain one")
        check(w.request(0.3) is None, "acknowledged")
        # In frames that are not right: forged, of another index, sealed by the client's own key, of another phase.
        frame = w.link.write(wire.MESSAGE, wire.encode("matched", tx=os.urandom(12), **w.match_fields()))
        w.server.send(client, frame[:-1] + bytes([frame[-1] ^ 1]))
        own = wire.seal_frame(w.link.reads, w.link.peer_index, wire.MESSAGE, 50, wire.encode("done", tx=m["tx"]))
        w.server.send(client, own)
        refused = wire.encode("refused", tx=m["tx"], code=1001, text="badly sealed")
        for index, kind in ((w.link.peer_index ^ 1, wire.MESSAGE), (w.link.peer_index, wire.MESSAGE | wire.PHASE),
                            (w.link.peer_index, wire.DATA)):
            w.server.send(client, wire.seal_frame(w.link.sends, index, kind, 51, refused))
        check(w.process.event("failed", 0.2) is None)
        tx = w.matched()
        equal(("matched_ack", tx), (lambda r: (r[0], r[1]["tx"]))(w.request()))
        check(w.pump(1, name="test"), "the sealed one did not count")
        seen = w.link.window.seen
        equal(set(range(len(seen))), seen, "the client's counters")


@client_case()
def overtaken():
    """section 4: frames that overtake opened are heard once that has come; a frame counts once"""
    with World() as w:
        r = w.first()
        answer = w.associate(r)
        m = w.request()[1]
        w.keys = w.meet(m["ephemeral"])
        w.push("selected", tx=m["tx"], match=w.match, of_n=2)
        tx = os.urandom(12)
        frame = w.push("matched", tx=tx, **w.match_fields())
        check(w.pump(0.08, name="test") is None, "acted on before the answer") # nor before open is repeated
        w.server.send(r[2], answer)
        equal(("matched_ack", tx), (lambda x: (x[0], x[1]["tx"]))(w.request()))
        check(w.pump(1, name="test"))
        w.server.send(r[2], frame)
        check(w.request(0.2) is None, "a frame counted twice")


@client_case(6)
def lost():
    """section 4: lost counts when it is of a frame that was sent, from the server; then another association, one a second"""
    with World("host") as w:
        def serve(until, seconds=2.0):
            """Serves the client up to such a request."""
            while True:
                r = w.request(seconds)
                if r is None:
                    return None
                name, m, at, when, _ = r
                if name == "register":
                    xaddr = wire.mask(wire.pack_addr(at), m["tx"])
                    w.push("registered", tx=m["tx"], xaddr=xaddr, lifetime_s=60, boot=w.boot)
                elif name == "room_open":
                    w.push("room_opened", tx=m["tx"], code="bodav-lirom-tifug", match=w.match)
                if name == until:
                    return r
        opened = serve("register")[3]
        serve("room_open")
        check(w.process.event("code"))
        first = w.link
        used = first.index.to_bytes(4, "big") + bytes([wire.MESSAGE]) + bytes(7)
        for bad in (os.urandom(12), used[:5] + (1 << 40).to_bytes(7, "big"), (first.index ^ 1).to_bytes(4, "big") + used[4:],
                    first.peer_index.to_bytes(4, "big") + used[4:]):
            w.server.send(w.client, wire.encode("lost", tx=bad))
        Sock().send(w.client, wire.encode("lost", tx=used))
        check(serve("register", 1.5) is None and w.link is first, "a lost that was made up")
        for _ in range(2):
            before = w.link
            w.server.send(w.client, before.write(wire.CHALLENGE, bytes(8)))
            check(serve(wire.CHALLENGE_ANSWER) and serve("register"), "a frame of the client's, to be lost")
            w.server.send(w.client, wire.encode("lost", tx=w.link.index.to_bytes(4, "big") + used[4:]))
            r = serve("register", 3)
            check(r and w.link is not before, "not registered in another")
            check(r[3] - opened > 1 - SLACK, "another one within a second:", r[3] - opened)
            opened = r[3]
        # What was pushed in the one before is heard on.
        w.keys = w.meet(r[1]["ephemeral"])
        now, w.link = w.link, before
        w.push("matched", tx=used, **w.match_fields())
        w.link = now
        equal(("matched_ack", used), (lambda x: (x[0], x[1]["tx"]))(w.request()))


@client_case(3)
def challenge():
    """section 4: a client answers a challenge from where it is asked, repeats what waits, and registers again"""
    with World("host") as w:
        r = w.request()
        equal("register", r[0])
        xaddr = wire.mask(wire.pack_addr(r[2]), r[1]["tx"])
        w.push("registered", tx=r[1]["tx"], xaddr=xaddr, lifetime_s=60, boot=w.boot)
        waits = w.request()
        equal("room_open", waits[0])
        w.asked.discard(waits[1]["tx"])
        equal(waits[:2], w.request()[:2], "a repeat, and the next one is not due soon")
        for text in (b"1234567", b"123456789"):
            w.server.send(w.client, w.link.write(wire.CHALLENGE, text))
        w.asked.clear()
        text = os.urandom(8)
        asked = time.time()
        w.server.send(w.client, w.link.write(wire.CHALLENGE, text))
        got = [w.request(1) for _ in range(3)]
        equal((wire.CHALLENGE_ANSWER, text, w.client), got[0][:3])
        names = [(x[0], x[1]["tx"]) for x in got[1:] if x]
        check(("room_open", waits[1]["tx"]) in names, names)
        check("register" in [x[0] for x in names], names)
        check(all(x[3] - asked < 0.15 for x in got), "late")
        check(w.process.event("failed", 0.1) is None)


@client_case()
def keys_of_peers():
    """section 4: a matched that names an ephemeral the client has not, or a peer's key that is none, is acknowledged; no path"""
    for more in ({"own": bytes(8)}, {"peer_ephemeral": bytes(32)}, {"peer_key": bytes(32)},
                 {"peer_key": b"\1" + bytes(31)}):
        with World() as w:
            m = w.selection()[1]
            w.keys = w.meet(m["ephemeral"])
            w.push("selected", tx=m["tx"], match=w.match, of_n=2)
            tx = w.matched(**more)
            equal(("matched_ack", tx), (lambda r: (r[0], r[1]["tx"]))(w.request()))
            equal("no_path", w.process.event("closed")["reason"])
            check(w.pump(0.2) is None and not w.log, "tested")


def talks(w, said, phase):
    """One message each way, the client's in that phase."""
    w.frame(wire.DATA, said.encode())
    equal(said, w.process.event("message")["data"])
    w.process.write("send " + said)
    seen = w.pump(1, name=wire.DATA)
    while seen and seen.m != said.encode():
        seen = w.pump(1, name=wire.DATA)
    equal((said.encode(), phase), seen and (seen.m, seen.phase))


@client_case(22)
def rekeyed():
    """section 7: role 1 answers each copy of rekey the same, hears both phases, changes with its peer; the old key lives 10 s"""
    with World(peer=LOW) as w:
        w.open()
        w.pump(0.3)
        talks(w, "before", 0)
        equal(1, 1 - w.keys.role)
        top = w.counter
        # What is no rekey: of another length, of role 1's kind, made with another key.
        w.frame(wire.REKEY, bytes(47))
        w.frame(wire.REKEY, os.urandom(48))
        w.frame(wire.REKEY_ANSWER, os.urandom(48))
        other = noise.Handshake("KKpsk0", True, w.keys.h, s=os.urandom(32), rs=w.keys.peer, psk=w.key)
        w.frame(wire.REKEY, other.write())
        check(w.pump(0.3, name=wire.REKEY_ANSWER) is None, "answered what is no rekey")
        question = w.keys.rekey()
        w.frame(wire.REKEY, question)
        answer = w.pump(1, name=wire.REKEY_ANSWER)
        equal((48, 0), answer and (len(answer.m), answer.phase))
        for _ in range(2):
            w.frame(wire.REKEY, question)
            equal(answer.m, w.pump(1, name=wire.REKEY_ANSWER).m)
        w.process.write("send still the old one")
        equal(0, w.pump(1, name=wire.DATA).phase, "it is the peer's to begin")
        w.keys.rekeyed(answer.m)
        old = {phase: w.keys.frames[phase] for phase in (0, 1)}
        talks(w, "after", 1)
        began = time.time()
        check(w.counter > top and w.log[-1].counter > answer.counter, "counters go on")
        w.frame(wire.DATA, b"under way", phase=0)
        equal("under way", w.process.event("message")["data"])
        # A frame of the old phase's key in the new phase's name, and the other way round.
        for phase in (0, 1):
            w.counter += 1
            w.socks[0].send(w.client, wire.seal_frame(old[1 - phase][0], w.tx_index, wire.DATA | 128 * phase, w.counter,
                                                      b"mixed up"))
        equal(None, w.process.event("message", 0.2))
        w.pump(max(0, began + 8.5 - time.time()))
        w.frame(wire.DATA, b"late", phase=0)
        equal("late", w.process.event("message")["data"])
        w.pump(max(0, began + 11 - time.time()))  # 10 s
        w.frame(wire.DATA, b"too late", phase=0)
        equal(None, w.process.event("message", 0.2))
        talks(w, "well", 1)
        # Once more: bound to the handshake before.
        del w.keys.frames[0]
        w.frame(wire.REKEY, w.keys.rekey())
        answer = w.pump(1, name=wire.REKEY_ANSWER)
        equal(1, answer.phase)
        w.keys.rekeyed(answer.m)
        talks(w, "again", 0)


@client_case(140, long=True)
def rekeys():
    """section 7: role 0 asks when its keys are 120 s old, again after 500 ms, 1, 2 and 4 s, then 5 s, and goes on with the answer"""
    with World(peer=HIGH) as w:
        begun = time.time()
        w.open()
        w.pump(110)
        equal([], w.seen(wire.REKEY))
        w.pump(24)
        asked = w.seen(wire.REKEY)
        between(119.5, asked[0].when - begun, 121.5, "the first")
        equal(1, len({x.m for x in asked}), "the same bytes")
        equal(len(asked), len({x.counter for x in asked}))
        for gap, a, b in zip((0.5, 1, 2, 4, 5), asked, asked[1:]):
            between(gap - SLACK, b.when - a.when, gap + 3 * SLACK, "gap")
        check(len(asked) >= 5, len(asked))
        w.process.write("send before")
        equal(0, w.pump(1, name=wire.DATA).phase)
        w.log.clear()
        w.frame(wire.REKEY_ANSWER, w.keys.answer(asked[0].m))
        w.pump(0.1)
        w.process.write("send after")
        equal(1, w.pump(1, name=wire.DATA).phase)
        w.keys.phase = 1
        talks(w, "well", 1)
        w.frame(wire.DATA, b"under way", phase=0)
        equal("under way", w.process.event("message")["data"])
        check(w.pump(6, name=wire.REKEY) is None, "goes on asking")
