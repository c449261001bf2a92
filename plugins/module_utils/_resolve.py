# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Which point is meant by ``latest``, ``previous``, a name, or the timestamp of a legacy backup. Pure.

What is live is given as facts, never guessed from folder times:

``live``: ``{host: {component: {release: <what runs now>, version: <the point a rollback put there>, since: <when>}}}``.
"""

from __future__ import annotations

import difflib
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import check_name
from ansible_collections.payops.rollback.plugins.module_utils._merge import DATABASES, INTENTS, Entry, wants

Live = t.Dict[str, t.Dict[str, t.Dict[str, t.Any]]]


def live_releases(live: Live) -> set[str]:
    """The code that runs now, on any host."""
    return {
        str(state["release"])
        for components in live.values()
        for name, state in components.items()
        if name not in DATABASES and state and state.get("release")
    }


def _what_exists(points: list[Entry], limit: int = 8) -> str:
    if not points:
        return "No point exists yet; take one with the playbook backup.yml."
    names = [
        f"{point['version']}{' (legacy)' if point['legacy'] else ''}{'' if point['complete'] else ' (incomplete)'}"
        for point in points[:limit]
    ]
    more = f" and {len(points) - limit} more (see rollback_points.yml)" if len(points) > limit else ""
    return f"These exist, newest first: {', '.join(names)}{more}."


def _why_incomplete(point: Entry, intent: str) -> str:
    found = [text for name, texts in sorted(point["problems_of"].items()) if name == "" or wants(intent, name) for text in texts]
    missing = f"it has no {'application' if intent in ('application', 'gradual') else intent} part"
    return "; ".join(text.rstrip(".") for text in found) or missing


def _named(wanted: str, intent: str, points: list[Entry]) -> Entry:
    check_name("The version", wanted)
    chosen = next((point for point in points if point["version"] == wanted), None)
    if chosen is None:
        chosen = next((point for point in points if point["legacy"] and point["alias"] == wanted), None)
    if chosen is None:
        known = [name for point in points for name in (point["version"], point["alias"]) if name]
        close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.6)
        did_you_mean = f" Did you mean {' or '.join(close)}?" if close else ""
        raise RollbackError(f"There is no rollback point {wanted!r}.{did_you_mean} {_what_exists(points)}", close=close)
    if not chosen["complete_for"][intent]:
        raise RollbackError(
            f"Point {chosen['version']} cannot be used for a rollback ({intent}): {_why_incomplete(chosen, intent)}. {_usable(points, intent)}",
            problems=chosen["problems"],
        )
    return chosen


def _usable(points: list[Entry], intent: str) -> str:
    names = [point["version"] for point in points if point["complete_for"][intent]][:5]
    return f"Complete ones, newest first: {', '.join(names)}." if names else "No point is complete."


def _anchor(points: list[Entry], live: Live, intent: str) -> tuple[str, str] | None:
    """The place in time where the system stands: (created, version) of its point, None for 'newer than all'.

    A rollback put the system at point V, and it is still there: V. Otherwise the newest point of the code that runs.
    """
    by_version = {point["version"]: point for point in points}
    running = live_releases(live)
    places = []
    for components in live.values():
        for name, state in components.items():
            if not state or not wants(intent, name):
                continue
            point = by_version.get(str(state.get("version")))
            if point is None:
                continue
            if name in DATABASES:
                newer = [other for other in points if str(other["created"] or "") > str(state.get("since") or "")]
                if intent == "database" and not newer:
                    places.append((str(point["created"] or ""), point["version"]))
            elif not running or not point["releases"] or running & set(point["releases"]):
                places.append((str(point["created"] or ""), point["version"]))
    if not places and intent != "database" and running:
        same = [point for point in points if running & set(point["releases"])]
        places = [(str(point["created"] or ""), point["version"]) for point in same[:1]]
    return min(places) if places else None


def _walk(wanted: str, intent: str, points: list[Entry], live: Live) -> tuple[Entry | None, list[dict[str, str]]]:
    running = live_releases(live)
    anchor = _anchor(points, live, intent) if wanted == "previous" else None
    skipped: list[dict[str, str]] = []

    def skip(point: Entry, why: str) -> None:
        skipped.append({"version": point["version"], "why": why})

    for point in points:
        status = point["release"]
        if anchor is not None and (str(point["created"] or ""), point["version"]) >= anchor:
            skip(point, "it is the live one" if point["version"] == anchor[1] else "it is not older than the live one")
        elif not point["complete_for"][intent]:
            skip(point, _why_incomplete(point, intent))
        elif point["legacy"]:
            skip(point, f"it is a legacy backup whose health is unknown; name it to use it: version={point['version']}")
        elif status["status"] == "bad" and (intent != "database" or wanted == "previous"):
            by = f" by {status['who']}" if status["who"] else ""
            skip(point, f"its release was marked bad{by} ({status['why'] or 'no reason given'})")
        elif intent == "database":
            return point, skipped
        elif running and running & set(point["releases"]):
            skip(point, "its release is the one that runs now")
        elif status["status"] != "good":
            skip(point, "its release was never verified healthy")
        else:
            return point, skipped
    return None, skipped


def check_clock(wanted: str, points: list[Entry], until: str) -> None:
    """``latest`` goes by times. A point that is taken after ``until``, which is still to come, was taken with a wrong clock."""
    ahead = next((point for point in points if str(point["created"] or "") > until and not point["legacy"]), None)
    if ahead is not None:
        raise RollbackError(
            f"Point {ahead['version']} says that it was taken at {ahead['created']}, which is still to come: a clock was wrong, "
            f"so nobody can tell which point is {wanted!r}. Name one: -e version=NAME. {_what_exists(points)}"
        )


def resolve(wanted: t.Any, intent: str, points: list[Entry], live: Live | None = None, until: str | None = None) -> dict[str, t.Any]:
    """``points`` as ``merge_points`` gives them; ``until``: the latest moment that can be now.

    Returns version, point, skipped [{version, why}] and warnings.
    """
    if intent not in INTENTS:
        raise RollbackError(f"The intent is one of {', '.join(INTENTS)}; found {intent!r}.")
    check_name("The version", wanted)
    skipped: list[dict[str, str]] = []
    warnings: list[str] = []
    if wanted in ("latest", "previous"):
        if until is not None:
            check_clock(wanted, points, until)
        chosen, skipped = _walk(wanted, intent, points, live or {})
        if chosen is None:
            reasons = " ".join(f"{item['version']}: {item['why']}." for item in skipped[:8])
            more = f" And {len(skipped) - 8} more." if len(skipped) > 8 else ""
            raise RollbackError(
                f"No rollback point fits {wanted!r} ({intent}). {reasons + more if skipped else _what_exists(points)}"
                f"{' Name one to use it all the same: -e version=NAME' if skipped else ''}",
                skipped=skipped,
            )
    else:
        chosen = _named(wanted, intent, points)
        status = chosen["release"]
        if status["status"] == "bad" and intent != "database":
            warnings.append(f"The release of {chosen['version']} was marked bad by {status['who']} on {status['when']}: {status['why']}.")
        elif status["status"] == "unknown" and intent != "database":
            warnings.append(f"The release of {chosen['version']} was never verified healthy.")
    warnings += [f"{chosen['version']}: {note}." for note in chosen["notes"]]
    return {"wanted": wanted, "intent": intent, "version": chosen["version"], "point": chosen, "skipped": skipped, "warnings": warnings}
