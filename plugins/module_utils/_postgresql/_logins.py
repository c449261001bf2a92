# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Whether the applications will get in after the flip: each declared login opens the database that has the name now and the staged one.

pg_hba.conf and poolers go by the name of a database, privileges by the database itself. The name stays, the database changes. So a
rule that refuses the staged name stops nothing as long as the same login gets in by the production name; a missing CONNECT does.
"""

from __future__ import annotations

import os
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._connection import plain
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import Database, Window, one, rows

try:
    import psycopg2
except ImportError:  # the module says so through missing_required_lib
    psycopg2 = None  # type: ignore[assignment]

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._postgresql._restore import Restore

SECONDS = 5
REMOVE = "Correct application_logins, or remove the login if nobody uses it."


def argument_spec() -> dict[str, t.Any]:
    """The option ``application_logins``."""
    return {
        "application_logins": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "user": {"type": "str", "required": True},
                "password": {"type": "str", "no_log": True},
                "host": {"type": "str"},
                "port": {"type": "int"},
                "databases": {"type": "list", "elements": "str", "default": []},
            },
        }
    }


class Login(t.NamedTuple):
    """One element of ``application_logins``; without host and port it goes where the module itself goes."""

    user: str
    password: str | None = None
    host: str | None = None
    port: int | None = None
    databases: t.Sequence[str] = ()

    @classmethod
    def of(cls, given: t.Mapping[str, t.Any]) -> Login:
        return cls(**{key: value for key, value in given.items() if key in cls._fields and value is not None})


class Logins:
    """The declared logins and what was learnt of them."""

    def __init__(self, given: t.Sequence[t.Mapping[str, t.Any]]) -> None:
        self.declared = [Login.of(each) for each in given]
        self.now: dict[tuple[str, str], str | None] = {}  # None: gets in by the production name; else why not
        self.pooled: set[str] = set()  # whose address is a pooler's

    def of(self, name: str) -> list[Login]:
        return [login for login in self.declared if not login.databases or name in login.databases]


class Refused(Exception):
    """Somebody did not let a login in; the text is what was said, without a password."""


def open_as(work: Restore, login: Login, database: str, direct: bool = False) -> t.Any:
    """A session as an application opens it; ``direct`` at the module's own address, whatever the login declares."""
    given = work.server.parameters()
    for key in ("passfile", "sslcert", "sslkey", "service", "options"):
        given.pop(key, None)
    if not direct:
        given.update({key: str(value) for key, value in (("host", login.host), ("port", login.port)) if value})
    given.update({"user": login.user, "dbname": database, "connect_timeout": str(SECONDS)})
    if login.password:
        given["password"] = login.password
    else:
        given["passfile"] = os.path.join(os.devnull, "none")  # nobody's passfile must lend the application a password
    try:
        session = psycopg2.connect(**given)
    except psycopg2.Error as exc:
        said = plain(exc)
        raise Refused(said.replace(login.password, "********") if login.password else said) from None
    session.autocommit = True
    return session


def where(work: Restore, login: Login) -> str:
    host = login.host or work.server.where.rpartition(":")[0]
    return f"{host}:{login.port or work.server.where.rpartition(':')[2]}"


def behind_pooler(session: t.Any) -> bool:
    """A pooler makes up the process number that it tells at login."""
    return bool(one(session, "SELECT pg_catalog.pg_backend_pid()") != session.get_backend_pid())


# -- before anything is touched ---------------------------------------------------------------------------------------


def preflight(work: Restore, found: t.Mapping[str, Database], names: t.Sequence[str]) -> None:
    """CONNECT in the point, and the production name now. Reads only, so check mode tells it, too."""
    for name in names:
        for login in work.logins.of(name):
            lacking = _lacks_connect(work, login, name)
            if lacking:
                work.report.block("connect", name, lacking, f"Take a point that has it, or if the login is not needed: {REMOVE}")
            if name in found and found[name].open:
                work.logins.now[login.user, name] = _try_now(work, login, name)
        if name in found:
            _undeclared(work, found[name])


def _lacks_connect(work: Restore, login: Login, name: str) -> str:
    """The point's own privileges against the roles of this server."""
    grants = work.manifests[name]["properties"].get("grants", {})
    admitted = [role for role, privileges in grants.items() if any(each.rstrip("*") == "CONNECT" for each in privileges)]
    if not work.manifests[name].get("known", True) or "" in admitted or "PUBLIC" in admitted:
        return ""
    query = (
        "SELECT r.rolsuper OR EXISTS (SELECT FROM pg_catalog.pg_roles g WHERE g.rolname = ANY (%s) AND pg_catalog.pg_has_role(r.oid, g.oid, 'USAGE'))"
        " FROM pg_catalog.pg_roles r WHERE r.rolname = %s"
    )
    answer = one(work.conn, query, (admitted, login.user))
    if answer is not False:  # None: no such role here; a pooler may know it, and otherwise the login itself fails
        return ""
    return f"Login {login.user} had no CONNECT on {name} when the point was taken, so its application would stop."


def _try_now(work: Restore, login: Login, name: str) -> str | None:
    """None if the login opens the production name as its application does, else why not. That alone stops nothing: the bad release may have done it."""
    try:
        session = open_as(work, login, name)
    except Refused as exc:
        work.report.notes.append(f"Login {login.user} cannot open {name} at {where(work, login)} even now: {exc}")
        return str(exc)
    try:
        if behind_pooler(session):
            work.logins.pooled.add(login.user)
    finally:
        session.close()
    return None


def _undeclared(work: Restore, database: Database) -> None:
    """Who is in the database now and could not be tried."""
    query = (
        "SELECT DISTINCT usename FROM pg_catalog.pg_stat_activity WHERE datid = %s AND usename IS NOT NULL"
        " AND application_name NOT LIKE 'payops.rollback/%%' ORDER BY 1"
    )
    declared = {login.user for login in work.logins.of(database.name)}
    others = [row[0] for row in rows(work.conn, query, (database.oid,)) if row[0] not in declared]
    if others:
        work.report.notes.append(
            f"Whether {', '.join(others)} will get into {database.name} after the flip was not tried: application_logins does not declare them."
        )


# -- with the staged database -----------------------------------------------------------------------------------------


def staged(work: Restore, names: t.Sequence[str]) -> None:
    """Each login opens the staged database. It is closed to everybody else again at once, and nothing is read or written there."""
    with work.run.step("logins") as learnt:
        found = work.found()
        tried: list[str] = []
        for name in names:
            database = work.usable_staged(found, name)
            if database is None:
                continue
            if any(entry.get("event") == "login" for entry in work.manifests[name].get("catalogue", {}).get("event trigger", {}).values()):
                work.report.notes.append(f"No login was tried on {database.name}: it has an event trigger that acts at each login.")
                continue
            for login in work.logins.of(name):
                _try_staged(work, login, name, database)
                tried.append(f"{login.user} on {database.name}")
        learnt["tried"] = tried
    work.result["notes"] = work.report.notes
    if work.report.blockers:
        work.result["blockers"] = work.report.blockers
        raise RollbackError(
            "Not every application would get in after the flip; the live databases were not touched. "
            + " ".join(f"{each['what']} {each['do']}" for each in work.report.blockers),
            blockers=work.report.blockers,
            notes=work.report.notes,
        )


def _try_staged(work: Restore, login: Login, name: str, database: Database) -> None:
    direct = login.user in work.logins.pooled

    def connect(database_name: str, **settings: t.Any) -> t.Any:
        return open_as(work, login, database_name, direct)

    said = ""
    try:
        with Window(work.conn, connect, database):
            return
    except Refused as exc:
        said = f"{str(exc).rstrip('.')}."
    what = ""
    right = rows(
        work.conn,
        "SELECT pg_catalog.has_database_privilege(rolname, %s::oid, 'CONNECT') FROM pg_catalog.pg_roles WHERE rolname = %s",
        (database.oid, login.user),
    )
    if right and not right[0][0]:
        what = f"Login {login.user} has no CONNECT on {name} as the point has it: {said}"
    elif database.limit == 0:
        what = f"{name} has connection limit 0 in the point, so login {login.user} does not get in: {said}"
    elif work.logins.now.get((login.user, name), said) is not None:
        what = f"Login {login.user} gets neither into {name} now nor into {database.name}: {said}"
    if what:
        work.report.block("login", name, what, REMOVE)
        return
    work.report.notes.append(
        f"Login {login.user} is not let in under the name {database.name}, which pg_hba.conf or a pooler does not know; it is under {name}, "
        "and CONNECT is granted."
    )
