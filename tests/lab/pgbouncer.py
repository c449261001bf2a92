# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pgbouncer in front of a throwaway cluster."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import tempfile
import typing as t

from tests.lab import ports, processes
from tests.lab.postgres import Cluster

PROGRAM = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
ADMIN, ADMIN_PASSWORD = "pooler_admin", "admin p\u00e4ss'word:\\"
VIEWER, VIEWER_PASSWORD = "pooler_viewer", "viewer"


def installed() -> bool:
    return pathlib.Path(PROGRAM).exists()


class PgBouncer:
    """``databases`` are lines of [databases]: the entry's name and the database behind it (None: by its own name).

    ``users`` are logins and passwords that clients use and that it uses at the server.
    """

    def __init__(
        self, cluster: Cluster, databases: t.Mapping[str, str | None], users: t.Mapping[str, str], pool_mode: str = "transaction"
    ) -> None:
        self.cluster = cluster
        self.host = "127.0.0.1"
        self.port = ports.free_port()
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="payops-pgbouncer-"))
        self.root.chmod(0o755)
        self.log = self.root / "log"
        known = {**users, ADMIN: ADMIN_PASSWORD, VIEWER: VIEWER_PASSWORD}
        self._write("users.txt", "".join(f'"{_quoted(user)}" "{_quoted(password)}"\n' for user, password in known.items()), 0o600)
        behind = f"host={cluster.host} port={cluster.port}"
        lines = [f"{entry} = {behind}{f' dbname={name}' if name else ''}" for entry, name in databases.items()]
        self._write("pgbouncer.ini", "\n".join(["[databases]", *lines, "", "[pgbouncer]", *self._settings(pool_mode), ""]), 0o644)
        self._process: t.Any = None

    def _settings(self, pool_mode: str) -> list[str]:
        return [
            f"listen_addr = {self.host}",
            f"listen_port = {self.port}",
            "unix_socket_dir =",
            "auth_type = scram-sha-256",
            f"auth_file = {self.root / 'users.txt'}",
            f"admin_users = {ADMIN}",
            f"stats_users = {VIEWER}",
            f"pool_mode = {pool_mode}",
        ]

    def _write(self, name: str, text: str, mode: int) -> None:
        path = self.root / name
        path.touch(mode)
        path.write_text(text, encoding="utf-8")
        if self.cluster.user is not None:
            shutil.chown(path, self.cluster.user)

    def __enter__(self) -> PgBouncer:
        self._process = processes.start(
            [PROGRAM, str(self.root / "pgbouncer.ini")], log=self.log, user=self.cluster.user, env={"PATH": "/usr/bin:/bin"}, cwd="/"
        )
        ports.wait_for(self.port)
        return self

    def __exit__(self, *exc: object) -> None:
        processes.stop(self._process)
        shutil.rmtree(self.root, ignore_errors=True)

    def connect(self, dbname: str, user: str, password: str) -> t.Any:
        import psycopg2

        session = psycopg2.connect(host=self.host, port=self.port, dbname=dbname, user=user, password=password, connect_timeout=20)
        session.autocommit = True
        return session

    def admin(self, statement: str) -> list[dict[str, t.Any]]:
        """One statement on the console; rows as dicts."""
        with contextlib.closing(self.connect("pgbouncer", ADMIN, ADMIN_PASSWORD)) as session, session.cursor() as cursor:
            cursor.execute(statement)
            if not cursor.description:
                return []
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row)) for row in cursor.fetchall()]

    def paused(self) -> list[str]:
        return [row["name"] for row in self.admin("SHOW DATABASES") if int(row["paused"])]

    def option(self, **more: t.Any) -> dict[str, t.Any]:
        """One element of the module's option ``poolers``."""
        return {"host": self.host, "port": self.port, "user": ADMIN, "password": ADMIN_PASSWORD, **more}


def _quoted(text: str) -> str:
    return text.replace('"', '""')
