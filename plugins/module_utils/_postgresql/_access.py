# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Who may use a database: everybody as before, readers only, or nobody.

``nobody`` is ALLOW_CONNECTIONS false, which holds for superusers, too. ``read_only`` is default_transaction_read_only of the database plus
the end of every session; a session may switch it off for itself, so it keeps honest programs out and nobody else. What the database
had before is remembered under its OID, so that ``read_write`` gives exactly that back, and to this database only. What somebody else
closed or locked stays so.
"""

from __future__ import annotations

import os
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import fsync_dir, now, read_json, write_json
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _state
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._connection import (
    Server,
    dicts,
    execute,
    psycopg2,
    readable_errors,
    rows,
)
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import quoted
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths, Run

COMPONENT = "postgresql_access"
STEPS = ("remember", "alter", "end_sessions", "forget")
ACCESS = ("read_write", "read_only", "nobody")
SETTING = "default_transaction_read_only"
TRUE = ("on", "true", "yes", "1", "t", "y")

STATE = """
SELECT d.datname::text AS name, d.oid::bigint AS oid, d.datallowconn AS open, pg_has_role(d.datdba, 'USAGE') AS mine, d.datistemplate AS template,
  (SELECT c FROM pg_db_role_setting s, unnest(s.setconfig) c WHERE s.setdatabase = d.oid AND s.setrole = 0
    AND c LIKE 'default_transaction_read_only=%%') AS setting
FROM pg_database d WHERE d.datname = ANY (%s)"""
# What a role that may not read statistics sees of others' sessions is their pid, database and user.
SESSIONS = """
SELECT pid FROM pg_stat_activity WHERE datid = %s AND pid <> pg_backend_pid() AND usename IS NOT NULL
  AND coalesce(backend_type, 'client backend') IN ('client backend', 'walsender')"""


class Found(t.NamedTuple):
    """One database as it is."""

    name: str
    oid: int
    open: bool
    mine: bool
    setting: str | None

    @property
    def access(self) -> str:
        if not self.open:
            return "nobody"
        return "read_only" if self.locked else "read_write"

    @property
    def locked(self) -> bool:
        return (self.setting or "").lower() in TRUE


def look(conn: t.Any, databases: t.Sequence[str]) -> list[Found]:
    """The databases as they are, in the given order; one that does not exist is an error."""
    found = {}
    for row in dicts(conn, STATE, [list(databases)]):
        setting = row["setting"].partition("=")[2] if row["setting"] else None
        found[row["name"]] = Found(row["name"], int(row["oid"]), row["open"], row["mine"], setting)
    absent = [name for name in databases if name not in found]
    if absent:
        raise RollbackError(f"The server has no database {', '.join(map(repr, absent))}. Check databases and login_port.")
    return [found[name] for name in databases]


def wanted(found: Found, access: str, entry: dict[str, t.Any] | None) -> Found:
    """What ``found`` is to become. ``entry`` is what was remembered under its name, maybe of a database that a flip has replaced since."""
    if access == "nobody":
        return found._replace(open=False)
    # a flip hands on that a database is closed, but no setting
    is_open = found.open or (entry is not None and entry["access"] != "nobody")
    if access == "read_only":
        return found._replace(open=is_open, setting=found.setting if found.locked else "on")
    ours = found.locked and entry is not None and entry["oid"] == found.oid
    return found._replace(open=is_open, setting=entry["setting"] if ours and entry else found.setting)


def statements(found: Found, goal: Found) -> list[str]:
    """What turns ``found`` into ``goal``."""
    name = quoted(found.name)
    needed = []
    if goal.setting != found.setting:
        needed.append(f"ALTER DATABASE {name} " + (f"SET {SETTING} = '{_literal(goal.setting)}'" if goal.setting else f"RESET {SETTING}"))
    if goal.open != found.open:
        needed.append(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {'true' if goal.open else 'false'}")
    return needed


def _literal(text: str) -> str:
    return text.replace("'", "''")


class Access:
    """The databases of one call and what is remembered of them."""

    def __init__(self, server: Server, run: Run, paths: Paths, databases: t.Sequence[str], wait: int = 10) -> None:
        if not databases:
            raise RollbackError("databases is empty. Name at least one database.")
        self.run = run
        self.paths = paths
        self.databases = list(dict.fromkeys(databases))
        self.wait = wait
        server.maintenance_besides(self.databases)
        self.server = server
        self.conn = server.connect()
        self.remembered: dict[str, t.Any] = read_json(paths.state(COMPONENT), {}).get("before", {})

    def before(self, found: Found) -> dict[str, t.Any] | None:
        """What was remembered, if it is of this database and not of another one that had the name."""
        entry = self.remembered.get(found.name)
        return entry if entry is not None and entry["oid"] == found.oid else None

    def _save(self) -> None:
        path = self.paths.state(COMPONENT)
        if self.remembered:
            write_json(path, {"before": self.remembered}, self.paths.file_mode)
        elif os.path.exists(path):  # whoever looks whether an emergency closed something asks for this file
            os.unlink(path)
            fsync_dir(os.path.dirname(path))

    def reach(self, access: str, check_mode: bool = False) -> dict[str, t.Any]:
        """The module's result."""
        with readable_errors("looking at the databases"):
            said = _state.shut(self.conn, _state.databases(self.conn), self.databases, not check_mode)
            found = look(self.conn, self.databases)
            goals = {each.name: wanted(each, access, self.remembered.get(each.name)) for each in found}
            todo = {each.name: statements(each, goals[each.name]) for each in found}
            lingering = {each.name: self._sessions(each, access, todo[each.name]) for each in found}
        stale = [each for each in found if access == "read_write" and each.name in self.remembered]
        reached = {name: goal.access for name, goal in goals.items()}
        actions = [
            f"open {each.name} to {_who(reached[each.name])}, which was open to {_who(each.access)}" for each in found if todo[each.name]
        ]
        actions = said + actions + [f"end {len(pids)} session(s) of {name}" for name, pids in lingering.items() if pids]
        changed = bool(actions)
        foreign = [each.name for each in found if todo[each.name] and not each.mine]
        if foreign and not self.server.is_superuser:
            raise RollbackError(
                f"{self.server.user} does not own the database {', '.join(foreign)} and cannot close or open it. "
                "Log in as a superuser or a member of its owner."
            )
        if not check_mode and (changed or stale):
            self._apply(found, access, todo)
        return {
            "changed": changed,
            "msg": _sentence(reached, access, "would be " if check_mode and changed else ""),
            "actions": actions,
            "steps": self.run.steps,
            "databases": {each.name: {"access": reached[each.name], "was": each.access} for each in found},
            "diff": {"before": {each.name: each.access for each in found}, "after": reached},
        }

    def _apply(self, found: list[Found], access: str, todo: dict[str, list[str]]) -> None:
        if access != "read_write":
            with self.run.step("remember"):
                for each in found:
                    if self.before(each) is None:
                        # closed and flipped in: how its predecessor was before it was closed
                        was = self.remembered[each.name]["access"] if each.name in self.remembered and not each.open else each.access
                        self.remembered[each.name] = {"oid": each.oid, "setting": each.setting, "access": was, "at": now()}
                    if todo[each.name]:
                        self.remembered[each.name].pop("ended", None)
                    self.remembered[each.name]["run"] = self.run.run_id
                self._save()
        with self.run.step("alter", access=access, databases=self.databases), readable_errors(f"opening to {_who(access)}"):
            execute(self.conn, "BEGIN")
            try:
                for each in found:
                    for statement in todo[each.name]:
                        execute(self.conn, statement)
                execute(self.conn, "COMMIT")
            except BaseException:
                if self.conn.closed == 0:
                    execute(self.conn, "ROLLBACK")
                raise
        if access != "read_write":
            with self.run.step("end_sessions") as learnt:
                due = [each for each in found if access == "nobody" or self._sessions(each, access, todo[each.name])]
                with readable_errors("ending sessions"):
                    left = self._end_all(due, access, learnt)
                for each in found:
                    if each.name not in left:
                        self.remembered[each.name]["ended"] = True
                self._save()
                self._require_ended(left, access)
            return
        # A session that began while only reading was possible would go on refusing to write. After a crash here nobody knows any more,
        # and then all are ended: a client that connects again is better than one that cannot pay.
        locked = [each for each in found if self.before(each) is not None and (each.locked or not todo[each.name])]
        if locked:
            with self.run.step("end_sessions") as learnt, readable_errors("ending sessions"):
                self._require_ended(self._end_all(locked, access, learnt), access)
        with self.run.step("forget"):
            for each in found:
                self.remembered.pop(each.name, None)
            self._save()

    def _sessions(self, found: Found, access: str, todo: t.Sequence[str]) -> list[int]:
        """Sessions that have to go: for nobody all; for read_only all, unless they were ended when it was closed."""
        entry = self.before(found) or {}
        if access == "read_write" or (access == "read_only" and not todo and entry.get("ended")):
            return []
        return self._present(found)

    def _present(self, found: Found) -> list[int]:
        return [row[0] for row in rows(self.conn, SESSIONS, [found.oid])]

    def _end_all(self, found: t.Sequence[Found], access: str, learnt: dict[str, t.Any]) -> dict[str, list[int]]:
        """End the sessions of every database, whatever stays in another one. Returns those that stay, by database."""
        goals = {each.name: set(self._present(each)) for each in found}
        for pids in goals.values():  # all of them first: one that takes its time must not give those of the next database any
            for pid in pids:
                self._terminate(pid)
        left: dict[str, list[int]] = {}
        for each in found:
            learnt[each.name], stay = self._end(each, access, goals[each.name])
            if stay:
                left[each.name] = stay
        return left

    def _end(self, found: Found, access: str, goal: set[int]) -> tuple[int, list[int]]:
        """End those that are there: for nobody until none is left twice in a row, for one that was logging in may have slipped in.

        Returns how many were ended, and those that may not be ended or do not end.
        """
        seen = set(goal)
        quiet = 0
        deadline = time.monotonic() + self.wait
        while True:
            present = set(self._present(found))
            here = present if access == "nobody" else present & goal
            seen |= here
            ending = [pid for pid in here if self._terminate(pid)]
            quiet = 0 if ending else quiet + 1
            if quiet == 2 or time.monotonic() > deadline:
                return len(seen - here), sorted(here)
            time.sleep(0.02)

    def _terminate(self, pid: int) -> bool:
        try:
            rows(self.conn, "SELECT pg_terminate_backend(%s)", [pid])
        except psycopg2.errors.InsufficientPrivilege:
            return False
        return True

    def _require_ended(self, left: t.Mapping[str, list[int]], access: str) -> None:
        if not left:
            return
        pids = [pid for each in left.values() for pid in each]
        who = dicts(
            self.conn,
            "SELECT datname::text AS database, pid, usename::text AS role, application_name FROM pg_stat_activity WHERE pid = ANY (%s)",
            [pids],
        )
        roles = ", ".join(sorted({str(each["role"]) for each in who}))
        where = "; ".join(f"{len(each)} of database {name}: process {', '.join(map(str, each[:5]))}" for name, each in left.items())
        raise RollbackError(
            f"{len(pids)} session(s) did not end within {self.wait} s or may not be ended by {self.server.user} ({where}), role(s) {roles}. "
            f"{', '.join(self.databases)}: open to {_who(access)}, and all other sessions were ended. "
            "End them as a superuser, then run the same command again.",
            sessions=who,
        )


def _who(access: str) -> str:
    return {"read_write": "everybody", "read_only": "readers", "nobody": "nobody"}[access]


def _sentence(reached: t.Mapping[str, str], access: str, would: str) -> str:
    done = [name for name, each in reached.items() if each == access]
    said = [f"{', '.join(done)}: {would}open to {_who(access)}."] if done else []
    for name, each in reached.items():
        if each != access:
            said.append(f"{name} stays open to {_who(each)}: somebody else wanted it so, and ALTER DATABASE changes it.")
    return " ".join(said)
