# SPDX-License-Identifier: MIT
"""Bodkin's bytes, written from docs/PROTOCOL.md alone: messages, addresses, keys, probes and frames.

Nothing here is taken from the code, so that a change of the code which the document does not tell breaks a spec.
"""

import base64
import hashlib
import ipaddress
import os
import struct

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import noise

VERSION = 1
MAX_DATAGRAM, MAX_DATA, MIN_REQUEST = 1200, 1120, 128
MAX_CARRIED = 1140 - 96 - 4  # messages inside `open`: its noise less keys, tags and the index
MAGIC = bytes.fromhex("2112a442")

# Section 4: number and fields; * marks what must come in an association.
MESSAGES = {
    "address_request": (1, "tx pad"),
    "address_report": (2, "tx xaddr proof"),
    "register": (3, "* tx ephemeral pubs locals app name props token rtt_ms nat"),
    "registered": (4, "* tx xaddr lifetime_s boot"),
    "unregister": (5, "* tx"),
    "list": (6, "* tx app query cursor want_addr"),
    "page": (7, "* tx entries next"),
    "lookup": (8, "* tx id"),
    "found": (9, "* tx id pubs locals"),
    "room_open": (10, "* tx code match"),
    "room_opened": (11, "* tx code match"),
    "select": (12, "* tx ephemeral target code pubs locals app name props token rtt_ms nat"),
    "selected": (13, "* tx match of_n"),
    "matched": (14, "* tx match key peer_key peer_ephemeral own name props pubs locals of_n start_in_ms age_ms data "
                    "seat relays ticket again commit_us own_nat peer_nat"),
    "matched_ack": (15, "* tx"),
    "maintain": (16, "tx id"),
    "maintained": (17, "tx boot"),
    "refused": (18, "tx code text"),
    "done": (19, "* tx"),
    "leave": (20, "* tx match"),
    "enqueue": (21, "* tx ticket queue props party party_size"),
    "queued": (22, "* tx ticket"),
    "cancel": (23, "* tx ticket"),
    "open": (24, "tx proof noise"),
    "opened": (25, "tx noise"),
    "lost": (26, "tx"),
    "key_request": (27, "tx pad"),
    "key_report": (28, "tx keys"),
    "relay_open": (30, "tx proof ticket tag hello pad"),
    "relay_opened": (31, "tx channel hello lasts_s"),
    "outcome": (29, "* tx match peer report"),
    "proposed": (43, "* tx ticket match accept_ms players"),
    "accept": (44, "* tx ticket match"),
    "decline": (45, "* tx ticket match"),
    "waiting": (46, "* tx ticket present of text"),
    "ended": (47, "* tx ticket code text"),
    "backfill": (48, "* tx match seats props"),
    "room_host": (49, "* tx match host code"),
    "watch": (50, "* tx watch app query on"),
    "changed": (51, "* tx watch"),
    "renew": (42, "* tx match peer epoch pubs rtt_ms"),
    "probe_request": (40, "tx proof via after_s pad"),
    "probe_report": (41, "tx via others"),
    "test": (32, "match role epoch rx_index nonce mac"),
    "confirm": (33, "match role epoch rx_index nonce origin mac"),
}
SEALED = {name for name, (_, fields) in MESSAGES.items() if fields[0] == "*"}
MESSAGES = {name: (number, fields.strip("* ").split()) for name, (number, fields) in MESSAGES.items()}
NAMES = {number: name for name, (number, _) in MESSAGES.items()}
DATA, SELECT, SELECT_ACK, CONSENT, CONSENT_ANSWER, CLOSE, REKEY, REKEY_ANSWER = range(8)
MESSAGE, CHALLENGE, CHALLENGE_ANSWER = 16, 17, 18
PHASE = 128  # the bit of a frame's kind


class Bad(Exception):
    """Bytes that are not what the document says."""


def encode(name, version=VERSION, /, **values):
    """A message; a request that has a pad is padded to 128 bytes."""
    number, fields = MESSAGES[name]
    unknown = set(values) - set(fields)
    assert not unknown, unknown

    def pack(pad):
        items = [pad if f == "pad" else values.get(f) for f in fields]
        return msgpack.packb([number, version] + items, use_bin_type=True)

    out = pack(b"")
    if "pad" in fields and len(out) < MIN_REQUEST:
        out = pack(bytes(MIN_REQUEST - len(out)))
    return out


def decode(data):
    """(name, {field: value}) of a datagram, or Bad."""
    if len(data) > MAX_DATAGRAM or not data or not (0x90 <= data[0] <= 0x9F or data[0] in (0xDC, 0xDD)):
        raise Bad("not a message")
    try:
        items = msgpack.unpackb(data, raw=False, strict_map_key=False)
    except Exception as e:
        raise Bad(str(e)) from e
    if len(items) < 2 or items[0] not in NAMES or not isinstance(items[1], int):
        raise Bad("unknown type %r" % (items[:2],))
    name = NAMES[items[0]]
    if items[1] & 255 != VERSION:
        raise Bad("version %d of %s" % (items[1] & 255, name))
    fields = MESSAGES[name][1]
    if len(items) != 2 + len(fields):
        raise Bad("%s has %d fields" % (name, len(items) - 2))
    return name, dict(zip(fields, items[2:]))


# Section 2: addresses are (ip text, port) here, packed on the wire.


def pack_addr(addr):
    ip = ipaddress.ip_address(addr[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).packed + struct.pack(">H", addr[1])


def unpack_addr(data):
    if len(data) not in (6, 18):
        raise Bad("an address of %d bytes" % len(data))
    return str(ipaddress.ip_address(data[:-2])), struct.unpack(">H", data[-2:])[0]


def mask(packed, tx):
    """Its own inverse."""
    pad = (MAGIC + tx)[: len(packed) - 2] + MAGIC[:2]
    return bytes(a ^ b for a, b in zip(packed, pad))


def blake(size, data, key=b""):
    return hashlib.blake2b(data, digest_size=size, key=key).digest()


# Section 13: keys and tokens, as text.


def from_text(text):
    """Of base64url without padding, only the one text that stands for these bytes."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if to_text(data) != text:
        raise Bad("not base64url: " + text)
    return data


def to_text(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def keys_of_url(url):
    keys = [from_text(text) for text in url.partition("#")[2].split(",")]
    if not 1 <= len(keys) <= 2 or any(len(key) != 32 for key in keys):
        raise Bad("no keys in " + url)
    return keys


def token(seed, claims):
    """The bytes of a token that this Ed25519 seed signs."""
    packed = msgpack.packb(claims, use_bin_type=True)
    return packed + Ed25519PrivateKey.from_private_bytes(seed).sign(b"bodkin token 1\0" + packed)


def token_key(seed):
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


class Identity:
    """A key pair, and the id that is its public half's."""

    def __init__(self):
        self.secret = os.urandom(32)
        self.public = noise.public_of(self.secret)
        self.id = noise.key_id(self.public)


def split(data):
    """The messages that stand in `data` one after the other, each as its bytes."""
    unpacker, out, at = msgpack.Unpacker(strict_map_key=False), [], 0
    unpacker.feed(data)
    while at < len(data):
        try:
            unpacker.skip()
        except Exception as e:
            raise Bad("no messages: %s" % e) from e
        out.append(data[at : unpacker.tell()])
        at = unpacker.tell()
    return out


# Section 7: frames.


def seal_frame(key, index, kind, counter, text=b""):
    head = b"\xc1" + struct.pack(">IQ", index, kind << 56 | counter)
    return head + ChaCha20Poly1305(key).encrypt(bytes(4) + head[5:], text, head)


def frame_head(data):
    """(index, kind with its phase, counter), not yet known to be anybody's."""
    if len(data) < 29 or data[0] != 0xC1:
        raise Bad("not a frame")
    index, x = struct.unpack(">IQ", data[1:13])
    return index, x >> 56, x & (1 << 56) - 1


def open_frame(key, data):
    try:
        return ChaCha20Poly1305(key).decrypt(bytes(4) + data[5:13], data[13:], data[:13])
    except InvalidTag as e:
        raise Bad("not authentic") from e


class Window:
    """Each counter once, and none `size` or more below the highest."""

    def __init__(self, size=1024):
        self.size, self.highest, self.seen = size, -1, set()

    def accept(self, counter):
        """None where it must be dropped, else whether it is the newest."""
        if counter <= self.highest - self.size or counter in self.seen:
            return None
        newest = counter > self.highest
        self.highest = max(self.highest, counter)
        self.seen.add(counter)
        if len(self.seen) > 4 * self.size:
            self.seen = {c for c in self.seen if c > self.highest - self.size}
        return newest


# Section 4, Associations. A handshake's message carries an index and messages.


def open_association(own, server_key, index, messages=b""):
    """A client's side: (handshake, first message)."""
    hs = noise.Handshake("IK", True, b"bodkin server 1", s=own, rs=server_key)
    return hs, hs.write(index.to_bytes(4, "big") + messages)


def take_association(secret, first):
    """A server's side: (handshake, the client's index, its messages); noise.Failed where it is to another key."""
    hs = noise.Handshake("IK", False, b"bodkin server 1", s=secret)
    payload = hs.read(first)
    return hs, int.from_bytes(payload[:4], "big"), payload[4:]


class Link:
    """An association as one of its ends has it, once both messages of the handshake are there."""

    def __init__(self, handshake, index, peer_index):
        keys = handshake.split()
        self.sends, self.reads = keys if handshake.initiator else keys[::-1]
        self.index, self.peer_index, self.counter, self.window = index, peer_index, 0, Window(64)

    def write(self, kind, text, counter=None):
        if counter is None:
            counter, self.counter = self.counter, self.counter + 1
        return seal_frame(self.sends, self.peer_index, kind, counter, text)

    def read(self, data):
        """(kind, plaintext) of a frame of the other end's that is new."""
        index, kind, counter = frame_head(data)
        if index != self.index:
            raise Bad("of another association")
        text = open_frame(self.reads, data)
        if self.window.accept(counter) is None:
            raise Bad("came before")
        return kind, text

    def sent(self, tx):
        """Whether a `lost` is about a frame of ours."""
        index, x = struct.unpack(">IQ", tx)
        return index == self.peer_index and x & (1 << 56) - 1 < self.counter


class Probes:
    """What authenticates tests and confirms (sections 5 and 6)."""

    def __init__(self, match, key, self_id, peer_id):
        self.match = match
        self.role = 0 if self_id < peer_id else 1
        self.ids = min(self_id, peer_id) + max(self_id, peer_id)
        self.probe = [blake(32, b"bodkin probe 1" + bytes([r]) + match + self.ids, key) for r in (0, 1)]

    def _sign(self, name, values):
        out = encode(name, match=self.match, role=self.role, mac=bytes(16), **values)[:-16]
        return out + blake(16, out, self.probe[self.role])

    def test(self, rx_index, nonce, epoch=0):
        return self._sign("test", dict(epoch=epoch, rx_index=rx_index, nonce=nonce))

    def confirm(self, rx_index, nonce, origin, epoch=0):
        origin = mask(pack_addr(origin), nonce + self.match[:4])
        return self._sign("confirm", dict(epoch=epoch, rx_index=rx_index, nonce=nonce, origin=origin))

    def open_probe(self, data):
        """("test" or "confirm", fields) of an authentic one from the peer, its origin unmasked."""
        name, m = decode(data)
        if name not in ("test", "confirm") or m["match"] != self.match or m["role"] != 1 - self.role:
            raise Bad("not the peer's")
        if blake(16, data[:-16], self.probe[1 - self.role]) != m["mac"]:
            raise Bad("not authentic")
        if name == "confirm":
            m["origin"] = unpack_addr(mask(m["origin"], m["nonce"] + self.match[:4]))
        return name, m


class Keys(Probes):
    """What both peers of a match derive (section 5), and how they replace it (7, Rekeying). `own` and `ephemeral` are
    secrets, `peer` and `peer_ephemeral` public keys."""

    def __init__(self, match, key, own, ephemeral, peer, peer_ephemeral):
        super().__init__(match, key, noise.key_id(noise.public_of(own)), noise.key_id(peer))
        self.key, self.own, self.peer = key, own, peer
        hs = noise.Handshake("KKeepsk0", self.role == 0, b"bodkin peer 1" + match + self.ids, s=own, e=ephemeral,
                             rs=peer, re=peer_ephemeral, psk=key)
        hs.write()
        self.h, self.frames, self.phase = hs.h, {0: self._ours(hs.split())}, 0
        self.pending = self.answered = None

    def _ours(self, keys):
        """(what we send with, what the peer does)"""
        return keys[self.role], keys[1 - self.role]

    def _rekeying(self):
        return noise.Handshake("KKpsk0", self.role == 0, self.h, s=self.own, rs=self.peer, psk=self.key)

    def rekey(self):
        """Role 0: the message, to be sent until it is answered."""
        self.pending = self._rekeying()
        return self.pending.write()

    def rekeyed(self, answer):
        """Role 0 has the answer, and sends with the new keys."""
        self.pending.read(answer)
        self._next(self.pending)
        self.pending, self.phase = None, 1 - self.phase

    def answer(self, message):
        """Role 1: the answer, the same to the same. The new keys are heard; once used by the peer, they are ours."""
        if self.answered and self.answered[0] == message:
            return self.answered[1]
        if 1 - self.phase in self.frames:
            raise Bad("another one is under way")
        hs = self._rekeying()
        hs.read(message)
        self.answered = message, hs.write()
        self._next(hs)
        return self.answered[1]

    def _next(self, hs):
        self.h, self.frames[1 - self.phase] = hs.h, self._ours(hs.split())

    def seal(self, index, kind, counter, text=b"", phase=None):
        phase = self.phase if phase is None else phase
        return seal_frame(self.frames[phase][0], index, kind | PHASE * phase, counter, text)

    def open_frame(self, data):
        """(index, kind, counter, plaintext, phase) of an authentic frame from the peer."""
        index, kind, counter = frame_head(data)
        phase = kind // PHASE
        if phase not in self.frames:
            raise Bad("of a phase that has no key")
        return index, kind % PHASE, counter, open_frame(self.frames[phase][1], data), phase
