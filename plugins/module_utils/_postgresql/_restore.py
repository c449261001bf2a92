# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The databases of one server at a version: staged, live, previous, complete.

Nothing live is changed before the one transaction of :mod:`_swap`, and what that replaces is kept. Every step may be
killed; the same call again looks at the server's markers first and goes on from there.
"""

from __future__ import annotations

import os
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import canonical_json, now, sha256_bytes
from ansible_collections.payops.rollback.plugins.module_utils._points import load_component, verify_component
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import (
    _beside,
    _blockers,
    _ledgers,
    _logins,
    _manifest,
    _plain,
    _plain_point,
    _plain_run,
    _plan,
    _pooler,
    _programs,
    _rights,
    _stage,
    _state,
)
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import COMPONENT, Database
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths, Run

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._module import Cli
    from ansible_collections.payops.rollback.plugins.module_utils._postgresql._connection import Server

STAGED = ("recover", "points", "preflight", "create", "load", "analyze", "compare", "seal", "logins")
LIVE = ("recheck", "sequences", "drain", "swap", "postcheck", "resume", "remember")
PREVIOUS = ("recover", "preflight", "sequences", "drain", "swap", "postcheck", "resume", "remember", "drop")
COMPLETE = ("recover", "preflight", "count", "drop")
STEPS: dict[str, tuple[str, ...]] = {"staged": STAGED, "live": STAGED + LIVE, "previous": PREVIOUS, "complete": COMPLETE}


class Options(t.NamedTuple):
    """What the module was asked for."""

    databases: t.Sequence[str]
    version: str | None = None
    again: bool = False
    jobs: int = 2
    allow_foreign: bool = False
    sequence_margin: int = 10000
    accept_replication: bool = False
    terminate_wait: float = 30.0
    skip_entries: t.Sequence[str] = ()
    undo_run: t.Sequence[str] | None = None
    count_newer: bool = True
    allow_plain_sql: bool = False
    legacy_path: str | None = None
    plain_sql_sha256: str | None = None
    plain_sql_roles: t.Mapping[str, str] = {}
    bin_dir: str | None = None
    local: bool = True
    ledgers: t.Sequence[dict[str, t.Any]] = ()
    poolers: t.Sequence[t.Mapping[str, t.Any]] = ()
    application_logins: t.Sequence[t.Mapping[str, t.Any]] = ()


class Restore:
    """One call of the module. ``run`` decides whether it acts (check mode does not)."""

    def __init__(self, server: Server, cli: Cli, paths: Paths, options: Options, run: Run, state: str = "live") -> None:
        if not options.databases:
            raise RollbackError("No databases were given. Name them in databases.")
        self.server = server
        self.cli = cli
        self.paths = paths
        self.options = options
        self.run = run
        self.state = state
        self.acting = run.acting
        self.mark = run.run_id or f"alone-{now()}"
        self.names = sorted(set(options.databases))
        self.report = _blockers.Report()
        self.actions: list[str] = []
        self.result: dict[str, t.Any] = {"changed": False, "databases": {}, "kept": {}, "plan": [], "blockers": [], "actions": self.actions}
        self.point: dict[str, t.Any] = {}
        self.manifests: dict[str, dict[str, t.Any]] = {}
        self.digests: dict[str, str] = {}
        self.reused: list[str] = []
        self.plain: _plain.Looked | None = None
        self.ledgers = _ledgers.parse_ledgers(self.names, options.ledgers)
        self.poolers = _pooler.declared(options.poolers)
        self.logins = _logins.Logins(options.application_logins)
        server.maintenance_besides(self.names)
        self.conn = server.connect()
        if self.acting:
            _state.hold_names(self.conn, self.names)

    # -- shared -------------------------------------------------------------------------------------------------------

    def found(self) -> dict[str, Database]:
        return _state.databases(self.conn)

    def recover(self) -> None:
        with self.run.step("recover") as learnt:
            said = _pooler.recover(self)  # first of all: somebody may be waiting behind one
            said += _state.recover(self.conn, self.paths, self.names, self.acting)
            said += _plain_run.recover(self.conn, self.report, self.server.is_superuser, self.names, self.acting)
            learnt["recovered"] = said
            self.actions += said
            self.result["changed"] |= bool(said)

    def read_point(self) -> None:
        """The point, every file of it checked, before anything is created. What was restored and compared already needs no second hashing."""
        version = self.options.version
        if version is None:
            raise RollbackError("No version was given. Name the point to restore in version.")
        with self.run.step("points") as learnt:
            if self.options.legacy_path and not os.path.lexists(self.paths.component(version, COMPONENT)):
                _plain_point.take(self, version, self.options.legacy_path)
                learnt.update(plain_sql=self.plain._asdict() if self.plain else None)
                return
            self._take_point(load_component(self.paths, version, COMPONENT))
            found = self.found()
            if not all(self.usable_staged(found, name) for name in self.names):
                verify_component(self.paths, version, COMPONENT)
            learnt["size"] = self.point["size"]

    def _take_point(self, manifest: dict[str, t.Any]) -> None:
        facts = manifest["facts"]
        missing = [name for name in self.names if name not in facts["databases"]]
        if missing:
            held = ", ".join(sorted(facts["databases"]))
            raise RollbackError(f"Point {self.options.version} has no database {', '.join(missing)}; it holds {held}. Correct databases.")
        self.point = manifest
        for name in self.names:
            self.manifests[name] = facts["databases"][name]
            self.digests[name] = sha256_bytes(canonical_json([self.manifests[name], manifest["files"]]))

    def folder(self, name: str) -> str:
        """Where the archive of one database lies."""
        return f"{self.paths.component(str(self.options.version), COMPONENT)}/{self.manifests[name]['folder']}"

    def require_readable(self, found: t.Mapping[str, Database], names: t.Iterable[str], kinds: str) -> None:
        """Rows of what is live are counted and its sequences passed: what a migration by hand has shut away from us is named."""
        for name in names:
            if name in found and not self.server.is_superuser:
                with _stage.session_on(self.conn, self.server, name) as inside:
                    for what, do in _rights.unreadable_relations(inside, self.server, name, kinds):
                        self.report.block("unreadable", name, what, f"As superuser: {do}")

    def stop_if_blocked(self) -> None:
        self.result["blockers"] = self.report.blockers
        self.result["notes"] = self.report.notes
        if self.report.blockers and self.acting:
            raise self.obstacles()

    def obstacles(self) -> RollbackError:
        return RollbackError(
            f"{len(self.report.blockers)} obstacle(s); nothing was touched: {_blockers.sentence(self.report.blockers)}",
            blockers=self.report.blockers,
            notes=self.report.notes,
        )

    # -- at the version? ----------------------------------------------------------------------------------------------

    def record(self, found: t.Mapping[str, Database], name: str) -> dict[str, t.Any] | None:
        return _state.live_record(self.paths, found, name)

    def at_version(self, found: t.Mapping[str, Database], name: str) -> bool:
        """The flip to this version made this database, and its catalogue is still the point's. A marker alone is no proof."""
        record = self.record(found, name)
        if not self.manifests[name].get("known", True):
            return False
        if record is None or record["version"] != self.options.version or record.get("manifest") not in (None, self.digests[name]):
            return False
        with _stage.session_on(self.conn, self.server, name) as inside:
            return not _manifest.compare_catalogue(self.manifests[name], inside, self.overlooked(name))

    def overlooked(self, name: str) -> list[str]:
        if not self.options.skip_entries or self.plain is not None:
            return []
        entries = _stage.toc_entries(self.cli, self.programs().pg_restore, self.folder(name))
        return _stage.ignored(_stage.skipped(entries, self.options.skip_entries))

    def programs(self) -> t.Any:
        return _programs.find(self.cli, self.server.major, self.options.bin_dir)

    def since(self, found: t.Mapping[str, Database], name: str) -> tuple[str | None, bool]:
        """From which moment rows of the database that has the name are newer than the point, and whether the flip made that moment."""
        record = self.record(found, name)
        if record is not None and record["version"] == self.options.version and record.get("snapshot"):
            return str(record["snapshot"]), True
        manifest = self.manifests[name]
        if name in found and self.of_this_point(found[name], manifest):
            return str(manifest["snapshot"]), False
        return None, False

    def describe(self, found: t.Mapping[str, Database], name: str, at: bool) -> dict[str, t.Any]:
        """What the result says about one database, rows newer than the point per table included."""
        told: dict[str, t.Any] = {
            "at_version": at,
            "live_oid": found[name].oid if name in found else None,
            "rows_since": {},
            "rows_gone": {},
        }
        staged = self.usable_staged(found, name)
        told["staged"] = staged.name if staged else None
        kept = _state.ours(found, name, "kept", "undone")
        told["kept"] = kept[-1].name if kept else None
        told.update(_plan.waiting(self, found, name))
        if name not in found or not self.manifests[name].get("known", True):
            return told
        with _stage.session_on(self.conn, self.server, name) as inside:
            if at or self.state == "staged" or not self.acting:
                told.update(self.newer(inside, name, self.since(found, name)[0]))
            told["catalogue_differences"] = _manifest.compare_catalogue(self.manifests[name], inside)
        return told

    def of_this_point(self, database: Database, manifest: t.Mapping[str, t.Any]) -> bool:
        """Whether the point was taken of this very database, so that transaction numbers can be compared."""
        same = self.server.shares_history(self.point["facts"])
        return bool(same and manifest.get("oid") == database.oid and manifest.get("snapshot"))

    def newer(self, inside: t.Any, name: str, moment: str | None) -> dict[str, t.Any]:
        """Rows newer than the point per table of a database that has, or had, the name. Costs about as much as count(*)."""
        recorded = self.manifests[name]["tables"]
        if moment is not None:
            since = _manifest.rows_since(inside, moment, recorded)
            return {
                "rows_since": {table: each["written"] for table, each in since.items() if each["written"]},
                "rows_gone": {table: each["gone"] for table, each in since.items() if each["gone"]},
            }
        counted = _manifest.count_tables(inside, "counts")
        more = {table: each["rows"] - recorded.get(table, {}).get("rows", 0) for table, each in counted.items()}
        return {
            "rows_since": {table: number for table, number in more.items() if number > 0},
            "rows_gone": {table: -number for table, number in more.items() if number < 0},
            "rows_since_is_estimate": True,  # another database's history: only the numbers of rows can be compared
        }

    def usable_staged(self, found: t.Mapping[str, Database], name: str) -> Database | None:
        for each in reversed(_state.ours(found, name, "staged")):
            if each.marker.get("state") == "verified" and each.marker.get("manifest") == self.digests.get(name) and not each.invalid:
                return each
        return None

    # -- staged -------------------------------------------------------------------------------------------------------

    def staged(self) -> dict[str, t.Any]:
        found = self.begin()
        wanted = self.not_yet(found)
        _ledgers.before_carrying(self, found, wanted)
        if wanted:
            _beside.stage(self, found, wanted)
        self.finish(wanted, "staged")
        return self.result

    def begin(self) -> dict[str, Database]:
        """What both ways forward need: leftovers gone, the point read, and the right to read what is live."""
        self.recover()
        self.read_point()
        found = self.found()
        me = _blockers.who_am_i(self.conn)
        for name in self.names:
            if name in found:
                _blockers.owner(self.conn, self.report, found[name], me)
        if not self.report.blockers:
            self.require_readable(found, self.names, _rights.TABLES + _rights.SEQUENCES)
        if self.report.blockers:
            _blockers.server_level(self.conn, self.report, creating=True)
            for name in self.names:
                _blockers.incoming(self.conn, self.report, name, _stage.needs_of(self.manifests[name]))
            self.result["blockers"] = self.report.blockers
            raise self.obstacles()
        return found

    def not_yet(self, found: t.Mapping[str, Database]) -> list[str]:
        """Databases that have to be restored; fills in the result."""
        wanted = []
        for name in self.names:
            at = name in found and self.at_version(found, name)
            self.result["databases"][name] = self.describe(found, name, at)
            record = self.record(found, name)
            flipped_by_us = at and record is not None and self.run.run_id is not None and record["run"] == self.run.run_id
            if not at or (self.options.again and not flipped_by_us):
                wanted.append(name)
            self.result["plan"] += _plan.owed(self, name)
        return wanted

    def finish(self, wanted: t.Sequence[str], what: str) -> None:
        version = self.options.version
        if what == "staged" and wanted and set(wanted) == set(self.reused):
            self.result["msg"] = f"{', '.join(wanted)}: staged at point {version} already."
            return
        if wanted:
            self.result["changed"] = True
            self.result["msg"] = f"{', '.join(wanted)}: {'would be ' if not self.acting else ''}{what} at point {version}."
            return
        newer = {name: each["rows_since"] for name, each in self.result["databases"].items() if each["rows_since"]}
        rest = ""
        if newer:
            total = sum(sum(tables.values()) for tables in newer.values())
            rest = f" {total} row(s) were written since; set again=true to restore the point once more."
        owed = [f" {line.partition(': ')[2]}" for name in self.names for line in _plan.owed(self, name)]
        self.result["msg"] = f"{', '.join(self.names)}: already at point {version}.{''.join(owed) or rest}"

    # -- live ---------------------------------------------------------------------------------------------------------

    def live(self) -> dict[str, t.Any]:
        from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _flip

        found = self.begin()
        wanted = self.not_yet(found)
        _ledgers.before_carrying(self, found, wanted)
        if wanted:
            _beside.stage(self, found, wanted)
            if self.acting:
                _flip.forward(self, wanted)
        elif self.acting:
            _flip.remember(self, found)
            for name in self.names:  # what this run goes on from was replaced by another
                if self.result["databases"][name].get("waits_in"):
                    self.result["kept"][name] = self.result["databases"][name]["waits_in"][0]
        self.finish(wanted, "live")
        return self.result

    def previous(self) -> dict[str, t.Any]:
        from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _flip

        self.recover()
        return _flip.back(self)

    def complete(self) -> dict[str, t.Any]:
        from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _given_up

        self.recover()
        return _given_up.complete(self)
