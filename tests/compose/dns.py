#!/usr/bin/env python3
"""Answers for names as Docker's DNS does, from a file that may change: `dns.py ADDRESS FILE`, a name and an address a line."""

import random
import socket
import struct
import sys
from pathlib import Path

TYPE_A, NO_SUCH_NAME = 1, 3


def name_and_type(query):
    """Of the only question, and where it ends."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels), struct.unpack("!H", query[at + 1 : at + 3])[0], at + 5


def answered(query, table):
    name, kind, end = name_and_type(query)
    addresses = [address for known, address in (line.split() for line in table.splitlines()) if known == name]
    known = bool(addresses)
    random.shuffle(addresses)
    addresses = addresses if kind == TYPE_A else []
    head = query[:2] + struct.pack("!HHHHH", 0x8180 | (0 if known else NO_SUCH_NAME), 1, len(addresses), 0, 0)
    # Each answer points at the name of the question, and holds for a second.
    records = [struct.pack("!HHHIH", 0xC00C, TYPE_A, 1, 1, 4) + socket.inet_aton(it) for it in addresses]
    return head + query[12:end] + b"".join(records)


def main():
    address, table = sys.argv[1:]
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, 53))
    print("bound", flush=True)
    while True:
        query, peer = sock.recvfrom(512)
        sock.sendto(answered(query, Path(table).read_text()), peer)


main()
