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
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import canonical_json, now, read_json, sha256_bytes
from ansible_collections.payops.rollback.plugins.module_utils._points import load_component, verify_component
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import (
    _blockers,
    _catalogue,
    _manifest,
    _plain,
    _programs,
    _stage,
    _state,
)
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import COMPONENT, Database
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths, Run

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._module import Cli
    from ansible_collections.payops.rollback.plugins.module_utils._postgresql._connection import Server

STAGED = ("recover", "points", "preflight", "create", "load", "analyze", "compare", "seal")
LIVE = ("recheck", "sequences", "swap", "postcheck", "remember")
PREVIOUS = ("recover", "preflight", "sequences", "swap", "postcheck", "remember", "drop")
COMPLETE = ("recover", "preflight", "drop")
STEPS: dict[str, tuple[str, ...]] = {"staged": STAGED, "live": STAGED + LIVE, "previous": PREVIOUS, "complete": COMPLETE}

GUESSED_RATE = 40 << 20  # bytes of database restored and compared per second, until a run has measured it
GUESSED_OUTAGE_MS = 120


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
    undo_run: str | None = None
    count_newer: bool = True
    allow_plain_sql: bool = False
    legacy_path: str | None = None
    plain_sql_sha256: str | None = None
    plain_sql_roles: t.Mapping[str, str] = {}
    bin_dir: str | None = None
    local: bool = True


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
        self.plain: _plain.Looked | None = None
        server.maintenance_besides(self.names)
        self.conn = server.connect()
        if self.acting:
            _state.hold_names(self.conn, self.names)

    # -- shared -------------------------------------------------------------------------------------------------------

    def found(self) -> dict[str, Database]:
        return _state.databases(self.conn)

    def recover(self) -> None:
        with self.run.step("recover") as learnt:
            said = _state.recover(self.conn, self.paths, self.names, self.acting)
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
                self._take_plain(version, self.options.legacy_path)
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

    def _take_plain(self, version: str, legacy_path: str) -> None:
        """A plain SQL dump has no manifest. What it made when it was first loaded is compared with from then on."""
        if not self.options.allow_plain_sql:
            raise RollbackError(
                f"Point {version} is a plain SQL dump, a program that somebody wrote. Read it, then set allow_plain_sql=true to have it run."
            )
        if len(self.names) != 1:
            raise RollbackError(f"A plain SQL dump holds one database, but {len(self.names)} are given in databases.")
        name = self.names[0]
        self.plain = _plain.look(_plain.find(legacy_path, version), self.options.plain_sql_sha256)
        roles = dict(self.options.plain_sql_roles)
        self.digests[name] = sha256_bytes(canonical_json([self.plain.sha256, roles]))
        known = read_json(self.plain_file())
        nothing = {"catalogue": {}, "tables": {}, "sequences": {}, "large_objects": {"count": 0}, "verify": "files", "oid": None}
        manifest = known or {**nothing, "properties": _catalogue.properties(self.conn, name)}
        self.manifests[name] = {**manifest, "known": known is not None}
        facts = {"server_major": self.server.major, "system_identifier": self.server.system_identifier, "databases": self.manifests}
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(os.path.getmtime(self.plain.path)))
        self.point = {"system": os.path.basename(self.paths.system), "version": version, "created": created, "facts": facts, "files": {}}
        self.result["plain_sql"] = {"path": self.plain.path, "sha256": self.plain.sha256, "size": self.plain.size}

    def plain_file(self) -> str:
        return os.path.join(self.paths.run, f"plain-{self.digests[self.names[0]][:16]}.json")

    def _fill_plain(self, looked: _plain.Looked, name: str, staged: str) -> None:
        owner, roles = self.manifests[name]["properties"]["owner"], self.options.plain_sql_roles
        login = _plain.Borrowed(self.conn, self.server, owner, looked, roles)
        with login as borrowed:
            session = borrowed.connect(staged)
            try:
                _plain.require_ordinary(session)
            finally:
                session.close()
            _plain.load(self.cli, borrowed, self.programs().psql, looked, self.paths.run, staged, roles)
            inside = self.server.connect(staged)
            try:
                login.hand_over(inside)
            finally:
                inside.close()

    def _learn_plain(self, name: str, staged: Database) -> None:
        """Write down what the dump made, so that the flip and later runs can tell whether it is still that."""
        with _state.Window(self.conn, self.server.connect, staged) as inside:
            made = _manifest.build(inside)
        if self.plain is not None and len(made["tables"]) < self.plain.tables:
            raise RollbackError(f"The plain SQL dump creates {self.plain.tables} tables, but {len(made['tables'])} are there.")
        made.update(properties=self.manifests[name]["properties"], oid=None, snapshot=None)
        _state.write_json(self.plain_file(), made, self.paths.file_mode)
        self.manifests[name] = {**made, "known": True}

    def folder(self, name: str) -> str:
        """Where the archive of one database lies."""
        return f"{self.paths.component(str(self.options.version), COMPONENT)}/{self.manifests[name]['folder']}"

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
        same_cluster = self.point["facts"].get("system_identifier") == self.server.system_identifier
        if name in found and manifest.get("oid") == found[name].oid and same_cluster and manifest.get("snapshot"):
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
        if name not in found or not self.manifests[name].get("known", True):
            return told
        with _stage.session_on(self.conn, self.server, name) as inside:
            if at or self.state == "staged" or not self.acting:
                told.update(self.newer(inside, name, self.since(found, name)[0]))
            told["catalogue_differences"] = _manifest.compare_catalogue(self.manifests[name], inside)
        return told

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
        if wanted:
            self.stage(found, wanted)
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
        return wanted

    def finish(self, wanted: t.Sequence[str], what: str) -> None:
        version = self.options.version
        if wanted:
            self.result["changed"] = True
            self.result["msg"] = f"{', '.join(wanted)}: {'would be ' if not self.acting else ''}{what} at point {version}."
            return
        newer = {name: each["rows_since"] for name, each in self.result["databases"].items() if each["rows_since"]}
        rest = ""
        if newer:
            total = sum(sum(tables.values()) for tables in newer.values())
            rest = f" {total} row(s) were written since; set again=true to restore the point once more."
        self.result["msg"] = f"{', '.join(self.names)}: already at point {version}.{rest}"

    def stage(self, found: t.Mapping[str, Database], wanted: t.Sequence[str]) -> None:
        """Restore beside the live databases, compare, close."""
        with self.run.step("preflight"):
            self.preflight(found, wanted)
        self.plan(found, wanted)
        self.stop_if_blocked()
        reuse = {name: each for name in wanted for each in [self.usable_staged(found, name)] if each is not None}
        new = [name for name in wanted if name not in reuse]
        for name, each in reuse.items():
            self.actions.append(f"reuse {each.name}, which was restored and compared earlier")
        if not self.acting:
            return
        for name in wanted:
            for each in _state.ours(found, name, "staged"):
                if name not in reuse or each.oid != reuse[name].oid:
                    _state.drop(self.conn, each)
                    self.actions.append(f"dropped {each.name}, restored for another point")
        for each in reuse.values():
            _stage.set_marker(self.conn, each.name, {**each.marker, "run": self.mark})
        if new:
            begun = time.monotonic()
            self._make(new)
            self._measured(new, time.monotonic() - begun)
        found = self.found()
        for name in wanted:
            usable = self.usable_staged(found, name)
            self.result["databases"][name]["staged"] = usable.name if usable else None

    def _make(self, new: t.Sequence[str]) -> None:
        taken = self.found()
        names = {name: _state.free_name(_state.staged_name(name, self.mark), taken) for name in new}
        markers: dict[str, dict[str, t.Any]] = {}
        version = str(self.options.version)
        program = self.programs().pg_restore
        try:
            with self.run.step("create", staged=names):
                _state.note_staging(self.paths, names.values())
                for name in new:
                    markers[name] = {
                        "kind": "staged", "state": "loading", "database": name, "system": self.point["system"], "version": version,
                        "manifest": self.digests[name], "run": self.mark, "at": now(), "seq": _state.next_seq(taken),
                        "comment": self.manifests[name]["properties"].get("comment"),
                    }  # fmt: skip
                    _stage.create(self.conn, names[name], self.manifests[name]["properties"], markers[name])
                    self.server.connect(names[name]).close()  # pg_hba.conf or a pooler may know the production name only
            left: dict[str, list[str]] = {}
            with self.run.step("load") as learnt:
                for name in new:
                    if self.plain is not None:
                        left[name] = []
                        self._fill_plain(self.plain, name, names[name])
                        continue
                    left[name] = _stage.load(
                        self.cli, self.server, program, self.folder(name), names[name], self.options.jobs, self.options.skip_entries
                    )
                learnt["left_out"] = left
            self.actions += [f"left out of {name}: {line}" for name in new for line in left[name]]
            with self.run.step("analyze"):
                for name in new:
                    _stage.analyze(self.server, names[name])
            with self.run.step("compare"):
                found = self.found()
                for name in new:
                    if self.plain is not None:
                        self._learn_plain(name, found[names[name]])
                    overlook = _stage.ignored(left[name])
                    markers[name]["overlooked"] = overlook
                    markers[name]["seal"] = _stage.compare(
                        self.conn, self.server, found[names[name]], self.manifests[name], overlook, version
                    )
            with self.run.step("seal"):
                for name in new:
                    _stage.apply_properties(self.conn, names[name], self.manifests[name]["properties"])
                    _stage.set_marker(self.conn, names[name], {**markers[name], "state": "verified"})
                    self.actions.append(f"restored and compared {names[name]}")
        except BaseException:
            self._drop_staged(names)
            raise

    def _drop_staged(self, names: t.Mapping[str, str]) -> None:
        """After a failure: only what this call made, and the failure itself stays the message."""
        try:
            found = self.found()
            for each in names.values():
                if each in found and (found[each].marker.get("kind") == "staged" or found[each].comment is None):
                    _state.drop(self.conn, found[each])
        except Exception:  # the next run recovers
            return

    def _measured(self, new: t.Sequence[str], seconds: float) -> None:
        """Remember how fast this host restores, for the next plan."""
        found = self.found()
        oids = [self.usable_staged(found, name) for name in new]
        size = sum(int(_state.one(self.conn, "SELECT pg_catalog.pg_database_size(%s::oid)", (each.oid,)) or 0) for each in oids if each)
        if size and seconds > 0:
            value = read_json(self.paths.state(COMPONENT), {})
            _state.write_json(self.paths.state(COMPONENT), {**value, "rate": int(size / seconds), "staging": []}, self.paths.file_mode)

    # -- plan and preflight -------------------------------------------------------------------------------------------

    def preflight(self, found: t.Mapping[str, Database], wanted: t.Sequence[str]) -> None:
        facts = self.point["facts"]
        _blockers.server_level(self.conn, self.report, creating=True)
        if facts.get("system_identifier") != self.server.system_identifier and not self.options.allow_foreign:
            what = f"Point {self.options.version} was taken on another server (system identifier {facts.get('system_identifier')})."
            self.report.block("foreign", "", what, "Set allow_foreign=true if that is meant.")
        if int(facts["server_major"]) > self.server.major:
            what = f"Point {self.options.version} is of PostgreSQL {facts['server_major']}; this server is {self.server.major}."
            self.report.block("major", "", what, "Restore on a server of that version.")
        try:
            programs, codec = self.programs(), str(facts.get("codec") or "none")
            if not _programs.supported(self.cli, programs, codec):
                what = f"{programs.pg_restore} ({programs.version}) cannot read the point's {codec} compression."
                self.report.block("codec", "", what, "Install a build that can, or set bin_dir to its folder.")
        except RollbackError as exc:
            self.report.block("programs", "", str(exc), "")
        need = 0
        for name in wanted:
            needs = _stage.needs_of(self.manifests[name])
            if self.plain is not None:
                owner = self.manifests[name]["properties"]["owner"]
                _plain.obstacles(self.conn, self.report, name, owner, self.plain, self.options.plain_sql_roles)
            if name in found:
                _blockers.outgoing(self.conn, self.report, found[name], self.options.accept_replication, flipping=False)
                need += int(_state.one(self.conn, "SELECT pg_catalog.pg_database_size(%s::oid)", (found[name].oid,)) or 0)
            _blockers.incoming(self.conn, self.report, name, needs)
            for role in _stage.unsettable(self.conn, self.manifests[name]):
                what = f"The point of {name} has settings of role {role} in that database, which role {self.server.user} may not set."
                self.report.block("role_setting", name, what, f'As superuser: GRANT "{role}" TO "{self.server.user}".')
            _blockers.host_rules(self.conn, self.report, name, _state.staged_name(name, self.mark))
        if not all(self.usable_staged(found, name) for name in wanted):
            _blockers.disk(self.conn, self.report, int(need * 2.2), self.options.local)

    def plan(self, found: t.Mapping[str, Database], wanted: t.Sequence[str]) -> None:
        lines = self.result["plan"]
        rate = int((read_json(self.paths.state(COMPONENT), {}) or {}).get("rate") or GUESSED_RATE)
        seconds = 0.0
        for name in wanted:
            told = self.result["databases"][name]
            lines.append(
                f"{name}: restore point {self.options.version} of {self.point['created']} ({len(self.manifests[name]['tables'])} tables)."
            )
            for table, number in sorted(told["rows_since"].items()):
                lines.append(f"{name}: {table} has {number} row(s) newer than the point; they stay in the kept database.")
            for table, number in sorted(told["rows_gone"].items()):
                lines.append(f"{name}: {table} has lost or changed {number} row(s) of the point; they come back.")
            for difference in told.get("catalogue_differences", [])[:20]:
                lines.append(f"{name}: the live schema differs from the point: {difference}")
            if name in found and told["staged"] is None:
                size = int(_state.one(self.conn, "SELECT pg_catalog.pg_database_size(%s::oid)", (found[name].oid,)) or 0)
                seconds += size / rate
        self.result["estimate"] = {"staging_seconds": round(seconds, 1), "outage_ms": GUESSED_OUTAGE_MS}
        lines.append(f"Restoring and comparing takes about {seconds:.0f} s beside the live databases; the flip interrupts for about 0.1 s.")

    # -- live ---------------------------------------------------------------------------------------------------------

    def live(self) -> dict[str, t.Any]:
        from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _flip

        found = self.begin()
        wanted = self.not_yet(found)
        if wanted:
            self.stage(found, wanted)
            if self.acting:
                _flip.forward(self, wanted)
        elif self.acting:
            _flip.remember(self, found)
        self.finish(wanted, "live")
        return self.result

    def previous(self) -> dict[str, t.Any]:
        from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _flip

        self.recover()
        return _flip.back(self)

    def complete(self) -> dict[str, t.Any]:
        from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _flip

        self.recover()
        return _flip.complete(self)
