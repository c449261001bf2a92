# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Which replaced databases hold rows that belong into the live one: those of this run, and those that an interrupted run left.

A run that is stopped between its flip and its carrying back (killed, taken over by an emergency) leaves rows that are only
in the database that it replaced. Whoever comes next finds the flip done; the rows are still owed.
"""

from __future__ import annotations

import os
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import read_json
from ansible_collections.payops.rollback.plugins.module_utils._lock import list_runs
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _state
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import Database
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths

# Runs that exchange databases, how they end when all of it was done, and how when it may have stopped half way.
FLIPPING = ("full", "database", "gradual", "undo")
FINISHED = ("done", "unchanged")
STOPPED = (None, "taken_over", "lost")


class Source(t.NamedTuple):
    """A database to carry rows from."""

    database: Database
    moment: str | None  # the snapshot of the flip that made the live database: rows after it were written there
    direct: bool  # whether the live database took its place, and not that of one that took its place


def chain(paths: Paths, run_id: str | None) -> set[str]:
    """The run and those that it took the lock from: their flip is its flip."""
    found: set[str] = set()
    while run_id is not None and run_id not in found:
        found.add(run_id)
        record = read_json(os.path.join(paths.run_dir(run_id), "run.json")) or {}
        run_id = (record.get("took_over") or {}).get("run")
    return found


def is_undo(paths: Paths, run_id: str) -> bool:
    return (read_json(os.path.join(paths.run_dir(run_id), "run.json")) or {}).get("intent") == "undo"


def interrupted(runs: t.Iterable[dict[str, t.Any]], run_id: str | None) -> set[str]:
    """Runs (newest first) that may have stopped half way, back to the last one that came to its end."""
    found: set[str] = set()
    for run in runs:
        if run.get("run") == run_id or run.get("intent") not in FLIPPING:
            continue
        if run.get("outcome") in FINISHED:
            break
        if run.get("outcome") in STOPPED:
            found.add(str(run["run"]))
    return found


def actor(database: Database) -> str | None:
    """The run that took the name from it."""
    return database.marker.get("undo_run") or database.marker.get("run")


def source_of(found: t.Mapping[str, Database], name: str, runs: t.Container[str], wanted: str) -> Database | None:
    """The database that the present one replaced. Inside a run only if that run replaced it: last month's has nothing to give."""
    if name not in found:
        raise RollbackError(f"The server has no database {name}. Correct databases.")
    kinds = ("kept", "undone") if wanted == "auto" else (wanted,)
    for each in reversed(_state.ours(found, name, *kinds)):
        if each.marker.get("live_oid") == found[name].oid and not each.invalid:
            return each if not runs or each.marker.get("run") in runs or each.marker.get("undo_run") in runs else None
    return None


def sources(found: t.Mapping[str, Database], name: str, runs: set[str], broken: t.Container[str], wanted: str = "auto") -> list[Source]:
    """Where rows come from, the nearest first. ``runs`` is the run's own chain, ``broken`` are interrupted ones.

    What an interrupted run replaced may itself have been replaced since, so the way goes on from database to database.
    """
    first = source_of(found, name, runs, wanted)
    chosen = [] if first is None else [Source(first, first.marker.get("snapshot"), True)]
    oids: list[tuple[int, str | None]] = [(found[name].oid, None)] + [(each.database.oid, each.moment) for each in chosen]
    kinds = ("kept", "undone") if wanted == "auto" else (wanted,)
    for oid, moment in oids:  # grows on the way
        for each in reversed(_state.ours(found, name, *kinds)):
            known = any(each.oid == source.database.oid for source in chosen) or each.oid == found[name].oid
            mine = actor(each) in broken or (moment is not None and actor(each) in runs)
            if each.marker.get("live_oid") == oid and mine and not each.invalid and not known:
                chosen.append(Source(each, moment or each.marker.get("snapshot"), moment is None))
                oids.append((each.oid, chosen[-1].moment))
    return chosen


def owed(paths: Paths, found: t.Mapping[str, Database], name: str, run_id: str | None) -> list[Source]:
    """Replaced databases whose rows nobody has carried on yet, although a run that did not come to its end replaced them."""
    if name not in found:
        return []
    runs = chain(paths, run_id) or {""}  # never what a finished run left, whoever asks
    return [
        each for each in sources(found, name, runs, interrupted(list_runs(paths), run_id)) if not each.database.marker.get("carried_by")
    ]
