# SPDX-License-Identifier: MIT
"""Bodkin's bytes, written from docs/PROTOCOL.md alone: messages, addresses, keys, probes and frames.

Nothing here is taken from the code, so that a change of the code which the document does not tell breaks a spec.
"""

import hashlib
import ipaddress
import os
import struct

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

VERSION = 1
MAX_DATAGRAM, MAX_DATA, MIN_REQUEST = 1200, 1120, 72
MAGIC = bytes.fromhex("2112a442")

# Section 4: number and fields.
MESSAGES = {
    "address_request": (1, "tx pad"),
    "address_report": (2, "tx xaddr proof"),
    "register": (3, "tx proof key secret pubs locals app name props pad"),
    "registered": (4, "tx xaddr lifetime_s boot"),
    "unregister": (5, "tx id secret"),
    "list": (6, "tx proof app query cursor want_addr pad"),
    "page": (7, "tx entries next"),
    "lookup": (8, "tx proof id pad"),
    "found": (9, "tx id pubs locals"),
    "room_open": (10, "tx proof id secret code match pad"),
    "room_opened": (11, "tx code match"),
    "select": (12, "tx proof key secret target code pubs locals app name props pad"),
    "selected": (13, "tx match of_n"),
    "matched": (14, "tx match key peer name props pubs locals of_n start_in_ms age_ms data seat"),
    "matched_ack": (15, "tx"),
    "maintain": (16, "tx id"),
    "maintained": (17, "tx boot"),
    "refused": (18, "tx code text"),
    "done": (19, "tx"),
    "leave": (20, "tx id secret match"),
    "enqueue": (21, "tx proof id secret ticket queue props pad"),
    "queued": (22, "tx ticket"),
    "cancel": (23, "tx id secret ticket"),
    "test": (32, "match role epoch rx_index nonce mac"),
    "confirm": (33, "match role epoch rx_index nonce origin mac"),
}
MESSAGES = {name: (number, fields.split()) for name, (number, fields) in MESSAGES.items()}
NAMES = {number: name for name, (number, _) in MESSAGES.items()}
DATA, SELECT, SELECT_ACK, CONSENT, CONSENT_ANSWER, CLOSE = range(6)


class Bad(Exception):
    """Bytes that are not what the document says."""


def encode(name, version=VERSION, /, **values):
    """A message; a request that has a pad is padded to 72 bytes."""
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


class Identity:
    def __init__(self):
        self.public = X25519PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.id = blake(16, self.public)
        self.secret = os.urandom(16)


class Keys:
    """What both peers of a match derive (section 5), and what they make with it (6 and 7)."""

    def __init__(self, match, key, self_id, peer_id):
        self.match = match
        self.role = 0 if self_id < peer_id else 1
        ids = min(self_id, peer_id) + max(self_id, peer_id)
        self.probe, self.frame = (
            [blake(32, b"bodkin " + what + b" 1" + bytes([r]) + match + ids, key) for r in (0, 1)]
            for what in (b"probe", b"frame")
        )

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

    def seal(self, index, kind, counter, text=b""):
        head = b"\xc1" + struct.pack(">IQ", index, kind << 56 | counter)
        return head + ChaCha20Poly1305(self.frame[self.role]).encrypt(bytes(4) + head[5:], text, head)

    def open_frame(self, data):
        """(index, kind, counter, plaintext) of an authentic frame from the peer."""
        if len(data) < 29 or data[0] != 0xC1:
            raise Bad("not a frame")
        index, x = struct.unpack(">IQ", data[1:13])
        try:
            text = ChaCha20Poly1305(self.frame[1 - self.role]).decrypt(bytes(4) + data[5:13], data[13:], data[:13])
        except InvalidTag as e:
            raise Bad("not authentic") from e
        return index, x >> 56, x & (1 << 56) - 1, text


class Window:
    """Each counter once, and none 1,024 or more below the highest."""

    def __init__(self):
        self.highest, self.seen = -1, set()

    def accept(self, counter):
        """None where it must be dropped, else whether it is the newest."""
        if counter <= self.highest - 1024 or counter in self.seen:
            return None
        newest = counter > self.highest
        self.highest = max(self.highest, counter)
        self.seen.add(counter)
        if len(self.seen) > 4096:
            self.seen = {c for c in self.seen if c > self.highest - 1024}
        return newest
