# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The flip under load, with strange names, of several databases at once."""

from __future__ import annotations

import pathlib
import threading
import time
import typing as t

import psycopg2
import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _swap
from tests.lab.postgres import Cluster, ident
from tests.lab.roles import Role, Roles, create_database

from .restore_helpers import Shop


@pytest.fixture(params=["superuser", "owner"])
def shop(request: pytest.FixtureRequest, cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path) -> Shop:
    return Shop(cluster, roles, database, tmp_path, roles.operator if request.param == "owner" else None).fill()


class Client(threading.Thread):
    """Pays (or only asks) as fast as it is told to, reconnects at once, and remembers what was acknowledged."""

    def __init__(self, shop: Shop, pause: float, pays: bool) -> None:
        super().__init__(daemon=True)
        self.shop = shop
        self.pause = pause
        self.pays = pays
        self.acknowledged: set[int] = set()
        self.errors: list[str] = []
        self.longest = 0.0
        self.stopping = threading.Event()

    def run(self) -> None:
        session: t.Any = None
        last = time.monotonic()
        query = "INSERT INTO payments (customer_id, amount) VALUES (1, 3) RETURNING id" if self.pays else "SELECT 1"
        while not self.stopping.is_set():
            try:
                if session is None:
                    session = self.shop.cluster.connect(self.shop.name, **self.shop.roles.app.login())
                with session.cursor() as cursor:
                    cursor.execute(query)
                    number = cursor.fetchone()[0]
            except psycopg2.Error as exc:
                self.errors.append(str(exc).strip())
                session = None
                continue
            if self.pays:
                self.acknowledged.add(number)
            now = time.monotonic()
            self.longest = max(self.longest, now - last)
            last = now
            self.stopping.wait(self.pause)
        if session is not None:
            session.close()

    def stop(self) -> None:
        self.stopping.set()
        self.join(20)


@pytest.mark.parametrize("others", [0, 20])
def test_nothing_is_lost_while_clients_write(shop: Shop, others: int) -> None:
    shop.snapshot()
    shop.restore("staged")
    paid = shop.payments(shop.name)
    clients = [Client(shop, 0.001, True), *(Client(shop, 0.01, False) for unused in range(others))]
    for client in clients:
        client.start()
    try:
        time.sleep(0.5)
        flip = shop.restore("live")
        time.sleep(0.5)
        undo = shop.restore("previous")
        time.sleep(0.3)
    finally:
        for client in clients:
            client.stop()
    writer = clients[0]
    worst = max(len(client.errors) for client in clients)
    print(
        f"\npg{shop.cluster.major}, {1 + others} client(s): flip {flip['outage_ms']} ms, undo {undo['outage_ms']} ms as the module saw it; "
        f"longest gap between two payments {writer.longest * 1000:.0f} ms, {len(writer.acknowledged)} payments, at most {worst} error(s) per client"
    )
    assert len(writer.acknowledged) > 100
    shop.invariant(paid | writer.acknowledged)
    assert len(shop.reachable()) == len(paid | writer.acknowledged)
    assert flip["outage_ms"] < 2000 and undo["outage_ms"] < 2000 and writer.longest < 3
    assert worst <= 6, clients[-1].errors  # per flip: one closed session, and at most two refused attempts


@pytest.mark.parametrize(
    "name", ['Shop "A"; --', "-starts with a dash", "m\u00fcnze \u20ac", "100%s", "x" * 63, "\u00e9" * 31 + "z"], ids=range(6)
)
def test_strange_names(cluster: Cluster, roles: Roles, tmp_path: pathlib.Path, operator: Role | None, name: str) -> None:
    create_database(cluster, name, roles)
    try:
        shop = Shop(cluster, roles, name, tmp_path, operator)
        shop.cluster.sql(f"GRANT {ident(roles.readonly.name)} TO {ident(roles.operator.name)}")
        shop.sql("CREATE TABLE payments (id bigserial PRIMARY KEY)", roles.owner)
        shop.sql("INSERT INTO payments DEFAULT VALUES", roles.app)
        shop.snapshot()
        shop.sql("INSERT INTO payments DEFAULT VALUES", roles.app)
        old = shop.oid()
        kept = shop.restore("live")["kept"][name]
        assert len(kept.encode()) <= 63 and shop.count() == 1
        shop.restore("previous")
        assert shop.oid() == old and shop.count() == 2
        assert len(shop.restore("complete")["dropped"]) == 1
    finally:
        for each in cluster.databases():
            if each not in ("postgres",) and not each.startswith("t0"):
                cluster.sql(f"DROP DATABASE {ident(each)} WITH (FORCE)")


def test_several_databases_flip_together_or_not_at_all(shop: Shop) -> None:
    other = f"{shop.name}_b"
    create_database(shop.cluster, other, shop.roles)
    shop.sql("CREATE TABLE t (n int); INSERT INTO t VALUES (1)", shop.roles.owner, other)
    both = [shop.name, other]
    shop.ok("pg_snapshot", version=shop.version, databases=both)
    shop.sql("INSERT INTO t VALUES (2)", shop.roles.owner, other)
    old = shop.oid(), shop.oid(other)

    shop.cluster.sql(f"ALTER DATABASE {ident(other)} RENAME TO {ident(other + 'x')}")
    assert "has no database" not in shop.run("pg_restore", state="live", version=shop.version, databases=both, check=True).get("msg", "")
    shop.cluster.sql(f"ALTER DATABASE {ident(other + 'x')} RENAME TO {ident(other)}")

    result = shop.restore("live", databases=both)
    assert sorted(result["kept"]) == sorted(both)
    assert not {shop.oid(), shop.oid(other)} & set(old)
    assert shop.count("t", other) == 1
    shop.restore("previous", databases=both)
    assert (shop.oid(), shop.oid(other)) == old


def test_a_name_that_another_run_moved_is_left_alone(cluster: Cluster, database: str) -> None:
    cluster.create_database(f"{database}_s")
    oids = dict(cluster.sql("SELECT datname, oid::bigint FROM pg_database"))

    def connect(name: str, **settings: t.Any) -> t.Any:
        return cluster.connect(name)

    move = _swap.Move(database, oids[database] + 1, f"{database}_k", lambda snapshot: "", f"{database}_s", oids[f"{database}_s"], None)
    with pytest.raises(RollbackError, match="Another run was faster; nothing was renamed"):
        _swap.swap(connect, "postgres", [move])
    assert dict(cluster.sql("SELECT datname, oid::bigint FROM pg_database")) == oids


def test_the_oid_is_checked_inside_the_transaction(cluster: Cluster, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look before and the transaction somebody else may have been here."""
    cluster.create_database(f"{database}_s")
    oids = dict(cluster.sql("SELECT datname, oid::bigint FROM pg_database"))

    def connect(name: str, **settings: t.Any) -> t.Any:
        return cluster.connect(name)

    def meanwhile(connection: t.Any, wanted: t.Any) -> None:
        cluster.sql(f"ALTER DATABASE {ident(database)} RENAME TO {ident(database + '_x')}")
        cluster.create_database(database)

    monkeypatch.setattr(_swap, "_wait_empty", meanwhile)
    move = _swap.Move(database, oids[database], f"{database}_k", lambda snapshot: "", f"{database}_s", oids[f"{database}_s"], None)
    with pytest.raises(RollbackError, match="Another run was faster; nothing was renamed"):
        _swap.swap(connect, "postgres", [move])
    after = dict(cluster.sql("SELECT datname, oid::bigint FROM pg_database"))
    assert after[f"{database}_x"] == oids[database] and after[f"{database}_s"] == oids[f"{database}_s"]


def test_a_closed_name_stays_closed(shop: Shop) -> None:
    """rollback_emergency closes the database; the flip behind it must not open it to an application that is still there."""
    shop.snapshot()
    new = shop.pay()
    shop.cluster.sql(f"ALTER DATABASE {ident(shop.name)} ALLOW_CONNECTIONS false")
    result = shop.restore("live")
    assert result["changed"] and not shop.family()[shop.name]["open"]
    assert new not in shop.payments(shop.name) and new in shop.payments(result["kept"][shop.name])
    shop.restore("previous")
    assert not shop.family()[shop.name]["open"]
    shop.cluster.sql(f"ALTER DATABASE {ident(shop.name)} ALLOW_CONNECTIONS true")
    shop.invariant({new})
