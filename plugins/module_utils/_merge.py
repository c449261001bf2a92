# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""From what each host lists to the points of the whole system. Pure.

A point is complete for an intent only if every host that is expected to have a part of it has that part, undamaged.
"""

from __future__ import annotations

import os
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._io import canonical_json
from ansible_collections.payops.rollback.plugins.module_utils._releases import Registry

Entry = t.Dict[str, t.Any]
DATABASES = ("postgresql", "supabase", "atlas", "mongodb")
# What has no version of its own and so no part in a point: it goes where the others go.
TRAFFIC = ("haproxy",)
INTENTS = ("full", "application", "gradual", "database")


def wants(intent: str, component: str) -> bool:
    """Whether a rollback of this intent touches the component."""
    if component in TRAFFIC:
        return False
    if intent == "database":
        return component in DATABASES
    return intent == "full" or component not in DATABASES


def versioned(hosts: dict[str, list[str]]) -> dict[str, list[str]]:
    """The hosts that have something of a point, each with what it has."""
    found = {host: [name for name in names if name not in TRAFFIC] for host, names in hosts.items()}
    return {host: names for host, names in found.items() if names}


def _expected(
    entries: dict[str, Entry], record: Entry | None, inventory: dict[str, list[str]] | None
) -> tuple[dict[str, list[str]], list[str]]:
    """Which host should have which components of this point, and what is worth a note."""
    if record is None:
        found = {host: sorted(entry["components"]) for host, entry in entries.items()}
        return {host: names for host, names in found.items() if names}, []
    expected = {host: list(names) for host, names in record["expected"].items()}
    if inventory is None:
        return expected, []
    gone = sorted(host for host in expected if host not in inventory)
    notes = [f"host {host} had a part of it and is no longer in the inventory" for host in gone]
    return {host: names for host, names in expected.items() if host in inventory}, notes


def _problems(
    version: str, entries: dict[str, Entry], expected: dict[str, list[str]], inventory: dict[str, list[str]] | None, record: Entry | None
) -> dict[str, list[str]]:
    """Component -> what is wrong with it anywhere ('' for what concerns the whole point)."""
    found: dict[str, list[str]] = {"": []}
    if record is None:
        found[""].append("its backup did not finish (it was never sealed)")
    for host, entry in sorted(entries.items()):
        if entry.get("record") is not None and record is not None and canonical_json(entry["record"]) != canonical_json(record):
            found[""].append(f"{host} has another record of it than the other hosts")
    wanted = {(host, name) for host, names in expected.items() for name in names}
    if inventory is not None and record is not None:
        for host, names in inventory.items():
            for name in names:
                if (host, name) not in wanted:
                    found.setdefault(name, []).append(f"{host} has {name} now but no {name} in this point")
    for host, name in sorted(wanted):
        own = entries.get(host)
        part = (own or {}).get("components", {}).get(name)
        if own is None:
            found.setdefault(name, []).append(f"{host} does not have it")
        elif part is None:
            found.setdefault(name, []).append(f"{name} is missing on {host}")
        elif part["damaged"]:
            found.setdefault(name, []).append(f"{name} on {host} is damaged: {part['damaged']}")
        if own is not None and record is not None and own.get("record") is None:
            found.setdefault(name, []).append(f"its record is missing or damaged on {host}")
    return found


def _legacy_problems(entries: dict[str, Entry], inventory: dict[str, list[str]] | None) -> dict[str, list[str]]:
    """A legacy backup has no record. Its application part is needed on each host, its SQL file where the database is worked on."""
    found: dict[str, list[str]] = {"": []}
    names = {name for entry in entries.values() for name in entry["components"]}
    if inventory is not None:
        names |= {name for components in inventory.values() for name in components}
    for name in sorted(names):
        holders = {host: entry["components"][name] for host, entry in sorted(entries.items()) if name in entry["components"]}
        sound = [host for host, part in holders.items() if not part["damaged"]]
        found.setdefault(name, [])
        found[name] += [f"{name} on {host} is damaged: {part['damaged']}" for host, part in holders.items() if part["damaged"]]
        if not holders:
            found[name].append(f"it has no {name} part")
        elif name in DATABASES:
            found[name] = _elsewhere(name, sound, entries, inventory or {}) if sound else found[name]
        elif inventory is not None:
            found[name] += [
                f"{name} is missing on {host}" for host, has in sorted(inventory.items()) if name in has and host not in holders
            ]
    return found


def _elsewhere(name: str, sound: list[str], entries: dict[str, Entry], inventory: dict[str, list[str]]) -> list[str]:
    """The old script wrote the dump beside the application. On another host than the database it is copied by hand: it may
    be huge, and it is a program that runs there."""
    away = sorted(host for host, has in inventory.items() if name in has and host not in sound)
    if not away:
        return []
    path = entries[sound[0]]["path"]
    return [
        f"its SQL dump is on {', '.join(sound)}, but {name} is on {', '.join(away)}; copy the folder to the same place there, "
        f"for example with: scp -3 -rp {sound[0]}:{path} {away[0]}:{os.path.dirname(path)}/"
    ]


def release_status(releases: t.Iterable[str], healthy: bool | None, registry: Registry) -> Entry:
    """bad if any release is; good if one is known good or the point was taken healthy; else unknown. Who and why with it."""
    known = [registry[release] for release in releases if release in registry]
    for status in ("bad", "good"):
        for entry in known:
            if entry.get("status") == status:
                return {"status": status, **{key: entry.get(key) for key in ("who", "when", "why")}}
    if healthy is True:
        return {"status": "good", "who": None, "when": None, "why": "healthy when the point was taken"}
    return {"status": "unknown", "who": None, "when": None, "why": None}


def _one(version: str, entries: dict[str, Entry], registry: Registry, inventory: dict[str, list[str]] | None) -> Entry:
    records = [entry["record"] for unused, entry in sorted(entries.items()) if entry.get("record") is not None]
    record = records[0] if records else None
    legacy = any(entry["legacy"] for entry in entries.values())
    expected, notes = _expected(entries, record, inventory)
    problems = _legacy_problems(entries, inventory) if legacy else _problems(version, entries, expected, inventory, record)
    complete: dict[str, bool] = {}
    for intent in INTENTS:
        names = {name for host_names in expected.values() for name in host_names if wants(intent, name)}
        bad = [text for name, texts in problems.items() if name == "" or wants(intent, name) for text in texts]
        complete[intent] = bool(names) and not bad
    hosts = {host: {name: dict(part) for name, part in entry["components"].items()} for host, entry in sorted(entries.items())}
    releases = sorted(
        {
            str(part["release"])
            for parts in hosts.values()
            for name, part in parts.items()
            if part["release"] and not part["damaged"] and name not in DATABASES
        }
    )
    created = [entry["created"] for entry in entries.values() if entry["created"]]
    record = record or {}
    healthy = record.get("healthy")
    return {
        "version": version,
        "alias": next((entry["alias"] for entry in entries.values() if entry.get("alias")), None),
        "legacy": legacy,
        "created": record.get("created") or max(created, default=None),
        "who": record.get("who"),
        "label": record.get("label"),
        "ticket": record.get("ticket"),
        "reason": record.get("reason"),
        "run": record.get("run"),
        "healthy": healthy,
        "expected": expected,
        "hosts": hosts,
        "paths": {host: entry["path"] for host, entry in sorted(entries.items())},
        "size": sum(entry["size"] for entry in entries.values()),
        "pinned": next((dict(entry["pinned"]) for entry in entries.values() if entry["pinned"]), None),
        "releases": releases,
        "release": release_status(releases, healthy, registry),
        "complete": complete["full"] or (bool(record) and not any(problems.values())),
        "complete_for": complete,
        "problems": [text for name in sorted(problems) for text in problems[name]],
        "problems_of": {name: list(texts) for name, texts in problems.items() if texts},
        "notes": notes,
    }


def merge_points(
    listings: dict[str, list[Entry]], registry: Registry | None = None, inventory: dict[str, list[str]] | None = None
) -> list[Entry]:
    """``listings``: host -> its points (native and legacy). ``inventory``: host -> the components it has now.

    Newest first. Hosts of the inventory that gave no listing count as having nothing.
    """
    inventory = None if inventory is None else versioned(inventory)
    by_version: dict[str, dict[str, Entry]] = {}
    for host, entries in listings.items():
        for entry in entries:
            # A legacy backup and a native point may carry one name: the native one wins on its host.
            key = entry["version"]
            held = by_version.setdefault(key, {})
            if host not in held or held[host]["legacy"]:
                held[host] = entry
    for held in by_version.values():
        if any(not entry["legacy"] for entry in held.values()):
            for host in [host for host, entry in held.items() if entry["legacy"]]:
                del held[host]
    merged = [_one(version, entries, registry or {}, inventory) for version, entries in by_version.items()]
    return sorted(merged, key=lambda point: (str(point["created"] or ""), point["version"]), reverse=True)
