# SPDX-License-Identifier: MIT
"""Cases of drive.py: how a real server opens, keeps and ends associations. Sections: docs/PROTOCOL.md."""

import os
import time

import msgpack

import noise
import wire
from drive_server import server_case
from fixture import Asker, Server, Sock, check, equal


@server_case()
def opening():
    """section 4: open needs a proof, a key of the server's and no change; a repeat is answered with the same bytes"""
    with Server() as server:
        a, other = Asker(server), Asker(server)
        # Unproven: the report, whatever it holds, and nothing is kept.
        tx, hs, index, data = a.first(proof=None)
        name, m = a.plain()
        equal(("address_report", tx), (name, m["tx"]))
        equal(0, server.counters()["associated"])
        a.proof, noise_1 = m["proof"], wire.decode(data)[1]["noise"]
        a.send("open", tx=tx, proof=a.proof, noise=noise_1)
        answer = a.sock.get()[0]
        equal(("opened", tx), (lambda r: (r[0], r[1]["tx"]))(wire.decode(answer)))
        for _ in range(3):
            a.send("open", tx=tx, proof=a.proof, noise=noise_1)
            equal(answer, a.sock.get()[0], "a repeat")
        equal(1, server.counters()["associated"])
        # A copy from elsewhere, with a proof of its own.
        other.send("open", proof=other.prove(), noise=noise_1)
        other.sock.silent()
        payload = hs.read(wire.decode(answer)[1]["noise"])
        equal(4, len(payload))
        a.link = wire.Link(hs, index, int.from_bytes(payload, "big"))
        equal("done", a.ask("unregister")[0])
        for _ in range(2):
            a.send("open", tx=tx, proof=a.proof, noise=noise_1)
            a.sock.silent()
        equal("done", a.ask("unregister")[0], "still there")
        # What is refused.
        def refuses(code, noise_1):
            tx = a.send("open", proof=a.proof, noise=noise_1)[0]
            got = a.plain()
            equal(tx, got[1]["tx"])
            a.refused(code, got)

        refuses(1005, wire.open_association(a.me.secret, noise.public_of(os.urandom(32)), 7)[1])
        fresh = lambda *words, **how: wire.open_association(a.me.secret, server.key, *words, **how)[1]  # noqa: E731
        for at in (0, 40, 90, -1):  # e, s, its tag, the payload's tag
            bad = bytearray(fresh(9))
            bad[at] ^= 1
            refuses(1005, bytes(bad))
        refuses(1005, bytes(32) + fresh(9)[32:])
        for index in (0, 65536, 0xFFFFFFFF):
            refuses(1005, fresh(index))
        hs = noise.Handshake("IK", True, b"bodkin server 2", s=a.me.secret, rs=server.key)
        refuses(1005, hs.write(bytes([0, 0, 0, 9])))
        for length in (99, 1141):  # out of bounds
            a.sock.send(a.to, msgpack.packb([24, 1, bytes(12), a.proof, bytes(length)], use_bin_type=True)[:1200])
        a.sock.silent()
        for index in (1, 65535):
            other.associate(index=index)
            equal("done", other.ask("unregister")[0])


@server_case()
def carried():
    """section 4: the first requests travel inside open, their answers inside opened; what does not fit is asked again"""
    with Server() as server:
        a, b = Asker(server), Asker(server)
        txs = [os.urandom(12) for _ in range(3)]
        requests = wire.encode("register", tx=txs[0], **a.person(name="ann")), wire.encode("room_open", tx=txs[1])
        got = a.associate(b"".join(requests))
        equal([("registered", txs[0]), ("room_opened", txs[1])], [(name, m["tx"]) for name, m in got])
        # A selection inside: its `matched` comes after the answer, or in it.
        code = got[1][1]["code"]
        got = b.associate(wire.encode("select", tx=txs[2], code=code, **b.person()))
        equal(("selected", txs[2]), (lambda m: (m[0], m[1]["tx"]))([x for x in got if x[0] != "matched"][0]))
        b.matched += [(m, 0) for name, m in got if name == "matched"]
        equal(a.me.public, b.next_matched()["peer_key"])
        equal(b.me.public, a.next_matched()["peer_key"])
        # As many as fit, to the last byte: all are answered, here or when asked again.
        c = Asker(server)
        many = [wire.encode("unregister", 1 if i < 50 else 257, tx=os.urandom(12)) for i in range(60)]
        equal(wire.MAX_CARRIED, len(b"".join(many)))
        got = c.associate(b"".join(many))
        check(len(got) > 10 and all(name == "done" for name, _ in got), len(got))
        for data in many[len(got):]:
            c.sealed(data)
            equal("done", c.reply()[0])
        # Rubbish among them does not spoil those before.
        got = Asker(server).associate(many[0] + b"\xc1\xc1")
        equal(["done"], [name for name, _ in got])


@server_case(70, long=True)
def opening_given_up():
    """section 4: an answer that nobody uses is repeated for at most 60 s; then its first message is dropped"""
    with Server() as server:
        a = Asker(server)
        tx, hs, index, data = a.first()
        answer = a.sock.get()[0]
        time.sleep(55)
        a.sock.send(a.to, data)
        equal(answer, a.sock.get()[0])
        time.sleep(12)
        a.sock.send(a.to, data)
        a.sock.silent()
        payload = hs.read(wire.decode(answer)[1]["noise"])
        a.link = wire.Link(hs, index, int.from_bytes(payload[:4], "big"))
        a.seal("unregister")
        equal("lost", a.plain()[0])


@server_case()
def frames():
    """section 4: a frame counts once, within a window of 64, of a kind that is known; others are dropped in silence"""
    with Server() as server:
        a = Asker(server)
        a.associate()
        equal(1, len({a.link.index, a.link.peer_index} & set(range(1, 65536))), "only the client's index is small")

        def counts(good, n, kind=wire.MESSAGE, text=None, link=None):
            """A frame with that counter, which is to be answered, or not."""
            tx = os.urandom(12)
            frame = (link or a.link).write(kind, wire.encode("unregister", tx=tx) if text is None else text, counter=n)
            a.sock.send(a.to, frame)
            equal(("done", {"tx": tx}) if good else None, a.reply(1 if good else 0.1), n, kind)
            return frame

        counts(True, 0)
        equal({0}, a.link.window.seen, "the server's counters")
        frame = counts(True, 200)
        a.sock.send(a.to, frame)
        a.sock.silent(0.1)
        for good, n in ((False, 136), (True, 137), (True, 199), (False, 199)):  # a window of 64
            counts(good, n)
        for kind in (wire.DATA, wire.SELECT, wire.REKEY, 15, 19, wire.MESSAGE | wire.PHASE):
            counts(False, 300 + kind, kind)
        counts(False, 500, wire.CHALLENGE_ANSWER, bytes(8))
        counts(False, 501, wire.CHALLENGE, bytes(8))  # it is the client's to answer
        counts(True, 502)
        bad = bytearray(a.link.write(wire.MESSAGE, wire.encode("unregister", tx=bytes(12)), counter=600))
        for at in (-1, 13, 8, 5):
            bad[at] ^= 1
            a.sock.send(a.to, bytes(bad))
            bad[at] ^= 1
        a.sock.silent()
        a.sock.send(a.to, bytes(bad))
        equal(("done", {"tx": bytes(12)}), a.reply(), "and was not spoilt by those")
        # Several in one frame, and rubbish after them.
        a.link.counter = 700
        tx = [os.urandom(12) for _ in range(3)]
        a.sealed(b"".join(wire.encode("unregister", tx=x) for x in tx) + b"\xc1")
        equal(tx, [m["tx"] for item in a.sock.all(0.2) for _, m in a.open(item)])
        # Sealed with the other end's key: a mirror.
        mirror = wire.Link.__new__(wire.Link)
        mirror.__dict__.update(a.link.__dict__, sends=a.link.reads)
        counts(False, 800, link=mirror)


@server_case()
def lost():
    """section 4: a frame of an association that is not known is answered with lost, with its own 12 bytes, and never longer"""
    with Server() as server:
        a = Asker(server)
        a.associate()
        foreign = wire.seal_frame(bytes(32), a.link.peer_index ^ 0x10000000, wire.MESSAGE, 77, b"")
        a.sock.send(a.to, foreign)
        data = a.sock.get()[0]
        equal(("lost", {"tx": foreign[1:13]}), wire.decode(data))
        check(len(data) <= len(foreign))
        for short in (foreign[:28], foreign[:13], foreign[:1]):
            a.sock.send(a.to, short)
        a.sock.silent()
        b = Asker(server)
        b.associate()
        frame = b.link.write(wire.MESSAGE, wire.encode("unregister", tx=bytes(12)))
        port = server.addr[1]
        server.kill()
        with Server(listen="127.0.0.1:%d" % port, secret=server.secret):
            b.sock.send(b.to, frame)
            equal(("lost", {"tx": frame[1:13]}), b.plain())
            check(b.link.sent(frame[1:13]))
            b.restart()
            equal("done", b.ask("unregister")[0], "by the same key")


@server_case()
def moving():
    """section 4: a client that sends from elsewhere is challenged there, acted on not, and followed once it answers from there"""
    with Server() as server:
        a, b = Asker(server), Asker(server)
        a.register()
        here, there, elsewhere = a.sock, Sock("127.0.0.2"), Sock("127.0.0.3")

        def use(sock, name="unregister", **values):
            a.sock = sock
            return a.seal(name, **values)

        def challenged(sock):
            kind, text = a.link.read(sock.get()[0])
            equal((wire.CHALLENGE, 8), (kind, len(text)))
            return text

        stale = a.link.write(wire.MESSAGE, wire.encode("unregister", tx=bytes(12)))
        use(here, "maintain", id=a.me.id)
        equal("maintained", a.reply()[0])
        there.send(a.to, stale)
        there.silent()  # not the newest
        use(there)
        first = challenged(there)
        equal(1, len(b.ask("list", app="conform/1", query=None, cursor=None, want_addr=False)[1]["entries"]), "acted on")
        # Nobody's answer but that of who is there, to what was asked there.
        for sock, text in ((elsewhere, first), (here, first), (there, bytes(8)), (there, first[:7])):
            a.sock = sock
            a.sealed(text, wire.CHALLENGE_ANSWER)
        there.silent(), elsewhere.silent()
        use(here, "maintain", id=a.me.id)
        equal("maintained", a.reply()[0], "still here")
        there.silent()
        use(there)
        text = challenged(there)
        a.sock = there
        a.sealed(text, wire.CHALLENGE_ANSWER)
        there.silent()
        equal(there.addr, (lambda m: wire.unpack_addr(wire.mask(m["xaddr"], m["tx"])))(a.register()))
        equal(1, server.counters()["client_moved"])
        # What is pushed goes where it is now.
        equal("selected", b.select(target=a.me.id)[0])
        equal(b.me.public, a.next_matched()["peer_key"])
        here.silent()
        equal([wire.pack_addr(there.addr)], b.next_matched()["pubs"])
        # A copy of its newest frame, from elsewhere, changes nothing.
        ack = wire.encode("matched_ack", tx=bytes(12))
        elsewhere.send(a.to, a.link.write(wire.MESSAGE, ack, counter=a.link.counter + 9))
        a.link.counter += 10
        text = challenged(elsewhere)
        equal("registered", a.ask("register", **a.person())[0])
        a.sock = elsewhere
        a.sealed(text, wire.CHALLENGE_ANSWER)
        elsewhere.silent()
        a.sock = there
        equal("registered", a.ask("register", **a.person())[0], "an answer that came too late was followed")


@server_case()
def two_keys():
    """section 4: while keys are being replaced a server has two, and either opens an association"""
    secret, other = os.urandom(32), os.urandom(32)
    with Server(secret=secret, other=other) as server:
        keys = [noise.public_of(secret), noise.public_of(other)]
        equal(keys, server.keys, "those in its URL, the one in use first")
        a = Asker(server)
        equal(keys, a.ask("key_request")[1]["keys"])
        for key in keys:
            a.associate(key=key)
            equal("done", a.ask("unregister")[0])
        a.first(key=noise.public_of(os.urandom(32)))
        a.refused(1005, a.plain())


@server_case()
def two_associations():
    """section 4: of two associations of one client both work, and matched goes in the one that registered last"""
    with Server() as server:
        a, b, c = Asker(server), Asker(server), Asker(server)
        b.me = a.me
        a.register()
        b.associate()
        equal("selected", c.select(target=a.me.id)[0])
        equal(c.me.public, a.next_matched()["peer_key"])
        b.sock.silent()
        b.register()
        c.matched.clear()
        equal("selected", c.select(target=a.me.id)[0])
        equal(c.me.public, b.next_matched()["peer_key"])
        a.quiet()
        equal("done", a.ask("unregister")[0], "the first works, too")
        equal([], c.ask("list", app="conform/1", query=None, cursor=None, want_addr=False)[1]["entries"])


@server_case()
def handshake_limits():
    """section 4: where too many come, open is refused with limit"""
    with Server(config="limits = { associations_each = 2 }") as server:
        a = Asker(server)
        for _ in range(2):
            a.associate()
        a.first()
        a.refused(1008, a.plain())
        equal("done", a.ask("unregister")[0])
    with Server(config="limits = { associations = 2 }") as server:
        a = Asker(server)
        for _ in range(2):
            a.associate()
        a.first()
        a.refused(1008, a.plain())


@server_case(170, long=True)
def unused():
    """section 4: an association that was not used for 150 s is gone"""
    with Server() as server:
        a, b, c = (Asker(server) for _ in range(3))
        for x in (a, b, c):
            x.associate()
            equal("done", x.ask("unregister")[0])
        for i in range(4):
            time.sleep(35)
            equal("done", b.ask("unregister")[0], "used all the time")
        equal("done", c.ask("unregister")[0], "unused for 140 s")
        time.sleep(25)
        frame = a.sealed(wire.encode("unregister", tx=bytes(12)))
        equal(("lost", {"tx": frame[1:13]}), a.plain())
        equal("done", b.ask("unregister")[0])
        equal("done", c.ask("unregister")[0])
