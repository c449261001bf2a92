# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Which connections of a port wait for an answer right now: asked of the kernel, because a kept-alive connection never ends by itself.

A connection that a load balancer keeps open is no reason to wait; a request on it that was not answered yet is one. The kernel
knows for each connection when data came last and when data went last (``struct tcp_info``, read with ``sock_diag(7)``; any user may).
"""

from __future__ import annotations

import socket
import struct
import typing as t

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST_DUMP = 0x301
NLMSG_ERROR, NLMSG_DONE = 2, 3
ESTABLISHED = 1
INET_DIAG_INFO = 2
REQUEST = struct.Struct("=BBBxI")  # family, protocol, extensions, states; the socket id follows
SOCKET_ID = struct.Struct("!HH4s12x16x12x")  # ports of both sides, addresses, interface and cookie: only the port is asked for
ANSWER = struct.Struct("=BBBB")
HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
# What tcp_info begins with: 8 bytes of flags, then words of four bytes; later words of eight.
LAST_DATA_SENT, LAST_DATA_RECEIVED = 8 + 4 * 9, 8 + 4 * 11
BYTES_ACKED, BYTES_RECEIVED = 120, 128
TIE_MS = 1000


class Flow(t.NamedTuple):
    """One established connection at the port, seen from the server."""

    inode: str
    client: int  # the client's port
    received: int  # bytes that ever came
    sent: int  # bytes that ever went
    unread: int  # bytes that the program did not read yet
    unsent: int  # bytes that the client did not acknowledge yet
    since_received: int  # milliseconds
    since_sent: int

    def busy(self) -> bool:
        """Whether it seems to wait for an answer, by this one look at it.

        A stream that sends a piece now and then counts as answered after each piece.
        """
        if self.unread or self.unsent:
            return True
        if not self.received or not self.sent:
            return bool(self.received)
        if self.since_sent == self.since_received:
            # One tick of the kernel's clock: an answer given at once, or the next request right behind an answer.
            return self.since_received < TIE_MS
        return self.since_sent > self.since_received


class Watch:
    """Looks again and again at the connections of one port. What moved between two looks tells more than one look."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.known = True  # whether the kernel tells
        self._seen: dict[str, tuple[Flow, bool]] = {}

    def look(self) -> None:
        """Take in the state of this moment."""
        found = flows(self.port)
        self.known = found is not None
        self._seen = {flow.inode: (flow, self._judge(flow)) for flow in found or []}

    def _judge(self, flow: Flow) -> bool:
        if flow.inode not in self._seen or flow.unread or flow.unsent:
            return flow.busy()
        before, was_busy = self._seen[flow.inode]
        asked, answered = flow.received > before.received, flow.sent > before.sent
        if asked and answered and flow.since_sent == flow.since_received:
            return was_busy  # within one tick: answered, then asked; or asked, then answered
        if asked and answered:
            return flow.busy()
        if asked or answered:
            return asked
        return was_busy and flow.busy()

    def busy(self, inodes: t.Collection[str], but: int = 0) -> int | None:
        """How many of these sockets wait for an answer, not counting the client's port ``but``; None: the kernel does not tell."""
        if not self.known:
            return None
        return sum(1 for flow, waits in self._seen.values() if waits and flow.inode in inodes and flow.client != but)


def flows(port: int) -> list[Flow] | None:
    """All established connections at ``port``; None where the kernel does not tell."""
    found: list[Flow] = []
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
            kernel.settimeout(2)
            for family in (socket.AF_INET, socket.AF_INET6):
                body = REQUEST.pack(family, socket.IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 1 << ESTABLISHED) + _id(port)
                kernel.send(HEADER.pack(HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, 1, 0) + body)
                while True:
                    more, part = parse(kernel.recv(1 << 18), port)
                    found += part
                    if not more:
                        break
    except (OSError, struct.error, ValueError):
        return None
    return found


def _id(port: int) -> bytes:
    return SOCKET_ID.pack(port, 0, b"\0" * 4)


def parse(data: bytes, port: int) -> tuple[bool, list[Flow]]:
    """(whether more messages follow, the connections of ``port``) of one datagram from the kernel."""
    found: list[Flow] = []
    while len(data) >= HEADER.size:
        length, kind = HEADER.unpack_from(data)[:2]
        if kind == NLMSG_DONE:
            if length >= HEADER.size + 4 and struct.unpack_from("=i", data, HEADER.size)[0]:
                raise ValueError("the kernel gave up")  # it cannot tell, which is no empty list
            return False, found
        if kind == NLMSG_ERROR or length < HEADER.size:
            raise ValueError("the kernel refused")
        flow = _flow(data[HEADER.size : length], port)
        if flow is not None:
            found.append(flow)
        data = data[(length + 3) & ~3 :]
    return True, found


def _flow(message: bytes, port: int) -> Flow | None:
    own, client = struct.unpack_from("!HH", message, 4)
    if own != port:
        return None
    unread, unsent, inode = struct.unpack_from("=II4xI", message, 56)
    info = b""
    rest = message[72:]
    while len(rest) >= ATTRIBUTE.size:
        length, kind = ATTRIBUTE.unpack_from(rest)
        if length < ATTRIBUTE.size:
            break
        if kind == INET_DIAG_INFO:
            info = rest[ATTRIBUTE.size : length]
        rest = rest[(length + 3) & ~3 :]
    if len(info) < BYTES_RECEIVED + 8:  # before Linux 4.1
        raise ValueError("the kernel tells nothing about the connection")
    acked, received = struct.unpack_from("=QQ", info, BYTES_ACKED)
    since_sent, since_received = (struct.unpack_from("=I", info, place)[0] for place in (LAST_DATA_SENT, LAST_DATA_RECEIVED))
    return Flow(str(inode), client, received, acked + unsent, unread, unsent, since_received, since_sent)
