# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""What the login may do: which profile it is, what it cannot read for a snapshot, what it would lack for a restore.

Profiles: ``superuser`` may do everything. ``owner`` needs CREATEDB, pg_signal_backend and membership in every role that owns
something, so that a restore can give everything back to whom it belongs. Each missing right is one sentence with the
statement that grants it: known when the point is made, not when it is needed.
"""

from __future__ import annotations

import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._postgresql._catalogue import qualified
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._connection import Server, rows, value

TABLES, SEQUENCES = "rp", "S"  # kinds of relations
UNREADABLE_TABLES = r"""
SELECT n.nspname::text, c.relname::text,
  CASE WHEN NOT has_schema_privilege(n.oid, 'USAGE') THEN 'GRANT USAGE ON SCHEMA ' || quote_ident(n.nspname)
       WHEN NOT has_table_privilege(c.oid, 'SELECT') THEN 'GRANT SELECT ON ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname)
       ELSE 'row security' END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = ANY (%s) AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_depend e JOIN pg_extension x ON x.oid = e.refobjid WHERE e.classid = 'pg_class'::regclass
    AND e.objid = c.oid AND e.deptype = 'e' AND NOT c.oid = ANY (coalesce(x.extconfig, '{}')))
  AND (NOT has_schema_privilege(n.oid, 'USAGE') OR NOT has_table_privilege(c.oid, 'SELECT')
    OR (c.relkind <> 'S' AND row_security_active(c.oid)))
ORDER BY 1, 2"""

UNREADABLE_LARGE_OBJECTS = """
SELECT count(*) FROM pg_largeobject_metadata m WHERE NOT pg_has_role(m.lomowner, 'USAGE')
  AND NOT EXISTS (SELECT FROM aclexplode(m.lomacl) a WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE')))"""

# Owners of what pg_dump takes along, members of extensions left out. So are indexes, TOAST tables, row and array types: theirs is
# their table's owner, and those of an extension's tables are no members themselves.
OWNERS = " UNION ".join(
    f"SELECT x.{owner} FROM {table} x WHERE x.oid >= 16384 AND {more} AND NOT EXISTS (SELECT FROM pg_depend e "
    f"WHERE e.classid = '{table}'::regclass AND e.objid = x.oid AND e.deptype = 'e')"
    for table, owner, more in (
        ("pg_namespace", "nspowner", "x.nspname !~ '^pg_(toast_)?temp_'"),
        ("pg_class", "relowner", "x.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')"),
        ("pg_proc", "proowner", "true"),
        (
            "pg_type",
            "typowner",
            "NOT EXISTS (SELECT FROM pg_type el WHERE el.typarray = x.oid) "
            "AND NOT EXISTS (SELECT FROM pg_class r WHERE r.oid = x.typrelid AND r.relkind <> 'c')",
        ),
        ("pg_operator", "oprowner", "true"),
        ("pg_collation", "collowner", "true"),
        ("pg_largeobject_metadata", "lomowner", "true"),
        ("pg_publication", "pubowner", "true"),
        ("pg_statistic_ext", "stxowner", "true"),
    )
)
FOREIGN_OWNERS = (
    f"SELECT DISTINCT pg_get_userbyid(o.owner)::text FROM ({OWNERS} UNION SELECT datdba FROM pg_database WHERE datname = current_database()) "
    "AS o(owner) JOIN pg_roles r ON r.oid = o.owner WHERE NOT pg_has_role(o.owner, 'MEMBER') AND r.rolname <> 'pg_database_owner' ORDER BY 1"
)
# An upgrade from before 15 leaves it to whom it belonged, which is the first superuser as a rule.
PUBLIC_OWNER = (
    "SELECT r.rolname::text FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner "
    "WHERE n.nspname = 'public' AND r.rolname <> 'pg_database_owner' AND NOT pg_has_role(r.oid, 'MEMBER')"
)
# ALTER ROLE ... IN DATABASE is up to that role itself.
SETTING_ROLES = (
    "SELECT r.rolname::text FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole JOIN pg_database d ON d.oid = s.setdatabase "
    "WHERE d.datname = current_database() AND NOT pg_has_role(r.oid, 'MEMBER') ORDER BY 1"
)

ONLY_SUPERUSER = {
    "event trigger": "SELECT evtname::text FROM pg_event_trigger ORDER BY 1",
    "foreign data wrapper": "SELECT fdwname::text FROM pg_foreign_data_wrapper w WHERE NOT EXISTS (SELECT FROM pg_depend e "
    "WHERE e.classid = 'pg_foreign_data_wrapper'::regclass AND e.objid = w.oid AND e.deptype = 'e') ORDER BY 1",
    "extension": "SELECT e.extname::text FROM pg_extension e WHERE e.extname <> 'plpgsql' AND NOT EXISTS (SELECT FROM "
    "pg_available_extension_versions v WHERE v.name = e.extname AND v.version = e.extversion AND (v.trusted OR NOT v.superuser)) ORDER BY 1",
    "publication of all tables": "SELECT pubname::text FROM pg_publication WHERE puballtables ORDER BY 1",
    "function in a language for superusers": "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang "
    "WHERE NOT l.lanpltrusted AND p.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass "
    "AND e.objid = p.oid AND e.deptype IN ('e', 'i')) ORDER BY 1",
    "subscription": "SELECT subname::text FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
}
# Since 15 it belongs to whoever owns the database. A restore begins with that of template0, which stays the first superuser's (OID 10).
CHANGED_PUBLIC = (
    "SELECT n.nspname::text || ' with an owner or grants of its own' FROM pg_namespace n LEFT JOIN pg_init_privs i ON i.objoid = n.oid "
    "AND i.classoid = 'pg_namespace'::regclass WHERE n.nspname = 'public' AND (n.nspowner <> 10 OR n.nspacl IS DISTINCT FROM i.initprivs)"
)


def as_giver(query: str, version: int) -> str:
    """A query about membership, of that which lets one give something to the role: to become it, which 16 tells from being a member."""
    return query.replace("'MEMBER'", "'SET'") if version >= 160000 else query


def profile(server: Server) -> str:
    """``superuser`` or ``owner``."""
    return "superuser" if server.is_superuser else "owner"


def unreadable(conn: t.Any, server: Server, database: str) -> list[tuple[str, str]]:
    """What this login cannot read of the session's database, each with the statement that lets it."""
    if server.is_superuser:
        return []
    said = unreadable_relations(conn, server, database, TABLES + SEQUENCES)
    hidden = int(value(conn, UNREADABLE_LARGE_OBJECTS))
    if hidden:
        what = f"{hidden} large object(s) in database {database} cannot be read."
        said.append((what, f"GRANT SELECT ON LARGE OBJECT ... TO {server.user}."))
    return said


def unreadable_relations(conn: t.Any, server: Server, database: str, kinds: str) -> list[tuple[str, str]]:
    """The same of relations of these kinds."""
    said = []
    for schema, table, grant in rows(conn, UNREADABLE_TABLES, [list(kinds)]) if not server.is_superuser else []:
        name = f"{qualified(schema, table)} in database {database}"
        if grant == "row security":
            what = f"{name}: row-level security hides rows from {server.user}."
            said.append((what, f"ALTER ROLE {server.user} BYPASSRLS, or log in as its owner."))
        else:
            said.append((f"{name} cannot be read.", f"{grant} TO {server.user}."))
    return said


def missing_for_dump(conn: t.Any, server: Server, database: str) -> list[str]:
    """What this login cannot read of the session's database; pg_dump would fail on it after writing half a file."""
    return [f"{what} {do}" for what, do in unreadable(conn, server, database)]


def missing_for_restore(conn: t.Any, server: Server, database: str) -> list[str]:
    """What the login lacks to rename databases and to give every object back to its owner."""
    if server.is_superuser:
        return []
    said = []
    may_create, may_signal = rows(
        conn, "SELECT rolcreatedb, pg_has_role('pg_signal_backend', 'USAGE') FROM pg_roles WHERE rolname = current_user"
    )[0]
    if not may_create:
        said.append(f"{server.user} may not create and rename databases. ALTER ROLE {server.user} CREATEDB.")
    if not may_signal:
        said.append(f"{server.user} may not end other sessions. GRANT pg_signal_backend TO {server.user}.")
    foreign = [owner for (owner,) in rows(conn, as_giver(FOREIGN_OWNERS, conn.server_version))]
    for owner in foreign:
        said.append(f"{server.user} is not a member of {owner}, who owns something in database {database}. GRANT {owner} TO {server.user}.")
    for (owner,) in rows(conn, as_giver(PUBLIC_OWNER, conn.server_version)) if server.major >= 15 else []:  # before, see CHANGED_PUBLIC
        if owner in foreign:
            continue
        said.append(
            f"The schema public in database {database} belongs to {owner}, and {server.user} is not a member of that role. "
            "ALTER SCHEMA public OWNER TO pg_database_owner, as in new databases."
        )
    for (role,) in rows(conn, as_giver(SETTING_ROLES, conn.server_version)):
        said.append(
            f"{server.user} is not a member of {role}, who has settings of its own in database {database}. GRANT {role} TO {server.user}."
        )
    return said


def only_superuser(conn: t.Any) -> list[str]:
    """Objects that only a superuser can restore, as ``kind name``: for an owner they must be skipped or made by hand."""
    wanted = {**ONLY_SUPERUSER, **({"schema": CHANGED_PUBLIC} if conn.server_version < 150000 else {})}
    return [f"{kind} {row[0]}" for kind, sql in wanted.items() for row in rows(conn, sql)]


def roles(conn: t.Any) -> dict[str, dict[str, t.Any]]:
    """Every role of the server that is not PostgreSQL's own, without passwords: who must exist for a restore."""
    found = rows(
        conn,
        "SELECT r.rolname::text, r.rolcanlogin, r.rolcreatedb, r.rolsuper, "
        "(SELECT coalesce(array_agg(g.rolname::text ORDER BY g.rolname), '{}') FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid "
        "WHERE m.member = r.oid) FROM pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY 1",
    )
    return {
        name: {"login": login, "createdb": createdb, "superuser": superuser, "member_of": list(dict.fromkeys(member_of))}
        for name, login, createdb, superuser, member_of in found
    }
