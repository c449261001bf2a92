# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Probes during a switch: with the version that the release must show, in a row, or while two releases share an address."""

from __future__ import annotations

import http.client
import socket
import time
import typing as t
import urllib.error
import urllib.parse
import urllib.request

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import now
from ansible_collections.payops.rollback.plugins.module_utils._probe import failure_message, run_probes
from ansible_collections.payops.rollback.plugins.module_utils._probe_input import retarget

HOLD_HEADER = "X-Payops-Hold"  # what every responder of ours answers with while it holds a port


def answers_hold(port: int, hosts: t.Sequence[str]) -> bool:
    """Whether the responder answered this one request."""
    host = next((name for name in hosts if name not in ("::", "0.0.0.0")), "127.0.0.1")
    # A path that no application has: a sick one says so at once, where its health check may hang.
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/.payops-hold"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(url, timeout=3).close()
        return False
    except urllib.error.HTTPError as exc:
        return exc.code == 503 and HOLD_HEADER in exc.headers
    except (OSError, http.client.HTTPException):
        return False


def expecting(probes: t.Sequence[dict[str, t.Any]], version_path: str | None, app_version: str | None) -> list[dict[str, t.Any]]:
    """The probes; the first HTTP probe must also show the version that package.json of the release names."""
    told = [{key: value for key, value in probe.items() if value is not None} for probe in probes]
    if version_path and app_version is not None:
        for number, probe in enumerate(told):
            if (probe.get("type") or "http") == "http":
                wanted = {"path": version_path, "equals": app_version}
                told[number] = {**probe, "expect_json": [*(probe.get("expect_json") or []), wanted]}
                break
    return told


def spare_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def aimed(probes: t.Sequence[dict[str, t.Any]], port: int, spare: int, host: str = "127.0.0.1") -> list[dict[str, t.Any]]:
    """The probes that ask the application itself, at its spare port; those for a proxy or a database say nothing about it here."""
    moved = []
    for probe in probes:
        kind = probe.get("type") or "http"
        asked = _port_of(probe["url"]) if kind == "http" and probe.get("url") else probe.get("port")
        if kind in ("http", "tcp") and asked == port:
            named = {**probe, "name": f"{probe.get('name') or kind} (spare port)"}
            moved += retarget([named], spare)
    return moved or [{"name": "port", "type": "tcp", "host": host, "port": spare}]


def _port_of(url: str) -> int | None:
    found = urllib.parse.urlsplit(url)
    return found.port or {"http": 80, "https": 443}.get(found.scheme)


def await_probes(probes: t.Sequence[dict[str, t.Any]], successes: int, wait: float, interval: float, what: str) -> dict[str, t.Any] | None:
    """``successes`` in a row before ``wait`` is over, or an error."""
    if not probes:
        return None
    result = run_probes(probes, successes, max(wait, (successes - 1) * interval + 1), interval)
    if not result["ok"]:
        raise RollbackError(f"{what} is not healthy: {failure_message(result)}", probes=result["probes"])
    return result


def await_seen(probes: t.Sequence[dict[str, t.Any]], times: int, wait: float, what: str) -> str | None:
    """While two share the port: every probe must succeed ``times``, answers of the other between are no failure; when it first did."""
    if not probes:
        return None
    first = None
    deadline = time.monotonic() + wait
    seen = 0
    while True:
        result = run_probes(probes, 1, max(0.5, min(5.0, deadline - time.monotonic())), 0.05)
        if result["ok"]:
            seen, first = seen + 1, first or now()
        if seen >= times:
            return first
        if time.monotonic() >= deadline:
            raise RollbackError(
                f"{what} never answered {times} times while it shared the port: {failure_message(result)}", probes=result["probes"]
            )
        time.sleep(0.05)
