# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Throwaway PostgreSQL clusters: real servers of a given major version, started as an unprivileged user.

    with Cluster(18) as cluster:
        cluster.create_database("shop")
        cluster.sql("SELECT version()", dbname="shop")

Nothing is left in memory only: :meth:`Cluster.attach` finds a running cluster again from its folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import typing as t
import urllib.parse

from tests.lab import binaries, ports, processes
from tests.lab.binaries import Missing, available, find

if t.TYPE_CHECKING:
    from tests.lab.roles import Roles

__all__ = ["Cluster", "Missing", "available", "find"]

# Everything that has broken a tool once: quotes, backslash, colon (passfile), percent and at (URLs), space, dollar, non-ASCII.
PASSWORD = "s3cr\u00e9t:@/?#%41 $HOME '\"\\ &;|`"
SOCKET_PATH_LIMIT = 107  # bytes in sockaddr_un, less the terminator

SETTINGS: dict[str, str] = {
    "listen_addresses": "127.0.0.1",
    "fsync": "on",
    "wal_level": "logical",
    "max_connections": "120",
    "max_prepared_transactions": "10",
    "max_replication_slots": "10",
    "max_wal_senders": "10",
    "shared_buffers": "128MB",
    "max_wal_size": "4GB",
    "maintenance_work_mem": "128MB",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_connections": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "lc_messages": "C",
}


def _quote_setting(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


class Cluster:
    """One PostgreSQL server with a data folder of its own.

    ``root_dir`` must be reachable by the user that the server runs as (never below a 0700 folder when root);
    without it a temporary folder is made, which :meth:`destroy` removes. ``outlive`` keeps the server running
    after this process has ended.
    """

    def __init__(
        self,
        major: int,
        root_dir: str | os.PathLike[str] | None = None,
        port: int = 0,
        *,
        superuser: str = "postgres",
        password: str = PASSWORD,
        settings: t.Mapping[str, str] | None = None,
        outlive: bool = False,
    ) -> None:
        self.major = major
        self.user = processes.unprivileged_user()
        found = find(major)
        self.superuser = superuser
        self.password = password
        self.host = "127.0.0.1"
        self.port = port or ports.free_port()
        self.outlive = outlive
        self.settings = {**SETTINGS, **(settings or {})}
        self.root = pathlib.Path(root_dir) if root_dir is not None else pathlib.Path(tempfile.mkdtemp(prefix=f"payops-pg{major}-"))
        self.bin_dir = binaries.runnable_by(found, self.user, self.root)
        self.data = self.root / "data"
        self.log = self.root / "server.log"
        self.socket_dir = self._place_socket()
        self._process: subprocess.Popen[bytes] | None = None

    # --- life ---------------------------------------------------------------------------------------------------

    def start(self, timeout: float = 60.0) -> Cluster:
        """Create the cluster if it is new, start it, wait until it accepts connections."""
        if self.running:
            return self
        if not (self.data / "PG_VERSION").exists():
            self._initdb()
        self._process = processes.start(
            [str(self.bin_dir / "postgres"), "-D", str(self.data)],
            log=self.log,
            user=self.user,
            env=self._server_env(),
            cwd="/",
            outlive=self.outlive,
            end_signal=signal.SIGQUIT,
        )
        deadline = time.monotonic() + timeout
        while self._status() != "ready":
            if self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL {self.major} did not start:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.stop(signum=signal.SIGQUIT)
                raise TimeoutError(f"PostgreSQL {self.major} was not ready within {timeout:g} s:\n{self.log_tail()}")
            time.sleep(0.05)
        self._remember()
        return self

    def stop(self, timeout: float = 60.0, signum: int = signal.SIGINT) -> None:
        """Fast shutdown: sessions are ended, the checkpoint is written."""
        pid = self.pid
        if pid is not None:
            processes.signal_pid(pid, signum)
            self._await_end(pid, timeout)

    def kill9(self, timeout: float = 30.0) -> None:
        """The power cord: SIGKILL to the server and to each of its processes at once."""
        pid = self.pid
        if pid is None:
            return
        family = [pid, *processes.descendants(pid)]
        for member in family:
            processes.signal_pid(member, signal.SIGKILL)
        self._await_end(pid, timeout)
        processes.wait_gone(family, timeout)

    def restart(self) -> Cluster:
        self.stop()
        return self.start()

    def destroy(self) -> None:
        """Stop the server at once and remove its files."""
        self.stop(signum=signal.SIGQUIT)
        shutil.rmtree(self.root, ignore_errors=True)
        if self.socket_dir.parent != self.root:
            shutil.rmtree(self.socket_dir, ignore_errors=True)

    def __enter__(self) -> Cluster:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.destroy()

    @property
    def pid(self) -> int | None:
        """The server's process id while it lives."""
        try:
            pid = int((self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
        except (OSError, ValueError, IndexError):
            pid = 0
        if self._process is not None:
            if self._process.poll() is not None:
                return None
            return self._process.pid
        return pid if pid and processes.alive(pid) else None

    @property
    def running(self) -> bool:
        return self.pid is not None and self._status() == "ready"

    def log_tail(self, lines: int = 30) -> str:
        try:
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        except OSError as exc:
            return f"(no server log: {exc})"

    @classmethod
    def attach(cls, root_dir: str | os.PathLike[str]) -> Cluster:
        """The cluster in this folder, started earlier, perhaps by another process."""
        known = json.loads((pathlib.Path(root_dir) / "cluster.json").read_text(encoding="utf-8"))
        return cls(
            known["major"],
            root_dir,
            known["port"],
            superuser=known["superuser"],
            password=known["password"],
            settings=known["settings"],
            outlive=True,
        )

    # --- use ----------------------------------------------------------------------------------------------------

    def params(self, dbname: str = "postgres", user: str | None = None, password: str | None = None) -> dict[str, t.Any]:
        """Keyword arguments for psycopg2.connect, over TCP."""
        if user is None:
            user, password = self.superuser, self.password
        return {"host": self.host, "port": self.port, "user": user, "password": password, "dbname": dbname}

    def url(self, dbname: str, user: str | None = None, password: str | None = None) -> str:
        """A postgresql:// URL (percent-encoded), as an application's DATABASE_URL."""
        given = {key: urllib.parse.quote(str(value or ""), safe="") for key, value in self.params(dbname, user, password).items()}
        return "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**given)

    def connect(self, dbname: str = "postgres", user: str | None = None, password: str | None = None, autocommit: bool = True) -> t.Any:
        """An open psycopg2 connection; the caller closes it."""
        import psycopg2

        connection = psycopg2.connect(connect_timeout=20, **self.params(dbname, user, password))
        connection.autocommit = autocommit
        return connection

    def sql(
        self, query: str, values: t.Any = None, *, dbname: str = "postgres", user: str | None = None, password: str | None = None
    ) -> list[tuple[t.Any, ...]]:
        """Run one statement on a connection of its own; its rows, or an empty list if it returns none."""
        with contextlib.closing(self.connect(dbname, user, password)) as connection, connection.cursor() as cursor:
            cursor.execute(query, values)
            return list(cursor.fetchall()) if cursor.description else []

    def databases(self) -> list[str]:
        return [name for (name,) in self.sql("SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1")]

    def create_database(self, name: str, owner: str | None = None) -> str:
        self.sql(f"CREATE DATABASE {ident(name)}" + (f" OWNER {ident(owner)}" if owner else ""))
        return name

    def drop_databases(self, prefix: str) -> None:
        """Drop every database whose name starts with the prefix, whoever is connected."""
        for name in self.databases():
            if name.startswith(prefix):
                self.sql(f"DROP DATABASE IF EXISTS {ident(name)} WITH (FORCE)")

    def program(self, name: str) -> str:
        """The path of a client program of this server's own major version."""
        return str(self.bin_dir / name)

    def env(self, dbname: str = "postgres", user: str | None = None, password: str | None = None) -> dict[str, str]:
        """The environment in which psql, pg_dump and pgbench of this server log in without further options."""
        given = self.params(dbname, user, password)
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith("PG")},
            "PGHOST": given["host"],
            "PGPORT": str(given["port"]),
            "PGUSER": given["user"],
            "PGPASSWORD": given["password"] or "",
            "PGDATABASE": given["dbname"],
        }

    def pgbench_init(self, dbname: str, scale: int = 1, user: str | None = None, password: str | None = None) -> None:
        """Fill a database with pgbench's tables (about 15 MB per unit of scale)."""
        subprocess.run(
            [self.program("pgbench"), "-i", "-q", "-s", str(scale)],
            env=self.env(dbname, user, password),
            check=True,
            capture_output=True,
        )

    def create_roles(self, prefix: str = "shop") -> Roles:
        """Owner, application, migrator, read-only and operator roles; see :mod:`tests.lab.roles`."""
        from tests.lab.roles import create_roles

        return create_roles(self, prefix)

    # --- inside -------------------------------------------------------------------------------------------------

    def _place_socket(self) -> pathlib.Path:
        wanted = self.root / "socket"
        longest = len(os.fsencode(str(wanted / f".s.PGSQL.{self.port}.lock")))
        if longest <= SOCKET_PATH_LIMIT:
            return wanted
        return pathlib.Path(tempfile.gettempdir()) / f"payops-pg-socket-{self.port}"

    def _server_env(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
        return {**kept, "LC_ALL": "C.UTF-8"}

    def _initdb(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        for folder in (self.data, self.socket_dir):
            folder.mkdir(exist_ok=True)
            if self.user is not None:
                shutil.chown(folder, self.user)
        self.data.chmod(0o700)
        self.socket_dir.chmod(0o755)
        if self.user is not None:
            self.root.chmod(self.root.stat().st_mode | 0o111)
            if not processes.user_can_run(self.user, ["/usr/bin/test", "-w", str(self.data)]):
                raise RuntimeError(
                    f"the user {self.user} cannot reach {self.data}: give a root_dir that others may enter (not below a 0700 folder)"
                )
        passfile = self.socket_dir / ".initial-password"
        with os.fdopen(os.open(passfile, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:
            handle.write(self.password + "\n")
        if self.user is not None:
            shutil.chown(passfile, self.user)
        try:
            done = subprocess.run(
                [
                    *(str(self.bin_dir / "initdb"), "-D", str(self.data), "-U", self.superuser, f"--pwfile={passfile}"),
                    *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", "--no-sync"),
                ],
                capture_output=True,
                text=True,
                errors="replace",
                cwd="/",
                env=self._server_env(),
                check=False,
                **processes.as_user(self.user),
            )
        finally:
            passfile.unlink()
        if done.returncode != 0:
            raise RuntimeError(f"initdb of PostgreSQL {self.major} failed ({done.returncode}):\n{done.stdout}{done.stderr}")
        given = {**self.settings, "port": str(self.port), "unix_socket_directories": str(self.socket_dir)}
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as conf:
            conf.writelines(f"{key} = {_quote_setting(value)}\n" for key, value in given.items())

    def _status(self) -> str:
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return ""
        if len(lines) < 8 or (self._process is not None and lines[0] != str(self._process.pid)):
            return ""
        return lines[7].strip()

    def _await_end(self, pid: int, timeout: float) -> None:
        if self._process is not None and self._process.pid == pid:
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                raise TimeoutError(f"PostgreSQL {self.major} (pid {pid}) did not end within {timeout:g} s:\n{self.log_tail()}") from None
            self._process = None
        elif processes.wait_gone([pid], timeout):
            raise TimeoutError(f"PostgreSQL {self.major} (pid {pid}) did not end within {timeout:g} s:\n{self.log_tail()}")

    def _remember(self) -> None:
        known = {
            "major": self.major,
            "port": self.port,
            "superuser": self.superuser,
            "password": self.password,
            "settings": self.settings,
        }
        path = self.root / "cluster.json"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:
            json.dump(known, handle)


def ident(name: str) -> str:
    """An identifier as SQL text."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string as SQL text."""
    return "'" + text.replace("'", "''") + "'" if "\\" not in text else "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
