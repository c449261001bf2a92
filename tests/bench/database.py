# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Part A: the same database put back in each way, one after the other, several times."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import typing as t

from tests.bench import call, rivals, writer
from tests.bench.common import Options, attempt, say
from tests.bench.stats import Records, outage, rotated, total
from tests.lab import binaries, processes
from tests.lab.node import ROOT
from tests.lab.postgres import Cluster

DATABASE = "shop"
SMALL = "small"
BESIDE = "beside"
SETTLE = 0.6
METHODS = ("ours", "team", "parallel", "dslr", "cp", "small")


class Clients:
    """The writer process while it runs; its commits and errors once it has ended."""

    def __init__(self, cluster: Cluster, database: str, folder: pathlib.Path) -> None:
        self.folder = folder
        self.commits: list[float] = []
        self.errors: dict[str, int] = {}
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._process: subprocess.Popen[bytes] = processes.start(
            [sys.executable, "-m", "tests.bench.writer", "--folder", str(folder)],
            log=folder / "writer.log",
            env=cluster.env(database),
            cwd=ROOT,
        )

    def __enter__(self) -> Clients:
        time.sleep(2 * SETTLE)
        return self

    def __exit__(self, *exc: object) -> None:
        time.sleep(SETTLE)
        processes.stop(self._process, signum=signal.SIGTERM, timeout=20)
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self.folder / "commits.json").read_text(encoding="utf-8"))
            self.commits, self.errors = found["commits"], found["errors"]

    def stop_application(self) -> None:
        (self.folder / "stopped").touch()
        time.sleep(0.005)

    def start_application(self) -> None:
        (self.folder / "stopped").unlink()

    def outage(self, begin: float, end: float) -> float:
        if len([mark for mark in self.commits if mark < begin]) < 50 or not any(mark > end for mark in self.commits):
            log = (self.folder / "writer.log").read_text(encoding="utf-8", errors="replace")[-300:]
            raise call.Failed(f"the writer did not commit before and after: {self.errors} {log}")
        return outage(self.commits, begin, end)


class Database:
    """One server, two databases of different size, and every method."""

    def __init__(self, options: Options, records: Records, folder: pathlib.Path) -> None:
        self.options = options
        self.records = records
        self.folder = folder
        major = max(binaries.available() or [18])
        # dslr takes its password from a URL and has trouble with some characters
        self.cluster = Cluster(major, folder / "server", password="bench")
        self.store = folder / "store"
        self.codec = "gzip"
        self.dslr = rivals.Dslr(self.cluster)
        self.sizes: dict[str, int] = {}
        self.number = 0

    def facts(self) -> dict[str, t.Any]:
        return {"postgresql": self.cluster.major, "scale": self.options.scale, "bytes": self.sizes, "codec": self.codec}

    def run(self) -> None:
        with self.cluster:
            self._fill()
            for number in range(self.options.runs):
                say(f"database, run {number + 1} of {self.options.runs}")
                self.number = number
                self.records.add("start-up", "seconds", call.start_up())
                for method in rotated(METHODS, number):
                    attempt(self.records, method, getattr(self, f"_{method}"))
                    self._restore_order()

    def _fill(self) -> None:
        for name, scale in ((DATABASE, self.options.scale), (SMALL, self.options.small)):
            say(f"filling database {name}: pgbench scale {scale}")
            self.cluster.create_database(name)
            self.cluster.pgbench_init(name, scale)
            self.cluster.sql(writer.SETUP, dbname=name)
            self.sizes[name] = int(self.cluster.sql("SELECT pg_database_size(%s)", (name,))[0][0])
        # What cp and the dumps read shall be in memory for all alike; also tells how the module compresses here.
        warm = call.module("pg_snapshot", self._options(SMALL, version="warm"))
        self.codec = str(warm.result["point"]["codec"])
        attempt(self.records, "dslr", self.dslr.install)
        rivals.content_check(self.cluster, DATABASE)
        self.cluster.sql("CHECKPOINT")

    def _restore_order(self) -> None:
        """Whatever a method left half done must not count against the next one."""
        for name in self.cluster.databases():
            if name == BESIDE or name.startswith("dslr_"):
                rivals.drop(self.cluster, name)
        for name in (DATABASE, SMALL):
            if name not in self.cluster.databases():
                say(f"    database {name} is gone; filling it again")
                self.cluster.create_database(name)
                self.cluster.pgbench_init(name, self.options.scale if name == DATABASE else self.options.small)
            self.cluster.sql(writer.SETUP, dbname=name)
            self.cluster.sql(f"TRUNCATE {writer.TABLE}", dbname=name)
        self.cluster.sql("CHECKPOINT")

    def _options(self, database: str, **more: t.Any) -> dict[str, t.Any]:
        return {
            "store": str(self.store),
            "system": "bench",
            "databases": [database],
            "login_host": self.cluster.host,
            "login_port": self.cluster.port,
            "login_user": self.cluster.superuser,
            "login_password": self.cluster.password,
            "bin_dir": str(self.cluster.bin_dir),
            **({"jobs": self.options.jobs} if more.get("state") not in ("previous", "complete") else {}),
            **more,
        }

    # --- methods --------------------------------------------------------------------------------------------------------

    def _ours(self) -> None:
        self._module_round("ours", DATABASE)

    def _small(self) -> None:
        self._module_round("small", SMALL)

    def _module_round(self, method: str, database: str) -> None:
        add = self.records.add
        version = f"{method}-{self.number}"
        snapshot = call.module("pg_snapshot", self._options(database, version=version))
        staged = call.module("pg_restore", self._options(database, version=version, state="staged"))
        with Clients(self.cluster, database, self.folder / "writer") as clients:
            flip = call.module("pg_restore", self._options(database, version=version, state="live"))
            time.sleep(SETTLE)
            undo = call.module("pg_restore", self._options(database, state="previous"))
        call.module("pg_restore", self._options(database, state="complete"))
        shutil.rmtree(self.store / "bench" / version)
        for name, ran in (("snapshot", snapshot), ("staging", staged), ("flip", flip), ("undo", undo)):
            add(method, name, ran.seconds)
            for step, seconds in ran.steps().items():
                add(method, f"{name}: {step}", seconds)
        add(method, "outage", clients.outage(flip.begin, flip.end))
        add(method, "undo outage", clients.outage(undo.begin, undo.end))
        add(method, "outage as the module says", float(flip.result["outage_ms"]) / 1000)
        add(method, "client errors", sum(clients.errors.values()))
        add(method, "total", snapshot.seconds + staged.seconds + flip.seconds)

    def _team(self) -> None:
        path = self.folder / "database_backup.sql"
        dumped = rivals.plain_dump(self.cluster, DATABASE, path)
        with Clients(self.cluster, DATABASE, self.folder / "writer") as clients:
            clients.stop_application()
            begin = time.monotonic()
            rivals.drop(self.cluster, DATABASE)
            self.cluster.create_database(DATABASE)
            loaded = rivals.plain_restore(self.cluster, DATABASE, path)
            end = time.monotonic()
            clients.start_application()
        path.unlink()
        for name, seconds in (("snapshot", dumped), ("staging", loaded), ("outage", clients.outage(begin, end))):
            self.records.add("team", name, seconds)
        self.records.add("team", "total", dumped + end - begin)

    def _parallel(self) -> None:
        target = self.folder / "parallel"
        shutil.rmtree(target, ignore_errors=True)
        dumped = rivals.parallel_dump(self.cluster, DATABASE, target, self.options.jobs, self.codec)
        restored = rivals.parallel_restore(self.cluster, BESIDE, target, self.options.jobs)
        begin = time.monotonic()
        found = rivals.content_check(self.cluster, BESIDE)
        checked = time.monotonic() - begin
        shutil.rmtree(target)
        if found != rivals.content_check(self.cluster, DATABASE):
            raise call.Failed("pg_restore -j brought other rows")
        begin = time.monotonic()
        self.cluster.sql("ANALYZE", dbname=BESIDE)
        analysed = time.monotonic() - begin
        for name, seconds in (("snapshot", dumped), ("restore", restored), ("check", checked), ("analyze", analysed)):
            self.records.add("parallel", name, seconds)
        self.records.add("parallel", "total", total(dumped, restored, checked) or 0.0)

    def _dslr(self) -> None:
        with Clients(self.cluster, DATABASE, self.folder / "writer") as first:
            begin = time.monotonic()
            taken = self.dslr.snapshot(DATABASE, "bench")
            end = time.monotonic()
        with Clients(self.cluster, DATABASE, self.folder / "writer") as clients:
            again = time.monotonic()
            restored, refused = self.dslr.restore(DATABASE, "bench")
            done = time.monotonic()
        self.dslr.delete(DATABASE, "bench")
        if refused:
            self.records.note(f"dslr restore was refused {refused} time(s) in one run, because the writer had reconnected.")
        for name, seconds in (
            ("snapshot", taken),
            ("snapshot outage", first.outage(begin, end)),
            ("restore", restored),
            ("outage", clients.outage(again, done)),
            ("total", taken + restored),
        ):
            self.records.add("dslr", name, seconds)

    def _cp(self) -> None:
        self.records.add("cp", "seconds", rivals.copy_bytes(self.cluster, DATABASE, self.folder / "copy"))


def measure(options: Options, records: Records, folder: pathlib.Path) -> dict[str, t.Any]:
    """Run all of part A; facts about where it ran."""
    os.makedirs(folder, exist_ok=True)
    part = Database(options, records, folder)
    part.run()
    return part.facts()
