# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Plain SQL dumps, which teams have from before: programs that somebody wrote, run only on request and with few rights.

psql runs backslash commands on the client and the server runs the rest with the rights of the role that logged in. So the
file is read with psql's own rules (quotes, dollar quotes, comments, COPY data) and refused for any backslash outside of them
but ``\\restrict`` and ``\\unrestrict``, for an encoding or a setting under which these rules would be others, and
for a missing trailer. It is run by a role without superuser rights.
"""

from __future__ import annotations

import os
import re
import secrets
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import sha256_file
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _connection
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._stage import NO_ROOM
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import command, one, read_marker, rows, write_marker

try:
    import psycopg2
    from psycopg2 import sql
except ImportError:  # the module says so through missing_required_lib
    psycopg2 = sql = None  # type: ignore[assignment]

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._module import Cli
    from ansible_collections.payops.rollback.plugins.module_utils._postgresql._blockers import Report

FILE_NAME = "database_backup.sql"
TRAILER = b"-- PostgreSQL database dump complete"
META = re.compile(r"\\(?:un)?restrict [A-Za-z0-9]{1,128}\s*\Z")
COPY_HEAD = re.compile(r"\s*COPY\s.+\sFROM\s+stdin\b.*;\s*\Z", re.IGNORECASE | re.DOTALL)
COPY_ANY = re.compile(r"\s*COPY\s.+\sFROM\s+stdin\b", re.IGNORECASE | re.DOTALL)
DOLLAR = re.compile(r"\$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?\$")
# In these a backslash may be the second byte of a character.
SAFE_ENCODINGS = ("utf8", "utf-8", "unicode", "sql_ascii", "latin1", "latin9", "win1252", "win1250", "win1251")
NAME = r'(?:"(?:[^"]|"")+"|[A-Za-z_][A-Za-z0-9_$]*)'
OWNER = re.compile(rf"\s*ALTER\s.+\sOWNER\s+TO\s+({NAME})\s*;\s*\Z", re.IGNORECASE | re.DOTALL)
GRANTEE = re.compile(rf"\s*(?:GRANT|REVOKE)\s.+\s(?:TO|FROM)\s+({NAME})(?:\s+WITH\s+GRANT\s+OPTION)?\s*;\s*\Z", re.IGNORECASE | re.DOTALL)

DEFAULTS = re.compile(rf"\s*ALTER\s+DEFAULT\s+PRIVILEGES\s+FOR\s+ROLE\s+({NAME})\s", re.IGNORECASE)
DEFAULTS_FOR = re.compile(
    rf"\s*ALTER\s+DEFAULT\s+PRIVILEGES\s.*\s(?:TO|FROM)\s+({NAME})(?:\s+WITH\s+GRANT\s+OPTION)?\s*;\s*\Z", re.I | re.S
)
NAMES_OWNER = (OWNER, DEFAULTS)
NAMES_GRANTEE = (GRANTEE, DEFAULTS_FOR)


class Looked(t.NamedTuple):
    """What a file that may be run holds."""

    path: str
    sha256: str
    size: int
    tables: int
    owners: tuple[str, ...]
    grantees: tuple[str, ...]


class Lexer:
    """Splits SQL as psql does. ``feed`` takes a line with its line end; ``copying`` says that COPY data follows."""

    def __init__(self) -> None:
        self.statement = ""
        self.state = ""  # "", ', E', ", $tag$, /*
        self.depth = 0
        self.copying = False
        self.line = 0

    def refuse(self, what: str) -> t.NoReturn:
        raise RollbackError(f"Line {self.line} of the plain SQL dump {what}. pg_dump writes no such thing; the file was not run.")

    def feed(self, line: str) -> list[str]:
        """Statements that end on this line, each as its text with the content of strings and comments left out."""
        self.line += 1
        if self.copying:
            if line.rstrip("\r\n") == "\\.":
                self.copying = False
            return []
        if not self.state and not self.statement.strip() and META.match(line):
            return []
        ended: list[str] = []
        position = 0
        while position < len(line):
            position = self._step(line, position, ended)
        for number, text in enumerate(ended):
            if COPY_ANY.match(text):
                if number != len(ended) - 1 or self.statement.strip() or self.state or not COPY_HEAD.match(text):
                    self.refuse("has something behind COPY ... FROM stdin")
                self.copying = True
        return ended

    def _step(self, line: str, position: int, ended: list[str]) -> int:
        here = line[position]
        if self.state:
            return self._quoted(line, position)
        if here == "\\":
            self.refuse("has a backslash command, which psql would run on this host")
        if line.startswith("--", position):
            self.statement += " "
            return len(line)
        if line.startswith("/*", position):
            self.state, self.depth = "/*", 1
            return position + 2
        if here == "'":
            before = self.statement[-2:]
            escaped = before[-1:] in ("e", "E") and not (len(before) > 1 and (before[0].isalnum() or before[0] in "_$"))
            self.state = "E'" if escaped else "'"
            self.statement += "'"
            return position + 1
        if here == '"':
            self.state = '"'
            self.statement += '"'
            return position + 1
        if here == "$" and not (self.statement[-1:].isalnum() or self.statement[-1:] in ("_", "$")):
            tag = DOLLAR.match(line, position)
            if tag:
                self.state = tag.group()
                return tag.end()
        self.statement += here
        if here == ";":
            ended.append(self.statement)
            self.statement = ""
        return position + 1

    def _quoted(self, line: str, position: int) -> int:
        state = self.state
        if state == "/*":
            if line.startswith("/*", position):
                self.depth += 1
                return position + 2
            if line.startswith("*/", position):
                self.depth -= 1
                self.state = "/*" if self.depth else ""
                return position + 2
            return position + 1
        if state.startswith("$"):
            if line.startswith(state, position):
                self.state = ""
                return position + len(state)
            return position + 1
        if state == "E'" and line[position] == "\\":
            return position + 2
        quote = state[-1]
        if line[position] == quote:
            if line.startswith(quote * 2, position):
                if quote == '"':
                    self.statement += '""'
                return position + 2
            self.state = ""
            self.statement += quote
        elif quote == '"':
            self.statement += line[position]
        return position + 1


def unquote(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


def look(path: str, sha256: str | None = None) -> Looked:
    """Read the whole file; refuse it, or say what it holds."""
    if os.path.isdir(path):
        path = os.path.join(path, FILE_NAME)
    if os.path.islink(path) or not os.path.isfile(path):
        raise RollbackError(f"{path} is no regular file. Give the plain SQL dump or the folder that holds {FILE_NAME} as legacy_path.")
    digest = sha256_file(path)
    if sha256 is not None and digest != sha256.strip().lower():
        raise RollbackError(f"{path} has the SHA-256 {digest}; expected {sha256}. It is another file than the one that was approved.")
    check_ends(path)
    lexer = Lexer()
    tables = 0
    owners: dict[str, None] = {}
    grantees: dict[str, None] = {}
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as handle:
        for line in handle:
            for statement in lexer.feed(line):
                _setting(lexer, line, statement)
                tables += bool(re.match(r"\s*CREATE\s+(?:UNLOGGED\s+)?TABLE\s", statement, re.IGNORECASE))
                for patterns, found in ((NAMES_OWNER, owners), (NAMES_GRANTEE, grantees)):
                    for pattern in patterns:
                        match = pattern.match(statement)
                        if match:
                            found[unquote(match.group(1))] = None
    if lexer.copying or lexer.state or lexer.statement.strip():
        raise RollbackError(f"{path} ends inside a statement or COPY data. It is cut off and was not run.")
    grantees.pop("public", None)
    return Looked(path, digest, os.path.getsize(path), tables, tuple(owners), tuple(grantees))


def _setting(lexer: Lexer, line: str, statement: str) -> None:
    lowered = statement.lower()
    if "standard_conforming_strings" in lowered and "set standard_conforming_strings = on;" not in lowered:
        lexer.refuse("changes standard_conforming_strings")
    if re.match(r"\s*set\s+(session\s+|local\s+)?(client_encoding|names)\b", lowered):
        given = re.search(r"'([^']*)'", line)
        if given is None or given.group(1).lower() not in SAFE_ENCODINGS:
            lexer.refuse("sets a client encoding that is not accepted here")
    if re.search(r"\bset_config\b", lowered) and "standard_conforming_strings" in line.lower():
        lexer.refuse("changes standard_conforming_strings")
    if re.match(r"\s*(drop|create|alter)\s+database\b", lowered):
        lexer.refuse("creates, alters or drops a database")


def check_ends(path: str) -> None:
    """The first and the last line that pg_dump writes. A dump that was cut at a statement's end restores without an error."""
    with open(path, "rb") as handle:
        head = handle.read(4096)
        handle.seek(max(0, os.path.getsize(path) - 4096))
        tail = handle.read()
    if head.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise RollbackError(f"{path} begins with a byte order mark: an editor has changed it. It was not run.")
    if b"\0" in head or head.startswith(b"PGDMP"):
        raise RollbackError(f"{path} is no plain SQL. Take it with pg_snapshot, or restore it by hand.")
    if TRAILER not in tail:
        raise RollbackError(
            f"{path} lacks the line '{TRAILER.decode()}' at its end: it is cut off or is no whole database. It was not run."
        )


def mapped(statement_line: str, roles: t.Mapping[str, str]) -> str:
    """A line on which pg_dump names an owner or a grantee, with another role in its place."""
    for pattern in (*NAMES_GRANTEE, *NAMES_OWNER):
        match = pattern.match(statement_line)
        if match and unquote(match.group(1)) in roles:
            quoted = '"' + roles[unquote(match.group(1))].replace('"', '""') + '"'
            statement_line = statement_line[: match.start(1)] + quoted + statement_line[match.end(1) :]
    return statement_line


def find(folder: str, version: str) -> str:
    """The dump of one version in a folder as the team's old script filled it, or the file itself."""
    names = ["", version, f"backup_{version}"]
    for name in names:
        path = os.path.join(folder, name, FILE_NAME)
        if os.path.isfile(path):
            return path
    return folder


def rewrite(looked: Looked, target: str, roles: t.Mapping[str, str]) -> None:
    """A copy with roles replaced; strings, function bodies and COPY data stay as they are. It is read by the same rules once
    more, so what is run is what was looked at, whoever writes to the original meanwhile."""
    lexer = Lexer()
    with (
        open(looked.path, encoding="utf-8", errors="surrogateescape", newline="\n") as source,
        open(target, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as out,
    ):
        for line in source:
            outside = not lexer.copying and not lexer.state and not lexer.statement.strip()
            ended = lexer.feed(line)
            if outside and META.match(line):
                continue  # older psql do not know it, and what it guards against was refused above
            out.write(mapped(line, roles) if outside and len(ended) == 1 and not lexer.state else line)


def obstacles(connection: t.Any, report: Report, name: str, owner: str, looked: Looked, roles: t.Mapping[str, str]) -> None:
    """Roles that the dump names and the server lacks, and those under which it must not run."""
    existing = dict(rows(connection, "SELECT rolname, rolsuper FROM pg_catalog.pg_roles"))
    mine = {row[0] for row in rows(connection, "SELECT rolname FROM pg_catalog.pg_roles WHERE pg_has_role(oid, 'MEMBER')")}
    wanted = {roles.get(role, role) for role in looked.owners}
    for role in sorted(wanted | {roles.get(role, role) for role in looked.grantees}):
        if role not in existing:
            what = f"The plain SQL dump of {name} needs the role {role!r}, which this server lacks."
            report.block("role", name, what, "Create it, or name another one for it in plain_sql_roles.")
    for role in sorted(wanted | {owner}):
        if role in existing and role not in mine:
            what = f"The login is not a member of {role!r}, which the plain SQL dump of {name} names as an owner."
            report.block("membership", name, what, "Grant it, or name another one for it in plain_sql_roles.")
        if existing.get(role):
            what = f"The plain SQL dump of {name} would run with the rights of {role!r}, which is a superuser."
            report.block("plain_superuser", name, what, f"Give {name} an ordinary owner, and name one for {role!r} in plain_sql_roles.")


def recover(connection: t.Any, report: Report, superuser: bool, names: t.Collection[str], acting: bool) -> list[str]:
    """Remove logins that killed imports into these databases left. Their staged databases are gone already, and with them all they owned."""
    query = "SELECT rolname, pg_catalog.shobj_description(oid, 'pg_authid') FROM pg_catalog.pg_roles WHERE rolname ~ '^payops_plain_[0-9a-f]{8}$'"
    said = []
    for role, comment in rows(connection, query):
        if read_marker(comment).get("database") not in names:
            continue  # perhaps of an import that another run is at
        if not superuser:
            report.notes.append(f'An interrupted import left the login {role}. As superuser: DROP ROLE "{role}".')
            continue
        if acting:
            command(connection, "ALTER ROLE {} NOLOGIN", role)
            rows(connection, "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = %s", (role,))
            try:
                command(connection, "DROP ROLE {}", role)
            except psycopg2.errors.DependentObjectsStillExist as exc:
                what = _connection.plain(exc)
                report.notes.append(f'An interrupted import left the role {role}: {what}. It cannot log in. DROP OWNED BY "{role}" there.')
                continue
        said.append(f"dropped the login {role}, which an interrupted import left")
    return said


class Borrowed:
    """A login without superuser rights for the time of the import: our own, or one made for it when we are superuser."""

    def __init__(
        self, connection: t.Any, server: _connection.Server, database: str, owner: str, looked: Looked, roles: t.Mapping[str, str]
    ) -> None:
        self.connection = connection
        self.server = server
        self.database = database
        self.owner = owner
        self.members = sorted({owner, *(roles.get(role, role) for role in looked.owners)})
        self.name = ""
        self.inside: _connection.Server | None = None

    def __enter__(self) -> _connection.Server:
        params = dict(self.server.params)
        if self.server.is_superuser:
            self.name = f"payops_plain_{secrets.token_hex(4)}"
            password = secrets.token_urlsafe(24)
            # In one transaction with its comment, by which the next call finds it if this one is killed.
            create = sql.SQL("CREATE ROLE {0} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE; COMMENT ON ROLE {0} IS {1}")
            marker = write_marker({"kind": "plain login", "database": self.database})
            rows(self.connection, create.format(sql.Identifier(self.name), sql.Literal(marker)))
            rows(self.connection, sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(self.name), sql.Literal(password)))
            for role in self.members:
                command(self.connection, "GRANT {} TO {}", role, self.name)
            params.update(login_user=self.name, login_password=password)
        self.inside = _connection.Server(params)
        return self.inside

    def hand_over(self, inside: t.Any) -> None:
        """What the dump names no owner for belongs to the owner of the database. ``inside`` is our own session in that database."""
        if self.name:
            rows(inside, sql.SQL("REASSIGN OWNED BY {} TO {}").format(sql.Identifier(self.name), sql.Identifier(self.owner)))
            command(inside, "DROP OWNED BY {}", self.name)

    def __exit__(self, *exc_info: object) -> None:
        if self.inside is not None:
            self.inside.close()
        if self.name and not self.connection.closed:
            command(self.connection, "ALTER ROLE {} NOLOGIN", self.name)
            try:
                command(self.connection, "DROP ROLE {}", self.name)
            except psycopg2.Error:  # after a failure it still owns something in the staged database; recover drops it after that
                return


def load(
    cli: Cli, borrowed: _connection.Server, psql: str | None, looked: Looked, scratch: str, name: str, roles: t.Mapping[str, str]
) -> None:
    """Run the dump in one transaction, in the staged database, as a role without superuser rights."""
    if psql is None:
        raise RollbackError(
            "psql of the server's major version is needed to run a plain SQL dump. Install it, or set bin_dir to its folder."
        )
    path = os.path.join(scratch, f"plain-{os.getpid()}.sql")
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        rewrite(looked, path, roles)
        argv = [psql, "-X", "-q", "--single-transaction", "-v", "ON_ERROR_STOP=1", "-f", path, *borrowed.program_args(name)]
        done = cli(argv, env=borrowed.program_env())
    finally:
        if os.path.exists(path):
            os.unlink(path)
    if done.rc != 0:
        why = " ".join(line for line in done.stderr.splitlines() if line.strip())[-1500:]
        raise RollbackError(
            f"psql ended with {done.rc} while filling {name}: {why or 'it said nothing'}. The live database was not touched."
            + (NO_ROOM if "No space left on device" in done.stderr else "")
        )


def require_ordinary(connection: t.Any) -> None:
    """Last look inside the session that the import uses."""
    if one(connection, "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user"):
        raise RollbackError("The session for the plain SQL dump is a superuser's. It was not run.")
