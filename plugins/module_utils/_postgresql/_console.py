# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The admin console of one pgbouncer: what it serves, who uses it, PAUSE with a time limit, RESUME.

``PAUSE`` of one database waits until every open transaction has ended, closes the connections to the server, and keeps clients
waiting without an error. It has no time limit of its own, and its waiting does not end when somebody else resumes.
"""

from __future__ import annotations

import select
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._connection import dicts, plain

try:
    import psycopg2
    import psycopg2.extensions
    from psycopg2 import sql
except ImportError:  # the module says so through missing_required_lib
    psycopg2 = sql = None  # type: ignore[assignment]

LOGIN_SECONDS = 5
NOBODY = "payops_rollback_no_such_database"  # its RESUME tells whether we are an administrator and changes nothing


class Pooler(t.NamedTuple):
    """One element of the option ``poolers``."""

    user: str
    host: str = "127.0.0.1"
    port: int = 6432
    password: str | None = None
    dbname: str = "pgbouncer"
    databases: t.Sequence[str] = ()
    pause_timeout: float = 5.0
    ssl_mode: str = "prefer"
    ca_cert: str | None = None

    @classmethod
    def of(cls, given: t.Mapping[str, t.Any]) -> Pooler:
        return cls(**{key: value for key, value in given.items() if key in cls._fields and value is not None})

    @property
    def where(self) -> str:
        return f"{self.host}:{self.port}"

    def by_hand(self, entry: str) -> str:
        """What a person types."""
        return f"psql -h {self.host} -p {self.port} -U {self.user} {self.dbname} -c 'RESUME \"{entry}\"'"


class Entry(t.NamedTuple):
    """One line of [databases]: the name that clients use, and the database on the server behind it."""

    name: str
    database: str
    paused: bool = False
    listed: bool = True


class Console:
    """Sessions on the console. Every statement is one that pgbouncer knows; nothing else may be sent there."""

    def __init__(self, pooler: Pooler) -> None:
        self.pooler = pooler
        self._session: t.Any = None

    def _parameters(self) -> dict[str, t.Any]:
        pooler = self.pooler
        given = {
            "host": pooler.host,
            "port": pooler.port,
            "user": pooler.user,
            "password": pooler.password,
            "dbname": pooler.dbname,
            "sslmode": pooler.ssl_mode,
            "sslrootcert": pooler.ca_cert,
            "connect_timeout": LOGIN_SECONDS,
            "application_name": "payops.rollback",
        }
        return {key: value for key, value in given.items() if value not in (None, "")}

    def _refused(self, exc: BaseException) -> RollbackError:
        said = plain(exc)
        if self.pooler.password:
            said = said.replace(self.pooler.password, "********")
        return RollbackError(
            f"Cannot log in to the console of the pooler at {self.pooler.where} as {self.pooler.user}: {said} "
            "Check host, port, user, password and dbname in poolers."
        )

    def session(self) -> t.Any:
        if self._session is None or self._session.closed:
            try:
                self._session = psycopg2.connect(**self._parameters())
            except psycopg2.Error as exc:
                raise self._refused(exc) from None
            self._session.autocommit = True
        return self._session

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def show(self, what: str) -> list[dict[str, t.Any]]:
        try:
            return dicts(self.session(), f"SHOW {what}")
        except psycopg2.Error as exc:
            raise RollbackError(f"The pooler at {self.pooler.where} refused SHOW {what}: {plain(exc)} Is it pgbouncer?") from exc

    # -- what it serves -------------------------------------------------------------------------------------------

    def entries(self, names: t.Collection[str]) -> list[Entry]:
        """What leads to these databases. An entry of ``*`` is not listed before its first use, so an unlisted name may exist."""
        found = {row["name"]: Entry(row["name"], row["database"], str(row.get("paused")) == "1") for row in self.show("DATABASES")}
        if self.pooler.databases:
            return [found.get(name, Entry(name, name, listed=False)) for name in self.pooler.databases]
        known = [each for each in found.values() if each.database in names]
        return known + [Entry(name, name, listed=False) for name in names if name not in found]

    def is_admin(self) -> bool:
        try:
            with self.session().cursor() as cursor:
                cursor.execute(sql.SQL("RESUME {}").format(sql.Identifier(NOBODY)))
        except psycopg2.Error as exc:
            return "admin access needed" not in str(exc)
        return True

    # -- pause and resume -----------------------------------------------------------------------------------------

    def waiter(self) -> t.Any:
        """A session for one PAUSE, logged in beforehand so that nobody waits for the login."""
        try:
            session = psycopg2.connect(**self._parameters(), async_=True)
            late, refused = answered([session], time.monotonic() + LOGIN_SECONDS)
            if refused:
                raise refused[session]
            if not late:
                return session
        except psycopg2.Error as exc:
            raise self._refused(exc) from None
        session.close()
        raise RollbackError(f"The pooler at {self.pooler.where} does not answer. Look at it; nothing was changed.")

    def pause(self, waiter: t.Any, entry: Entry) -> t.Any:
        """Send PAUSE; :func:`answered` waits for it. Keep the cursor until then: the session only knows it weakly."""
        cursor = waiter.cursor()
        cursor.execute(sql.SQL("PAUSE {}").format(sql.Identifier(entry.name)))
        return cursor

    def resume(self, entry: str) -> None:
        """RESUME; that it was not paused, or is gone, is no error. Raises psycopg2.Error or RollbackError."""
        try:
            with self.session().cursor() as cursor:
                cursor.execute(sql.SQL("RESUME {}").format(sql.Identifier(entry)))
        except psycopg2.Error as exc:
            said = str(exc)
            if "is not paused" not in said and "no such database" not in said:
                self.close()
                raise

    # -- who uses it ----------------------------------------------------------------------------------------------

    def servers(self, entries: t.Collection[str]) -> list[dict[str, t.Any]]:
        """Connections to the server behind these entries, with the client that holds each."""
        clients = {row["ptr"]: row for row in self.show("CLIENTS")}
        return [{**row, "client": clients.get(row["link"])} for row in self.show("SERVERS") if row["database"] in entries]

    def pool_modes(self, entries: t.Collection[str]) -> set[str]:
        return {row["pool_mode"] for row in self.show("POOLS") if row["database"] in entries}


def answered(waiters: t.Collection[t.Any], deadline: float) -> tuple[list[t.Any], dict[t.Any, t.Any]]:
    """Wait for asynchronous sessions: those that have not answered at the deadline, and the error of those that were refused."""
    pending, refused = list(waiters), {}
    while pending:
        reading: list[t.Any] = []
        writing: list[t.Any] = []
        for each in list(pending):
            try:
                state = each.poll()
            except psycopg2.Error as exc:
                refused[each] = exc
                pending.remove(each)
                continue
            if state == psycopg2.extensions.POLL_OK:
                pending.remove(each)
            else:
                (writing if state == psycopg2.extensions.POLL_WRITE else reading).append(each)
        left = deadline - time.monotonic()
        if not pending or left <= 0:
            break
        select.select(reading, writing, [], left)
    return pending, refused
