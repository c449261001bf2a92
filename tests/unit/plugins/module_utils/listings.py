# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists of points as the hosts of one small system give them."""

from __future__ import annotations

import copy
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._merge import merge_points
from ansible_collections.payops.rollback.plugins.module_utils._releases import Registry

INVENTORY = {"app1": ["pm2"], "app2": ["pm2"], "db1": ["postgresql"]}
Listings = t.Dict[str, t.List[t.Dict[str, t.Any]]]


def part(release: str | None = None, damaged: str | None = None) -> dict[str, t.Any]:
    return {"size": 10, "created": "c", "run": "r", "release": release, "damaged": damaged}


def stamp(day: int) -> str:
    return f"2023-12-{day:02d}T12:00:00.000000Z"


def native(listings: Listings, version: str, day: int, release: str, healthy: bool | None = True, **changes: t.Any) -> None:
    """Add a point to every host; ``changes``: host -> function that changes its entry, or None for no entry."""
    record = {
        "version": version,
        "created": stamp(day),
        "who": "amina",
        "healthy": healthy,
        "run": "r",
        "expected": copy.deepcopy(INVENTORY),
    }
    for host, components in INVENTORY.items():
        entry = {
            "version": version,
            "legacy": False,
            "path": f"/store/{version}",
            "created": stamp(day),
            "sealed": True,
            "record": copy.deepcopy(record),
            "components": {name: part(release if name == "pm2" else None) for name in components},
            "unfinished": [],
            "size": 10,
            "pinned": None,
            "problems": [],
        }
        if host in changes:
            if changes[host] is None:
                continue
            changes[host](entry)
        listings.setdefault(host, []).append(entry)


def legacy(listings: Listings, host: str, stamp_text: str, components: dict[str, t.Any]) -> None:
    listings.setdefault(host, []).append(
        {
            "version": f"backup_{stamp_text}",
            "alias": stamp_text,
            "legacy": True,
            "path": f"/app/{stamp_text}",
            "created": stamp(1),
            "sealed": True,
            "record": None,
            "components": components,
            "unfinished": [],
            "size": 5,
            "pinned": None,
            "problems": [],
        }
    )


def live(release: str, version: str | None = None, since: str | None = None) -> dict[str, t.Any]:
    state = {"release": release, "version": version, "since": since}
    return {"app1": {"pm2": dict(state)}, "app2": {"pm2": dict(state)}, "db1": {"postgresql": {"version": version, "since": since}}}


def bad(*releases: str) -> Registry:
    return {release: {"status": "bad", "who": "amina", "when": "w", "why": "broken migration"} for release in releases}


def history(releases: str = "r1 r2 r3", registry: Registry | None = None) -> list[dict[str, t.Any]]:
    """p1, p2, ... one per day, each of its release."""
    listings: Listings = {}
    for day, release in enumerate(releases.split(), start=1):
        native(listings, f"p{day}", day, release)
    return merge_points(listings, registry, INVENTORY)


def why(chosen: dict[str, t.Any]) -> dict[str, str]:
    return {item["version"]: item["why"] for item in chosen["skipped"]}


def damage(name: str) -> t.Callable[[dict[str, t.Any]], None]:
    return lambda entry: entry["components"][name].update(damaged="another SHA-256.")
