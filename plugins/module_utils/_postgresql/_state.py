# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Our databases as the server shows them, and what a killed run left behind. How they are recognised is in :mod:`_names`."""

from __future__ import annotations

import re
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import now, read_json, write_json
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._names import (
    fit_name,
    made_for,
    own_comment,
    read_marker,
    write_marker,
)
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths

try:
    from psycopg2 import sql
except ImportError:  # the module says so through missing_required_lib
    sql = None  # type: ignore[assignment]

COMPONENT = "postgresql"
INVALID = -2


class Database(t.NamedTuple):
    """One row of pg_database."""

    name: str
    oid: int
    open: bool
    limit: int
    owner: str
    template: bool
    comment: str | None  # of people, where a marker stands that does not count
    marker: dict[str, t.Any]
    stale: bool = False  # a marker stands there that does not count
    ajar: dict[str, t.Any] | None = None  # closed on purpose, and open for a login of ours; how it was before

    @property
    def invalid(self) -> bool:
        """An interrupted DROP DATABASE: nobody can connect, and it can only be dropped."""
        return self.limit == INVALID


def rows(connection: t.Any, query: t.Any, values: t.Any = None) -> list[tuple[t.Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return list(cursor.fetchall()) if cursor.description else []


def one(connection: t.Any, query: t.Any, values: t.Any = None) -> t.Any:
    found = rows(connection, query, values)
    return found[0][0] if found else None


def databases(connection: t.Any) -> dict[str, Database]:
    """Every database of the server by name."""
    found = rows(
        connection,
        "SELECT datname, oid::bigint, datallowconn, datconnlimit, pg_catalog.pg_get_userbyid(datdba), datistemplate,"
        " pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database ORDER BY datname",
    )
    return {row[0]: _database(row) for row in found}


def _database(row: tuple[t.Any, ...]) -> Database:
    marker = read_marker(row[6])
    if marker and not made_for(row[0], str(marker.get("database"))):
        ajar = marker if marker.get("kind") == "ajar" and marker.get("oid") == row[1] else None
        return Database(*row[:6], comment=own_comment(row[6]), marker={}, stale=ajar is None, ajar=ajar)  # type: ignore[misc]
    return Database(*row[:7], marker=marker)  # type: ignore[misc]


def ours(found: t.Mapping[str, Database], name: str, *kinds: str) -> list[Database]:
    """Our databases made for production name ``name``, the newest last."""
    mine = [each for each in found.values() if each.marker.get("database") == name and (not kinds or each.marker.get("kind") in kinds)]
    return sorted(mine, key=lambda each: int(each.marker.get("seq", 0)))


def bare(database: Database) -> bool:
    """Nobody has commented on it: created by us and not marked yet, when its name says so too."""
    return database.comment is None and not database.stale


def next_seq(found: t.Mapping[str, Database]) -> int:
    """Markers are ordered by this number, not by a clock that may go backwards."""
    return 1 + max([int(each.marker.get("seq", 0)) for each in found.values()] or [0])


# -- the state file ---------------------------------------------------------------------------------------------------


def load_live(paths: Paths) -> dict[str, dict[str, t.Any]]:
    """What the flips of this host recorded: {database: {version, oid, run, at}}."""
    value = read_json(paths.state(COMPONENT), {})
    live = value.get("live") if isinstance(value, dict) else None
    return live if isinstance(live, dict) else {}


def save_live(paths: Paths, changes: t.Mapping[str, dict[str, t.Any] | None]) -> bool:
    """Merge ``changes`` (None removes) into the state file; other keys stay. Whether anything was written."""
    value = read_json(paths.state(COMPONENT), {})
    value = value if isinstance(value, dict) else {}
    live = {**(value.get("live") or {})}
    for name, entry in changes.items():
        if entry is None:
            live.pop(name, None)
        else:
            live[name] = entry
    if value.get("live", {}) == live:
        return False
    write_json(paths.state(COMPONENT), {**value, "live": live}, paths.file_mode)
    return True


def update(paths: Paths, changes: t.Mapping[str, t.Any]) -> None:
    """Write ``changes`` into the state file; other keys stay."""
    value = read_json(paths.state(COMPONENT), {})
    value = value if isinstance(value, dict) else {}
    write_json(paths.state(COMPONENT), {**value, **changes}, paths.file_mode)


def live_record(paths: Paths, found: t.Mapping[str, Database], name: str) -> dict[str, t.Any] | None:
    """Which flip made the database that now has ``name``: by the server's markers, else by the file; None if none did.

    The markers win: they were written in the transaction of the flip itself, the file afterwards.
    """
    if name not in found:
        return None
    oid = found[name].oid
    for each in reversed(ours(found, name, "kept")):
        if each.marker.get("live_oid") == oid:
            return {"version": each.marker["version"], "oid": oid, "run": each.marker["run"], "at": each.marker["at"],
                    "snapshot": each.marker.get("snapshot"), "manifest": each.marker.get("manifest")}  # fmt: skip
    for each in reversed(ours(found, name, "undone")):
        if each.marker.get("live_oid") == oid:
            before = each.marker.get("before")
            return before if isinstance(before, dict) and before.get("oid") == oid else None
    entry = load_live(paths).get(name)
    return entry if isinstance(entry, dict) and entry.get("oid") == oid else None


# -- one at a time ----------------------------------------------------------------------------------------------------


def hold_names(connection: t.Any, names: t.Iterable[str], wait: float = 12.0) -> None:
    """Session-level advisory locks in the maintenance database: no second pg_restore and no pg_snapshot, from any host, on these names.

    A killed module's session may live on until its statement ends, so wait a little.
    """
    deadline = time.monotonic() + wait
    for name in sorted(names):
        while not one(connection, "SELECT pg_catalog.pg_try_advisory_lock(hashtext('payops.rollback'), hashtext(%s))", (name,)):
            if time.monotonic() >= deadline:
                holder = one(
                    connection,
                    "SELECT pid FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2"
                    " AND classid::bigint = hashtext('payops.rollback')::bigint & 4294967295 AND objid::bigint = hashtext(%s)::bigint & 4294967295",
                    (name,),
                )
                raise RollbackError(
                    f"Another module of this collection works on database {name} of this server (session {holder}). Wait until it is done."
                )
            time.sleep(0.1)


# -- what a killed run left -------------------------------------------------------------------------------------------


def quoted(*parts: str) -> str:
    """A name, or a schema and a name, as they are typed into psql and as regclass takes them."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def command(connection: t.Any, text: str, *parts: t.Any) -> None:
    """Statements with ``{}`` for each name, which is a text, or other part. The connection is in autocommit.

    Values are parts, too, and never beside them: a percent sign in a name would be taken for one of theirs.
    """
    rows(connection, sql.SQL(text).format(*(sql.Identifier(part) if isinstance(part, str) else part for part in parts)))


def terminate(connection: t.Any, oids: t.Sequence[int], but: int = 0) -> int:
    """End every session in these databases that we may end, but not the process ``but``."""
    return len(rows(connection, TERMINATE, {"oids": list(oids), "but": but}))


TERMINATE = """
SELECT pg_catalog.pg_terminate_backend(a.pid)
  FROM pg_catalog.pg_stat_activity a LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid
 WHERE a.datid = ANY (%(oids)s::oid[]) AND a.pid <> pg_catalog.pg_backend_pid() AND a.pid <> %(but)s
   AND ((SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) OR (r.oid IS NOT NULL AND NOT r.rolsuper
        AND (pg_catalog.pg_has_role(r.oid, 'USAGE') OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE'))))
"""


def drop(connection: t.Any, database: Database) -> None:
    """Drop one of ours, by name and OID."""
    oid = one(connection, "SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = %s", (database.name,))
    if oid is None:
        return
    if oid != database.oid:
        raise RollbackError(
            f"Database {database.name} has the OID {oid}; expected {database.oid}. Somebody replaced it; it was not dropped."
        )
    if not database.invalid:
        terminate(connection, [database.oid])
    command(connection, "DROP DATABASE {} WITH (FORCE)", database.name)


def note_staging(paths: Paths, names: t.Iterable[str]) -> None:
    """Write down which databases are about to be created, because their marker can only follow their creation."""
    update(paths, {"staging": sorted(names)})


def leftovers(paths: Paths, found: t.Mapping[str, Database], names: t.Iterable[str]) -> list[Database]:
    """What killed runs left for these production names: half restored, created but not marked, or half dropped."""
    value = read_json(paths.state(COMPONENT), {})
    noted = value.get("staging", []) if isinstance(value, dict) else []
    left = []
    for name in names:
        left += [each for each in ours(found, name) if each.invalid]
        left += [each for each in ours(found, name, "staged") if not each.invalid and each.marker.get("state") != "verified"]
        pattern = re.compile(re.escape(fit_name(name, "__r_00000000")[:-8]) + r"[0-9a-f]{8}\Z")
        left += [found[each] for each in noted if each in found and bare(found[each]) and pattern.match(each)]
    return left


def recover(connection: t.Any, paths: Paths, names: t.Sequence[str], acting: bool) -> list[str]:
    """Clear away what killed runs left and close what they left open. The sentences say what was (or would be) done."""
    found = databases(connection)
    said = []
    for each in leftovers(paths, found, names):
        said.append(f"dropped {each.name}, which an interrupted run left {'half dropped' if each.invalid else 'half restored'}")
        if acting:
            drop(connection, each)
    for name in names:
        for each in ours(found, name, "kept", "undone") + [
            one_ for one_ in ours(found, name, "staged") if one_.marker.get("state") == "verified"
        ]:
            if each.open and not each.invalid:
                said.append(f"closed {each.name}, which an interrupted run left open")
                if acting:
                    command(connection, "ALTER DATABASE {} ALLOW_CONNECTIONS false", each.name)
    said += shut(connection, found, names, acting)
    for name in names:
        if name in found and found[name].stale:
            said.append(f"took a marker of this collection off {name}: it was one of its kept or staged databases, renamed by hand")
            if acting:
                command(connection, "COMMENT ON DATABASE {} IS {}", name, sql.Literal(found[name].comment))
        if name not in found and ours(found, name, "kept"):
            kept = ours(found, name, "kept")[-1].name
            raise RollbackError(
                f"No database is named {name}, but {kept} was kept for it. This collection never leaves that state: somebody dropped or "
                f"renamed {name}. Look for it. If it is gone and you want the kept one: ALTER DATABASE {quoted(kept)} RENAME TO {quoted(name)}; "
                f"ALTER DATABASE {quoted(name)} ALLOW_CONNECTIONS true;"
            )
    return said


def shut(connection: t.Any, found: t.Mapping[str, Database], names: t.Iterable[str], acting: bool) -> list[str]:
    """Close production databases again that had been closed on purpose and that a killed module left open for its login."""
    said = []
    for each in (found[name] for name in names if name in found and found[name].ajar is not None):
        said.append(f"closed {each.name}, which had been closed and which an interrupted run left open for reading")
        if acting:
            _close_again(connection, each.name, (each.ajar or {}).get("setting"), each.comment)
            terminate(connection, [each.oid])
    return said


def _close_again(connection: t.Any, name: str, setting: str | None, comment: str | None) -> None:
    """One string is one transaction."""
    back: t.Any = sql.SQL("RESET default_transaction_read_only")
    if setting is not None:
        back = sql.SQL("SET default_transaction_read_only = {}").format(sql.Literal(setting))
    text = "ALTER DATABASE {} {}; ALTER DATABASE {} ALLOW_CONNECTIONS false; COMMENT ON DATABASE {} IS {}"
    command(connection, text, name, back, name, name, sql.Literal(comment))


READ_ONLY = """
SELECT pg_catalog.split_part(c, '=', 2) FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) c
 WHERE s.setdatabase = %s AND s.setrole = 0 AND pg_catalog.split_part(c, '=', 1) = 'default_transaction_read_only'
"""


class Window:
    """Connect to a closed database of ours: open for the moment of the login, closed again at once, the session stays.

    Nobody but us knows that name, and the session is read only unless told otherwise. A production name that is closed everybody knows:
    ``alone`` lets whoever slips in with us only read, and ends them as soon as we are in and again when we leave. A marker says meanwhile
    that it is closed, so that the next call closes it (:func:`shut`) if this one is killed.
    """

    def __init__(
        self, connection: t.Any, connect: t.Callable[..., t.Any], database: Database, read_only: bool = True, alone: bool = False
    ) -> None:
        self.connection = connection
        self.connect = connect
        self.database = database
        self.read_only = read_only
        self.alone = alone
        self.inside: t.Any = None

    def __enter__(self) -> t.Any:
        name = self.database.name
        setting = one(self.connection, READ_ONLY, (self.database.oid,)) if self.alone else None
        self._open(setting)
        try:
            self.inside = self.connect(name, default_transaction_read_only="on" if self.read_only else "off", lock_timeout="10s")
        finally:
            if self.alone:
                _close_again(self.connection, name, setting, self.database.comment)
            else:
                command(self.connection, "ALTER DATABASE {} ALLOW_CONNECTIONS false", name)
            self._end_others()
        oid = one(self.inside, "SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()")
        if oid != self.database.oid:
            self.inside.close()
            raise RollbackError(f"Database {name} has the OID {oid}; expected {self.database.oid}. Somebody replaced it; nothing was read.")
        return self.inside

    def __exit__(self, *exc_info: object) -> None:
        self.inside.close()
        self._end_others()

    def _open(self, setting: str | None) -> None:
        """One string is one transaction: nobody comes in between. Our own session says itself whether it writes."""
        name, text = self.database.name, "ALTER DATABASE {} ALLOW_CONNECTIONS true"
        if not self.alone:
            command(self.connection, text, name)
            return
        marker = write_marker(
            {"kind": "ajar", "database": name, "oid": self.database.oid, "setting": setting, "comment": self.database.comment}
        )
        text = f"ALTER DATABASE {{}} SET default_transaction_read_only = 'on'; {text}; COMMENT ON DATABASE {{}} IS {{}}"
        command(self.connection, text, name, name, name, sql.Literal(marker))

    def _end_others(self) -> None:
        """Whoever was still logging in shows a moment later, so nobody must be there twice in a row."""
        if not self.alone:
            return
        mine = 0 if self.inside is None or self.inside.closed else one(self.inside, "SELECT pg_catalog.pg_backend_pid()")
        quiet, deadline = 0, time.monotonic() + 5
        while quiet < 2 and time.monotonic() < deadline:
            quiet = 0 if terminate(self.connection, [self.database.oid], mine) else quiet + 1
            time.sleep(0.01)


def stamp() -> str:
    return now()
