# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Servers at another address, and back: the state ``routed``.

HAProxy goes on using the connections that it has to the old address, for as long as clients keep them busy: after ``set server addr``
with another port alone, not one of them was closed while twelve clients went on for minutes. So whoever wants to stop what is at the
old address waits here until HAProxy has no connection there any more, as the kernel counts them.

State file, below ``routes``: {backend/server: {address, port}}, where a server was before; below ``leaving``: {backend/server:
[address, port]}, the place whose connections are waited for, so that a call that was killed is continued.
"""

from __future__ import annotations

import socket
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._haproxy.runtime import Runtime, Server
from ansible_collections.payops.rollback.plugins.module_utils._traffic.places import Place, answers, home_of, wanted_places
from ansible_collections.payops.rollback.plugins.module_utils._traffic.sockets import IN_USE, MAPPED, sockets_of

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._haproxy.traffic import Traffic

FLUSH = 0.25  # seconds between two closings of connections that nobody uses


def routed(traffic: Traffic, keys: t.Sequence[str], servers: t.Mapping[str, Server]) -> dict[str, t.Any]:
    """The servers at ``address``, at ``ports`` of their own host, or where they were before."""
    routes = traffic.state().get("routes") or {}
    homes = {key: home_of(key, routes, _place(servers[key])) for key in keys}
    told = {
        "places": {
            key: {
                "address": home[0],
                "port": home[1],
                "state": servers[key].state,
                "against": _against(traffic.runtime, servers[key], home),
            }
            for key, home in homes.items()
        }
    }
    wanted = wanted_places(traffic.proxy, traffic.settings.address, traffic.settings.ports, homes, routes)
    leaving: dict[str, Place] = {key: (str(place[0]), int(place[1])) for key, place in (traffic.state().get("leaving") or {}).items()}
    # A health check that names the server's port goes where the server goes; HAProxy itself leaves it behind.
    checked = {key: {homes[key][1], servers[key].port, leaving.get(key, homes[key])[1]} for key in keys}
    checks = {key: place[1] for key, place in wanted.items() if servers[key].check_port in checked[key] - {place[1]}}
    needed = {key: place for key, place in wanted.items() if key in checks or (servers[key].address, servers[key].port) != place}
    traffic.actions += [f"{key} to {place[0]}:{place[1]}, not {servers[key].place}" for key, place in needed.items()]
    if traffic.check:
        return told
    answers(sorted(set(needed.values())))
    if needed:
        leaving.update({key: _place(servers[key]) for key in needed if _place(servers[key]) != wanted[key]})
        known = {
            key: {"address": homes[key][0], "port": homes[key][1]} for key in needed if key not in routes and wanted[key] != homes[key]
        }
        with traffic.run.step("remember", routes=known, leaving={key: list(place) for key, place in leaving.items()}):
            traffic.write_state(routes={**routes, **known}, leaving=leaving)
        with traffic.run.step("route", servers={key: f"{place[0]}:{place[1]}" for key, place in needed.items()}):
            for key, place in needed.items():
                traffic.runtime.tell(f"set server {key} addr {place[0]} port {place[1]}")
                if key in checks:
                    traffic.runtime.tell(f"set server {key} check-port {checks[key]}")
            _expect(traffic.runtime, needed, checks)
        with traffic.run.step("verify", servers=sorted(needed)):
            found = traffic.runtime.servers()
            traffic.await_up([key for key in needed if found[key].usable])
    left = {key: place for key, place in leaving.items() if key in keys and place != wanted.get(key)}
    if left:
        with traffic.run.step("wait", servers=sorted(left)) as learnt:
            learnt["left"] = _await_nobody(traffic, left, wanted)
    back = [key for key in keys if key in routes and wanted[key] == homes[key]]
    if back or any(key in leaving for key in keys):
        with traffic.run.step("forget", routes=back):
            state = traffic.state()
            traffic.write_state(
                routes={key: place for key, place in (state.get("routes") or {}).items() if key not in back},
                leaving={key: place for key, place in (state.get("leaving") or {}).items() if key not in keys},
            )
    return told


def _place(server: Server) -> Place:
    """A call that was killed may have left the other spelling (see _close_unused)."""
    return server.address[len(MAPPED) :] if server.address.startswith(MAPPED) else server.address, server.port


def _expect(runtime: Runtime, wanted: t.Mapping[str, Place], checks: t.Mapping[str, int] | None = None) -> None:
    found = runtime.servers()
    wrong = [f"{key} is at {found[key].place}" for key, place in wanted.items() if (found[key].address, found[key].port) != place]
    wrong += [f"{key} is checked at {found[key].check_port}" for key, port in (checks or {}).items() if found[key].check_port != port]
    if wrong:
        raise RollbackError(f"HAProxy does not do what it was told: {'; '.join(wrong)}.", changed=True)


def _against(runtime: Runtime, server: Server, home: Place) -> str | None:
    """Why nobody should be sent elsewhere in order to stop what is there; None if nothing stands against it."""
    if server.check_address != "-" or server.check_port not in (0, home[1], server.port):
        return f"HAProxy checks the health of {server.key} at another address or port than its own"
    if ":" in home[0] or not _has_ipv6():
        return f"HAProxy cannot be made to close its connections to {server.key}: that takes an IPv4 address, and a kernel that knows IPv6"
    try:
        _process(runtime)
    except RollbackError as exc:
        return str(exc).partition(". ")[0]
    return None


# -- leaving a place ------------------------------------------------------------------------------------------------------


def _await_nobody(traffic: Traffic, left: t.Mapping[str, Place], wanted: t.Mapping[str, Place]) -> dict[str, int]:
    """Until HAProxy has no connection to the places that were left. What nobody uses is closed, what is in use is waited for."""
    places = sorted(set(left.values()))
    deadline = time.monotonic() + traffic.settings.drain_seconds
    while True:
        found = {f"{place[0]}:{place[1]}": number for place in places if (number := connections(traffic.runtime, place))}
        if not found:
            return {}
        if time.monotonic() >= deadline:
            if traffic.settings.cut_sessions:
                return found
            raise RollbackError(
                f"{', '.join(f'HAProxy still has {number} connections to {place}' for place, number in sorted(found.items()))} "
                f"{traffic.settings.drain_seconds:g} s after new ones went elsewhere. Raise drain_seconds (rollback_haproxy_drain_seconds), "
                "or go on over them with cut_sessions=true (rollback_haproxy_cut_sessions).",
                changed=True,
                sessions=found,
            )
        for key in left:
            _close_unused(traffic, key, wanted.get(key))
        time.sleep(FLUSH)


def _close_unused(traffic: Traffic, key: str, place: Place | None) -> None:
    """HAProxy closes the unused connections of a server when its IP address changes, and only then.

    So it is told the same address in its other spelling, and then again in the first one. In between connections go to the same place.
    """
    if place is None or ":" in place[0] or not _has_ipv6():
        return
    traffic.run.fence()
    for address in (f"{MAPPED}{place[0]}", place[0]):
        traffic.runtime.tell(f"set server {key} addr {address} port {place[1]}")
    _expect(traffic.runtime, {key: place})


def _has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def connections(runtime: Runtime, place: Place) -> int:
    """How many TCP connections to a place HAProxy has, those that nobody uses at the moment among them."""
    pid, uid = _process(runtime)
    family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    wanted = (socket.inet_ntop(family, socket.inet_pton(family, place[0])), place[1])
    return sum(each.peer == wanted and each.state in IN_USE and each.uid == uid for each in sockets_of(pid))


def _process(runtime: Runtime) -> tuple[str, str]:
    """HAProxy's process, whose network it is, and the user of its sockets."""
    pid = next((line.partition(":")[2].strip() for line in runtime.ask("show info").splitlines() if line.startswith("Pid:")), "")
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as handle:
            status = dict(line.split(":", 1) for line in handle if ":" in line)
        if status["Name"].strip() == "haproxy":
            return pid, status["Uid"].split()[1]
    except (OSError, KeyError, IndexError):
        pass
    raise RollbackError(
        f"HAProxy says that it is process {pid or 'unknown'}, which is none of this host as seen from here, so its connections cannot be "
        "counted. Run this on the host, and not in a container, where HAProxy itself runs."
    )
