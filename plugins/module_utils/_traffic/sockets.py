# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The TCP connections that the kernel knows in the network of a process."""

from __future__ import annotations

import socket
import sys
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._traffic.places import Place

MAPPED = "::ffff:"  # before an IPv4 address, the same address in the words of IPv6
LISTENING = "0A"
IN_USE = ("01", "02", "03")  # established, and those that are being opened


class Socket(t.NamedTuple):
    peer: Place  # an IPv4 address in its own spelling, also where the socket has it in that of IPv6
    state: str
    uid: str
    inode: str


def sockets_of(pid: int | str) -> list[Socket]:
    """All of the network that the process is in. FileNotFoundError if the process has ended."""
    found = []
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{name}", encoding="ascii") as handle:
                rows = [line.split() for line in handle.read().splitlines()[1:]]
        except FileNotFoundError:
            if name == "tcp":
                raise
            continue  # a kernel without IPv6
        found += [Socket(_place(row[2]), row[3], row[7], row[9]) for row in rows if len(row) > 9]
    return found


def _place(text: str) -> Place:
    """``0100007F:1388`` as 127.0.0.1 and 5000; the kernel writes each four bytes in the machine's own order."""
    raw, unused, port = text.partition(":")
    data = bytes.fromhex(raw)
    if sys.byteorder == "little":
        data = b"".join(data[start : start + 4][::-1] for start in range(0, len(data), 4))
    if data.startswith(b"\0" * 10 + b"\xff\xff"):
        data = data[12:]
    return socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data), int(port, 16)
