# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""What surrounds the swap, forward and back."""

from __future__ import annotations

import os
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import now, read_json
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import (
    _blockers,
    _estimate,
    _names,
    _pooler,
    _rights,
    _sequences,
    _stage,
    _state,
    _swap,
    _usage,
)
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import Database, Window

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._postgresql._restore import Restore


# -- forward ----------------------------------------------------------------------------------------------------------


def forward(work: Restore, wanted: t.Sequence[str]) -> None:
    begun = time.monotonic()
    found = work.found()
    staged: dict[str, Database] = {}
    for name in wanted:
        usable = work.usable_staged(found, name)
        if usable is None:
            raise RollbackError(f"No staged database of point {work.options.version} exists for {name}. Run state=staged first.")
        staged[name] = usable
    _recheck(work, staged)
    with work.run.step("sequences") as learnt:
        learnt["sequences"] = {name: _push(work, found, name, staged[name]) for name in wanted if name in found}
    work.result["sequences"] = learnt["sequences"]
    for name in wanted:
        if name in found:
            _blockers.logins(work.conn, work.report, found[name], staged[name].name)
    work.result["notes"] = work.report.notes
    moves = [_forward_move(work, found, name, staged[name], number) for number, name in enumerate(wanted)]
    with _pooler.paused(work, [move.name for move in moves]) as connect:
        _swap_step(work, moves, connect)
        _postcheck(work, moves)
    remember(work, work.found())
    _estimate.learn(work, wanted, begun)
    for move in moves:
        work.result["databases"][move.name].update(at_version=True, live_oid=move.in_oid, staged=None)
        if move.out_oid is not None:
            work.result["databases"][move.name]["kept"] = move.out_name
            work.result["kept"][move.name] = move.out_name
            work.actions.append(f"{move.name} is now point {work.options.version}; what it was is kept as {move.out_name}")
            if work.options.count_newer:
                kept = work.found()[move.out_name]
                with Window(work.conn, work.server.connect, kept) as inside:
                    work.result["databases"][move.name].update(work.newer(inside, move.name, kept.marker.get("since")))


def _recheck(work: Restore, staged: t.Mapping[str, Database]) -> None:
    """One changed row, one dropped grant, one dropped index in a staged database: each alone stops the flip."""
    with work.run.step("recheck"):
        said: list[str] = []
        for name, database in staged.items():
            differences = _stage.recheck(work.conn, work.server, database, work.manifests[name], database.marker.get("overlooked", []))
            if differences:
                said += [f"{database.name}: {each}" for each in differences]
                # not to be used again; the next run drops it and restores anew
                _stage.set_marker(work.conn, database.name, {**database.marker, "state": "spoiled"})
        if said:
            raise RollbackError(
                f"Somebody changed a staged database after it was compared: {' '.join(said[:5])} The live database was not touched. "
                "Find out who; the same command again restores it anew.",
                differences=said,
            )


def _push(work: Restore, found: t.Mapping[str, Database], name: str, incoming: Database) -> dict[str, t.Any]:
    """Set the incoming database's sequences past those in use."""
    with _stage.session_on(work.conn, work.server, name) as inside:
        live = _sequences.read(inside)
    days = _usage.a_day(work, found, name, live)
    with Window(work.conn, work.server.connect, incoming, read_only=False) as inside:
        mine = _sequences.read(inside)
        planned = _sequences.plan(live, mine, work.options.sequence_margin, days)
        _sequences.apply(inside, planned)
    unknown = _sequences.alone(live, mine)
    if unknown:
        work.report.notes.append(
            f"{name}: no sequence goes on from {', '.join(unknown)}. If another one numbers the same rows, set it past them."
        )
    values = {label: planned[label]["to"] if label in planned else each.value for label, each in mine.items()}
    _usage.remember(work, found, incoming, values, days)
    return planned


def _forward_move(work: Restore, found: t.Mapping[str, Database], name: str, staged: Database, number: int) -> _swap.Move:
    out = found.get(name)
    moment, ours = work.since(found, name) if out is not None else (None, False)
    marker = {
        "kind": "kept", "database": name, "system": work.point["system"], "version": work.options.version, "manifest": work.digests[name],
        "run": work.mark, "at": now(), "seq": _state.next_seq(found) + number, "live_oid": staged.oid, "since": moment, "since_exact": ours,
        "before": work.record(found, name) if out is not None else None, "comment": out.comment if out is not None else None,
    }  # fmt: skip
    kept = _names.free_name(_names.kept_name(name, work.mark), found)

    def comment(snapshot: str) -> str:
        return _names.write_marker({**marker, "snapshot": snapshot})

    return _swap.Move(name, out.oid if out is not None else None, kept, comment, staged.name, staged.oid, staged.marker.get("comment"))


def _swap_step(work: Restore, moves: t.Sequence[_swap.Move], connect: t.Callable[..., t.Any]) -> None:
    with work.run.step("swap", moves=[[move.name, move.out_oid, move.out_name, move.in_oid] for move in moves]) as learnt:
        swapped = _swap.swap(connect, work.server.maintenance, moves, wait=work.options.terminate_wait)
        learnt["outage_ms"] = swapped.outage_ms
        learnt["attempts"] = swapped.attempts
    work.result.update(outage_ms=swapped.outage_ms, attempts=swapped.attempts)


def _postcheck(work: Restore, moves: t.Sequence[_swap.Move]) -> None:
    """Look at what has the names now; if that is not right, the same transaction backwards."""
    try:
        with work.run.step("postcheck"):
            for move in moves:
                _look(work, move)
    except RollbackError as exc:
        found = work.found()
        replaced = {move.name: found[move.out_name] for move in moves if move.out_oid is not None and move.out_name in found}
        if len(replaced) == len(moves):
            # What was live for that moment is kept as after an undo: somebody may have been paid in it.
            _swap.swap(work.server.connect, work.server.maintenance, _moves_back(work, found, replaced))
            raise RollbackError(f"{exc} The flip was taken back at once: the live databases are what they were.", **exc.details) from exc
        raise


def _look(work: Restore, move: _swap.Move) -> None:
    found = work.found()
    if move.name not in found or found[move.name].oid != move.in_oid:
        raise RollbackError(f"Database {move.name} does not have the OID {move.in_oid} after the flip.")
    with _stage.session_on(work.conn, work.server, move.name, read_only=False) as inside:
        if (
            _state.one(inside, "SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()")
            != move.in_oid
        ):
            raise RollbackError(
                f"A connection to {move.name} reaches another database than the one that was flipped in. Is a pooler in between?"
            )
        _state.rows(inside, "BEGIN")
        _state.rows(inside, "SELECT pg_catalog.pg_current_xact_id()")  # fails where nothing can be written
        _state.rows(inside, "ROLLBACK")
        live = _sequences.read(inside)
    if move.out_oid is not None:
        with Window(work.conn, work.server.connect, found[move.out_name]) as inside:
            _sequences.require_ahead(live, _sequences.read(inside), move.name)


def remember(work: Restore, found: t.Mapping[str, Database]) -> None:
    """The state file follows the server's markers; a crash in between is repaired here by the next call."""
    with work.run.step("remember") as learnt:
        live: dict[str, dict[str, t.Any] | None] = {}
        for name in work.names:
            record = _state.live_record(work.paths, found, name)
            if record is not None:
                live[name] = record
            elif name in found:
                fresh = _state.load_live(work.paths).get(name)
                if fresh is not None and fresh.get("oid") != found[name].oid:
                    live[name] = None  # somebody else's database has the name now
        learnt["written"] = _state.save_live(work.paths, live)


# -- back -------------------------------------------------------------------------------------------------------------


def whose(work: Restore) -> set[str] | None:
    """Which runs' flip to undo: named ones, this run's own, or for a run whose whole intent is undo the one that it took
    the lock from (its flip may not have happened), else None for the newest."""
    if work.options.undo_run:
        return set(work.options.undo_run)
    run = work.run.run_id
    seen: set[str] = set()
    while run is not None and run not in seen:
        seen.add(run)
        record = read_json(os.path.join(work.paths.run_dir(run), "run.json")) or {}
        holder = read_json(work.paths.lock) or {}
        intent = record.get("intent") or (holder.get("intent") if holder.get("run") == run else None)
        if intent != "undo":
            return {run}
        run = (record.get("took_over") or {}).get("run")
    return None


def back(work: Restore) -> dict[str, t.Any]:
    """The flip backwards. What the flip had brought is kept, because rows may have been written to it."""
    found = work.found()
    runs = whose(work)
    outs: dict[str, Database] = {}
    for name in work.names:
        kept = to_undo(found, name, runs)
        if kept is not None:
            outs[name] = kept
        work.result["databases"][name] = {
            "live_oid": found[name].oid if name in found else None,
            "staged": None,
            "kept": None,
            "at_version": None,
        }
    with work.run.step("preflight"):
        _blockers.server_level(work.conn, work.report, creating=False)
        for name in outs:
            _blockers.outgoing(work.conn, work.report, found[name], work.options.accept_replication, flipping=True)
        if not work.report.blockers:
            work.require_readable(found, outs, _rights.SEQUENCES)
        _pooler.preflight(work, list(outs))
    work.stop_if_blocked()
    work.result["plan"] += [f"{name}: give the name back to {kept.name}." for name, kept in outs.items()]
    if outs and work.acting:
        _back(work, found, outs)
    dropped = _drop_own_staged(work, runs, bool(outs))
    if outs:
        work.result["changed"] = True
        verb = "has" if work.acting else "would have"
        work.result["msg"] = f"{', '.join(outs)}: {verb} the name back; what the flip brought is kept."
    elif dropped:
        work.result["changed"] = True
        work.result["msg"] = f"No flip to undo for {', '.join(work.names)}; the staged database(s) {', '.join(dropped)} were dropped."
    else:
        work.result["msg"] = f"{', '.join(work.names)}: nothing to undo."
    return work.result


def to_undo(found: t.Mapping[str, Database], name: str, runs: t.Container[str] | None) -> Database | None:
    """The kept database that gets its name back, or None if there is nothing (more) to undo."""
    history = _state.ours(found, name, "kept", "undone")
    mine = [each for each in history if runs is None or each.marker.get("run") in runs]
    if not mine:
        return None
    newest = mine[-1]
    if newest.marker.get("kind") == "undone":
        return None  # done already, by an earlier call
    if name not in found or newest.marker.get("live_oid") != found[name].oid:
        live = found[name].oid if name in found else None
        later = next((each.marker.get("run") for each in reversed(history) if each.marker.get("live_oid") == live), None)
        raise RollbackError(
            f"Database {name} (OID {live}) is not the one that run {newest.marker.get('run')} brought (OID {newest.marker.get('live_oid')}). "
            + (
                f"Run {later} flipped after it: undo that one first."
                if later
                else "Somebody renamed databases by hand; look at them first."
            )
        )
    return newest


def _back(work: Restore, found: t.Mapping[str, Database], outs: t.Mapping[str, Database]) -> None:
    with work.run.step("sequences") as learnt:
        learnt["sequences"] = {name: _push(work, found, name, kept) for name, kept in outs.items()}
    work.result["sequences"] = learnt["sequences"]
    moves = _moves_back(work, found, outs)
    with _pooler.paused(work, [move.name for move in moves]) as connect:
        _swap_step(work, moves, connect)
        _postcheck_back(work, moves)
    with work.run.step("remember"):
        before = {name: kept.marker.get("before") for name, kept in outs.items()}
        _state.save_live(work.paths, before)
    for move in moves:
        work.result["databases"][move.name].update(live_oid=move.in_oid, kept=move.out_name)
        work.result["kept"][move.name] = move.out_name
        work.actions.append(f"{move.name} is again what it was before the flip; what the flip brought is kept as {move.out_name}")


def _moves_back(work: Restore, found: t.Mapping[str, Database], outs: t.Mapping[str, Database]) -> list[_swap.Move]:
    """The replaced databases get their names back; what has the names now is kept."""
    moves = []
    for number, (name, kept) in enumerate(outs.items()):
        marker = {
            "kind": "undone", "database": name, "system": kept.marker.get("system"), "version": kept.marker.get("version"),
            "manifest": kept.marker.get("manifest"), "run": kept.marker.get("run"), "undo_run": work.mark, "at": now(),
            "seq": _state.next_seq(found) + number, "live_oid": kept.oid, "since": kept.marker.get("snapshot"), "since_exact": True,
            "before": kept.marker.get("before"), "comment": found[name].comment,
        }  # fmt: skip
        moves.append(
            _swap.Move(
                name,
                found[name].oid,
                _names.free_name(_names.kept_name(name, work.mark), found),
                _undone(marker),
                kept.name,
                kept.oid,
                kept.marker.get("comment"),
            )  # fmt: skip
        )
    return moves


def _undone(marker: dict[str, t.Any]) -> t.Callable[[str], str]:
    def comment(snapshot: str) -> str:
        return _names.write_marker({**marker, "snapshot": snapshot})

    return comment


def _postcheck_back(work: Restore, moves: t.Sequence[_swap.Move]) -> None:
    """An undo is not undone: what it finds is told."""
    with work.run.step("postcheck"):
        for move in moves:
            _look(work, move)


def _drop_own_staged(work: Restore, runs: t.Container[str] | None, undone: bool) -> list[str]:
    """A run that ends before its flip leaves no staged database; an undo of the newest flip leaves those of other runs alone."""
    with work.run.step("drop") as learnt:
        found = work.found()
        dropped = []
        for name in work.names:
            for each in _state.ours(found, name, "staged"):
                if (runs is None and not undone) or (runs is not None and each.marker.get("run") in runs):
                    dropped.append(each.name)
                    if work.acting:
                        _state.drop(work.conn, each)
        learnt["dropped"] = dropped
    work.actions += [f"dropped the staged database {name}" for name in dropped]
    return dropped
