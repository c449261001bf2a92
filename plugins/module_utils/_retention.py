# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Which points may go. Pure.

Good, unverified and unusable points are counted apart, so failed deployments never push out a good point, whatever
the numbers say. What is live, the last good point, pinned or needed is never removed.
"""

from __future__ import annotations

import datetime
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._merge import Entry


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


def _protection(point: Entry, last_good: str | None, live: set[str], needed: dict[str, str]) -> str | None:
    if point["legacy"]:
        return "legacy backups belong to the team's own script"
    if point["pinned"]:
        return f"pinned ({point['pinned'].get('why') or 'no reason given'})"
    if point["version"] in live or live & set(point["releases"]):
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
    living = {str(item) for item in live if item}
    last_good = next((point["version"] for point in points if _class(point) == "good"), None)
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
