# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The other ways to put a database back: the team's own procedure, parallel dumps by hand, dslr, and copying bytes."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import time
import typing as t

from tests.bench.call import Failed, program
from tests.bench.common import Missing, cache
from tests.lab.postgres import Cluster

DSLR = "0.6.0"
HASHES = """
SELECT format('SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM %I.%I t', schemaname, tablename)
FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"""


def content_check(cluster: Cluster, database: str) -> list[tuple[t.Any, ...]]:
    """What a careful person would compare: the number of rows and a 64-bit hash over them, table by table."""
    with contextlib.closing(cluster.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(HASHES)
        found = []
        for (query,) in cursor.fetchall():
            cursor.execute(query)
            found.append((query, *cursor.fetchone()))
        return found


def drop(cluster: Cluster, database: str) -> None:
    cluster.sql(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')


# --- the team's procedure ------------------------------------------------------------------------------------------------


def plain_dump(cluster: Cluster, database: str, path: pathlib.Path) -> float:
    """``pg_dump > f.sql``"""
    return program([cluster.program("pg_dump")], env=cluster.env(database), out=path)


def plain_restore(cluster: Cluster, database: str, path: pathlib.Path) -> float:
    """``psql < f.sql``"""
    argv = [cluster.program("psql"), "-q", "-X", "-v", "ON_ERROR_STOP=1", "-f", str(path)]
    return program(argv, env=cluster.env(database))


# --- parallel, by hand ---------------------------------------------------------------------------------------------------


def parallel_dump(cluster: Cluster, database: str, folder: pathlib.Path, jobs: int, codec: str) -> float:
    """``pg_dump -Fd -j2``, compressed as the module compresses."""
    argv = [cluster.program("pg_dump"), "-Fd", f"-j{jobs}", "-Z", codec, "-f", str(folder)]
    return program(argv, env=cluster.env(database))


def parallel_restore(cluster: Cluster, database: str, folder: pathlib.Path, jobs: int) -> float:
    """``createdb`` and ``pg_restore -j2`` into it."""
    begin = time.monotonic()
    cluster.create_database(database)
    program([cluster.program("pg_restore"), f"-j{jobs}", "--exit-on-error", "-d", database, str(folder)], env=cluster.env(database))
    return time.monotonic() - begin


# --- the physical limit --------------------------------------------------------------------------------------------------


def copy_bytes(cluster: Cluster, database: str, target: pathlib.Path) -> float:
    """``cp -a`` of the database's files, and until they are on the disk."""
    oid = cluster.sql("SELECT oid::bigint FROM pg_database WHERE datname = %s", (database,))[0][0]
    cluster.sql("CHECKPOINT")
    source = cluster.data / "base" / str(oid)
    begin = time.monotonic()
    program(["cp", "-a", str(source), str(target)])
    for path in target.iterdir():
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
    seconds = time.monotonic() - begin
    shutil.rmtree(target)
    return seconds


# --- dslr ----------------------------------------------------------------------------------------------------------------


class Dslr:
    """The program in an environment of its own, installed once."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._program: pathlib.Path | None = None

    def install(self) -> None:
        home = cache("bench") / f"dslr-{DSLR}-{sys.version_info[0]}.{sys.version_info[1]}"
        found = home / "bin" / "dslr"
        if not (home / ".complete").exists():
            pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            for argv in ([sys.executable, "-m", "venv", "--clear", str(home)], [*pip, f"dslr=={DSLR}", "psycopg2-binary"]):
                done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()] or ["no message"]
                    raise Missing(f"dslr {DSLR} cannot be installed: {lines[-1][:200]}")
            (home / ".complete").touch()
        self._program = found

    def _run(self, database: str, *words: str, fails: bool = False) -> tuple[float, bool]:
        env = {**self.cluster.env(), "DATABASE_URL": self.cluster.url(database), "NO_COLOR": "1"}
        begin = time.monotonic()
        done = subprocess.run(
            [str(self._program), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=env,
            cwd="/",
            timeout=3600,
            check=False,
        )
        if done.returncode != 0 and not fails:
            raise Failed(f"dslr {' '.join(words)} ended with {done.returncode}: {(done.stderr + done.stdout).strip()[-300:]}")
        return time.monotonic() - begin, done.returncode == 0

    def snapshot(self, database: str, name: str) -> float:
        return self._run(database, "snapshot", name)[0]

    def restore(self, database: str, name: str, attempts: int = 5) -> tuple[float, int]:
        """Seconds of all attempts, and how many were refused: it cannot drop a database to which a client came back."""
        seconds, refused = 0.0, 0
        while True:
            took, good = self._run(database, "restore", name, fails=refused < attempts)
            seconds += took
            if good:
                return seconds, refused
            refused += 1

    def delete(self, database: str, name: str) -> None:
        self._run(database, "delete", name)
