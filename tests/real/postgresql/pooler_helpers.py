# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients of a pgbouncer, and a module that stands still while it is paused."""

from __future__ import annotations

import pathlib
import signal
import threading
import time
import typing as t

import psycopg2

from tests.lab import pgbouncer, processes
from tests.lab.fixtures import unavailable
from tests.lab.pgbouncer import PgBouncer

from .restore_helpers import Shop


def pooler_of(shop: Shop, entries: dict[str, str | None] | None = None, pool_mode: str = "transaction") -> PgBouncer:
    if not pgbouncer.installed():
        unavailable("no pgbouncer; install the operating system's package pgbouncer")
    users = {role.name: role.password for role in (shop.roles.app, shop.roles.readonly)}
    return PgBouncer(shop.cluster, {shop.name: None} if entries is None else entries, users, pool_mode)


class Payer(threading.Thread):
    """Pays through the pooler in transactions of two statements; now and then over a new connection."""

    def __init__(self, shop: Shop, pooler: PgBouncer, entry: str, between: float = 0) -> None:
        super().__init__(daemon=True)
        self.between = between  # seconds that a transaction stays open between its statements
        self.shop = shop
        self.pooler = pooler
        self.entry = entry
        self.paid: set[int] = set()
        self.errors: list[str] = []
        self.longest = 0.0
        self.stopping = threading.Event()

    def run(self) -> None:
        role = self.shop.roles.app
        session: t.Any = None
        last = time.monotonic()
        number = 0
        while not self.stopping.is_set():
            try:
                if session is None or number % 50 == 0:
                    session = self.pooler.connect(self.entry, role.name, role.password)
                    session.autocommit = False
                with session.cursor() as cursor:
                    cursor.execute("INSERT INTO payments (customer_id, amount) VALUES (1, 3) RETURNING id")
                    made = cursor.fetchone()[0]
                    self.stopping.wait(self.between)
                    cursor.execute("INSERT INTO idempotency_keys VALUES (%s, %s)", (f"{id(self)}-{time.monotonic_ns()}", made))
                session.commit()
                self.paid.add(made)
            except psycopg2.Error as exc:
                self.errors.append(str(exc).strip())
                session = None
            number += 1
            moment = time.monotonic()
            self.longest = max(self.longest, moment - last)
            last = moment
            self.stopping.wait(0.002)

    def stop(self) -> None:
        self.stopping.set()
        self.join(30)


class Holding:
    """A client in the middle of its transaction."""

    def __init__(self, shop: Shop, pooler: PgBouncer) -> None:
        self.session = pooler.connect(shop.name, shop.roles.app.name, shop.roles.app.password)
        self.session.autocommit = False
        with self.session.cursor() as cursor:
            cursor.execute("INSERT INTO payments (customer_id, amount) VALUES (1, 3) RETURNING id")
            self.id = int(cursor.fetchone()[0])

    def __enter__(self) -> Holding:
        return self

    def __exit__(self, *exc: object) -> None:
        self.session.close()


def resumed(pooler: PgBouncer, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while pooler.paused():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class Standing:
    """The module, stopped right behind a step, and its watch."""

    def __init__(self, shop: Shop, mark: pathlib.Path, where: str, **options: t.Any) -> None:
        self.process = shop.start("pg_restore", f"postgresql/{where}=wait:{mark}", **options)
        deadline = time.monotonic() + 90
        while not mark.exists():
            assert time.monotonic() < deadline and self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)
        self.watch = processes.children(self.process.pid)

    def kill(self, watch_too: bool) -> None:
        for pid in self.watch if watch_too else []:
            processes.signal_pid(pid, signal.SIGKILL)
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
