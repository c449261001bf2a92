# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Where servers are, and where they shall be."""

from __future__ import annotations

import socket
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError

Place = t.Tuple[str, int]


def home_of(key: str, routes: t.Mapping[str, t.Any], now: Place) -> Place:
    """Where a server was before it was first routed elsewhere."""
    known = routes.get(key)
    return (str(known["address"]), int(known["port"])) if known else now


def wanted_places(
    proxy: str, address: str, ports: t.Mapping[str, t.Any], homes: t.Mapping[str, Place], routes: t.Container[str]
) -> dict[str, Place]:
    """The servers at ``address``, at ``ports`` of their own host, or where they were before (those that were routed elsewhere)."""
    if address:
        return dict.fromkeys(homes, address_of(address))
    if not ports:
        return {key: home for key, home in homes.items() if key in routes}
    other = ports_of(ports)
    strange = [f"{key} at {place_of(*home)}" for key, home in homes.items() if home[1] not in other]
    if strange:
        raise RollbackError(
            f"{proxy} reaches {', '.join(strange)}, but ports says where to go instead of {', '.join(map(str, sorted(other)))} only. "
            f"Nothing was sent elsewhere; name each port at which {proxy} reaches these servers."
        )
    return {key: (home[0], other[home[1]]) for key, home in homes.items()}


def address_of(text: str) -> Place:
    """``host:port`` with a numeric host, as every proxy understands it."""
    host, unused, port = text.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or not 1 <= int(port) <= 65535 or not all(char in "0123456789abcdefABCDEF.:" for char in host):
        raise RollbackError(f"The address {text!r} is not an IP address and a port; expected for example 10.0.0.12:5001.")
    return host, int(port)


def ports_of(given: t.Mapping[str, t.Any]) -> dict[int, int]:
    found = {}
    for old, new in given.items():
        if not all(str(port).isdigit() and 1 <= int(port) <= 65535 for port in (old, new)):
            raise RollbackError(f"ports says {new!r} instead of {old!r}; expected two ports, for example 5001 instead of 5000.")
        found[int(old)] = int(new)
    return found


def answers(places: t.Iterable[Place]) -> None:
    """A proxy's own checks take a while to notice that nothing listens at a new address; customers do not."""
    for host, port in places:
        try:
            socket.create_connection((host, port), 3.0).close()
        except OSError as exc:
            raise RollbackError(f"Nothing answers at {host}:{port}, as seen from the proxy ({exc}); no server was sent there.") from exc


def place_of(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
