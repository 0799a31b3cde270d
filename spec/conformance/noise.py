# SPDX-License-Identifier: MIT
"""Noise handshakes (noiseprotocol.org, revision 34), written from that specification and from docs/PROTOCOL.md.

    hs = Handshake("IK", True, prologue, s=my_static, e=my_ephemeral, rs=their_public)
    hs.write(payload) / hs.read(message), in turn; then initiator_key, responder_key = hs.split(); hs.h binds channels.

Keys are 32 bytes: secrets for s and e, public ones for rs and re. Only the primitives are another's. Nothing here is
taken from the code. Alone, it checks itself: `noise.py [VECTORS]` runs published vectors, `noise.py --document` writes
the vectors of docs/PROTOCOL.md, which a spec compares with what stands there.
"""

import hashlib
import hmac
import os
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

# Sections 7.5 and 9 as they print them: the pre-messages, then the messages, each with its direction. KKeepsk0 is of
# docs/PROTOCOL.md.
PATTERNS = {
    "IK": ("<- s", "-> e, es, s, ss", "<- e, ee, se"),
    "KKpsk0": ("-> s", "<- s", "-> psk, e, es, ss", "<- e, ee, se"),
    "KKeepsk0": ("-> e, s", "<- e, s", "-> psk, ee, es, se, ss"),
}
PREMESSAGES = {"IK": 1, "KKpsk0": 2, "KKeepsk0": 2}
TAG = 16


class Failed(Exception):
    """A handshake that is over: not authentic, a key of low order, or not its turn."""


def public_of(secret):
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def key_id(public):
    """A client's id."""
    return hashlib.blake2b(public, digest_size=16).digest()


def dh(secret, public):
    try:
        return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as e:  # an all-zero result
        raise Failed("a key of low order") from e


def hkdf(chaining_key, material, outputs):
    """Section 4.3."""
    temp, out = hmac.digest(chaining_key, material, "sha512"), [b""]
    for i in range(outputs):
        out.append(hmac.digest(temp, out[-1] + bytes([i + 1]), "sha512"))
    return out[1:]


class Cipher:
    """A key and its counter (5.1); without a key it passes everything through."""

    def __init__(self, key=None):
        self.key, self.n = key, 0

    def nonce(self):
        self.n += 1
        return bytes(4) + (self.n - 1).to_bytes(8, "little")

    def encrypt(self, ad, text):
        return ChaCha20Poly1305(self.key).encrypt(self.nonce(), text, ad) if self.key else text

    def decrypt(self, ad, data):
        if not self.key:
            return data
        try:
            return ChaCha20Poly1305(self.key).decrypt(self.nonce(), data, ad)
        except InvalidTag as e:
            raise Failed("not authentic") from e


class Handshake:
    """One side of a handshake; after Failed it is of no use any more."""

    def __init__(self, pattern, initiator, prologue=b"", s=None, e=None, rs=None, re=None, psk=None):
        lines = [(line[:2], line[3:].split(", ")) for line in PATTERNS[pattern]]
        self.pattern, self.initiator, self.psk = pattern, initiator, psk
        self.s, self.e, self.rs, self.re = s, e, rs, re
        self.messages = lines[PREMESSAGES[pattern] :]
        self.cipher, self.over = Cipher(), False
        name = b"Noise_%s_25519_ChaChaPoly_SHA512" % pattern.encode()
        self.h = name.ljust(64, b"\0") if len(name) <= 64 else hashlib.sha512(name).digest()
        self.ck = self.h
        self.mix_hash(prologue)
        for direction, tokens in lines[: PREMESSAGES[pattern]]:
            for token in tokens:
                known = {"s": (self.s, self.rs), "e": (self.e, self.re)}[token]
                self.mix_public(token, public_of(known[0]) if self.ours(direction) else known[1])

    def ours(self, direction):
        return (direction == "->") == self.initiator

    # Symmetric state (5.2)

    def mix_hash(self, data):
        self.h = hashlib.sha512(self.h + data).digest()

    def mix_key(self, material):
        self.ck, key = hkdf(self.ck, material, 2)
        self.cipher = Cipher(key[:32])

    def mix_key_and_hash(self, material):
        self.ck, data, key = hkdf(self.ck, material, 3)
        self.mix_hash(data)
        self.cipher = Cipher(key[:32])

    def mix_public(self, token, public):
        self.mix_hash(public)
        if token == "e" and "psk" in self.pattern:  # 9.2
            self.mix_key(public)

    def seal(self, text):
        data = self.cipher.encrypt(self.h, text)
        self.mix_hash(data)
        return data

    def open(self, data):
        text = self.cipher.decrypt(self.h, data)
        self.mix_hash(data)
        return text

    # Handshake state (5.3)

    def mix_secret(self, token):
        if token == "psk":
            return self.mix_key_and_hash(self.psk)
        mine, theirs = token if self.initiator else reversed(token)
        return self.mix_key(dh({"e": self.e, "s": self.s}[mine], {"e": self.re, "s": self.rs}[theirs]))

    def turn(self, writing):
        """The tokens of the next message; KKeepsk0's is written by both."""
        if self.over or not self.messages:
            raise Failed("no message is left")
        direction, tokens = self.messages.pop(0)
        if writing != (self.ours(direction) or self.pattern == "KKeepsk0"):
            self.over = True
            raise Failed("not this side's turn")
        return tokens

    def write(self, payload=b""):
        tokens, out = self.turn(True), b""
        self.over = True  # unless all goes well
        if "e" in tokens and self.e is None:
            self.e = os.urandom(32)
        for token in tokens:
            if token == "e":
                out += public_of(self.e)
                self.mix_public("e", public_of(self.e))
            elif token == "s":
                out += self.seal(public_of(self.s))
            else:
                self.mix_secret(token)
        out += self.seal(payload)
        self.over = False
        return out

    def read(self, message):
        tokens = self.turn(False)
        self.over = True

        def take(n):
            nonlocal message
            if len(message) < n:
                raise Failed("too short")
            head, message = message[:n], message[n:]
            return head

        for token in tokens:
            if token == "e":
                self.re = take(32)
                self.mix_public("e", self.re)
            elif token == "s":
                self.rs = self.open(take(32 + (TAG if self.cipher.key else 0)))
            else:
                self.mix_secret(token)
        if self.cipher.key and len(message) < TAG:
            raise Failed("too short")
        payload = self.open(message)
        self.over = False
        return payload

    def split(self):
        """What the initiator sends with, what the responder sends with."""
        if self.over or self.messages:
            raise Failed("the handshake is not done")
        self.over = True
        material = self.h if self.pattern == "KKeepsk0" else b""
        return tuple(key[:32] for key in hkdf(self.ck, material, 2))


# --- checks


def published(path):
    """Runs the vectors of our patterns; how many of each."""
    counts = {}
    for block in open(path).read().split("\n\n"):
        fields = dict(line.split("=", 1) for line in block.split("\n") if "=" in line)
        for pattern in PATTERNS:
            if fields.get("handshake") == "Noise_%s_25519_ChaChaPoly_SHA512" % pattern:
                run_published(pattern, {k: bytes.fromhex(v) for k, v in fields.items() if k != "handshake"})
                counts[pattern] = counts.get(pattern, 0) + 1
    return counts


def run_published(pattern, v):
    s, e = (v["init_static"], v["resp_static"]), (v["gen_init_ephemeral"], v["gen_resp_ephemeral"])
    knows = (public_of(s[1]), None if pattern == "IK" else public_of(s[0]))
    sides = [
        Handshake(pattern, i == 0, v.get("prologue", b""), s=s[i], e=e[i], rs=knows[i], psk=v.get("preshared_key"))
        for i in (0, 1)
    ]
    n = 0
    while sides[0].messages:
        message = sides[n % 2].write(v["msg_%d_payload" % n])
        assert message == v["msg_%d_ciphertext" % n], (pattern, n)
        assert sides[1 - n % 2].read(message) == v["msg_%d_payload" % n], (pattern, n)
        n += 1
    assert sides[0].h == sides[1].h and sides[1].rs == public_of(s[0])
    keys = sides[0].split()
    assert keys == sides[1].split()
    ciphers = [Cipher(key) for key in keys]
    assert "msg_%d_payload" % n in v
    while "msg_%d_payload" % n in v:
        sealed = ciphers[n % 2].encrypt(b"", v["msg_%d_payload" % n])
        assert sealed == v["msg_%d_ciphertext" % n], (pattern, n)
        n += 1


# What the document's vectors are made of; it says so in words.
SECRETS = {name: bytes(range(first, first + 32)) for name, first in (("s0", 1), ("s1", 33), ("e0", 65), ("e1", 97))}
PSK = bytes(range(0x40, 0x60))
MATCH = bytes(range(0x10, 0x20))


def document():
    """The vectors of docs/PROTOCOL.md as they stand there: (name, [(bytes, comment)])."""
    s, e = (SECRETS["s0"], SECRETS["s1"]), (SECRETS["e0"], SECRETS["e1"])
    ids = b"".join(key_id(public_of(x)) for x in s)
    out = [("noise s %d" % i, [(public_of(s[i]), "public")]) for i in (0, 1)]
    out += [("noise e %d" % i, [(public_of(e[i]), "public")]) for i in (0, 1)]
    out += [("noise id %d" % i, [(key_id(public_of(s[i])), "BLAKE2b-128 of s %d" % i)]) for i in (0, 1)]
    for pattern in ("IK", "KKpsk0", "KKeepsk0"):
        prologue = {"IK": b"bodkin 1", "KKpsk0": bytes(range(64)), "KKeepsk0": b"bodkin peer 1" + MATCH + ids}[pattern]
        psk = None if pattern == "IK" else PSK
        known = [{"rs": public_of(s[1 - i])} for i in (0, 1)]
        if pattern == "IK":
            known[1] = {}
        if pattern == "KKeepsk0":
            known = [{"rs": public_of(s[1 - i]), "re": public_of(e[1 - i])} for i in (0, 1)]
        a, b = (Handshake(pattern, i == 0, prologue, s=s[i], e=e[i], psk=psk, **known[i]) for i in (0, 1))
        if pattern == "KKeepsk0":
            tag = a.write()
            assert tag == b.write()
            out.append((pattern + " tag", [(tag, "not sent")]))
        else:
            first = a.write(b"first")
            assert b.read(first) == b"first"
            second = b.write(b"second")
            assert a.read(second) == b"second"
            parts = [(first[:32], "e of the initiator")]
            if pattern == "IK":
                parts += [(first[32:80], "its s, sealed, and the tag")]
                parts += [(first[80:85], '"first", sealed'), (first[85:], "tag")]
            else:
                parts += [(first[32:37], '"first", sealed'), (first[37:], "tag")]
            out.append((pattern + " message 1", parts))
            parts = [(second[:32], "e of the responder"), (second[32:38], '"second", sealed'), (second[38:], "tag")]
            out.append((pattern + " message 2", parts))
        assert a.h == b.h
        out.append((pattern + " h", [(a.h, "")]))
        keys = a.split()
        assert keys == b.split()
        out.append((pattern + " keys", [(keys[0], "what the initiator sends with"), (keys[1], "what role 1 sends with")]))
    return out


def fenced(name, parts):
    lines = ["```hex " + name]
    for data, comment in parts:
        while data:
            row, data = data[:32], data[32:]
            lines.append(row.hex(" ") + ("; " + comment if comment and not data else ""))
    return "\n".join(lines + ["```"])


def main(args):
    if args == ["--document"]:
        print("\n".join(fenced(*v) for v in document()))
        return 0
    path = args[0] if args else "/usr/share/gocode/src/github.com/flynn/noise/vectors.txt"
    counts = published(path)
    print("published vectors: " + ", ".join("%s %d" % item for item in sorted(counts.items())))
    return 0 if counts.get("IK") and counts.get("KKpsk0") else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
