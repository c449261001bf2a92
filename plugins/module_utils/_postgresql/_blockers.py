# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Everything that would stop a restore or a flip, found before anything is touched and listed all at once."""

from __future__ import annotations

import os
import re
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._postgresql._rights import as_giver
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import Database, one, rows

try:
    import psycopg2
except ImportError:  # the module says so through missing_required_lib
    psycopg2 = None  # type: ignore[assignment]


SPARE = 1.2  # a restored database is about as large as it was; indexes are built with room in their pages


class Needs(t.NamedTuple):
    """What the restored database needs from the server."""

    roles: t.Sequence[str] = ()  # every role that owns or is granted something
    owners: t.Sequence[str] = ()  # those that own something
    extensions: t.Sequence[tuple[str, str]] = ()
    tablespaces: t.Sequence[str] = ()
    event_triggers: t.Sequence[str] = ()
    size: int = 0  # bytes it will take, 0 = unknown
    public: t.Mapping[str, t.Any] = {}  # owner and grants of the schema of that name


class Report:
    """Blockers stop; notes are told."""

    def __init__(self) -> None:
        self.blockers: list[dict[str, str]] = []
        self.notes: list[str] = []

    def block(self, code: str, database: str, what: str, do: str) -> None:
        entry = {"code": code, "database": database, "what": what, "do": do}
        if entry not in self.blockers:
            self.blockers.append(entry)


def sentence(blockers: t.Sequence[dict[str, str]]) -> str:
    return " ".join(f"({number}) {each['what']} {each['do']}" for number, each in enumerate(blockers, 1))


def who_am_i(connection: t.Any) -> dict[str, t.Any]:
    row = rows(
        connection,
        "SELECT rolname, rolsuper, rolcreatedb, pg_catalog.pg_has_role('pg_signal_backend', 'USAGE') FROM pg_catalog.pg_roles"
        " WHERE rolname = current_user",
    )[0]
    return {"name": row[0], "superuser": row[1], "createdb": row[2], "signal": row[3]}


def server_level(connection: t.Any, report: Report, creating: bool) -> None:
    """What concerns the server as a whole."""
    if one(connection, "SELECT pg_catalog.pg_is_in_recovery()"):
        report.block("standby", "", "This server is a standby and cannot be written to.", "Give the primary as login_host.")
    me = who_am_i(connection)
    if not me["superuser"] and not me["createdb"]:
        what = f"Role {me['name']} has no CREATEDB right, which creating and renaming databases needs."
        report.block("createdb", "", what, f'As superuser: ALTER ROLE "{me["name"]}" CREATEDB.')
    names = one(connection, "SELECT pg_catalog.current_setting('synchronous_standby_names')")
    if names:
        report.notes.append(f"The flip waits for the synchronous standby ({names}); while it is away a commit does not return.")
    try:
        standbys = rows(connection, "SELECT coalesce(application_name, '?') FROM pg_catalog.pg_stat_replication")
    except psycopg2.Error:
        standbys = []
    if standbys:
        report.notes.append(
            "Sessions on standbys keep reading the replaced database until they reconnect: "
            + ", ".join(sorted(row[0] for row in standbys))
            + "."
        )


def outgoing(connection: t.Any, report: Report, database: Database, accept_replication: bool, flipping: bool) -> None:
    """What stops the database that has the production name from being renamed."""
    me = who_am_i(connection)
    name = database.name
    if name == one(connection, "SELECT pg_catalog.current_database()"):
        advice = "Set login_db (rollback_postgresql_login_db) to another database, for example postgres."
        report.block("maintenance", name, f"login_db is {name} itself.", advice)
    if database.template:
        report.block("template", name, f"{name} is a template database.", "Templates are not rolled back; remove the name from databases.")
    owner(connection, report, database, me)
    for (gid,) in rows(connection, "SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = %s", (name,)):
        what = f"{name} has the prepared transaction {gid!r}."
        report.block("prepared", name, what, "Ask its transaction manager; then COMMIT PREPARED or ROLLBACK PREPARED it in that database.")
    if not accept_replication:
        _replication(connection, report, database)
    _sessions(connection, report, database, me, flipping)


def owner(connection: t.Any, report: Report, database: Database, me: dict[str, t.Any]) -> None:
    if not me["superuser"] and not one(connection, "SELECT pg_catalog.pg_has_role(%s, 'USAGE')", (database.owner,)):
        what = f"Role {me['name']} is not the owner of {database.name} ({database.owner}) nor a member of it."
        report.block("owner", database.name, what, f'As superuser: GRANT "{database.owner}" TO "{me["name"]}".')


def _replication(connection: t.Any, report: Report, database: Database) -> None:
    advice = (
        "It would follow the replaced database, not the name. Drop it and set it up again after, "
        "or set accept_replication=true (rollback_postgresql_accept_replication)."
    )
    query = "SELECT slot_name, active FROM pg_catalog.pg_replication_slots WHERE database = %s"
    for slot, active in rows(connection, query, (database.name,)):
        what = f"{database.name} has the {'active' if active else 'inactive'} logical replication slot {slot!r}."
        report.block("slot", database.name, what, advice)
    for (subscription,) in rows(connection, "SELECT subname FROM pg_catalog.pg_subscription WHERE subdbid = %s", (database.oid,)):
        report.block("subscription", database.name, f"{database.name} has the subscription {subscription!r}.", advice)


def _sessions(connection: t.Any, report: Report, database: Database, me: dict[str, t.Any], flipping: bool) -> None:
    found = rows(
        connection,
        """
        SELECT a.pid, r.rolname, coalesce(r.rolsuper, false), coalesce(pg_catalog.pg_has_role(r.oid, 'USAGE'), false),
               coalesce(a.application_name, ''), coalesce(a.backend_type, 'client backend')
          FROM pg_catalog.pg_stat_activity a LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid
         WHERE a.datid = %s AND a.pid <> pg_catalog.pg_backend_pid()
           AND CASE WHEN a.backend_type IS NULL THEN a.usesysid IS NOT NULL  -- hidden from those without pg_read_all_stats
                    ELSE a.backend_type NOT IN ('autovacuum worker', 'parallel worker') END ORDER BY a.pid
        """,
        (database.oid,),
    )
    foreign: set[str] = set()
    for pid, role, superuser, mine, application, kind in found:
        who = f"session {pid} ({role or 'no role'}, {application or kind})"
        if kind not in ("client backend", "walsender"):
            what = f"{database.name} has the background worker {kind!r}, {who}, which comes back when it is ended."
            report.block(
                "worker", database.name, what, "Stop it first, for example by its extension's own function (timescaledb, pg_cron, pg_net)."
            )
        elif superuser and not me["superuser"]:
            what = f"{database.name} has a superuser's {who}, which role {me['name']} may not end."
            report.block("superuser_session", database.name, what, "Close it, or log in as superuser.")
        elif not (me["superuser"] or mine or me["signal"]):
            foreign.add(role)
    if foreign:
        what = f"Role {me['name']} may not end the sessions of {', '.join(sorted(foreign))} in {database.name}."
        report.block("signal", database.name, what, f'As superuser: GRANT pg_signal_backend TO "{me["name"]}".')


def incoming(connection: t.Any, report: Report, name: str, needs: Needs) -> None:
    """What the restored database needs and the server or our role lacks."""
    me = who_am_i(connection)
    query = as_giver("SELECT rolname, pg_catalog.pg_has_role(oid, 'MEMBER') FROM pg_catalog.pg_roles", connection.server_version)
    existing = {row[0]: row[1] for row in rows(connection, query)}
    owners = set(needs.owners)
    public = str(needs.public.get("owner") or "")
    if connection.server_version >= 150000 and public and not public.startswith("pg_"):
        owners.add(public)  # before, that of a new database is the first superuser's and nobody gives it away; see _public
    for role in sorted(set(needs.roles) | owners):
        if role not in existing and role not in ("", "PUBLIC"):
            what = f"The point of {name} needs the role {role!r}, which this server lacks."
            report.block("role", name, what, f'As superuser: CREATE ROLE "{role}" with the rights it had.')
    if not me["superuser"]:
        for role in sorted(owners):
            if existing.get(role) is False:
                what = f"Role {me['name']} is not a member of {role!r}, which owns objects in the point of {name}."
                report.block("membership", name, what, f'As superuser: GRANT "{role}" TO "{me["name"]}".')
    _extensions(connection, report, name, needs, me)
    spaces = {row[0] for row in rows(connection, "SELECT spcname FROM pg_catalog.pg_tablespace")}
    for space in sorted(set(needs.tablespaces) - spaces):
        report.block("tablespace", name, f"The point of {name} needs the tablespace {space!r}.", "Create it where it was.")
    if needs.event_triggers and not me["superuser"]:
        what = f"The point of {name} has the event triggers {', '.join(needs.event_triggers)}, which only a superuser may create."
        report.block("event_trigger", name, what, "Log in as superuser.")
    if connection.server_version < 150000 and not me["superuser"]:
        _public(connection, report, name, needs)


def _public(connection: t.Any, report: Report, name: str, needs: Needs) -> None:
    """Before 15 the schema public of a new database is the first superuser's, and only he may give it away or grant rights on it."""
    first = one(connection, "SELECT rolname::text FROM pg_catalog.pg_roles WHERE oid = 10")
    everything = ["CREATE", "USAGE"]
    if needs.public and (needs.public.get("owner"), needs.public.get("grants")) != (first, {"": everything, first: everything}):
        what = f"The schema public in the point of {name} has an owner or grants of its own, which before PostgreSQL 15 only a superuser may restore."
        report.block("public", name, what, "Log in as superuser.")


def _extensions(connection: t.Any, report: Report, name: str, needs: Needs, me: dict[str, t.Any]) -> None:
    available = {
        (row[0], row[1]): (row[2], row[3])
        for row in rows(connection, "SELECT name, version, superuser, trusted FROM pg_catalog.pg_available_extension_versions")
    }
    for extension, version in needs.extensions:
        rights = available.get((extension, version))
        if rights is None:
            others = sorted(other for known, other in available if known == extension)
            what = f"The point of {name} needs the extension {extension} {version}; this server offers {', '.join(others) or 'none of it'}."
            report.block("extension", name, what, "Install the package that brings that version.")
        elif rights[0] and not rights[1] and not me["superuser"] and extension != "plpgsql":
            what = f"The extension {extension} in the point of {name} is not trusted: only a superuser may create it."
            report.block("extension_right", name, what, "Log in as superuser.")


def disk(connection: t.Any, report: Report, sizes: t.Mapping[str, int], local: bool) -> None:
    """Room for the restored databases (``{tablespace: bytes}``) and for their WAL, on each filesystem that can be seen from here."""
    total = sum(sizes.values())
    if total <= 0:
        return
    try:
        folder = one(connection, "SELECT pg_catalog.current_setting('data_directory', true)")
    except psycopg2.Error:
        folder = None
    if not local or not folder or not os.path.isdir(folder):
        about = int(total * (SPARE + 1)) >> 20
        report.notes.append(f"Free space was not checked (the data directory cannot be seen from here); about {about} MiB are needed.")
        return
    spaces = dict(rows(connection, "SELECT spcname, pg_catalog.pg_tablespace_location(oid) FROM pg_catalog.pg_tablespace"))
    wal = os.path.join(folder, "pg_wal")  # often a link to another disk
    wanted = [(wal if os.path.isdir(wal) else folder, total)]
    wanted += [(spaces.get(space) or folder, int(size * SPARE)) for space, size in sorted(sizes.items())]
    places: dict[int, tuple[str, int]] = {}
    for path, need in wanted:
        if not os.path.isdir(path):
            report.notes.append(f"Free space of {path} was not checked (it cannot be seen from here); about {need >> 20} MiB are needed.")
            continue
        device = os.stat(path).st_dev
        places[device] = (path, need + places.get(device, ("", 0))[1])
    for path, need in places.values():
        found = os.statvfs(path)
        room = found.f_bavail * found.f_frsize
        if room < need:
            what = f"{path} has {room >> 20} MiB free; expected at least {need >> 20} MiB for the restored databases and their WAL."
            report.block("disk", "", what, "Make room, for example with state=complete for databases kept by earlier runs.")


def host_rules(connection: t.Any, report: Report, name: str, staged: str) -> None:
    """pg_hba.conf may admit us to the production name only. Readable for superusers; others find out by logging in."""
    try:
        found = rows(
            connection,
            "SELECT line_number, database, user_name, auth_method FROM pg_catalog.pg_hba_file_rules WHERE error IS NULL ORDER BY line_number",
        )
    except psycopg2.Error:
        report.notes.append(
            f"pg_hba.conf is not readable for this role: whether it admits us to {staged} is found out by logging in there."
        )
        return
    user = one(connection, "SELECT session_user::text")
    decided = [(line, hba_matches(bases, staged), method) for line, bases, users, method in found if hba_matches(users, user)]
    admitted = [line for line, matches, method in decided if matches and method != "reject"]
    if not admitted:
        lines = ", ".join(str(line) for line, unused, unused_too in decided) or "none"
        what = f"pg_hba.conf admits {user} to no database named {staged} (rules for this user: lines {lines})."
        report.block("pg_hba", name, what, f"Add a rule for {user} with the database 'all', or run over a connection that has one.")


def hba_matches(names: t.Sequence[str] | None, wanted: str) -> bool:
    """Whether one field of a rule covers ``wanted``. Group and file references cannot be judged from here: they count as yes."""
    for name in names or ():
        if name == "all" or name == wanted or name.startswith(("+", "@")) or name in ("samerole", "samegroup"):
            return True
        if name.startswith("/"):
            try:
                if re.search(name[1:], wanted):
                    return True
            except re.error:
                return True
    return False


def logins(connection: t.Any, report: Report, production: Database, staged: str) -> None:
    """Roles that are connected now and may not connect to what will have the name: told, because their application would stop."""
    query = """
        SELECT DISTINCT a.usename FROM pg_catalog.pg_stat_activity a
         WHERE a.datid = %s AND a.usename IS NOT NULL
           AND NOT pg_catalog.has_database_privilege(a.usename, %s, 'CONNECT')
    """
    for (role,) in rows(connection, query, (production.oid, staged)):
        report.notes.append(f"Role {role} is connected to {production.name} now, but had no CONNECT right when the point was taken.")
