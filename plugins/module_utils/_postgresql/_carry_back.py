# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Which database rows come from, and what a person reads afterwards. The work on one database is in :mod:`_carry`."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import read_json
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _stage, _state
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._carry import Carrier, Ledger, Since, Told
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


def chain(paths: Paths, run_id: str | None) -> set[str]:
    """The run and those that it took the lock from: their flip is its flip."""
    found: set[str] = set()
    while run_id is not None and run_id not in found:
        found.add(run_id)
        record = read_json(os.path.join(paths.run_dir(run_id), "run.json")) or {}
        run_id = (record.get("took_over") or {}).get("run")
    return found


def source_of(found: t.Mapping[str, Database], name: str, runs: set[str], wanted: str) -> Database | None:
    """The database that the present one replaced. Inside a run only if that run replaced it: last month's has nothing to give."""
    if name not in found:
        raise RollbackError(f"The server has no database {name}. Correct databases.")
    kinds = ("kept", "undone") if wanted == "auto" else (wanted,)
    for each in reversed(_state.ours(found, name, *kinds)):
        if each.marker.get("live_oid") == found[name].oid and not each.invalid:
            mine = {each.marker.get("run"), each.marker.get("undo_run")}
            return each if not runs or mine & runs else None
    return None


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
            "changed": False, "carried": {}, "left": {}, "left_in": {}, "examples": [], "milliseconds": {}, "compared": {}, "actions": [],
        }  # fmt: skip
        with self.run.step("find") as learnt:
            found = _state.databases(self.conn)
            runs = chain(self.paths, self.run.run_id)
            sources = {name: source_of(found, name, runs, self.source) for name in self.ledgers}
            learnt["sources"] = {name: each.name if each else None for name, each in sources.items()}
        with self.run.step("carry") as learnt:
            for name, ledgers in self.ledgers.items():
                source = sources[name]
                if source is None:
                    result["actions"].append(f"{name}: nothing was replaced, so there is nothing to carry back")
                    continue
                self._database(result, name, source, ledgers)
            learnt.update(carried=result["carried"], left=result["left"])
        total = sum(result["carried"].values())
        result["changed"] = total > 0
        rest = sum(sum(each.values()) for each in result["left"].values())
        verb = "Carried" if self.run.acting else "Would carry"
        result["msg"] = (
            f"{verb} {total} row(s) into the live database(s); {rest} difference(s) are left in {sorted(result['left_in'].values()) or 'none'}."
        )
        return result

    def _database(self, result: dict[str, t.Any], name: str, source: Database, ledgers: t.Sequence[Ledger]) -> None:
        marker = source.marker
        since = Since(marker["since"], bool(marker.get("since_exact"))) if marker.get("since") else None
        moment = Since(marker["snapshot"], True) if marker.get("snapshot") else None
        with _stage.session_on(self.conn, self.server, name, read_only=False) as live:
            with Window(self.conn, self.server.connect, source) as inside:
                carrier = Carrier(live, inside, since, moment, self.fire_triggers, self.run.acting)
                told = carrier.run(ledgers)
        result["left_in"][name] = source.name
        result["compared"][name] = "rows written since" if carrier.since else "all rows"
        for label, each in told.items():
            self._tell(result, f"{name}.{label}", each)

    def _tell(self, result: dict[str, t.Any], label: str, told: Told) -> None:
        result["carried"][label] = told.carried
        result["left"][label] = told.left
        result["examples"] += told.examples
        result["milliseconds"][label] = told.ms
        if told.carried:
            result["actions"].append(f"{label}: {told.carried} row(s) carried back")
