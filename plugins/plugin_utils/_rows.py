# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this plugin util is PRIVATE to the collection: it may change without notice.
"""Rows newer than the point: how many there are, which were carried back, and where the others lie. Pure."""

from __future__ import annotations

import typing as t

SHOWN = 8  # names of points in one sentence
# host -> component -> verb -> module result
Answers = t.Dict[str, t.Dict[str, t.Dict[str, t.Any]]]


def foreseen(prepared: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Rows newer than the point by ``database.table``, with what will happen to them where the component said it."""
    rows: dict[str, t.Any] = dict(_newer(prepared))
    databases = prepared.get("databases")
    for database, entry in (databases if isinstance(databases, dict) else {}).items():
        for table, planned in ((entry or {}).get("rows_planned") or {}).items():
            rows[f"{database}.{table}"] = {"newer": planned["newer"], "carried": planned["carried"], "left": planned["stays"]}
    return rows


def gone(found: Answers) -> list[dict[str, t.Any]]:
    """Rows that were only in databases that complete dropped."""
    return [
        {
            "table": f"{each.get('database')}.{table}",
            "rows": f"at most {number}" if table in (each.get("at_most") or []) else number,
            "was_in": each.get("name"),
        }
        for parts in found.values()
        for results in parts.values()
        for each in (results.get("complete") or {}).get("dropped") or []
        if isinstance(each, dict)
        for table, number in (each.get("only_there") or {}).items()
    ]


def dropped_points(hostvars: t.Mapping[str, t.Any], hosts: t.Iterable[str]) -> list[str]:
    """One sentence on the old points that a backup has dropped on any host: they do not come back."""
    results = [hostvars[host].get("transaction_pruned") or {} for host in hosts]
    names = sorted({str(point["version"]) for result in results for point in result.get("removed") or []})
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"Dropped {len(names)} old point(s), as keep_count and keep_days say: {', '.join(names[:SHOWN])}{more}."] if names else []


def rows_of(found: Answers, verb: str) -> dict[str, dict[str, t.Any]]:
    """``database.table`` -> newer, carried, left, left_in: the rows that the point does not have."""
    rows: dict[str, dict[str, t.Any]] = {}
    for parts in found.values():
        for results in parts.values():
            kept = (results.get(verb) or {}).get("kept") or {}
            for name, count in (_newer(results.get("prepare") or {}, True) if verb == "flip" else {}).items():
                rows[name] = {
                    "newer": count,
                    "carried": 0,
                    "left": count,
                    "left_in": _of_database(kept, name),
                }
            carried = (results.get(verb) or {}).get("carried_back") or {}
            for name, count in (carried.get("carried") or {}).items():
                entry = rows.setdefault(name, {"newer": count, "left": 0, "left_in": None})
                entry["carried"] = count
                entry["left"] = max(0, int(entry["newer"]) - int(count))
            for name, left in (carried.get("left") or {}).items():
                number = sum(int(value) for value in left.values() if isinstance(value, int)) if isinstance(left, dict) else int(left)
                entry = rows.setdefault(name, {"newer": number, "carried": 0, "left_in": None})
                entry["left"] = number
                entry["newer"] = max(int(entry["newer"]), number + int(entry.get("carried") or 0))
                entry["left_in"] = _of_database(carried.get("left_in"), name) or entry.get("left_in")
    return {name: entry for name, entry in rows.items() if entry.get("newer") or entry.get("carried") or entry.get("left")}


class Before(t.NamedTuple):
    """What a run had done before it was killed and continued."""

    rows: dict[str, dict[str, t.Any]]
    kept: dict[tuple[str, str], str]  # by host and component


def recall(journals: t.Mapping[str, t.Iterable[t.Mapping[str, t.Any]]]) -> Before:
    """``journals`` by host: the modules of the killed part answered nobody, but wrote down which rows went where."""
    before = Before({}, {})
    for host, journal in journals.items():
        kept: dict[str, str] = {}
        for record in journal:
            if record.get("step") == "swap":
                kept.update({move[0]: move[2] for move in record.get("moves") or [] if move[1] is not None})
                before.kept[host, str(record.get("component"))] = ", ".join(kept.values())
            elif record.get("step") == "carry" and record.get("phase") == "end":
                for name, number in (record.get("carried") or {}).items():
                    left = sum(((record.get("left") or {}).get(name) or {}).values())
                    before.rows[name] = {"newer": number + left, "carried": number, "left": left, "left_in": _of_database(kept, name)}
    return before


def _of_database(known: t.Any, name: str) -> t.Any:
    """What is known of the database of ``database.table``. Names may have dots of their own, so the longest that fits is meant."""
    fits = [database for database in (known if isinstance(known, dict) else {}) if name.startswith(f"{database}.")]
    return known[max(fits, key=len)] if fits else None


def _newer(prepared: t.Mapping[str, t.Any], replaced: bool = False) -> dict[str, int]:
    """Rows newer than the point by ``database.table``; with ``replaced`` only those that are in databases that were replaced."""
    rows: dict[str, int] = {}
    databases = prepared.get("databases")
    for database, entry in (databases if isinstance(databases, dict) else {}).items():
        entry = entry or {}
        stays = replaced and entry.get("at_version") and not entry.get("staged")
        for counts in ({} if stays else entry.get("rows_since"), entry.get("rows_waiting")):
            for table, count in (counts or {}).items():
                if isinstance(count, int) and count:
                    rows[f"{database}.{table}"] = max(count, rows.get(f"{database}.{table}", 0))
    return rows
