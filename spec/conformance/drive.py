#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Drives Bodkin's server and client through their states from outside, by docs/PROTOCOL.md.

    drive.py --list [--long]        the names of the cases
    drive.py [--long] [NAME...]     runs them, several at once: `ok NAME` or `not ok NAME: why`; 1 if one failed

BODKIN names the binary. A case is a function of drive_server.py, drive_association.py, drive_client.py or
drive_sealed.py; --long takes the slow ones alone.
"""

import multiprocessing
import sys
import traceback

import drive_association  # noqa: F401, adds to drive_server.CASES
import drive_client
import drive_sealed  # noqa: F401, adds to drive_client.CASES
import drive_server

CASES = drive_server.CASES + drive_client.CASES


def run(name):
    case = next(c for c in CASES if c.__doc__ == name)
    try:
        case()
    except Exception as e:  # a case's own words, and where
        where = traceback.extract_tb(e.__traceback__)
        line = next((f for f in reversed(where) if "drive_" in f.filename), where[-1])
        return name, "%s (%s:%d: %s)" % (repr(e)[:1500], line.filename.rsplit("/", 1)[-1], line.lineno, line.line)
    return name, None


def say(name, why):
    print("ok " + name if why is None else "not ok %s: %s" % (name, why.replace("\n", " ")), flush=True)
    return why is not None


def main():
    words = sys.argv[1:]
    long = "--long" in words
    named = [w for w in words if not w.startswith("--")]
    names = [c.__doc__ for c in CASES if (c.__doc__ in named if named else getattr(c, "long", False) == long)]
    if "--list" in words:
        print("\n".join(names))
        return 0
    failed, late = 0, []
    # Waiting is most of what a case does; the longest begin first.
    names.sort(key=lambda n: -next(getattr(c, "seconds", 1) for c in CASES if c.__doc__ == n))
    with multiprocessing.get_context("fork").Pool(8) as pool:
        for name, why in pool.imap_unordered(run, names, 1):
            if why and why.startswith("Late("):
                late.append(name)
            else:
                failed += say(name, why)
    for name in late:  # alone, with nothing of ours beside it
        for _ in range(3):
            _, why = run(name)
            if not (why and why.startswith("Late(")):
                break
        failed += say(name, why)
    return 1 if failed or not names else 0


if __name__ == "__main__":
    sys.exit(main())
