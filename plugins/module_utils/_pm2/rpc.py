# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Ask the PM2 daemon through its socket: 2 ms instead of the 300 ms that its command line takes, and no daemon is started by asking.

The wire format (one request per connection): a byte ``0x10 | number of parts``, then each part with its length in four bytes.
The parts are ``j:<JSON>`` and an id ``s:<text>``. Whoever calls must be able to do without: ``Unavailable`` means "use the command line".
"""

from __future__ import annotations

import json
import socket
import struct
import typing as t

VERSION = 1
LIMIT = 256 << 20


class Unavailable(Exception):
    """The socket is not there, or whoever is behind it speaks otherwise."""


class Refused(Exception):
    """The daemon understood, and says no."""


def encode(parts: t.Sequence[bytes]) -> bytes:
    return bytes([VERSION << 4 | len(parts)]) + b"".join(struct.pack(">I", len(part)) + part for part in parts)


def read_message(read: t.Callable[[int], bytes]) -> list[bytes]:
    """The parts of one message; ``read(n)`` gives exactly n bytes."""
    meta = read(1)[0]
    if meta >> 4 != VERSION:
        raise Unavailable(f"unknown protocol version {meta >> 4}")
    parts = []
    for unused in range(meta & 15):
        length = struct.unpack(">I", read(4))[0]
        if length > LIMIT:
            raise Unavailable(f"a part of {length} bytes")
        parts.append(read(length))
    return parts


def call(path: str, method: str, *arguments: t.Any, timeout: float = 30.0) -> t.Any:
    """What the daemon's ``method`` answers."""
    request = {"type": "call", "method": method, "args": list(arguments)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)

        def read(count: int) -> bytes:
            data = bytearray()
            while len(data) < count:
                block = connection.recv(min(count - len(data), 1 << 20))
                if not block:
                    raise Unavailable("the daemon hung up")
                data += block
            return bytes(data)

        try:
            connection.connect(path)
            connection.sendall(encode([b"j:" + json.dumps(request).encode("utf-8"), b"s:payops:1"]))
            parts = read_message(read)
            answer = json.loads(parts[0][2:].decode("utf-8", "replace")) if parts and parts[0].startswith(b"j:") else None
        except (OSError, ValueError) as exc:
            raise Unavailable(str(exc)) from exc
    if not isinstance(answer, dict):
        raise Unavailable("an answer of another shape")
    if answer.get("error"):
        raise Refused(str(answer["error"]))
    values = answer.get("args") or [None]
    return values[0]
