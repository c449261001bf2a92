# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The staged database: made from template0 beside the live one, filled, compared with the point, closed, and looked at again before the flip."""

from __future__ import annotations

import os
import re
import tempfile
import time
import typing as t
from contextlib import contextmanager

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _catalogue, _manifest
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._blockers import Needs
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._names import write_marker
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._rights import as_giver
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import (
    Database,
    Window,
    command,
    databases,
    one,
    rows,
)

try:
    from psycopg2 import errors, sql
except ImportError:  # the module says so through missing_required_lib
    errors = sql = None  # type: ignore[assignment]

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._module import Cli
    from ansible_collections.payops.rollback.plugins.module_utils._postgresql._connection import Server

# pg_dump quotes the parts of these, so their stored text is a list of identifiers (the server's GUC_LIST_QUOTE)
LIST_SETTINGS = (
    "search_path", "temp_tablespaces", "session_preload_libraries", "shared_preload_libraries", "local_preload_libraries",
    "unix_socket_directories",
)  # fmt: skip
DISK_FULL = "53100"
NO_ROOM = " Make room on the server's disk (state=complete drops what earlier runs kept), then run the same command again."
PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}


def needs_of(manifest: dict[str, t.Any]) -> Needs:
    """Roles, extensions, tablespaces and event triggers that a database of this manifest needs."""
    catalogue, properties = manifest["catalogue"], manifest["properties"]
    roles: set[str] = {properties["owner"], *properties.get("grants", {}), *properties.get("settings", {})}
    owners: set[str] = {properties["owner"]}
    spaces = {properties.get("tablespace") or "pg_default"}
    for section, entries in catalogue.items():
        for name, entry in entries.items():
            grants = entry.get("grants")
            if isinstance(grants, dict):
                roles.update(grants)
            if entry.get("owner") and section != "large object" and (section, name) != ("schema", "public"):
                owners.add(entry["owner"])
            if entry.get("tablespace"):
                spaces.add(entry["tablespace"])
            if section == "policy":
                roles.update(role for role in entry.get("roles", []) if isinstance(role, str))
    builtin = {"", "PUBLIC", "public", "pg_database_owner"}
    return Needs(
        roles=sorted(role for role in roles - builtin if not role.startswith("pg_")),
        owners=sorted(role for role in owners - builtin if not role.startswith("pg_")),
        extensions=sorted((name.strip('"'), entry["version"]) for name, entry in catalogue.get("extension", {}).items()),
        tablespaces=sorted(spaces),
        event_triggers=sorted(catalogue.get("event trigger", {})),
        size=int(properties.get("size") or 0),
        public=catalogue.get("schema", {}).get("public", {}),
    )


def unsettable(connection: t.Any, manifest: dict[str, t.Any]) -> list[str]:
    """Roles whose settings in the database (ALTER ROLE ... IN DATABASE) we may not set: not superuser and not a member."""
    if one(connection, "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"):
        return []
    wanted = [role for role in manifest["properties"].get("settings", {}) if role]
    query = "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY (%s) AND NOT pg_has_role(oid, 'MEMBER')"
    found = rows(connection, as_giver(query, connection.server_version), (wanted,))
    return sorted(row[0] for row in found)


# -- making it --------------------------------------------------------------------------------------------------------


def create(connection: t.Any, name: str, properties: dict[str, t.Any], marker: dict[str, t.Any]) -> int:
    """CREATE DATABASE as the point describes it, marked and closed to PUBLIC at once. Returns its OID."""
    parts = [sql.SQL("CREATE DATABASE {} TEMPLATE template0 OWNER {}").format(sql.Identifier(name), sql.Identifier(properties["owner"]))]
    for clause, key in (("ENCODING {}", "encoding"), ("LC_COLLATE {}", "collate"), ("LC_CTYPE {}", "ctype")):
        if properties.get(key):
            parts.append(sql.SQL(clause).format(sql.Literal(properties[key])))
    provider = PROVIDERS.get(properties.get("provider") or "c", "libc")
    if provider != "libc":
        parts.append(sql.SQL("LOCALE_PROVIDER {}").format(sql.SQL(provider)))
        if properties.get("locale"):
            clause = "ICU_LOCALE {}" if provider == "icu" else "BUILTIN_LOCALE {}"
            parts.append(sql.SQL(clause).format(sql.Literal(properties["locale"])))
        if properties.get("icu_rules"):
            parts.append(sql.SQL("ICU_RULES {}").format(sql.Literal(properties["icu_rules"])))
    if properties.get("tablespace") not in (None, "pg_default"):
        parts.append(sql.SQL("TABLESPACE {}").format(sql.Identifier(properties["tablespace"])))
    rows(connection, sql.SQL(" ").join(parts))
    set_marker(connection, name, marker)
    command(connection, "REVOKE ALL ON DATABASE {} FROM PUBLIC", name)
    return int(one(connection, "SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = %s", (name,)))


def set_marker(connection: t.Any, name: str, marker: dict[str, t.Any]) -> None:
    rows(connection, sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(write_marker(marker))))


def toc_entries(cli: Cli, program: str, folder: str) -> list[str]:
    """The archive's table of contents, one line an entry."""
    listed = cli([program, "-l", folder])
    if listed.rc != 0:
        raise RollbackError(
            f"{program} cannot read the archive {folder}: {listed.stderr.strip()}. The point is damaged; choose another one."
        )
    return [line for line in listed.stdout.splitlines() if line and not line.startswith(";")]


ENTRY = re.compile(r"\d+; \d+ \d+ (?P<what>.*)\Z")


def skipped(entries: t.Sequence[str], patterns: t.Sequence[str]) -> list[str]:
    """Entries of the table of contents that the user wants left out: those whose description contains a pattern."""
    found = []
    for line in entries:
        match = ENTRY.match(line)
        if match and any(pattern in match.group("what") for pattern in patterns):
            found.append(line)
    return found


def ignored(lines: t.Sequence[str]) -> list[str]:
    """The patterns under which the comparison overlooks what was left out on purpose."""
    patterns = []
    for line in lines:
        match = ENTRY.match(line)
        words = match.group("what").split() if match else []
        upper = [word for word in words if word.isupper()]
        rest = words[len(upper) :] if len(words) > len(upper) else words
        if len(rest) >= 2:
            schema, name = ("", rest[0]) if rest and upper and rest[0] != "-" and len(rest) < 3 else (rest[0], rest[1])
            prefix = "" if schema in ("", "-") else f"{schema}."
            patterns.append(f"{' '.join(word for word in upper if word != '-').lower()} {prefix}{name}*")
    return patterns


def load(cli: Cli, server: Server, program: str, folder: str, name: str, jobs: int, leave_out: t.Sequence[str]) -> list[str]:
    """pg_restore into the staged database. Anything but a clean end is an error. Returns the entries that were left out."""
    entries = toc_entries(cli, program, folder)
    left = skipped(entries, leave_out)
    argv = [program, "--exit-on-error", "-j", str(jobs)]
    with tempfile.TemporaryDirectory(prefix="payops-rollback-") as scratch:
        if left:
            path = os.path.join(scratch, "toc.list")
            with open(path, "w", encoding="utf-8") as handle:
                handle.write("\n".join(line for line in entries if line not in left) + "\n")
            argv += ["-L", path]
        done = cli([*argv, *server.program_args(name), folder], env=server.program_env())
    if done.rc != 0 or "errors ignored on restore" in done.stderr:
        full = "No space left on device" in done.stderr
        why = " ".join(line for line in done.stderr.splitlines() if line.strip())[-1500:]
        how = f"was killed by signal {-done.rc}" if done.rc < 0 else f"ended with {done.rc}"
        raise RollbackError(
            f"pg_restore {how} while filling {name}: {why or 'it said nothing'}. The live database was not touched.{NO_ROOM if full else ''}"
        )
    return left


def analyze(server: Server, name: str) -> None:
    connection = server.connect(name)
    try:
        rows(connection, "ANALYZE")
    finally:
        connection.close()


# -- what a dump leaves out -------------------------------------------------------------------------------------------


def setting_values(name: str, text: str) -> list[str]:
    """The value of one stored setting as the arguments of SET: several for lists of identifiers."""
    if name.lower() not in LIST_SETTINGS:
        return [text]
    found, position = [], 0
    pattern = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,]*))\s*(,|\Z)')
    while position < len(text):
        match = pattern.match(text, position)
        if match is None:
            return [text]
        found.append(match.group(1).replace('""', '"') if match.group(1) is not None else match.group(2).strip())
        position = match.end()
    return found or [""]


def apply_properties(connection: t.Any, name: str, properties: dict[str, t.Any]) -> None:
    """ACL, connection limit and settings of the database, exactly as recorded."""
    database = sql.Identifier(name)
    statements = [
        sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC, {}").format(database, sql.Identifier(properties["owner"])),
        sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(database, sql.Literal(max(-1, int(properties["connection_limit"])))),
        sql.SQL("ALTER DATABASE {} RESET ALL").format(database),
    ]
    for role, privileges in properties["grants"].items():
        grantee = sql.Identifier(role) if role else sql.SQL("PUBLIC")
        for privilege in privileges:
            plain, option = privilege.rstrip("*"), privilege.endswith("*")
            if plain not in ("CREATE", "CONNECT", "TEMPORARY"):
                raise RollbackError(f"The point grants {plain!r} on the database, which PostgreSQL does not know.")
            if option and role == properties["owner"]:
                option = False  # owners always may
            grant = sql.SQL("GRANT {} ON DATABASE {} TO {}{}").format(
                sql.SQL(plain), database, grantee, sql.SQL(" WITH GRANT OPTION" if option else "")
            )
            statements.append(grant)
    for statement in statements:
        rows(connection, statement)
    for role, settings in properties["settings"].items():
        for setting in settings:
            key, unused, text = setting.partition("=")
            values = sql.SQL(", ").join(sql.Literal(part) for part in setting_values(key, text))
            parameter = sql.SQL(".").join(sql.Identifier(part) for part in key.split("."))
            if not role:
                rows(connection, sql.SQL("ALTER DATABASE {} SET {} = {}").format(database, parameter, values))
                continue
            query = sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} = {}").format(sql.Identifier(role), database, parameter, values)
            _as_role(connection, role, query)


def _as_role(connection: t.Any, role: str, query: t.Any) -> None:
    """A role's settings are set by a superuser or by that role; a member may become it."""
    if one(connection, "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"):
        rows(connection, query)
        return
    rows(connection, sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
    try:
        rows(connection, query)
    finally:
        rows(connection, "RESET ROLE")


# -- comparing --------------------------------------------------------------------------------------------------------


def require_equal(said: t.Sequence[str], name: str, version: str) -> None:
    if said:
        shown = " ".join(said[:5]) + (f" And {len(said) - 5} more." if len(said) > 5 else "")
        raise RollbackError(
            f"The restored database {name} is not what point {version} recorded: {shown} The live database was not touched.",
            differences=list(said),
        )


def compare(connection: t.Any, server: Server, staged: Database, manifest: dict[str, t.Any], ignore: t.Sequence[str], version: str) -> str:
    """Close the database, compare all of it with the point, and return the moment: what is written later has a younger xmin."""
    _own_public(server, staged.name, manifest)
    with Window(connection, server.connect, staged) as inside:
        mine = one(inside, "SELECT pg_catalog.pg_backend_pid()")
        query = "SELECT pid FROM pg_catalog.pg_stat_activity WHERE datid = %s AND pid <> %s AND usesysid IS NOT NULL"
        limit = time.monotonic() + 5  # those that filled it may still be on their way out
        others = [row[0] for row in rows(connection, query, (staged.oid, mine))]
        while others and time.monotonic() < limit:
            time.sleep(0.02)
            others = [row[0] for row in rows(connection, query, (staged.oid, mine))]
        if others:
            raise RollbackError(
                f"Somebody else is connected to the staged database {staged.name} (session {others[0]}). It cannot be trusted."
            )
        require_equal(_manifest.compare(manifest, inside, ignore=ignore), staged.name, version)
        return str(one(inside, "SELECT pg_catalog.pg_current_snapshot()::text"))


def _own_public(server: Server, name: str, manifest: dict[str, t.Any]) -> None:
    """Before 15 pg_dump does not say whose the schema public is."""
    wanted = manifest["catalogue"].get("schema", {}).get("public", {}).get("owner")
    if server.major >= 15 or wanted is None:
        return
    inside = server.connect(name)
    try:
        found = one(inside, "SELECT pg_catalog.pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace WHERE nspname = 'public'")
        if found not in (None, wanted):
            command(inside, "ALTER SCHEMA public OWNER TO {}", wanted)
    except errors.InsufficientPrivilege as exc:
        raise RollbackError(
            f"The schema public of {name} is {found}'s, expected {wanted}'s; PostgreSQL {server.major} dumps no owner of it and role "
            f"{server.user} may not give it one. The live database was not touched. Log in as superuser, then run the same command again."
        ) from exc
    finally:
        inside.close()


def recheck(connection: t.Any, server: Server, staged: Database, manifest: dict[str, t.Any], ignore: t.Sequence[str]) -> list[str]:
    """Whether the staged database is still what was compared. Costs about as much as count(*) over its tables.

    Again compared with the point: the whole catalogue with every ACL, the database's own properties, the number of rows of
    every table, sequences, large objects. Not compared again are the contents of rows: instead no row may have been written
    since the seal (``xmin`` of each row), which an insert or an update cannot avoid.
    """
    with Window(connection, server.connect, staged) as inside:
        said = _manifest.compare_catalogue(manifest, inside, ignore)
        found = _catalogue.properties(inside, staged.name)
        said += _catalogue.property_differences(manifest["properties"], found, ignore=("comment",))
        said += _manifest.compare_sequences(manifest["sequences"], _manifest.read_sequences(inside))
        large = _manifest.read_large_objects(inside, manifest["verify"])
        said += [
            f"large objects: {key} differs."
            for key in large
            if key in manifest["large_objects"] and large[key] != manifest["large_objects"][key]
        ]
        for table, count in _manifest.rows_since(inside, staged.marker["seal"], manifest["tables"]).items():
            said.append(f"table {table}: {count['written']} row(s) written and {count['gone']} gone since the comparison.")
    return said


@contextmanager
def session_on(connection: t.Any, server: Server, name: str, read_only: bool = True) -> t.Iterator[t.Any]:
    """A session on a database whether it is open or closed; what slipped into a closed one with us is ended."""
    database = databases(connection)[name]
    if database.open:
        inside = server.connect(name, default_transaction_read_only="on" if read_only else "off", lock_timeout="10s")
        try:
            yield inside
        finally:
            inside.close()
        return
    with Window(connection, server.connect, database, read_only, alone=True) as inside:
        yield inside
