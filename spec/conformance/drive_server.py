# SPDX-License-Identifier: MIT
"""Cases of drive.py: a real `bodkin serve`, asked by hand. Section numbers are those of docs/PROTOCOL.md."""

import os
import struct
import time

import msgpack

import noise
import wire
from fixture import HERE, Asker, Server, Sock, between, case, check, equal, on_schedule, vectors

CASES = []


def server_case(seconds=1, long=False):
    def mark(fn):
        CASES.append(case(seconds, long)(fn))
        return fn

    return mark


@server_case()
def hex_vectors():
    """the document's vectors are what a second implementation writes and reads"""
    v = vectors()
    for name, (number, fields) in wire.MESSAGES.items():
        if name in ("test", "confirm"):
            continue
        got, m = wire.decode(v[name])
        equal(name, got)
        again = wire.encode(name, **{f: x for f, x in m.items() if f != "pad"})
        equal(v[name].hex(), again.hex(), name)
    match, key = bytes(range(16, 32)), bytes(range(64, 96))
    probes = [wire.Probes(match, key, bytes([i + 1]) * 16, bytes([2 - i]) * 16) for i in (0, 1)]
    for r in (0, 1):
        equal(v["key probe %d" % r], probes[0].probe[r], probes[1].probe[r])
    nonce = bytes(range(0xE0, 0xE8))
    equal(v["test"].hex(), probes[0].test(0xAABBCCDD, nonce).hex())
    equal(v["confirm"].hex(), probes[1].confirm(0xAABBCCDD, nonce, ("203.0.113.7", 40000)).hex())
    equal(v["frame"].hex(), wire.seal_frame(key, 0x01020304, wire.DATA, 7, b"hello").hex())
    equal(b"hello", wire.open_frame(key, v["frame"]))
    s, e = ([bytes(range(first, first + 32)) for first in at] for at in ((1, 33), (65, 97)))
    sides = [wire.Keys(match, key, s[i], e[i], noise.public_of(s[1 - i]), noise.public_of(e[1 - i])) for i in (0, 1)]
    equal([0, 1], [x.role for x in sides])
    equal(v["KKeepsk0 h"], sides[0].h, sides[1].h)
    equal(v["KKeepsk0 keys"], b"".join(sides[0].frames[0]), b"".join(sides[1].frames[0][::-1]))


@server_case()
def every_request():
    """section 4: every request gets the reply it should"""
    with Server() as server:
        a, b = Asker(server), Asker(server)
        tx, _ = a.send("address_request")
        name, m = a.reply()
        equal("address_report", name)
        equal(a.sock.addr, wire.unpack_addr(wire.mask(m["xaddr"], tx)))
        equal(20, len(m["proof"]))
        equal(("key_report", [server.key]), (lambda r: (r[0], r[1]["keys"]))(a.ask("key_request")))
        m = a.register(name="ann", props={"map": "dust"})
        equal(a.sock.addr, wire.unpack_addr(wire.mask(m["xaddr"], m["tx"])))
        equal(60, m["lifetime_s"])
        boot = m["boot"]
        equal((("maintained", boot)), (lambda r: (r[0], r[1]["boot"]))(a.ask("maintain", id=a.me.id)))
        tx = a.seal("maintain", id=a.me.id)
        item = a.sock.get()
        equal((0xC1, [("maintained", {"tx": tx, "boot": boot})]), (item[0][0], a.open(item)), "sealed, as it was asked")
        name, m = b.ask("list", app="conform/1", query=None, cursor=None, want_addr=True)
        equal(("page", [[a.me.id, "ann", {"map": "dust"}]], None), (name, m["entries"], m["next"]))
        b.refused(1001, b.ask("lookup", id=a.me.id))
        code = a.room()["code"]
        name, m = b.select(code=code)
        equal(("selected", 2), (name, m["of_n"]))
        at_a, at_b = a.next_matched(), b.next_matched()
        equal(m["match"], at_a["match"], at_b["match"])
        equal(at_a["key"], at_b["key"])
        equal((b.me.public, a.me.public), (at_a["peer_key"], at_b["peer_key"]))
        equal((b.ephemeral.public, a.ephemeral.public), (at_a["peer_ephemeral"], at_b["peer_ephemeral"]))
        equal(("ann", {"map": "dust"}), (at_b["name"], at_b["props"]))
        equal([wire.pack_addr(b.sock.addr)], at_a["pubs"])
        equal((0, None), (at_b["start_in_ms"], at_b["data"]))
        equal("done", b.ask("leave", match=m["match"])[0])
        equal("done", b.ask("leave", match=bytes(16))[0], "in no such match")
        equal("done", a.ask("unregister")[0])
        equal("done", a.ask("unregister")[0], "not registered")
        equal([], b.ask("list", app="conform/1", query=None, cursor=None, want_addr=False)[1]["entries"])
        b.seal("matched_ack", tx=bytes(12))
        b.quiet()
        # At the bounds of its fields, and one beyond.
        a.register(app="x" * 64, name="y" * 32, pubs=[bytes(64)] * 2, locals=[bytes(6)] * 4, token=bytes(512))
        for more in ({"app": "x" * 65}, {"name": "y" * 33}, {"pubs": [bytes(26)] * 3}, {"pubs": [bytes(65)]},
                     {"locals": [bytes(6)] * 5}, {"token": bytes(513)}, {"token": b""}, {"ephemeral": bytes(31)}):
            a.seal("register", **a.person(**more))
        a.quiet()


@server_case()
def reply_rule():
    """section 3: unproven, a request gets one reply at most and no longer than it; a reply gets none, nor what must be sealed"""
    with Server() as server:
        a = Asker(server)
        v = vectors()
        sent, replies = {}, {}
        for name in wire.MESSAGES:
            if name in ("test", "confirm"):
                continue
            tx = os.urandom(12)
            data = v[name].replace(b"\x10" * 12, tx, 1)
            a.sock.send(a.to, data)
            sent[tx] = name, data
        for data, _, _ in a.sock.all(0.4):
            got, m = wire.decode(data)
            name, asked = sent.pop(m["tx"], (None, b""))
            check(name, "a second reply", got)
            check(len(data) <= len(asked), name, "got", len(data), "for", len(asked))
            replies[name] = got
        equal({"address_request": "address_report", "open": "address_report", "key_request": "key_report",
               "maintain": "maintained", "probe_request": "address_report", "relay_open": "address_report"}, replies)
        counted = server.counters()
        equal((16, 0), (counted["drop_unsealed"], counted["handler_error"]), "of the requests that must be sealed")
        # Requests so short that the report would be longer.
        a.sock.send(a.to, msgpack.packb([1, 1, bytes(12), b""]))
        a.sock.send(a.to, msgpack.packb([27, 1, bytes(12), b""]))
        a.sock.silent()


@server_case()
def cookies():
    """section 3: a proof counts for the address it was given to, in its epoch and the two beside it"""
    with Server() as server:
        a, b = Asker(server), Asker(server)
        b.proof = a.prove()

        def ask(proof, who=a):
            tx = who.first(proof=proof)[0]
            name, m = who.plain()
            equal(tx, m["tx"])
            return name

        equal("address_report", ask(None))
        equal("address_report", ask(bytes(20)))
        equal("address_report", ask(b.proof, b), "a proof of another's address")
        equal("opened", ask(b.proof))
        secret = wire.blake(32, b"cookie", server.secret)
        now = int(time.time()) // 600

        def made(epoch):
            head = struct.pack(">I", epoch)
            return head + wire.blake(16, wire.pack_addr(a.sock.addr) + head, secret)

        if time.time() % 600 < 598:
            equal(made(now), b.proof)
            equal(["address_report", "opened", "opened", "opened", "address_report"],
                  [ask(made(now + i)) for i in (-2, -1, 0, 1, 2)])
            counted = server.counters()
            equal((4, 4), (counted["address_cookie_bad"], counted["associated"]))


@server_case()
def proven_addresses():
    """section 3: a proven address counts, an unproven one only with the IP observed, a wrong one is left out"""
    with Server(config="expose_addresses = true") as server:
        a, other, far = Asker(server), Asker(server), Asker(server, "127.0.0.2")
        proof = other.ask("address_request")[1]["proof"]
        far_proof = far.ask("address_request")[1]["proof"]

        def pubs(*given):
            a.register(pubs=[wire.pack_addr(addr) + proof for addr, proof in given])
            found = a.ask("lookup", id=a.me.id)
            equal("found", found[0])
            return [wire.unpack_addr(x) for x in found[1]["pubs"]]

        equal([a.sock.addr, far.sock.addr], pubs((far.sock.addr, far_proof)))
        equal([a.sock.addr], pubs((far.sock.addr, proof)))
        equal([a.sock.addr, other.sock.addr], pubs((other.sock.addr, bytes(20))), "the same IP")
        equal([a.sock.addr, other.sock.addr, far.sock.addr], pubs((other.sock.addr, proof), (far.sock.addr, far_proof)))
        a.register(locals=[wire.pack_addr((ip, 9)) for ip in ("10.1.2.3", "8.8.8.8", "100.64.1.1", "192.168.0.1")])
        found = a.ask("lookup", id=a.me.id)[1]
        equal(["10.1.2.3", "100.64.1.1", "192.168.0.1"], [wire.unpack_addr(x)[0] for x in found["locals"]])
        equal([], far.ask("lookup", id=a.me.id)[1]["locals"], "to another public IP")
        entries = a.ask("list", app="conform/1", query=None, cursor=None, want_addr=True)[1]["entries"]
        equal([a.me.id, "", {}, found["pubs"], found["locals"]], entries[0])


@server_case()
def idempotence():
    """section 4: a repeated request does nothing twice, a selection by its tx"""
    with Server() as server:
        a, b = Asker(server), Asker(server)
        equal(a.register()["boot"], a.register()["boot"])
        room = a.room()
        equal((room["code"], room["match"]), (lambda m: (m["code"], m["match"]))(a.room()))
        tx = os.urandom(12)
        first, second = b.select(code=room["code"], tx=tx), b.select(code=room["code"], tx=tx)
        equal(first, second)
        a.next_matched()
        a.quiet()
        third = b.select(code=room["code"])
        equal(first[1]["match"], third[1]["match"])
        check(a.next_matched()["key"], "another tx is another selection")


@server_case()
def versions():
    """section 1: another version is refused with too_old where that is no longer; features are ignored"""
    with Server() as server:
        a = Asker(server)
        values = {"id": a.me.id, "match": bytes(16), "want_addr": False, "ticket": bytes(16), "queue": "q",
                  "noise": bytes(100), "via": 0, "after_s": 0, "others": [], "tag": 70000,
                  "hello": b"x", "channel": 1}
        values.update(a.person())
        asks = "address_request register unregister list lookup room_open select maintain leave enqueue cancel open "
        asks = (asks + "key_request outcome renew probe_request relay_open accept decline backfill watch").split()
        refused = len(wire.encode("refused", tx=bytes(12), code=1006, text="version 1"))
        for name, (number, fields) in wire.MESSAGES.items():
            if name in ("test", "confirm"):
                continue
            data = [a.send(name, v, **{f: values[f] for f in fields if f in values})[1] for v in (2, 0, 255, 258)]
            answers = 4 if name in asks and len(data[0]) >= refused else 0
            got = [a.sock.get() for _ in range(answers)] or a.sock.all(0.01)
            equal(answers, len(got), name)
            for data, _, _ in got:
                equal(("refused", 1006, 1), (lambda r: (r[0], r[1]["code"], data[2]))(wire.decode(data)), name)
        equal("address_report", a.ask("address_request", version=0xFFFFFF01)[0])
        a.sock.send(a.to, msgpack.packb([1, 2, "no tx", bytes(60)]))
        a.sock.silent()
        a.associate()
        tx = a.seal("unregister", 0xFFFFFF01)
        equal(("done", {"tx": tx}), a.reply())
        a.seal("unregister", 2)
        a.sock.silent()


@server_case()
def refusals():
    """section 4: each request is refused with the codes and for the causes that its row gives"""
    limits = "limits = { registrations = 3, rooms = 1, room_members = 2 }"
    with Server(config=limits) as server:
        a, b, c = Asker(server), Asker(server), Asker(server)
        for field, bad in (("name", b"\xa1\xff"), ("app", b"\xa1\xff")):
            person = a.person(**{field: "\x7f"})
            for what in ("register", "select"):
                a.link or a.associate()
                a.sealed(wire.encode(what, tx=os.urandom(12), **person).replace(b"\xa1\x7f", bad))
                a.refused(1010, a.reply())
        for props in ([1], 7):
            a.refused(1010, a.ask("register", **a.person(props=props)))
            a.refused(1010, a.select(props=props, target=bytes(16)))
        a.refused(1001, a.ask("room_open", ))
        a.register()
        wrong = bytes(16)
        room = a.room()
        a.refused(1010, a.ask("list", app="conform/1", query=[1], cursor=None, want_addr=False))
        a.refused(1001, a.ask("lookup", id=a.me.id))
        b.register()
        b.refused(1008, b.ask("room_open", ))
        b.refused(1010, b.select())
        b.refused(1010, b.select(target=b.me.id))
        b.refused(1002, b.select(target=wrong))
        b.refused(1007, b.select(target=a.me.id, app="other/1"))
        b.refused(1007, b.select(code=room["code"], app="other/1"))
        equal("selected", b.select(code=room["code"])[0])
        c.refused(1008, c.select(code=room["code"]))
        c.register()
        d = Asker(server)
        d.refused(1008, d.ask("register", **d.person()))
        for _ in range(10):
            d.refused(1002, d.select(code="babab-babab-babab"))
        d.refused(1008, d.select(code="babab-babab-babab"))
        time.sleep(2.1)
        d.refused(1002, d.select(code="babab-babab-babab"))
        d.refused(1008, d.select(code=room["code"]))


@server_case()
def lookup_unknown():
    """section 4: lookup of an unknown id is no_match, where addresses are shown"""
    with Server(config="expose_addresses = true") as server:
        a = Asker(server)
        a.refused(1002, a.ask("lookup", id=bytes(16)))


@server_case()
def pages():
    """section 4: who is there throughout is paged exactly once; entries, pages, queries and cursors keep their bounds"""
    with Server() as server:
        a = Asker(server)

        def register(i):
            a.me, a.link = wire.Identity(), None
            a.register(name="n%02d" % i + "x" * 29, props={"n": i, "odd": i % 2, "fill": "y" * 90})
            return a.me

        people = {register(i).id: i for i in range(24)}
        seen, cursor, pages = [], None, 0
        while True:
            name, m = a.ask("list", app="conform/1", query=None, cursor=cursor, want_addr=False)
            equal("page", name)
            entries = m["entries"]
            check(len(msgpack.packb(entries, use_bin_type=True)) <= 1100, "page too long")
            check(all(len(msgpack.packb(e, use_bin_type=True)) <= 256 for e in entries))
            seen += [e[0] for e in entries]
            pages, cursor = pages + 1, m["next"]
            if cursor is None:
                break
            equal(seen[-1], cursor, "the cursor is the last id")
            register(50 + pages)  # some come meanwhile, and go
            equal("done", a.ask("unregister", )[0])
            register(80 + pages)
        check(pages > 3)
        equal(sorted(people), sorted(i for i in seen if i in people))
        equal(len(set(seen)), len(seen), "none twice")
        odd, cursor = [], None
        while True:
            m = a.ask("list", app="conform/1", query={"odd": 1}, cursor=cursor, want_addr=False)[1]
            odd, cursor = odd + m["entries"], m["next"]
            if cursor is None:
                break
        check(odd and all(e[2]["odd"] == 1 for e in odd))
        equal(12, len([e for e in odd if e[0] in people]))
        m = a.ask("list", app="conform/1", query={"n": 7, "odd": 1}, cursor=None, want_addr=False)[1]
        equal([7], [e[2]["n"] for e in m["entries"]])
        m = a.ask("list", app="other/1", query=None, cursor=None, want_addr=False)[1]
        equal(([], None), (m["entries"], m["next"]))


@server_case()
def rooms():
    """section 4: a room is one match; who joins is paired with each, every pair with a key of its own"""
    with Server() as server:
        a, b, c = Asker(server), Asker(server), Asker(server)
        a.register(locals=[wire.pack_addr(("10.0.0.1", 7))])
        room = a.room()
        check(len(room["code"]) == 17 and room["code"].count("-") == 2, room["code"])
        typed = room["code"].upper().replace("-", " _.")
        m = b.select(code=typed)[1]
        equal((room["match"], 2), (m["match"], m["of_n"]))
        at_a, at_b = a.next_matched(), b.next_matched()
        equal([wire.pack_addr(("10.0.0.1", 7))], at_b["locals"], "the same public IP")
        m = c.select(code=room["code"])[1]
        equal((room["match"], 3), (m["match"], m["of_n"]))
        at_c = {x["peer_key"]: x for x in (c.next_matched(), c.next_matched())}
        equal({a.me.public, b.me.public}, set(at_c))
        of_a, of_b = a.next_matched(), b.next_matched()
        equal((c.me.public, c.me.public, 3), (of_a["peer_key"], of_b["peer_key"], of_a["of_n"]))
        equal((of_a["key"], of_b["key"]), (at_c[a.me.public]["key"], at_c[b.me.public]["key"]))
        equal(3, len({at_a["key"], of_a["key"], of_b["key"]}))
        # The host leaves: its room lives on with the others, and is no longer found by its id.
        equal("done", a.ask("leave", match=room["match"])[0])
        d = Asker(server)
        m = d.select(code=room["code"])[1]
        equal((room["match"], 3), (m["match"], m["of_n"]))
        equal({b.me.public, c.me.public}, {d.next_matched()["peer_key"], d.next_matched()["peer_key"]})


@server_case()
def selection_by_id():
    """section 4: an id selects the client, or the room it opened"""
    with Server() as server:
        a, b, c = Asker(server), Asker(server), Asker(server)
        a.register()
        first = b.select(target=a.me.id)[1]
        equal(first["match"], a.next_matched()["match"])
        equal(first["match"], b.next_matched()["match"])
        room = a.room()
        check(first["match"] != room["match"])
        equal(room["match"], c.select(target=a.me.id)[1]["match"])
        equal(room["match"], a.next_matched()["match"])


@server_case(2)
def rooms_after_restart():
    """section 4: after a restart the boot number is another, and host and members get code and match back"""
    with Server() as server:
        a, b, c = Asker(server), Asker(server), Asker(server)
        boot = a.register()["boot"]
        b.register()
        room = a.room()
        b.select(code=room["code"])
        port = server.addr[1]
        server.kill()
        with Server(listen="127.0.0.1:%d" % port, secret=server.secret):
            for x in (a, b, c):
                x.restart()
            a.sock.all(0.05), b.sock.all(0.05)
            check(a.ask("maintain", id=a.me.id)[1]["boot"] != boot)
            c.refused(1002, c.select(code=room["code"]))
            for x in (a, b):
                check(x.register()["boot"] != boot)
                again = x.ask("room_open", code=room["code"], match=room["match"])[1]
                equal((room["code"], room["match"]), (again["code"], again["match"]))
            equal((room["match"], 3), (lambda m: (m["match"], m["of_n"]))(c.select(code=room["code"])[1]))
            other = Asker(server)
            other.register(app="other/1")
            got = other.ask("room_open", code=room["code"], match=room["match"])
            check(got[1]["code"] != room["code"] and got[1]["match"] != room["match"], "taken from its room")


@server_case(3)
def matched_until_acknowledged():
    """section 4: matched is sent at 0, 20, 60, 140, 300, 620, 1260 ms, until acknowledged by its client"""
    with Server() as server:
        a, b = Asker(server), Asker(server)
        a.register()
        b.associate()
        b.seal("select", target=a.me.id, **b.person())
        due = [0, 0.02, 0.06, 0.14, 0.3, 0.62, 1.26]
        got = [a.sock.get(2) for _ in due]
        check(all(got), "not all came")
        fields = [m for x in got for name, m in a.open(x) if name == "matched"]
        equal(len(due), len(fields))
        equal(1, len({(x["tx"], x["key"], x["match"]) for x in fields}))
        on_schedule([x[2] for x in got], due, "matched")
        for i, at in enumerate(due):
            between(1000 * at, fields[i]["age_ms"] + 1, 1000 * at + 200, "age_ms", i)
        a.send("matched_ack", tx=fields[0]["tx"])
        b.seal("matched_ack", tx=fields[0]["tx"])
        a.seal("matched_ack", tx=os.urandom(12))
        time.sleep(0.05)
        equal(0, server.counters()["matched_acked"])
        a.seal("matched_ack", tx=fields[0]["tx"])
        time.sleep(0.05)
        equal(1, server.counters()["matched_acked"])
        a.sock.silent(1.6)


@server_case(14, long=True)
def matched_given_up():
    """section 4: matched is given up after ten"""
    with Server() as server:
        a, b = Asker(server), Asker(server)
        a.register()
        b.associate()
        b.seal("select", target=a.me.id, **b.person())
        got = a.sock.all(13)
        equal(10, len(got))
        between(10.1, got[-1][2] - got[0][2], 10.5)


@server_case()
def maintenance_modes():
    """section 4: maintenance is confirmed, or silent; without the role it is counted in silence"""
    for options, answers in ((("--maintenance-mode", "confirm"), True), (("--maintenance-mode", "silent"), False),
                             (("--roles", "address,matching"), False)):
        with Server(*options) as server:
            a = Asker(server)
            boot = a.register()["boot"]
            for who in (a.me.id, bytes(16)):
                for tx in (a.send("maintain", id=who)[0], a.seal("maintain", id=who)):
                    got = a.reply(0.5 if answers else 0.15)
                    equal(("maintained", {"tx": tx, "boot": boot}) if answers else None, got, options)
            equal(4, server.counters()["maintained"])


@server_case(3)
def queues():
    """section 4: tickets wait in a queue, are matched with a seat, cancelled, queued once, and refused"""
    with Server(config="limits = { tickets_each = 2 }") as server:
        a, b = Asker(server), Asker(server)

        def enqueue(x, ticket, queue="duel", **more):
            return x.ask("enqueue", **{"ticket": ticket, "queue": queue, "props": None, **more})

        mine, yours = os.urandom(16), os.urandom(16)
        a.refused(1001, enqueue(a, mine))
        a.register(), b.register()
        a.refused(1010, enqueue(a, mine, props=[1]))
        a.refused(1010, enqueue(a, mine, queue="*"))
        for _ in range(2):
            equal(("queued", mine), (lambda r: (r[0], r[1]["ticket"]))(enqueue(a, mine)))
        b.refused(1005, enqueue(b, mine))
        b.refused(1005, b.ask("cancel", ticket=mine))
        for _ in range(2):
            equal("done", a.ask("cancel", ticket=mine)[0])
        mine = os.urandom(16)
        equal("queued", enqueue(a, mine)[0])
        equal("queued", enqueue(a, os.urandom(16), "other")[0])
        a.refused(1008, enqueue(a, os.urandom(16)))
        equal("queued", enqueue(b, yours)[0])
        at_a, at_b = a.next_matched(2), b.next_matched(2)
        equal((at_a["match"], at_a["key"], 2), (at_b["match"], at_b["key"], at_b["of_n"]))
        equal((b.me.public, a.me.public), (at_a["peer_key"], at_b["peer_key"]))
        equal((mine, yours), (at_a["seat"][0], at_b["seat"][0]))
        equal((at_a["seat"][1], at_a["seat"][2]), (at_b["seat"][2], at_b["seat"][1]), "team, peer's team")


@server_case(3)
def proposals():
    """section 4: parties wait to be whole; a match is proposed, told until acknowledged, and made once all accept"""
    with Server("--policy", "ask=" + os.path.join(HERE, "../host/ask.lua"), "--policy", "three=lobby") as server:
        a, b, c = Asker(server), Asker(server), Asker(server)
        tickets = {x: os.urandom(16) for x in (a, b, c)}

        def enqueue(x, **more):
            return x.ask("enqueue", **{"ticket": tickets[x], "queue": "ask", "props": None, **more})

        for x in (a, b, c):
            x.register()
        a.refused(1010, enqueue(a, party=bytes(16)))
        a.refused(1001, enqueue(a, ticket=os.urandom(16), party=bytes(16), party_size=3))
        for x in (a, b):
            equal("queued", enqueue(x)[0])
        at_a, at_b = a.next_told("proposed"), b.next_told("proposed")
        equal((at_a["match"], 2, tickets[a]), (at_b["match"], at_b["players"], at_a["ticket"]))
        check(4000 < at_a["accept_ms"] <= 5000, at_a)
        b.refused(1005, b.ask("accept", ticket=tickets[a], match=at_a["match"]))
        equal("done", b.ask("decline", ticket=tickets[b], match=os.urandom(16))[0], "of no match")
        for _ in range(2):
            equal("done", a.ask("accept", ticket=tickets[a], match=at_a["match"])[0])
        equal("done", b.ask("decline", ticket=tickets[b], match=at_b["match"])[0])
        ended, waiting = b.next_told("ended"), a.next_told("waiting")
        equal((1009, tickets[b]), (ended["code"], ended["ticket"]))
        equal((1, 1, tickets[a]), (waiting["present"], waiting["of"], waiting["ticket"]))
        equal("queued", enqueue(c)[0])
        for x in (a, c):
            equal("done", x.ask("accept", ticket=tickets[x], match=x.next_told("proposed")["match"])[0])
        at_a, at_c = a.next_matched(), c.next_matched()
        equal((at_a["match"], tickets[a], tickets[c]), (at_c["match"], at_a["seat"][0], at_c["seat"][0]))
        # A party of one queue is told of each change.
        party = {"party": os.urandom(16), "party_size": 3, "queue": "three"}
        for x in (a, b):
            tickets[x] = os.urandom(16)
            equal("queued", enqueue(x, **party)[0])
        equal((1, 3), (lambda m: (m["present"], m["of"]))(a.next_told("waiting")))
        equal(2, a.next_told("waiting")["present"])
        equal("done", b.ask("cancel", ticket=tickets[b])[0])
        equal(1, a.next_told("waiting")["present"])
        tickets[c] = os.urandom(16)
        c.refused(1010, enqueue(c, **{**party, "party_size": 2}))


@server_case()
def kinds_of_nats():
    """section 4: what clients say of their NATs, in register or select, both are told with a match"""
    with Server() as server:
        a, b, c = Asker(server), Asker(server), Asker(server)
        a.register(nat=1 | 4 << 3), c.register()
        for selector, target, nat in ((b, a, 6 | 7 << 3 | 3 << 6), (b, c, 0x3FFF), (c, a, None)):
            equal("selected", selector.select(target=target.me.id, nat=nat)[0])
            at_target, at_selector = target.next_matched(), selector.next_matched()
            theirs = 1 | 4 << 3 if target is a else None
            equal((theirs, nat), (at_target["own_nat"], at_target["peer_nat"]))
            equal((nat, theirs), (at_selector["own_nat"], at_selector["peer_nat"]))
        for nat in (0, 0x4000, "1"):
            a.seal("register", **a.person(nat=nat))
        a.quiet()
        equal(3, server.counters()["drop_field"])


@server_case()
def outcomes():
    """section 4: a client's report of a match is believed about its own end, and answered whether it is or not"""
    with Server() as server:
        a, b, c = Asker(server), Asker(server), Asker(server)
        a.register(), b.register(), c.register()
        match = b.ask("select", target=a.me.id, **b.person())[1]["match"]
        a.next_matched(), b.next_matched()

        def tell(x, peer, number=1, of=None, **changes):
            report = [number, 3, 4, 0, 0, None, None, None, 100000, None, 1,
                      [[b"\xcb\x00\x71\x07\x9c\x40", 4, 2, 1, 25, None]]]
            for at, value in changes.items():
                report[int(at[1:])] = value
            equal("done", x.ask("outcome", match=of or match, peer=peer.me.id, report=report)[0])

        tell(a, b), tell(b, a)
        tell(a, b, number=2, _1=2, _2=1, _3=2, _4=4, _5=200, _6=400, _7=400, _9=1 | 4 << 3 | 1 << 6 | 2 << 12, _10=0, _11=[])
        tell(c, a), tell(a, c), tell(a, a), tell(a, b, of=os.urandom(16))
        for wrong in ({"_1": 0}, {"_8": 36000001}, {"_11": [[None] * 5]}, {"_11": None}, {"_0": -1}, {"_9": [1]}):
            tell(a, b, **wrong)
        equal((3, 10), (lambda x: (x["outcome_received"], x["outcome_refused"]))(server.counters()))
def probes():
    """section 4: who has proven its address is told of the server's others, and answered from them"""
    with Server("--listen", "127.0.0.2:0") as server:
        a = Asker(server)
        equal("address_report", a.ask("probe_request", proof=None, via=1, after_s=0)[0])
        proof = a.prove()
        name, m = a.ask("probe_request", proof=proof, via=0, after_s=0)
        others = [wire.unpack_addr(x) for x in m["others"]]
        equal(("probe_report", 0, 1, "127.0.0.2"), (name, m["via"], len(others), others[0][0]))
        tx, asked = a.send("probe_request", proof=proof, via=1, after_s=0)
        data, came_from, _ = a.sock.get()
        equal((("probe_report", {"tx": tx, "via": 1, "others": []}), others[0]), (wire.decode(data), came_from))
        check(len(data) <= len(asked))
        equal(m["others"], a.ask("probe_request", proof=proof, via=2, after_s=0)[1]["others"])
        tx, _ = a.send("probe_request", proof=proof, via=1, after_s=1)
        a.sock.silent(0.7)
        data, came_from, _ = a.sock.get()
        equal((("probe_report", {"tx": tx, "via": 0, "others": []}), server.addr), (wire.decode(data), came_from))


@server_case()
def stun():
    """section 3a: a STUN client is told its address; what it asks beyond that is named, and nothing else answered"""
    with Server() as server:
        s = Sock()
        cookie, tx = bytes.fromhex("2112a442"), os.urandom(12)

        def ask(attributes=b"", kind=b"\0\1"):
            s.send(server.addr, kind + struct.pack(">H", len(attributes)) + cookie + tx + attributes)

        for attributes in (b"", b"\x80\x22\0\3abc\0", b"\0\6\0\1u\0\0\0"):
            ask(attributes)
            data, *_ = s.get()
            equal(b"\1\1\0\x0c" + cookie + tx + b"\0\x20\0\x08\0\1", data[:26])
            equal(s.addr, wire.unpack_addr(wire.mask(data[28:32] + data[26:28], tx)))
        s.send(server.addr, b"\0\1\0\0" + bytes(4) + tx)
        data, *_ = s.get()
        equal(b"\1\1\0\x0c" + bytes(4) + tx + b"\0\1\0\x08\0\1", data[:26])
        equal(s.addr, wire.unpack_addr(data[28:32] + data[26:28]))
        ask(b"\0\3\0\4\0\0\0\6")
        data, *_ = s.get()
        equal(b"\1\x11\0\x10" + cookie + tx + b"\0\x09\0\4\0\0\4\x14\0\x0a\0\2\0\3\0\0", data)
        ask(b"".join(bytes([0x40, i, 0, 0]) for i in range(7)))
        ask(kind=b"\0\x11")
        ask(b"\x80\x22\0\x10")
        s.silent(0.2)
        equal((5, 3), tuple(server.counters()[k] for k in ("stun_answered", "drop_stun")))


@server_case()
def rubbish():
    """section 1: what is malformed is dropped without an answer, and counted by its cause"""
    with Server() as server:
        s = Sock()
        request = lambda *fields: msgpack.packb([1, 1, *fields], use_bin_type=True)  # noqa: E731
        tx, pad = bytes(12), bytes(116)
        deep = msgpack.packb([1, 1, tx] + [[[[[[[[[1]]]]]]]]])
        cases = {
            "drop_stun": [bytes.fromhex("001100002112a442") + tx, b"\x03abc"],
            "drop_frame": [b"\xc1" + bytes(27)],
            "drop_short": [b"\x91\x01", b"\x90"],
            "drop_msgpack": [b"\x80" + pad, b"junk" + pad, request(tx, pad) + b"\x00", request(tx, pad)[:-1], deep,
                             bytes.fromhex("ddffffffff0101"), b"\x93\x01\x01\xd4\x01\x01", request(tx, {True: 1}),
                             b"\x94\x01\x01\xc0\x82\x01\x01\x01\x02", request(tx, {i: 0 for i in range(33)}),
                             msgpack.packb([0, 1, tx, pad]), msgpack.packb([128, 1, tx, pad]),
                             msgpack.packb([1, -1, tx, pad])],
            "drop_unknown": [msgpack.packb([100, 1, tx, pad]), msgpack.packb([63, 1, tx])],
            "drop_field": [request(tx), request(tx, pad, 0), request(bytes(11), pad), request("x" * 12, pad),
                           request(tx, "y" * 116), msgpack.packb([16, 1, tx, bytes(15)], use_bin_type=True)],
            "udp_rx_truncated": [request(tx, bytes(1300))],
        }
        for group in cases.values():
            for data in group:
                s.send(server.addr, data)
        s.silent(0.2)
        counted = server.counters()
        equal({k: len(v) for k, v in cases.items()}, {k: counted[k] for k in cases})
        # In any encoding of integers, and with as many bytes as a datagram has.
        s.send(server.addr, b"\xdc\x00\x04\xcd\x00\x01\xd3\0\0\0\0\0\0\0\x01" + msgpack.packb(tx, use_bin_type=True)
               + msgpack.packb(bytes(1166), use_bin_type=True))
        check(s.get(), "no answer to a long request")


@server_case()
def tokens():
    """section 13: a token counts when a key known signed it, in its time, for its client and app; its vector is as written"""
    with open(os.path.join(HERE, "../../docs/PROTOCOL.md"), encoding="utf-8") as f:
        text = f.read()
    seed, now = bytes(range(32)), int(time.time())
    made = wire.token(seed, {"exp": 2000000000, "sub": "ann"})
    for said in (wire.token_key(seed), made):
        check("`%s`" % wire.to_text(said) in text, wire.to_text(said))
    seeds = [os.urandom(32) for _ in range(2)]
    keys = ", ".join('"%s"' % wire.to_text(wire.token_key(x)) for x in seeds)
    with Server(config="token_keys = { %s }, require_token = true" % keys) as server:
        a = Asker(server)

        def shows(claims, seed=seeds[0], spoil=None):
            token = bytearray(wire.token(seed, claims))
            if spoil is not None:
                token[spoil] ^= 1
            got = a.ask("register", **a.person(token=bytes(token)))
            if got[0] != "registered":
                a.refused(1001, got)
            return got[0] == "registered"

        a.refused(1001, a.ask("register", **a.person()))
        a.refused(1001, a.select(target=bytes(16)))
        good = {"exp": now + 60, "nbf": now - 1, "sub": "ann", "id": a.me.id.hex(), "app": "conform/1", "elo": 1500}
        equal([True, True, True], [shows(good), shows(good, seeds[1]), shows({"exp": now + 60})])
        for bad in ({"exp": now - 1}, {"nbf": now + 60}, {"id": bytes(16).hex()}, {"id": a.me.id.hex().upper()},
                    {"app": "other/1"}, {"exp": None}, {"exp": "2000000000"}, {"sub": 7}):
            check(not shows({**good, **bad}), bad)
        check(not shows({"sub": "ann"}), "without an end")
        check(not shows(good, os.urandom(32)), "signed by a stranger")
        equal([False] * 3, [shows(good, spoil=at) for at in (-1, -64, 5)], "changed")
        a.refused(1002, a.select(target=bytes(16), token=wire.token(seeds[0], good)))
