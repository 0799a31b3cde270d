# SPDX-License-Identifier: MIT
# What nobody well-meaning does to a TCP port: tcp.py PORT. Prints what it saw as "name=number" words, the last line.
import os, random, select, socket, struct, sys, time

PORT = int(sys.argv[1])
random.seed(7)


def connect(wait=5):
    s = socket.socket()
    s.settimeout(wait)
    s.connect(("127.0.0.1", PORT))
    return s


def frame(data):
    return struct.pack(">H", len(data)) + data


def key_request():
    tx = os.urandom(12)
    return tx, b"\x94\x1b\x01\xc4\x0c" + tx + b"\xc4\x6d" + bytes(109)


# Whether a client that behaves is served, over a connection of its own; in pieces of `piece` bytes.
def served(piece=10000):
    tx, ask = key_request()
    bytes_ = frame(ask)
    with connect() as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(0, len(bytes_), piece):
            s.sendall(bytes_[i:i + piece])
        head = s.recv(2, socket.MSG_WAITALL)
        body = s.recv(struct.unpack(">H", head)[0], socket.MSG_WAITALL)
        return body[5:17] == tx and len(body) <= len(ask)


def ended(s, seconds=5):
    s.settimeout(seconds)
    try:
        while s.recv(4096):
            pass
        return True
    except ConnectionError:
        return True
    except TimeoutError:
        return False


said = {}
said["served"] = sum(served(p) for p in (1, 2, 3, 50, 10000))

# No length: each is ended at once.
bad = [b"\0\0", b"\x04\xb1", b"\xff\xff", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"]
said["ended"] = sum(ended(s) for s in map(lambda b: (lambda s: (s.sendall(b), s)[1])(connect()), bad))

# Whole datagrams of nonsense, in connections of a thousand each, torn anywhere and broken off anywhere.
for _ in range(60):
    with connect() as s:
        blob = b"".join(frame(os.urandom(random.randint(1, 1200))) for _ in range(200))
        blob = blob[:random.randint(1, len(blob))]
        at = 0
        try:
            while at < len(blob):
                n = random.choice((1, 2, 3, 7, 1000, 60000))
                s.sendall(blob[at:at + n])
                at += n
        except ConnectionError:
            pass
        if random.random() < 0.5:  # a reset
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
said["served_after_nonsense"] = served()

# Silence and halves, as many as are let in, and more.
held = []
for i in range(400):
    try:
        s = connect()
        if i % 2:
            s.sendall(frame(b"x" * 100)[:random.randint(1, 101)])
        held.append(s)
    except OSError:
        pass
time.sleep(0.5)
open_ = 0
for s in held:
    s.setblocking(False)
    try:
        open_ += s.recv(1) != b""
    except BlockingIOError:
        open_ += 1
    except OSError:
        pass
said["let_in"] = open_
try:
    said["served_when_full"] = served()
except (OSError, struct.error):
    said["served_when_full"] = False
# Their time is over after 5 s.
late = time.time() + 9
while held and time.time() < late:
    ready, _, _ = select.select(held, [], [], 0.2)
    for s in ready:
        try:
            gone = s.recv(10) == b""
        except BlockingIOError:
            gone = False
        except OSError:
            gone = True
        if gone:
            held.remove(s)
            s.close()
said["left"] = len(held)
said["served_after"] = served()

# One that asks and does not read: what waits for it is bounded, others are served.
slow = connect()
slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
slow.setblocking(False)
asks = b"".join(frame(key_request()[1]) for _ in range(100))
for _ in range(3000):
    try:
        slow.send(asks)
    except BlockingIOError:
        time.sleep(0.001)
    except OSError:
        break
said["served_beside_slow"] = served()
print(" ".join("%s=%d" % (k, v) for k, v in said.items()))
