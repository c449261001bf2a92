# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Addresses of servers."""

from __future__ import annotations

import socket
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError


def address_of(text: str) -> tuple[str, int]:
    """``host:port`` with a numeric host, as every proxy understands it."""
    host, unused, port = text.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or not 1 <= int(port) <= 65535 or not all(char in "0123456789abcdefABCDEF.:" for char in host):
        raise RollbackError(f"The address {text!r} is not an IP address and a port; expected for example 10.0.0.12:5001.")
    return host, int(port)


def answers(places: t.Iterable[tuple[str, int]]) -> None:
    """A proxy's own checks take a while to notice that nothing listens at a new address; customers do not."""
    for host, port in places:
        try:
            socket.create_connection((host, port), 3.0).close()
        except OSError as exc:
            raise RollbackError(f"Nothing answers at {host}:{port}, as seen from the proxy ({exc}); no server was sent there.") from exc


def place_of(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
