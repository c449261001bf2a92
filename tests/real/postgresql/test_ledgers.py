# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A ledger that could not be carried back is refused before anybody waits for it, and the plan says what will happen to its rows."""

from __future__ import annotations

import pathlib
import typing as t

import psycopg2
import pytest

from tests.lab.postgres import Cluster
from tests.lab.roles import Role, Roles

from .restore_helpers import Shop

LEDGERS: list[dict[str, t.Any]] = [{"table": "payments"}, {"table": "idempotency_keys"}]
WRONG = {
    "misspelt": ({"table": "paiments"}, "public.paiments is no table of the live database"),
    "in another schema": ({"table": "payments", "schema": "shop"}, "shop.payments is no table of the live database"),
    "without a key": ({"table": "audit"}, "public.audit of the live database"),
    "with a key that is none": ({"table": "audit", "key": ["number"]}, "lacks the key column(s) number"),
    "with a key that is not unique": ({"table": "audit", "key": ["what"]}, "The key what of the ledger public.audit of the live"),
    "with a key that is unique only where": ({"table": "book", "key": ["page"]}, "The key page of the ledger public.book of the live"),
    "that others inherit from": ({"table": "book"}, "From the ledger public.book of the live database"),
    "a view": ({"table": "seen", "key": ["id"]}, "public.seen is no table of the live database"),
}


@pytest.fixture
def shop(cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path, operator: Role | None) -> Shop:
    shop = Shop(cluster, roles, database, tmp_path, operator).fill()
    shop.sql("CREATE VIEW seen AS SELECT id FROM payments", roles.owner)
    shop.sql(
        "CREATE TABLE book (id int PRIMARY KEY, page int); CREATE UNIQUE INDEX ON book (page) WHERE page > 5; CREATE TABLE book_1 () INHERITS (book)",
        roles.owner,
    )
    shop.snapshot()
    return shop


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_ledger_is_refused_at_backup_in_the_plan_and_in_prepare(shop: Shop, what: str) -> None:
    ledger, text = WRONG[what]
    ledgers = [*LEDGERS, ledger]
    refused = shop.refused("pg_snapshot", version="other", ledgers=ledgers)
    assert text in refused["msg"] and len(refused["blockers"]) == 1, refused
    assert not (shop.store / "shop" / "other").exists()

    before = shop.family()
    planned = shop.run("pg_restore", check=True, state="live", version=shop.version, ledgers=ledgers)
    assert {each["code"] for each in planned["blockers"]} == {"ledger"}
    for state in ("staged", "live"):
        refused = shop.refused("pg_restore", state=state, version=shop.version, ledgers=ledgers)
        assert {each["code"] for each in refused["blockers"]} == {"ledger"} and text in refused["msg"], refused
    assert shop.family() == before


def test_a_ledger_that_the_point_does_not_have_is_refused(shop: Shop) -> None:
    shop.sql("CREATE TABLE refunds (id bigint PRIMARY KEY)", shop.roles.owner)
    shop.sql('ALTER TABLE idempotency_keys RENAME COLUMN key TO "the key"', shop.roles.owner)
    refused = shop.refused("pg_restore", state="staged", version=shop.version, ledgers=[*LEDGERS, {"table": "refunds"}])
    assert [each["what"] for each in refused["blockers"]] == [
        f"The ledger public.idempotency_keys lacks the key column(s) key of the point in the live database {shop.name}.",
        f"The ledger public.refunds is no table in the point of {shop.name}.",
    ]
    assert shop.family().keys() == {shop.name}


def test_keys_that_the_point_does_not_have_are_refused(shop: Shop) -> None:
    shop.sql('ALTER TABLE audit ADD COLUMN "no" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY', shop.roles.owner)
    refused = shop.refused("pg_restore", state="staged", version=shop.version, ledgers=[{"table": "audit"}])
    assert "public.audit has no primary key in the point" in refused["msg"]
    refused = shop.refused("pg_restore", state="staged", version=shop.version, ledgers=[{"table": "audit", "key": ["no"]}])
    assert "lacks the key column(s) no in the point" in refused["msg"]


def test_keys_and_heirs_that_only_the_point_has_are_refused(shop: Shop) -> None:
    shop.sql("CREATE UNIQUE INDEX ON audit (at, what); DROP TABLE book_1", shop.roles.owner)
    for ledger, text in (
        (
            {"table": "audit", "key": ["what", "at"]},
            f"The key what, at of the ledger public.audit is not unique in the point of {shop.name}.",
        ),
        ({"table": "book"}, f"From the ledger public.book inherit public.book_1 in the point of {shop.name}."),
    ):
        refused = shop.refused("pg_restore", state="staged", version=shop.version, ledgers=[ledger])
        assert [each["what"] for each in refused["blockers"]] == [text]
    shop.snapshot("later")
    assert shop.restore("staged", version="later", ledgers=[{"table": "audit", "key": ["what", "at"]}, {"table": "book"}])["changed"]


def test_carrying_back_refuses_them_too(shop: Shop) -> None:
    shop.restore("live")
    before = shop.count("book")
    assert "is not unique" in shop.refused("pg_carry_back", ledgers=[{"table": "payments", "key": ["customer_id"]}])["msg"]
    assert "has public.book_1 inherit from it" in shop.refused("pg_carry_back", ledgers=[{"table": "book"}])["msg"]
    assert shop.count("book") == before


def test_a_right_ledger_passes_and_the_plan_tells_what_will_happen(shop: Shop) -> None:
    shop.pay()
    shop.pay()
    shop.sql("INSERT INTO idempotency_keys VALUES ('new', 1, '{}'), ('newer', 2, '{}')")
    shop.sql("UPDATE idempotency_keys SET answer = '{}' WHERE key = 'k1'")
    planned = shop.run("pg_restore", check=True, state="live", version=shop.version, ledgers=LEDGERS)
    assert planned["blockers"] == []
    rows = planned["databases"][shop.name]["rows_planned"]
    assert rows == {
        "public.payments": {"newer": 2, "carried": "2", "stays": "0", "ledger": True},
        "public.idempotency_keys": {"newer": 3, "carried": "2-3", "stays": "0-1", "ledger": True},
        "public.audit": {"newer": 2, "carried": "0", "stays": "2", "ledger": False},
    }
    text = "\n".join(planned["plan"])
    assert "public.payments has 2 row(s) newer than the point; it is a ledger: all of them are new and are carried back" in text
    assert "public.idempotency_keys has 3 row(s) newer than the point; it is a ledger: new ones (2-3) are carried back" in text
    assert "public.audit has 2 row(s) newer than the point; they stay in the kept database" in text

    assert shop.restore("staged", ledgers=LEDGERS)["databases"][shop.name]["rows_planned"] == rows
    shop.restore("live", ledgers=LEDGERS)
    carried = shop.ok("pg_carry_back", ledgers=LEDGERS)["carried"]
    assert carried == {f"{shop.name}.public.payments": 2, f"{shop.name}.public.idempotency_keys": 2}


def test_a_ledger_that_refers_to_new_rows_of_another_table_is_told(shop: Shop) -> None:
    shop.sql("INSERT INTO customers (email) VALUES ('new@example.com')")
    shop.sql("INSERT INTO payments (customer_id, amount) SELECT max(id), 5 FROM customers")
    planned = shop.run("pg_restore", check=True, state="live", version=shop.version, ledgers=LEDGERS)
    assert "the ledger public.payments refers to public.customers, which is no ledger and has newer rows" in "\n".join(planned["plan"])


def test_the_plan_counts_rows_of_a_savepoint_that_was_open_at_the_point(shop: Shop) -> None:
    """The number of its transaction is in no snapshot, so these rows look older than the point."""
    login = shop.roles.app.login()
    app = psycopg2.connect(dbname=shop.name, host=shop.cluster.host, port=shop.cluster.port, **login)
    pay = "INSERT INTO payments (customer_id, amount) VALUES (1, 5)"
    with app.cursor() as cursor:
        cursor.execute(f"{pay}; SAVEPOINT one")
        cursor.execute(pay)
        shop.pay()
        shop.snapshot("later")
        cursor.execute("RELEASE one; COMMIT")
    app.close()
    planned = shop.run("pg_restore", check=True, state="live", version="later", ledgers=LEDGERS)
    assert planned["databases"][shop.name]["rows_planned"]["public.payments"]["carried"] == "2"
    shop.restore("live", version="later", ledgers=LEDGERS)
    assert shop.ok("pg_carry_back", ledgers=LEDGERS)["carried"][f"{shop.name}.public.payments"] == 2


def test_partitions_of_a_ledger_are_the_ledger(shop: Shop) -> None:
    shop.sql(
        "CREATE TABLE events (id bigint, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);"
        " CREATE TABLE \"Events 23\" PARTITION OF events FOR VALUES FROM ('2023-01-01') TO ('2024-01-01')",
        shop.roles.owner,
    )
    shop.snapshot("parted")
    shop.sql("INSERT INTO events VALUES (1, '2023-05-05')")
    ledgers = [{"table": "events"}]
    planned = shop.run("pg_restore", check=True, state="live", version="parted", ledgers=ledgers)
    assert planned["databases"][shop.name]["rows_planned"]['public."Events 23"']["carried"] == "1", planned
    shop.restore("live", version="parted", ledgers=ledgers)
    assert shop.ok("pg_carry_back", ledgers=ledgers)["carried"] == {f"{shop.name}.public.events": 1}


def test_without_ledgers_carrying_back_is_refused(shop: Shop) -> None:
    assert "ledgers is missing" in shop.refused("pg_carry_back")["msg"]
