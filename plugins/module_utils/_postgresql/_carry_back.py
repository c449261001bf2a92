# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Which database rows come from, and what a person reads afterwards. The work on one database is in :mod:`_carry`."""

from __future__ import annotations

import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._lock import list_runs
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _pending, _stage, _state
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._carry import Carrier, Told
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._ledger import Ledger
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._pending import Source
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._since import Since
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import Database, Window
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths, Run

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._postgresql._connection import Server

COMPONENT = "postgresql"
STEPS = ("find", "carry")


def parse_ledgers(databases: t.Sequence[str], given: t.Sequence[dict[str, t.Any]]) -> dict[str, list[Ledger]]:
    """Ledgers by database, each once."""
    found: dict[str, list[Ledger]] = {}
    for entry in given:
        name = entry.get("database") or (databases[0] if len(databases) == 1 else None)
        if name is None:
            raise RollbackError(f"The ledger {entry['table']} names no database, but {len(databases)} are given. Say which one it is in.")
        if name not in databases:
            raise RollbackError(
                f"The ledger {entry['table']} is in the database {name}, which is not among databases. Correct one of them."
            )
        ledger = Ledger(entry.get("schema") or "public", entry["table"], tuple(entry.get("key") or ()))
        if any(ledger.label == other.label for other in found.get(name, [])):
            raise RollbackError(f"The ledger {ledger.label} of {name} is declared twice.")
        found.setdefault(name, []).append(ledger)
    return found


class CarryBack:
    def __init__(
        self,
        server: Server,
        paths: Paths,
        run: Run,
        databases: t.Sequence[str],
        ledgers: t.Sequence[dict[str, t.Any]],
        source: str = "auto",
        fire_triggers: bool = False,
    ) -> None:
        self.server = server
        self.paths = paths
        self.run = run
        self.names = sorted(set(databases))
        if not self.names:
            raise RollbackError("No databases were given. Name them in databases.")
        self.ledgers = parse_ledgers(self.names, ledgers)
        self.source = source
        self.fire_triggers = fire_triggers
        server.maintenance_besides(self.names)
        self.conn = server.connect()
        if run.acting:
            _state.hold_names(self.conn, self.names)

    def carried(self) -> dict[str, t.Any]:
        result: dict[str, t.Any] = {
            "changed": False, "carried": {}, "left": {}, "left_in": {}, "examples": [], "columns_lost": {}, "milliseconds": {},
            "compared": {}, "actions": [],
        }  # fmt: skip
        with self.run.step("find") as learnt:
            found = _state.databases(self.conn)
            said = _state.shut(self.conn, found, self.names, self.run.acting)
            if said:
                result["actions"] += said
                found = _state.databases(self.conn)
            sources = self._sources(found)
            learnt["sources"] = {name: [each.database.name for each in chosen] for name, chosen in sources.items()}
        with self.run.step("carry") as learnt:
            for name, chosen in sources.items():
                ledgers = self.ledgers.get(name, [])
                due = [source for source in chosen if not self._settled(source)]
                if ledgers and not due:
                    why = "its rows were carried back already" if chosen else "nothing was replaced, so there is nothing to carry back"
                    result["actions"].append(f"{name}: {why}")
                for source in due:
                    if ledgers:
                        self._database(result, name, source, ledgers)
                    self._settle(source)
            learnt.update(carried=result["carried"], left=result["left"])
        total = sum(result["carried"].values())
        result["changed"] = total > 0 or bool(said)
        rest = sum(sum(each.values()) for each in result["left"].values())
        verb = "Carried" if self.run.acting else "Would carry"
        result["msg"] = (
            f"{verb} {total} row(s) into the live database(s); {rest} difference(s) are left in {sorted(result['left_in'].values()) or 'none'}."
        )
        if result["columns_lost"]:
            columns = sorted(f"{label}.{column}" for label, lost in result["columns_lost"].items() for column in lost)
            result["msg"] += f" The live database has no column for the values of {', '.join(columns)}; they are only there."
        return result

    def _sources(self, found: t.Mapping[str, Database]) -> dict[str, list[Source]]:
        run_id = self.run.run_id
        runs, broken = _pending.chain(self.paths, run_id), set()
        # On its own the module takes what it is asked for. In a run it takes what interrupted runs left, too, unless the
        # run failed and goes back: then everything else stays as it was.
        if run_id is not None and (self.source != "undone" or _pending.is_undo(self.paths, run_id)):
            broken = _pending.interrupted(list_runs(self.paths), run_id)
        there = [name for name in self.names if name in found or name in self.ledgers]
        return {name: _pending.sources(found, name, runs, broken, self.source) for name in there}

    def _settled(self, source: Source) -> bool:
        """A run carried this one's rows. What the application deleted since must not come back; on its own the module does what it is asked for."""
        return self.run.run_id is not None and bool(source.database.marker.get("carried_by"))

    def _settle(self, source: Source) -> None:
        """Nothing is owed any more; the marker says so to whoever comes after a crash."""
        if self.run.acting and self.run.run_id is not None:
            _stage.set_marker(self.conn, source.database.name, {**source.database.marker, "carried_by": self.run.run_id})

    def _database(self, result: dict[str, t.Any], name: str, source: Source, ledgers: t.Sequence[Ledger]) -> None:
        marker, kept = source.database.marker, source.database.name
        # the marker's moment is that of the point that this database's successor was made of; another point needs all rows
        since = Since(marker["since"], bool(marker.get("since_exact"))) if marker.get("since") and source.direct else None
        moment = Since(source.moment, True) if source.moment else None
        with _stage.session_on(self.conn, self.server, name, read_only=False) as live:
            with Window(self.conn, self.server.connect, source.database) as inside:
                carrier = Carrier(live, inside, since, moment, self.fire_triggers, self.run.acting)
                told = carrier.run(ledgers)
        before = result["left_in"].get(name)
        result["left_in"][name] = f"{before}, {kept}" if before else kept
        compared = "rows written since" if carrier.since else "all rows"
        result["compared"][name] = compared if result["compared"].get(name, compared) == compared else "all rows"
        for label, each in told.items():
            self._tell(result, f"{name}.{label}", each)

    def _tell(self, result: dict[str, t.Any], label: str, told: Told) -> None:
        """Add what happened to one table; a table may get rows from several databases."""
        result["carried"][label] = result["carried"].get(label, 0) + told.carried
        before = result["left"].get(label, {})
        result["left"][label] = {kind: number + before.get(kind, 0) for kind, number in told.left.items()}
        result["examples"] += told.examples
        result["milliseconds"][label] = round(result["milliseconds"].get(label, 0) + told.ms, 1)
        if told.carried:
            result["actions"].append(f"{label}: {told.carried} row(s) carried back")
        lost = result["columns_lost"].setdefault(label, {}) if told.lost else {}
        for column, number in told.lost.items():
            lost[column] = lost.get(column, 0) + number
            result["actions"].append(f"{label}: {number} of them have a value in {column}, a column that the live table does not have")
