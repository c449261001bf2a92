# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pg_check on real servers: every kind of check holds and fails, and nothing is written."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from tests.lab.postgres import Cluster
from tests.lab.roles import Role, Roles
from tests.real.postgresql.restore_helpers import Shop


@pytest.fixture(params=["superuser", "owner"])
def shop(request: pytest.FixtureRequest, cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path) -> Shop:
    operator: Role | None = roles.operator if request.param == "owner" else None
    return Shop(cluster, roles, database, tmp_path / "store", operator).fill()


def by_name(result: dict[str, t.Any]) -> dict[str, dict[str, t.Any]]:
    return {check["name"]: check for check in result["checks"]}


def test_a_sound_database(shop: Shop) -> None:
    found = shop.ok("pg_check", queries=[{"name": "open", "sql": "SELECT true"}], count_tables=[{"table": "payments", "min": 1000}])
    assert not found["changed"]
    assert {name: check["ok"] for name, check in by_name(found).items()} == {
        "open": True,
        "rows of public.payments": True,
        "invalid indexes": True,
        "orphans of idempotency_keys_payment_id_fkey on public.idempotency_keys": True,
        "orphans of payments_customer_id_fkey on public.payments": True,
    }
    assert found["msg"] == "5 check(s), 0 failed."
    assert not shop.store.exists()


QUERIES: list[tuple[str, t.Any, bool, t.Any]] = [
    ("SELECT count(*) FROM payments", 1000, True, 1000),
    ("SELECT count(*) FROM payments", "1000", True, 1000),
    ("SELECT count(*) FROM payments", 999, False, 1000),
    ("SELECT count(*) FROM payments", {"min": 1, "max": 1000}, True, 1000),
    ("SELECT count(*) FROM payments", {"min": 1001}, False, 1000),
    ("SELECT 'a', 2, true", ["a", 2, True], True, ["a", 2, True]),
    ("SELECT count(*) = 0 FROM payments", False, True, False),
    ("SELECT 1.50", "1.50", True, "1.50"),
    ("SELECT id FROM payments WHERE false", None, False, None),
    ("SELECT nothing", True, False, 'error: column "nothing" does not exist'),
    ("SELECT pg_sleep(30)", True, False, "not finished in 1 s"),
    ("DELETE FROM payments RETURNING true", True, False, "error: cannot execute DELETE in a read-only transaction"),
]


@pytest.mark.parametrize("number", range(len(QUERIES)))
def test_queries(shop: Shop, number: int) -> None:
    sql, expect, ok, found = QUERIES[number]
    asked = {"name": "it", "sql": sql, **({} if expect is None else {"expect": expect})}
    options = {"queries": [asked], "orphans": False, "invalid_indexes": False, "timeout": 1}
    result = shop.ok("pg_check", verdict="report", **options)
    check = by_name(result)["it"]
    assert (check["ok"], check["found"]) == (ok, found)
    assert shop.count() == 1000
    if not ok:
        said = shop.refused("pg_check", **options)
        assert "1 failed: it in" in said["msg"]
        assert said["checks"] == result["checks"]


def test_orphans(shop: Shop) -> None:
    shop.sql("SET session_replication_role = replica; DELETE FROM customers WHERE id = 1")
    name = "orphans of payments_customer_id_fkey on public.payments"
    said = shop.refused("pg_check")
    assert by_name(said)[name]["found"] == 20
    shop.sql("ALTER TABLE payments DROP CONSTRAINT payments_customer_id_fkey")
    shop.sql("ALTER TABLE payments ADD CONSTRAINT payments_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES customers NOT VALID")
    found = shop.ok("pg_check")
    assert (by_name(found)[name]["ok"], by_name(found)[name]["found"]) == (None, 20)
    assert "1 to look at" in found["msg"]


def test_an_invalid_index(shop: Shop) -> None:
    shop.sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'payments_customer'::regclass")
    said = shop.refused("pg_check")
    assert by_name(said)["invalid indexes"]["found"] == ["public.payments_customer"]
    assert shop.ok("pg_check", invalid_indexes=False)


def test_compared_with_the_point(shop: Shop) -> None:
    shop.snapshot()
    found = shop.ok("pg_check", version=shop.version)["databases"][shop.name]
    assert found["at_version"] is True
    assert found["rows_since"] == found["rows_gone"] == {}
    assert found["catalogue_differences"] == []
    shop.pay()
    shop.pay()
    shop.sql("DELETE FROM idempotency_keys WHERE key = 'k7'")
    found = shop.ok("pg_check", version=shop.version)["databases"][shop.name]
    assert found["at_version"] is True
    assert found["rows_since"] == {"public.audit": 2, "public.payments": 2}
    assert found["rows_gone"] == {"public.idempotency_keys": 1}
    assert found["rows_since_is_estimate"] is False
    shop.sql("DROP INDEX payments_customer", shop.roles.owner)
    found = shop.ok("pg_check", version=shop.version)["databases"][shop.name]
    assert found["at_version"] is False
    assert found["catalogue_differences"] == ["index public.payments_customer is missing."]


def test_at_version_after_a_flip_and_not_after_its_undo(shop: Shop) -> None:
    shop.snapshot()
    shop.pay()
    old = shop.oid()
    shop.restore("live", again=True)
    found = shop.ok("pg_check", version=shop.version)["databases"][shop.name]
    assert found["oid"] != old
    assert found["at_version"] is True
    assert found["live_version"] == shop.version
    assert found["rows_since"] == {}
    shop.pay()
    found = shop.ok("pg_check", version=shop.version)["databases"][shop.name]
    assert found["rows_since"]["public.payments"] == 1
    shop.snapshot("later")
    found = shop.ok("pg_check", version="later")["databases"][shop.name]
    assert found["at_version"] is True


BAD: dict[str, tuple[dict[str, t.Any], str]] = {
    "no such point": ({"version": "absent"}, "absent"),
    "another database": ({"queries": [{"name": "x", "sql": "SELECT 1", "database": "other"}]}, "not among databases"),
    "a range without numbers": ({"queries": [{"name": "x", "sql": "SELECT 1", "expect": {"least": 1}}]}, "expect has least"),
    "no database": ({"databases": []}, "databases is empty"),
    "a table that is not there": ({"count_tables": [{"table": "nope"}]}, 'relation "public.nope" does not exist'),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input(shop: Shop, what: str) -> None:
    options, expected = BAD[what]
    assert expected in shop.refused("pg_check", **options)["msg"]


def test_a_closed_database_says_how_to_open_it(shop: Shop) -> None:
    shop.ok("pg_access", access="nobody")
    said = shop.refused("pg_check")["msg"]
    assert "recover.yml opens it" in said and "payops.rollback.pg_access, access=read_write" in said
    shop.ok("pg_access", access="read_write")
