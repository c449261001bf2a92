# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""What stands in the way of a restore, and what a person reads before it: the plan with its estimates."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import (
    _blockers,
    _estimate,
    _ledgers,
    _logins,
    _names,
    _pending,
    _plain,
    _pooler,
    _programs,
    _stage,
)
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import Database, Window

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._postgresql._restore import Restore

WHOLE = re.compile(r"relation (.+) is (?:missing|here but was not expected)\.\Z")
SHOWN = 8


def preflight(work: Restore, found: t.Mapping[str, Database], wanted: t.Sequence[str]) -> None:
    facts = work.point["facts"]
    _blockers.server_level(work.conn, work.report, creating=True)
    if facts.get("system_identifier") != work.server.system_identifier and not work.options.allow_foreign:
        what = f"Point {work.options.version} was taken on another server (system identifier {facts.get('system_identifier')})."
        work.report.block("foreign", "", what, "Set allow_foreign=true (rollback_postgresql_allow_foreign) if that is meant.")
    elif work.plain is None and not work.server.shares_history(facts):
        work.report.notes.append(
            f"Point {work.options.version} is not known to be of this server's own history (a promotion or a restore to a moment began another "
            "one, or the server hides which it is), so all rows are compared and not only those written since."
        )
    if int(facts["server_major"]) > work.server.major:
        what = f"Point {work.options.version} is of PostgreSQL {facts['server_major']}; this server is {work.server.major}."
        work.report.block("major", "", what, "Restore on a server of that version.")
    try:
        programs, codec = work.programs(), str(facts.get("codec") or "none")
        if not _programs.supported(work.cli, programs, codec):
            what = f"{programs.pg_restore} ({programs.version}) cannot read the point's {codec} compression."
            work.report.block("codec", "", what, "Install a build that can, or set bin_dir (rollback_postgresql_bin_dir) to its folder.")
    except RollbackError as exc:
        work.report.block("programs", "", str(exc), "")
    sizes: dict[str, int] = {}
    for name in wanted:
        needs = _stage.needs_of(work.manifests[name])
        if work.plain is not None:
            owner = work.manifests[name]["properties"]["owner"]
            _plain.obstacles(work.conn, work.report, name, owner, work.plain, work.options.plain_sql_roles)
        if name in found:
            _blockers.outgoing(work.conn, work.report, found[name], work.options.accept_replication, flipping=False)
        space = work.manifests[name]["properties"].get("tablespace") or "pg_default"
        if work.usable_staged(found, name) is None:
            sizes[space] = sizes.get(space, 0) + _estimate.sizes(work, [name])[name].bytes
        _blockers.incoming(work.conn, work.report, name, needs)
        for role in _stage.unsettable(work.conn, work.manifests[name]):
            what = f"The point of {name} has settings of role {role} in that database, which role {work.server.user} may not set."
            work.report.block("role_setting", name, what, f'As superuser: GRANT "{role}" TO "{work.server.user}".')
        _blockers.host_rules(work.conn, work.report, name, _names.staged_name(name, work.mark))
        if work.server.is_superuser:  # others cannot read the rules, which is told once
            _blockers.host_rules(work.conn, work.report, name, _names.kept_name(name, work.mark))
    _pooler.preflight(work, [name for name in wanted if name in found])
    _logins.preflight(work, found, wanted)
    _ledgers.check(work, found, wanted)
    _blockers.disk(work.conn, work.report, sizes, work.options.local)


def plan(work: Restore, found: t.Mapping[str, Database], wanted: t.Sequence[str]) -> None:
    lines = work.result["plan"]
    for name in wanted:
        told = work.result["databases"][name]
        manifest = work.manifests[name]
        unknown = work.plain if not manifest.get("known", True) else None
        tables = unknown.tables if unknown else len(manifest["tables"])
        lines.append(f"{name}: restore point {work.options.version} of {work.point['created']} ({tables} tables).")
        if unknown:
            lines.append(f"{name}: which rows and tables a plain SQL dump does not have is known once it was loaded beside.")
        lines += _ledgers.plan(work, name)
        for table, number in sorted(told["rows_gone"].items()):
            lines.append(f"{name}: {table} has lost or changed {number} row(s) of the point; they come back.")
        lines += [f"{name}: {text}" for text in schema_changes(told.get("catalogue_differences", []))]
    lines += _estimate.tell(work, found, wanted)
    lines += _pooler.remarks(work, found, wanted)


def schema_changes(differences: t.Sequence[str]) -> list[str]:
    """What the live schema differs in, short: a table that came or went stands for all that belongs to it, and the rest is counted."""
    whole = [f" {found.group(1)}." for found in map(WHOLE.match, differences) if found]
    shown = [text.rstrip(".") for text in differences if not any(table in text for table in whole)]
    if not shown:
        return []
    shown.sort(key=lambda text: not text.startswith("relation "))
    more = f"; and {len(shown) - SHOWN} more (catalogue_differences in the result names them)" if len(shown) > SHOWN else ""
    return [f"the live schema differs from the point: {'; '.join(shown[:SHOWN])}{more}."]


def waiting(work: Restore, found: t.Mapping[str, Database], name: str) -> dict[str, t.Any]:
    """What an interrupted run replaced and nobody has carried on: where it is, and how many rows of each table are newer than the point."""
    sources = _pending.owed(work.paths, found, name, work.run.run_id)
    told: dict[str, t.Any] = {"waits_in": [each.database.name for each in sources], "rows_waiting": {}}
    told["to_carry"] = bool(sources) and bool(work.ledgers)
    manifest = work.manifests[name]
    if work.state == "staged" and work.acting and manifest.get("known", True):  # reading it means to open it for a moment
        for each in sources:
            marker = each.database.marker
            moment = marker.get("since") if marker.get("version") == work.options.version and each.direct else None
            if moment is None and work.of_this_point(each.database, manifest):
                moment = manifest["snapshot"]
            with Window(work.conn, work.server.connect, each.database) as inside:
                for table, number in work.newer(inside, name, moment)["rows_since"].items():
                    told["rows_waiting"][table] = max(number, told["rows_waiting"].get(table, 0))
    return told


def owed(work: Restore, name: str) -> list[str]:
    """What a run that did not come to its end has left to do."""
    told = work.result["databases"][name]
    if not told.get("waits_in"):
        return []
    where = ", ".join(told["waits_in"])
    rows = ", ".join(f"{number} of {table}" for table, number in sorted(told["rows_waiting"].items()))
    what = "Those of ledgers are carried back, the rest stays there." if told["to_carry"] else "They stay there."
    return [f"{name}: An interrupted run left rows newer than the point in {where}{f' ({rows})' if rows else ''}. {what}"]
