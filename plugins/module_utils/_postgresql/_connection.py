# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""One PostgreSQL server: sessions for this process, environment for its client programs, and what kind of server it is.

::

    with connect_of(module) as server:
        conn = server.connect("shop", statement_timeout="8s")
        value(conn, "SELECT count(*) FROM pg_class")
        cli([programs.pg_dump, "-Fd", *server.program_args("shop")], env=server.program_env())

How the password reaches programs is in :mod:`_client_files`.
"""

from __future__ import annotations

import os
import traceback
import typing as t
from contextlib import contextmanager

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import sha256_bytes
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._client_files import ClientFiles

PSYCOPG2_ERROR: str | None = None
try:
    import psycopg2
    import psycopg2.extensions
except ImportError:
    psycopg2 = None  # type: ignore[assignment]
    PSYCOPG2_ERROR = traceback.format_exc()

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

OLDEST_MAJOR = 13

# What roles and databases often limit for their applications and what must not stop a dump at minute N.
UNLIMITED = {
    "statement_timeout": ("0", 0),
    "lock_timeout": ("0", 0),
    "idle_in_transaction_session_timeout": ("0", 0),
    "idle_session_timeout": ("0", 140000),
    "transaction_timeout": ("0", 170000),
    "default_transaction_read_only": ("off", 0),
    "default_transaction_isolation": ("read committed", 0),
}

Row = tuple[t.Any, ...]


def postgresql_argument_spec() -> dict[str, t.Any]:
    """Connection options of every pg_* module; the documentation fragment is ``payops.rollback.postgresql``."""
    return {
        "login_host": {"type": "str", "default": ""},
        "login_port": {"type": "int", "default": 5432},
        "login_user": {"type": "str", "default": "postgres"},
        "login_password": {"type": "str", "no_log": True},
        "login_unix_socket": {"type": "str", "default": ""},
        "login_db": {"type": "str", "default": "postgres"},
        "ssl_mode": {"type": "str", "default": "prefer", "choices": ["allow", "disable", "prefer", "require", "verify-ca", "verify-full"]},
        "ca_cert": {"type": "path"},
        "ssl_cert": {"type": "path"},
        "ssl_key": {"type": "path"},
        "connect_params": {"type": "dict", "default": {}},
        "bin_dir": {"type": "path"},
    }


def connect_of(module: AnsibleModule) -> Server:
    """The server that ``module``'s options name; fails the module when psycopg2 is missing."""
    if psycopg2 is None:
        from ansible.module_utils.basic import missing_required_lib

        module.fail_json(msg=missing_required_lib("psycopg2"), exception=PSYCOPG2_ERROR)
    return Server(module.params, run_id=module.params.get("run_id"), tmpdir=module.tmpdir)


@contextmanager
def readable_errors(doing: str) -> t.Iterator[None]:
    """Turn a psycopg2 error into a RollbackError that says what was being done."""
    try:
        yield
    except psycopg2.Error as exc:
        raise RollbackError(f"PostgreSQL refused while {doing}: {plain(exc)}", sqlstate=exc.pgcode) from exc


def plain(exc: BaseException) -> str:
    """One line of a database error, without position markers."""
    diag = getattr(exc, "diag", None)
    primary = getattr(diag, "message_primary", None)
    if primary:
        hint = getattr(diag, "message_detail", None) or getattr(diag, "message_hint", None)
        return f"{primary} ({hint})" if hint else str(primary)
    return " ".join(str(exc).split())


def rows(conn: t.Any, sql: t.Any, args: t.Sequence[t.Any] | t.Mapping[str, t.Any] | None = None) -> list[Row]:
    """All rows of one query."""
    with conn.cursor() as cursor:
        cursor.execute(sql, args)
        return t.cast("list[Row]", cursor.fetchall())


def dicts(conn: t.Any, sql: t.Any, args: t.Sequence[t.Any] | None = None) -> list[dict[str, t.Any]]:
    """All rows of one query, each as a dict by column name."""
    with conn.cursor() as cursor:
        cursor.execute(sql, args)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row)) for row in cursor.fetchall()]


def value(conn: t.Any, sql: t.Any, args: t.Sequence[t.Any] | None = None) -> t.Any:
    """The first column of the first row, or None."""
    found = rows(conn, sql, args)
    return found[0][0] if found else None


def execute(conn: t.Any, sql: t.Any, args: t.Sequence[t.Any] | None = None) -> None:
    """One statement without a result."""
    with conn.cursor() as cursor:
        cursor.execute(sql, args)


class Server:
    """A PostgreSQL server as the module options name it. A context manager: leaving it closes every session."""

    def __init__(self, params: dict[str, t.Any], run_id: str | None = None, tmpdir: str | None = None) -> None:
        self.params = params
        self.application_name = f"payops.rollback/{sha256_bytes((run_id or f'alone-{os.getpid()}').encode('utf-8'))[:8]}"
        self.maintenance: str = params.get("login_db") or "postgres"
        self._tmpdir = tmpdir
        self._files: ClientFiles | None = None
        self._open: list[t.Any] = []
        self._facts: dict[str, t.Any] | None = None
        self._version = 0  # server_version_num as the first login told it
        self._takes_options = True
        password = params.get("login_password")
        if password and any(character in password for character in "\n\r\0"):
            raise RollbackError("login_password has a line break or a NUL. PostgreSQL's passfile cannot hold one; set another password.")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc_info: t.Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the sessions of :meth:`connect` and remove the passfile."""
        for conn in self._open:
            try:
                conn.close()
            except psycopg2.Error:
                continue
        self._open = []
        if self._files is not None:
            self._files.close()
            self._files = None

    @property
    def where(self) -> str:
        """The server as a person reads it."""
        host = self._host() or "the local socket"
        return f"{host}:{self.params.get('login_port') or 5432}"

    def _host(self) -> str:
        return self.params.get("login_unix_socket") or self.params.get("login_host") or ""

    def parameters(self) -> dict[str, t.Any]:
        """libpq parameters without database, password and options."""
        found = {
            "host": self._host(),
            "port": self.params.get("login_port"),
            "user": self.params.get("login_user"),
            "sslmode": self.params.get("ssl_mode"),
            "sslrootcert": self.params.get("ca_cert"),
            "sslcert": self.params.get("ssl_cert"),
            "sslkey": self.params.get("ssl_key"),
            "connect_timeout": 15,
            "keepalives_idle": 30,
            **(self.params.get("connect_params") or {}),
            "application_name": self.application_name,
        }
        if "password" in found:
            raise RollbackError("connect_params holds a password, which would be seen in results. Use login_password.")
        unsafe = [name for name, given in found.items() if any(c in f"{name}{given}" for c in "\n\r\0")]
        if unsafe:
            raise RollbackError(f"The connection parameter {unsafe[0]} has a line break or a NUL. Remove it.")
        return {name: str(given) for name, given in found.items() if given not in (None, "")}

    # -- sessions of this process -------------------------------------------------------------

    def connect(self, database: str | None = None, **settings: t.Any) -> t.Any:
        """A new autocommit session on ``database`` (default: the maintenance database).

        ``settings`` are session settings such as ``statement_timeout="8s"``; what is not given is unlimited,
        whatever the role or the database carry. Settings that this server's version does not know are left out.
        """
        name = database or self.maintenance
        unknown = self._version == 0
        try:
            return self._prepared(name, settings)
        except psycopg2.Error as exc:
            # A limit of a newer major version, which only the next login can lift because now the version is known.
            if not unknown or self._version < 140000:
                raise RollbackError(
                    f"PostgreSQL refused while setting up a session on {name!r}: {plain(exc)}", sqlstate=exc.pgcode
                ) from exc
        with readable_errors(f"setting up a session on {name!r}"):
            return self._prepared(name, settings)

    def _prepared(self, name: str, settings: dict[str, t.Any]) -> t.Any:
        conn = self._login(name)
        conn.autocommit = True
        self._open.append(conn)
        self._version = conn.server_version
        wanted = {key: default for key, (default, since) in UNLIMITED.items() if conn.server_version >= since}
        wanted.update({key: str(setting) for key, setting in settings.items()})
        if conn.server_version < 140000:
            wanted.pop("client_connection_check_interval", None)
            wanted.pop("idle_session_timeout", None)
        if conn.server_version < 170000:
            wanted.pop("transaction_timeout", None)
        marks = ", ".join(["set_config(%s, %s, false)"] * len(wanted))
        rows(conn, f"SELECT {marks}", [part for pair in wanted.items() for part in pair])
        return conn

    def _login(self, name: str) -> t.Any:
        """Limits are lifted by the login itself: a role's ``statement_timeout = 1ms`` would end the first statement after it.

        pgbouncer refuses such options unless told otherwise; behind it the statement has to do.
        """
        given = self.parameters()
        if self.params.get("login_password"):
            given["password"] = self.params["login_password"]
        given.update({"dbname": name, "client_encoding": "UTF8"})
        while True:
            given["options"] = self._options(self._version)
            try:
                return psycopg2.connect(**given)
            except psycopg2.Error as exc:
                message = self._scrub(plain(exc))
                if self._takes_options and "unsupported startup parameter" in message:
                    self._takes_options = False
                    continue
                if "not currently accepting connections" in message:
                    raise RollbackError(
                        f"Database {name!r} at {self.where} is closed. "
                        "If an emergency closed it, recover.yml opens it and starts what was stopped; "
                        "otherwise payops.rollback.pg_access, access=read_write, does.",
                        database=name,
                    ) from None
                raise RollbackError(
                    f"Cannot log in to database {name!r} at {self.where} as {self.params.get('login_user')}: {message} "
                    "Check login_host, login_port, login_user, login_password and pg_hba.conf.",
                    database=name,
                ) from None

    def _options(self, version: int) -> str:
        """Command-line options of a session; of limits those that a server of ``version`` knows."""
        parts = [str((self.params.get("connect_params") or {}).get("options") or "")]
        if self._takes_options:
            parts += [
                f"-c {name}={setting.replace(' ', chr(92) + ' ')}" for name, (setting, since) in UNLIMITED.items() if version >= since
            ]
        return " ".join(part for part in parts if part)

    def _scrub(self, text: str) -> str:
        password = self.params.get("login_password")
        return text.replace(password, "********") if password else text

    # -- what kind of server --------------------------------------------------------------------

    def _fact(self, name: str) -> t.Any:
        if self._facts is None:
            conn = self.connect()
            with readable_errors("asking what kind of server this is"):
                facts = dicts(
                    conn,
                    "SELECT current_setting('server_version_num')::int AS server_version_num, pg_is_in_recovery() AS in_recovery, "
                    "current_setting('is_superuser') = 'on' AS is_superuser, current_setting('server_version') AS server_version, "
                    'current_user::text AS "user"',
                )[0]
                try:
                    facts["system_identifier"] = str(value(conn, "SELECT system_identifier FROM pg_control_system()"))
                except psycopg2.errors.InsufficientPrivilege:
                    facts["system_identifier"] = None
                try:
                    segment = None if facts["in_recovery"] else value(conn, "SELECT pg_walfile_name(pg_current_wal_lsn())")
                    facts["timeline"] = int(segment[:8], 16) if segment else None
                except psycopg2.errors.InsufficientPrivilege:
                    facts["timeline"] = None
            conn.close()
            if facts["server_version_num"] < OLDEST_MAJOR * 10000:
                raise RollbackError(f"PostgreSQL {facts['server_version']} at {self.where} is too old: expected {OLDEST_MAJOR} or newer.")
            self._facts = facts
        return self._facts[name]

    @property
    def server_version_num(self) -> int:
        return int(self._fact("server_version_num"))

    @property
    def server_version(self) -> str:
        return str(self._fact("server_version"))

    @property
    def major(self) -> int:
        return self.server_version_num // 10000

    @property
    def system_identifier(self) -> str | None:
        """The cluster's identifier; None where a managed server hides it."""
        return t.cast("str | None", self._fact("system_identifier"))

    @property
    def timeline(self) -> int | None:
        """Which of the cluster's histories this is: a promotion and a restore to a moment begin another one. None where it is hidden."""
        return t.cast("int | None", self._fact("timeline"))

    def shares_history(self, facts: t.Mapping[str, t.Any]) -> bool:
        """Whether transaction numbers of a point with these facts mean here what they meant there. Older points know no timeline."""
        identifier = facts.get("system_identifier")
        if identifier is None or identifier != self.system_identifier:
            return False
        return "timeline" not in facts or (facts["timeline"] is not None and facts["timeline"] == self.timeline)

    @property
    def is_superuser(self) -> bool:
        return bool(self._fact("is_superuser"))

    @property
    def in_recovery(self) -> bool:
        return bool(self._fact("in_recovery"))

    @property
    def user(self) -> str:
        """The role of the sessions."""
        return str(self._fact("user"))

    def maintenance_besides(self, databases: t.Iterable[str]) -> str:
        """A database to connect to while ``databases`` are renamed or closed; also becomes :attr:`maintenance`."""
        taken = set(databases)
        for name in (self.maintenance, "postgres", "template1"):
            if name not in taken:
                self.maintenance = name
                return name
        raise RollbackError(
            f"login_db {self.maintenance!r} is itself among the databases {sorted(taken)}. "
            "Set login_db (rollback_postgresql_login_db) to another database of the server."
        )

    def refuse_transaction_pooler(self, database: str | None = None) -> None:
        """Refuse an address behind which sessions share server connections (pgbouncer or Supavisor in transaction mode)."""
        one, other = self.connect(database), self.connect(database)
        try:
            seen = [(value(one, "SELECT pg_backend_pid()"), value(other, "SELECT pg_backend_pid()")) for unused in range(4)]
        except psycopg2.Error as exc:
            raise RollbackError(f"Two sessions at {self.where} disturb each other: {plain(exc)}. {DIRECT}") from exc
        finally:
            for conn in (one, other):
                conn.close()
        if len(set(seen)) > 1 or seen[0][0] == seen[0][1]:
            raise RollbackError(
                f"{self.where} is a transaction pooler: one session was answered by several server processes or two by the same. {DIRECT}"
            )

    # -- programs -----------------------------------------------------------------------------

    def program_args(self, database: str) -> list[str]:
        """``-d <connection string>`` for pg_dump, pg_restore and psql: names only the database, quoted."""
        return ["--no-password", "-d", psycopg2.extensions.make_dsn(dbname=database)]

    def program_env(self) -> dict[str, str]:
        """Environment for client programs: server, user, TLS, passfile, unlimited timeouts. Holds no secret itself."""
        if self._files is None:
            passfile = (self.params.get("connect_params") or {}).get("passfile")
            self._files = ClientFiles(self._tmpdir, self.parameters(), self.params.get("login_password"), passfile)
        return {
            **self._files.environment,
            "PGAPPNAME": self.application_name,
            "PGCLIENTENCODING": "UTF8",
            "PGOPTIONS": self._options(self.server_version_num),
        }


DIRECT = "Snapshots and renames need one server process per session: use the direct port or a session pooler (Supabase: 5432, not 6543)."
