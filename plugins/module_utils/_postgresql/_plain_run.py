# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Give the statements of a plain SQL dump to the server, in one transaction, as a role without superuser rights.

No client program reads the file: psycopg2 knows no backslash commands, so there is nothing to smuggle past the lexer.
"""

from __future__ import annotations

import hashlib
import secrets
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _connection
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._names import read_marker, write_marker
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._plain import META, Lexer, Looked, inspect, mapped
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._stage import DISK_FULL, NO_ROOM
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import command, one, rows

try:
    import psycopg2
    import psycopg2.extensions
    from psycopg2 import sql
except ImportError:  # the module says so through missing_required_lib
    psycopg2 = sql = None  # type: ignore[assignment]

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._postgresql._blockers import Report


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
            # as psql's \password does: a server that logs statements does not see the password itself
            secret = psycopg2.extensions.encrypt_password(password, self.name, scope=self.connection)
            rows(self.connection, sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(self.name), sql.Literal(secret)))
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


class Script:
    """A dump, read once: pieces of whole statements for ``execute``, and the data behind each COPY for ``copy_expert``."""

    def __init__(self, handle: t.BinaryIO, roles: t.Mapping[str, str]) -> None:
        self.handle = handle
        self.roles = roles
        self.lexer = Lexer()
        self.sha256 = hashlib.sha256()

    def _line(self) -> tuple[bytes, list[str]]:
        raw = self.handle.readline()
        self.sha256.update(raw)
        line = raw.decode("utf-8", "surrogateescape")
        ended = self.lexer.feed(line) if raw else []
        for statement in ended:
            inspect(self.lexer, line, statement)
        return raw, ended

    def pieces(self) -> t.Iterator[bytes]:
        """Text of one or more whole statements; after one that ends in a COPY, read its data before asking for the next."""
        piece: list[bytes] = []
        while True:
            outside = self.lexer.between
            raw, ended = self._line()
            if not raw:
                break
            if outside and META.match(raw.decode("utf-8", "surrogateescape")):
                continue  # a line for psql
            if outside and len(ended) == 1 and not self.lexer.state:
                raw = mapped(raw.decode("utf-8", "surrogateescape"), self.roles).encode("utf-8", "surrogateescape")
            piece.append(raw)
            if self.lexer.copying or (ended and self.lexer.between):
                yield b"".join(piece)
                piece = []
        if not self.lexer.between:
            self.lexer.refuse("is the last one, in the middle of a statement or of COPY data")

    def read(self, size: int = 8192) -> bytes:
        """Lines of COPY data, as psycopg2 asks for them; empty at the end of this table."""
        taken: list[bytes] = []
        length = 0
        while self.lexer.copying and length < size:
            raw, unused = self._line()
            if not raw:
                self.lexer.refuse("is the last one, in the middle of COPY data")
            if self.lexer.copying:
                taken.append(raw)
                length += len(raw)
        return b"".join(taken)


def load(session: t.Any, looked: Looked, name: str, roles: t.Mapping[str, str]) -> None:
    """Run the dump in the session of an ordinary role in the staged database. What is run is what was looked at, or it is rolled back."""
    session.autocommit = False
    with open(looked.path, "rb") as handle, session.cursor() as cursor:
        script = Script(handle, roles)
        try:
            for piece in script.pieces():
                if script.lexer.copying:
                    cursor.copy_expert(piece, script)
                else:
                    cursor.execute(piece)
            if script.sha256.hexdigest() != looked.sha256:
                raise RollbackError(f"{looked.path} was changed while it was read. It was not restored; nothing live was touched.")
            session.commit()
        except psycopg2.Error as exc:
            full = NO_ROOM if exc.pgcode == DISK_FULL else ""
            raise RollbackError(
                f"The server refused the plain SQL dump at line {script.lexer.line} while filling {name}: {_connection.plain(exc)}. "
                f"The live database was not touched.{full}"
            ) from exc


def require_ordinary(connection: t.Any) -> None:
    """Last look inside the session that the import uses."""
    if one(connection, "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user"):
        raise RollbackError("The session for the plain SQL dump is a superuser's. It was not run.")
