# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Restore a point beside the live databases: create, load, compare, close. Nothing live is touched."""

from __future__ import annotations

import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import now
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import (
    _connection,
    _ledgers,
    _logins,
    _names,
    _plain_point,
    _plain_run,
    _plan,
    _stage,
    _state,
)
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import Database

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._postgresql._restore import Restore


def stage(work: Restore, found: t.Mapping[str, Database], wanted: t.Sequence[str]) -> None:
    """Restore beside the live databases, compare, close."""
    with work.run.step("preflight"):
        _plan.preflight(work, found, wanted)
    _plan.plan(work, found, wanted)
    work.stop_if_blocked()
    reuse = {name: each for name in wanted for each in [work.usable_staged(found, name)] if each is not None}
    new = [name for name in wanted if name not in reuse]
    work.reused = [*reuse]
    for name, each in reuse.items():
        work.actions.append(f"reuse {each.name}, which was restored and compared earlier")
    if not work.acting:
        return
    for name in wanted:
        for each in _state.ours(found, name, "staged"):
            if name not in reuse or each.oid != reuse[name].oid:
                _state.drop(work.conn, each)
                work.actions.append(f"dropped {each.name}, restored for another point")
    for each in reuse.values():
        _stage.set_marker(work.conn, each.name, {**each.marker, "run": work.mark})
    if new:
        begun = time.monotonic()
        _make(work, new)
        _measured(work, new, time.monotonic() - begun)
        if work.plain is not None:
            _tell_again(work, found, wanted)
    _logins.staged(work, wanted)
    found = work.found()
    for name in wanted:
        usable = work.usable_staged(found, name)
        work.result["databases"][name]["staged"] = usable.name if usable else None


def _tell_again(work: Restore, found: t.Mapping[str, Database], wanted: t.Sequence[str]) -> None:
    """What a plain SQL dump makes is known only now: whether its ledgers are there, and which live rows and tables it does not have."""
    work.result["plan"] = []
    for name in wanted:
        work.result["databases"][name] = work.describe(found, name, False)
        work.result["plan"] += _plan.owed(work, name)
    _ledgers.check(work, found, wanted)
    _plan.plan(work, found, wanted)
    work.stop_if_blocked()


def _make(work: Restore, new: t.Sequence[str]) -> None:
    taken = work.found()
    names = {name: _names.free_name(_names.staged_name(name, work.mark), taken) for name in new}
    markers: dict[str, dict[str, t.Any]] = {}
    version = str(work.options.version)
    program = work.programs().pg_restore
    try:
        with work.run.step("create", staged=names):
            _state.note_staging(work.paths, names.values())
            for name in new:
                markers[name] = {
                    "kind": "staged", "state": "loading", "database": name, "system": work.point["system"], "version": version,
                    "manifest": work.digests[name], "run": work.mark, "at": now(), "seq": _state.next_seq(taken),
                    "comment": _names.own_comment(work.manifests[name]["properties"].get("comment")),
                }  # fmt: skip
                _stage.create(work.conn, names[name], work.manifests[name]["properties"], markers[name])
                work.server.connect(names[name]).close()  # pg_hba.conf or a pooler may know the production name only
        left: dict[str, list[str]] = {}
        with work.run.step("load") as learnt:
            for name in new:
                if work.plain is not None:
                    left[name] = []
                    _plain_point.fill(work, work.plain, name, names[name])
                    continue
                left[name] = _stage.load(
                    work.cli, work.server, program, work.folder(name), names[name], work.options.jobs, work.options.skip_entries
                )
            learnt["left_out"] = left
        work.actions += [f"left out of {name}: {line}" for name in new for line in left[name]]
        with work.run.step("analyze"):
            for name in new:
                _stage.analyze(work.server, names[name])
        with work.run.step("compare"):
            found = work.found()
            for name in new:
                if work.plain is not None:
                    _plain_point.learn(work, name, found[names[name]])
                overlook = _stage.ignored(left[name])
                markers[name]["overlooked"] = overlook
                markers[name]["seal"] = _stage.compare(work.conn, work.server, found[names[name]], work.manifests[name], overlook, version)
        with work.run.step("seal"):
            for name in new:
                _stage.apply_properties(work.conn, names[name], work.manifests[name]["properties"])
                _stage.set_marker(work.conn, names[name], {**markers[name], "state": "verified"})
                work.actions.append(f"restored and compared {names[name]}")
    except BaseException as exc:
        _drop_staged(work, names)
        if getattr(exc, "pgcode", None) == _stage.DISK_FULL:
            what = _connection.plain(exc)
            raise RollbackError(
                f"The server has no room for {', '.join(names.values())}: {what}. The live database was not touched.{_stage.NO_ROOM}"
            ) from exc
        raise


def _drop_staged(work: Restore, names: t.Mapping[str, str]) -> None:
    """After a failure: only what this call made, and the failure itself stays the message."""
    try:
        found = work.found()
        for each in names.values():
            if each in found and (found[each].marker.get("kind") == "staged" or _state.bare(found[each])):
                _state.drop(work.conn, found[each])
        _plain_run.recover(work.conn, work.report, work.server.is_superuser, work.names, work.acting)
    except Exception:  # the next run recovers
        return


def _measured(work: Restore, new: t.Sequence[str], seconds: float) -> None:
    """Remember how fast this host restores, for the next plan."""
    found = work.found()
    oids = [work.usable_staged(found, name) for name in new]
    size = sum(int(_state.one(work.conn, "SELECT pg_catalog.pg_database_size(%s::oid)", (each.oid,)) or 0) for each in oids if each)
    if size and seconds > 0:
        _state.update(work.paths, {"rate": int(size / seconds), "staging": []})
