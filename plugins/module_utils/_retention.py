# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Which points may go. Pure.

Good, unverified and unusable points are counted apart, so failed deployments never push out a good point, whatever
the numbers say. The newest point of what is live, the last good point, pinned or needed is never removed.
"""

from __future__ import annotations

import datetime
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._merge import Entry, merge_points
from ansible_collections.payops.rollback.plugins.module_utils._releases import merge_releases


def age_seconds(created: t.Any, now: datetime.datetime) -> float | None:
    """Seconds since an ISO 8601 UTC time; None where there is none."""
    try:
        moment = datetime.datetime.strptime(str(created), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc)
    except ValueError:
        return None
    return (now - moment).total_seconds()


def _class(point: Entry) -> str:
    if point["release"]["status"] == "bad" or not point["complete"]:
        return "unusable"
    return "good" if point["release"]["status"] == "good" else "unverified"


def _newest_live(points: list[Entry], live: set[str]) -> set[str]:
    """The points that are live by name, and the newest usable one of each live release: nightly points of a release that
    stays live are many, and going back to it takes one."""
    found = {point["version"] for point in points if point["version"] in live}
    for release in live:
        holders = [point for point in points if release in point["releases"] and not point["legacy"]]
        usable = [point for point in holders if _class(point) != "unusable"]
        found |= {point["version"] for point in (usable or holders)[:1]}
    return found


def _last_good(points: list[Entry]) -> str | None:
    """The newest point of a good release; one that cannot be used now, where none can: a host that joined or a folder
    that cannot be read for once makes all of them incomplete, and what is removed then does not come back."""
    good = [point for point in points if point["release"]["status"] == "good" and not point["legacy"]]
    return next((point["version"] for point in [*(each for each in good if each["complete"]), *good]), None)


def _protection(point: Entry, last_good: str | None, live: set[str], needed: dict[str, str]) -> str | None:
    if point["legacy"]:
        return "legacy backups belong to the team's own script"
    if point["pinned"]:
        return f"pinned ({point['pinned'].get('why') or 'no reason given'})"
    if point["version"] in live:
        return "live"
    if point["version"] in needed:
        return f"needed ({needed[point['version']]})"
    if point["version"] == last_good:
        return "the last good point"
    return None


def plan_retention(
    points: list[Entry],
    keep_count: int | None,
    keep_days: float | None,
    now: datetime.datetime,
    live: t.Iterable[str] = (),
    needed: dict[str, str] | None = None,
) -> dict[str, list[dict[str, str]]]:
    """``points`` newest first as ``merge_points`` gives them; ``live``: versions and releases that are live now;
    ``needed``: version -> why. Returns ``{remove: [{version, why}], keep: [{version, why}]}``.

    A point goes if neither rule keeps it: ``keep_count`` keeps that many of its class, ``keep_days`` the young ones.
    """
    for name, value in (("keep_count", keep_count), ("keep_days", keep_days)):
        if value is not None and value < 1:
            raise RollbackError(f"{name} must be at least 1; found {value}.")
    if keep_count is None and keep_days is None:
        raise RollbackError("Say what to keep: keep_count, keep_days or both. Nothing was removed.")
    living = _newest_live(points, {str(item) for item in live if item})
    last_good = _last_good(points)
    ranks = {"good": 0, "unverified": 0, "unusable": 0}
    plan: dict[str, list[dict[str, str]]] = {"remove": [], "keep": []}
    for point in points:
        kind = _class(point)
        if not point["legacy"]:
            ranks[kind] += 1
        why = _protection(point, last_good, living, needed or {})
        age = age_seconds(point["created"], now)
        if why is None and keep_count is not None and ranks[kind] <= keep_count:
            why = f"one of the newest {keep_count} ({kind})"
        if why is None and keep_days is not None and (age is None or age <= keep_days * 86400):
            why = f"younger than {keep_days:g} days" if age is not None else "its age is unknown"
        if why is not None:
            plan["keep"].append({"version": point["version"], "why": why})
            continue
        days = f"{age / 86400:.0f} days old" if age is not None else "of unknown age"
        plan["remove"].append({"version": point["version"], "why": f"{kind}, number {ranks[kind]} of its kind, {days}"})
    return plan


def mentioned(value: t.Any, versions: t.Container[str]) -> set[str]:
    """All versions that a state or run record names anywhere: kept databases and trees protect their points."""
    if isinstance(value, str):
        return {value} if value in versions else set()
    if isinstance(value, dict):
        return set().union(*(mentioned(item, versions) for pair in value.items() for item in pair)) if value else set()
    if isinstance(value, (list, tuple)):
        return set().union(*(mentioned(item, versions) for item in value)) if value else set()
    return set()


def needs_of(
    states: dict[str, t.Any], runs: t.Iterable[dict[str, t.Any]], known: t.Container[str], skip_run: str | None = None
) -> tuple[set[str], dict[str, str]]:
    """What a host says of itself: what is live there (versions and releases), and which points something needs: version -> why."""
    live: set[str] = set()
    needed: dict[str, str] = {}
    for component, state in states.items():
        if not isinstance(state, dict):
            continue
        live |= {str(state[key]) for key in ("version", "release") if state.get(key)}
        for version in sorted(mentioned(state, known)):
            needed.setdefault(version, f"{component} refers to it; see complete.yml")
    for run in runs:
        if run.get("state") == "open" and run.get("run") != skip_run and run.get("version") in known:
            needed.setdefault(str(run["version"]), f"run {run['run']} is not finished")
    return live, needed


def plan_together(
    infos: dict[str, dict[str, t.Any]],
    members: dict[str, list[str]],
    keep_count: int | None,
    keep_days: float | None,
    now: datetime.datetime,
    live: t.Iterable[str] = (),
    protect: t.Iterable[str] = (),
    inventory: t.Iterable[str] = (),
    run: str | None = None,
) -> dict[str, list[dict[str, str]]]:
    """One plan for the points of all hosts: a point goes everywhere or nowhere. ``infos``: host -> what rollback_run_info says."""
    for host, info in infos.items():
        if info.get("problems") or "points" not in info:
            said = info["problems"][0] if info.get("problems") else f"{host} did not list its points."
            raise RollbackError(f"{said} Nothing is removed while it is unknown what is live.")
    points = merge_points(
        {host: info["points"] for host, info in infos.items()}, merge_releases(info["releases"] for info in infos.values()), members
    )
    known = {point["version"] for point in points}
    living = set(live)
    needed = dict.fromkeys(protect, "it was just taken")
    for info in infos.values():
        own_live, own_needed = needs_of(info["states"], info["unfinished"], known, run)
        living |= own_live
        needed = {**own_needed, **needed}
    there = set(inventory) - set(infos)
    for info in infos.values():
        for entry in info["points"]:
            away = sorted(there & set((entry["record"] or {}).get("expected") or {}))
            if away:
                needed.setdefault(entry["version"], f"{', '.join(away)} has a part of it and takes no part in this run")
    return plan_retention(points, keep_count, keep_days, now, living, needed)
