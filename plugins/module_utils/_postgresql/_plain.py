# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Plain SQL dumps, which teams have from before: programs that somebody wrote, run only on request and with few rights.

Such a file is made for psql, which runs backslash commands on this host, and the SQL in a file can change where psql sees them. So
psql never reads it: the file is cut into statements here, and the server gets those alone (``_plain_run``). What is read as a
statement by mistake is a syntax error there, and nothing worse. Refused are what pg_dump does not write: a backslash outside of
quotes, comments and COPY data but for ``\\restrict`` and ``\\unrestrict``, a setting under which quotes or letters would be
others, a missing trailer.
"""

from __future__ import annotations

import os
import re
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import sha256_file
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._rights import as_giver
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import rows

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._postgresql._blockers import Report

FILE_NAME = "database_backup.sql"
TRAILER = b"-- PostgreSQL database dump complete"
META = re.compile(r"\\(?:un)?restrict [A-Za-z0-9]{1,128}\s*\Z")
COPY_HEAD = re.compile(r"\s*COPY\s.+\sFROM\s+stdin\b.*;\s*\Z", re.IGNORECASE | re.DOTALL)
COPY_ANY = re.compile(r"\s*COPY\s.+\sFROM\s+stdin\b", re.IGNORECASE | re.DOTALL)
QUOTED = re.compile(r'"(?:[^"]|"")*"')
ROUTINE = re.compile(r"\s*CREATE\s+(?:OR\s+REPLACE\s+)?(?:FUNCTION|PROCEDURE)\s", re.IGNORECASE)
ATOMIC = re.compile(r"(?<![\w$])BEGIN\s+ATOMIC(?![\w$])", re.IGNORECASE)
OPENS_OR_ENDS = re.compile(r"(?<![\w$])(?:CASE|END)(?![\w$])", re.IGNORECASE)
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
    """Splits SQL. ``feed`` takes a line with its line end; ``copying`` says that COPY data follows."""

    def __init__(self) -> None:
        self.statement = ""
        self.state = ""  # "", ', E', ", $tag$, /*
        self.depth = 0
        self.copying = False
        self.line = 0

    def refuse(self, what: str) -> t.NoReturn:
        raise RollbackError(f"Line {self.line} of the plain SQL dump {what}. pg_dump writes no such thing; the file was not run.")

    @property
    def between(self) -> bool:
        """Between two statements: nothing has begun that is not ended."""
        return not self.copying and not self.state and not self.statement.strip()

    def feed(self, line: str) -> list[str]:
        """Statements that end on this line, each as its text with the content of strings and comments left out."""
        self.line += 1
        if self.copying:
            if line.rstrip("\r\n") == "\\.":
                self.copying = False
            return []
        if "\0" in line:
            self.refuse("has a NUL byte")
        if self.between and META.match(line):
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
            self.refuse("has a backslash command")
        if line.startswith("--", position):
            self.statement += " "
            return len(line)
        if line.startswith("/*", position):
            self.state, self.depth = "/*", 1
            return position + 2
        if here == "'":
            before = self.statement[-2:]
            escaped = before[-1:] in ("e", "E") and not in_word(before[:-1])
            self.state = "E'" if escaped else "'"
            self.statement += "'"
            return position + 1
        if here == '"':
            self.state = '"'
            self.statement += '"'
            return position + 1
        if here == "$" and not in_word(self.statement):
            tag = DOLLAR.match(line, position)
            if tag:
                self.state = tag.group()
                return tag.end()
        self.statement += here
        if here == ";" and not goes_on(self.statement):
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


def goes_on(statement: str) -> bool:
    """Whether a semicolon at its end is one inside: of the list of a rule, in parentheses, or of a body in SQL, which ends with its END."""
    text = QUOTED.sub('""', statement)
    if text.count("(") > text.count(")"):
        return True
    body = ATOMIC.search(text) if ROUTINE.match(text) else None
    if body is None:
        return False
    words = [word.lower() for word in OPENS_OR_ENDS.findall(text, body.end())]
    return 1 + words.count("case") > words.count("end")


def in_word(before: str) -> bool:
    """Whether a name goes on behind ``before``: to the server every character beyond ASCII is a letter."""
    last = before[-1:]
    return bool(last) and (not last.isascii() or last.isalnum() or last in "_$")


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
                inspect(lexer, line, statement)
                tables += bool(re.match(r"\s*CREATE\s+(?:UNLOGGED\s+)?TABLE\s", statement, re.IGNORECASE))
                for patterns, found in ((NAMES_OWNER, owners), (NAMES_GRANTEE, grantees)):
                    for pattern in patterns:
                        match = pattern.match(statement)
                        if match:
                            found[unquote(match.group(1))] = None
    if not lexer.between:
        raise RollbackError(f"{path} ends inside a statement or COPY data. It is cut off and was not run.")
    grantees.pop("public", None)
    return Looked(path, digest, os.path.getsize(path), tables, tuple(owners), tuple(grantees))


def inspect(lexer: Lexer, line: str, statement: str) -> None:
    """Refuse a statement that would change how the rest is read, or that reaches beyond this database."""
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


def obstacles(connection: t.Any, report: Report, name: str, owner: str, looked: Looked, roles: t.Mapping[str, str]) -> None:
    """Roles that the dump names and the server lacks, and those under which it must not run."""
    existing = dict(rows(connection, "SELECT rolname, rolsuper FROM pg_catalog.pg_roles"))
    query = as_giver("SELECT rolname FROM pg_catalog.pg_roles WHERE pg_has_role(oid, 'MEMBER')", connection.server_version)
    mine = {row[0] for row in rows(connection, query)}
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
