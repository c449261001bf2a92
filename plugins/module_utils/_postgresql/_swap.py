# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The flip: databases exchange their names, all of one server in one transaction, checked by OID.

``ALTER DATABASE ... RENAME`` is transactional and costs the same at any size. It takes an exclusive lock on the
database (newcomers wait), then looks every 100 ms for at most 5 s whether anybody is still connected. A second session
ends those meanwhile. There is no moment at which the catalogue lacks the production name.
"""

from __future__ import annotations

import threading
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import rows, terminate

try:
    import psycopg2
    from psycopg2 import sql
except ImportError:  # the module says so through missing_required_lib
    psycopg2 = sql = None  # type: ignore[assignment]

# ObjectInUse, LockNotAvailable, QueryCanceled (our statement_timeout), deadlock: somebody was in the way, worth another try
BUSY = ("55006", "55P03", "57014", "40P01")
Connect = t.Callable[..., t.Any]


class Move(t.NamedTuple):
    """One production name and the two databases that exchange it."""

    name: str
    out_oid: int | None  # has the name now; None if there is none
    out_name: str  # what it will be called
    out_comment: t.Callable[[str], str]  # its marker, given the snapshot at the flip
    in_name: str  # what the other is called now
    in_oid: int
    in_comment: str | None


class Swapped(t.NamedTuple):
    outage_ms: float
    attempts: int
    snapshot: str


def prepare_session(connection: t.Any) -> None:
    """Short limits: a client that dies inside a statement must not leave its lock behind."""
    connection.autocommit = True
    for setting in (
        "statement_timeout = '8s'",
        "lock_timeout = '3s'",
        "idle_in_transaction_session_timeout = '2s'",
        "synchronous_commit = on",
    ):
        rows(connection, f"SET {setting}")
    if connection.server_version >= 140000:
        rows(connection, "SET client_connection_check_interval = '100ms'")


class Terminator:
    """A second session that ends sessions of the given OIDs every 2 ms until it is stopped."""

    def __init__(self, connection: t.Any, oids: t.Sequence[int]) -> None:
        self.connection = connection
        self.oids = list(oids)
        self.failed: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="terminator", daemon=True)

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                terminate(self.connection, self.oids)
            except Exception as exc:  # reported by whoever waits for the rename
                self.failed = exc
                return
            self._stop.wait(0.002)

    def __enter__(self) -> Terminator:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join(10)


def sessions(connection: t.Any, oids: t.Sequence[int]) -> list[str]:
    """Who is connected, as people read it."""
    found = rows(
        connection,
        "SELECT datname, pid, coalesce(usename, '-'), coalesce(nullif(application_name, ''), backend_type), coalesce(state, '-')"
        " FROM pg_catalog.pg_stat_activity WHERE datid = ANY (%s::oid[]) AND pid <> pg_catalog.pg_backend_pid() ORDER BY 1, 2",
        (list(oids),),
    )
    return [f"{name}: session {pid} of {user} ({application}, {state})" for name, pid, user, application, state in found]


def exchange(connection: t.Any, moves: t.Sequence[Move]) -> str:
    """The transaction itself. Returns the snapshot that it recorded; rolls back unless every OID is the expected one."""
    connection.autocommit = False
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_catalog.pg_current_snapshot()::text")
            snapshot = str(cursor.fetchone()[0])
            cursor.execute("SELECT oid::bigint, datallowconn FROM pg_catalog.pg_database")
            access = dict(cursor.fetchall())
            statements = []
            for move in moves:
                if move.out_oid is not None:
                    rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
                    statements.append(rename.format(sql.Identifier(move.name), sql.Identifier(move.out_name)))
            for move in moves:
                open_it = access.get(move.out_oid, True) if move.out_oid is not None else True
                statements.append(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(move.in_name), sql.Identifier(move.name)))
                statements.append(
                    sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(
                        sql.Identifier(move.name), sql.SQL("true" if open_it else "false")
                    )
                )
                comment = sql.SQL("COMMENT ON DATABASE {} IS {}")
                statements.append(comment.format(sql.Identifier(move.name), sql.Literal(move.in_comment)))
                if move.out_oid is not None:
                    statements.append(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(move.out_name)))
                    statements.append(comment.format(sql.Identifier(move.out_name), sql.Literal(move.out_comment(snapshot))))
            cursor.execute(sql.SQL("; ").join(statements))
            check(connection, moves)
        connection.commit()
        return snapshot
    except BaseException:
        if not connection.closed:
            connection.rollback()
        raise
    finally:
        if not connection.closed:
            connection.autocommit = True


def done(connection: t.Any, moves: t.Sequence[Move]) -> bool:
    """Whether the catalogue shows the exchange as done: every name has the OID that it should get."""
    found = dict(rows(connection, "SELECT datname, oid::bigint FROM pg_catalog.pg_database"))
    return all(found.get(move.name) == move.in_oid for move in moves)


def check(connection: t.Any, moves: t.Sequence[Move]) -> None:
    found = dict(rows(connection, "SELECT datname, oid::bigint FROM pg_catalog.pg_database"))
    for move in moves:
        pairs = [(move.name, move.in_oid)] + ([(move.out_name, move.out_oid)] if move.out_oid is not None else [])
        for name, oid in pairs:
            if found.get(name) != oid:
                raise RollbackError(
                    f"Database {name} would have the OID {found.get(name)}; expected {oid}. Another run was faster; nothing was renamed."
                )


def _outcome(connect: Connect, maintenance: str, moves: t.Sequence[Move], cause: Exception) -> None:
    """The connection broke during the transaction: ask the catalogue what happened. Returns if it was committed."""
    deadline = time.monotonic() + 15
    while True:
        try:
            again = connect(maintenance)
            try:
                again.autocommit = True
                if done(again, moves):
                    return
            finally:
                again.close()
            break
        except (RollbackError, psycopg2.OperationalError):
            if time.monotonic() >= deadline:
                raise RollbackError(
                    f"The server broke the connection during the flip ({str(cause).strip()}) and does not answer. It is either done or not begun; "
                    "start the server and run the same command again."
                ) from cause
            time.sleep(0.2)
    raise RollbackError(
        f"The server broke the connection during the flip ({str(cause).strip()}). Nothing was renamed; run the same command again."
    ) from cause


def swap(connect: Connect, maintenance: str, moves: t.Sequence[Move], attempts: int = 3, wait: float = 30.0) -> Swapped:
    """Exchange the names; at most ``attempts`` times and ``wait`` seconds. Raises with who was in the way."""
    moves = sorted(moves, key=lambda move: move.in_oid)
    outgoing = [move.out_oid for move in moves if move.out_oid is not None]
    everybody = outgoing + [move.in_oid for move in moves]
    deadline = time.monotonic() + wait
    first = connect(maintenance)
    second = connect(maintenance)
    try:
        prepare_session(first)
        prepare_session(second)
        before = dict(rows(first, "SELECT datname, oid::bigint FROM pg_catalog.pg_database"))
        for move in moves:
            if before.get(move.name) != move.out_oid or before.get(move.in_name) != move.in_oid:
                raise RollbackError(
                    f"Database {move.name} has the OID {before.get(move.name)} and {move.in_name} {before.get(move.in_name)}; expected "
                    f"{move.out_oid} and {move.in_oid}. Another run was faster; nothing was renamed. Run the same command again."
                )
        attempt = 1
        while True:
            begun = time.monotonic()
            try:
                terminate(first, [move.in_oid for move in moves])
                with Terminator(second, outgoing):  # never the incoming ones: after the commit those are the application's
                    _wait_empty(first, outgoing)
                    snapshot = exchange(first, moves)
                break
            except psycopg2.Error as exc:
                if exc.pgcode not in BUSY:
                    if first.closed or isinstance(exc, (psycopg2.OperationalError, psycopg2.InterfaceError)):
                        _outcome(connect, maintenance, moves, exc)
                        snapshot = ""
                        break
                    raise RollbackError(f"The server refused the flip: {str(exc).strip()}. Nothing was renamed.") from exc
                if attempt >= attempts or time.monotonic() >= deadline:
                    holders = sessions(first, everybody)
                    raise RollbackError(
                        f"The databases could not be renamed in {attempt} attempt(s), because somebody stayed connected: {str(exc).strip()} "
                        f"Sessions now: {'; '.join(holders) or 'none'}. Nothing was renamed. End them, then run the same command again.",
                        sessions=holders,
                    ) from exc
                time.sleep(0.5 * attempt)
                attempt += 1
        for move in moves:
            if first.closed or rows(first, "SELECT datallowconn FROM pg_catalog.pg_database WHERE oid = %s", (move.in_oid,))[0][0]:
                _reachable(connect, move.name)
        return Swapped(round((time.monotonic() - begun) * 1000, 1), attempt, snapshot)
    finally:
        for connection in (first, second):
            connection.close()


def _wait_empty(connection: t.Any, oids: t.Sequence[int]) -> None:
    """If everybody is gone before the rename begins, it need not sleep its 100 ms; but do not wait long for that."""
    limit = time.monotonic() + 0.015
    query = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE datid = ANY (%s::oid[]) AND usesysid IS NOT NULL"
    while time.monotonic() < limit and rows(connection, query, (list(oids),))[0][0]:
        time.sleep(0.001)


def _reachable(connect: Connect, name: str) -> None:
    """The outage ends when a new connection by the production name succeeds (or when the name is closed on purpose)."""
    limit = time.monotonic() + 5
    while True:
        try:
            connect(name).close()
            return
        except Exception:  # the post check looks at why; here only the time counts
            if time.monotonic() > limit:
                return
            time.sleep(0.002)
