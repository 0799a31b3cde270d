# SPDX-License-Identifier: MIT
# A game's backend issues a token, without Bodkin. The key is one of bodkin keygen --token-key token.key:
#   python3 examples/issue_token.py token.key ann > ann.token
import base64, sys, time

import msgpack
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def issue(seed, claims):
    body = msgpack.packb(claims)
    signature = Ed25519PrivateKey.from_private_bytes(seed).sign(b"bodkin token 1\0" + body)
    return base64.urlsafe_b64encode(body + signature).rstrip(b"=").decode()


def first_key(path):
    lines = [line.split("#")[0].strip() for line in open(path)]
    return bytes.fromhex(next(filter(None, lines)))


print(issue(first_key(sys.argv[1]), {"exp": int(time.time()) + 3600, "sub": sys.argv[2], "mmr": 1500}))
