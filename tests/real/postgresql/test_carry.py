# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of ledgers go back, everything else is told, nothing twice."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from tests.lab.postgres import Cluster
from tests.lab.roles import Roles

from .restore_helpers import Shop

LEDGERS: list[dict[str, t.Any]] = [{"table": "idempotency_keys", "key": ["key"]}, {"table": "payments"}]


@pytest.fixture(params=["superuser", "owner"])
def shop(request: pytest.FixtureRequest, cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path) -> Shop:
    shop = Shop(cluster, roles, database, tmp_path, roles.operator if request.param == "owner" else None).fill()
    shop.snapshot()
    return shop


def carry(shop: Shop, **options: t.Any) -> dict[str, t.Any]:
    return shop.ok("pg_carry_back", **{"ledgers": LEDGERS, **options})


def key(shop: Shop, table: str) -> str:
    return f"{shop.name}.public.{table}"


def test_new_rows_go_back_and_the_rest_is_told(shop: Shop) -> None:
    first, second = shop.pay(10), shop.pay(20)
    shop.sql("INSERT INTO idempotency_keys VALUES ('new', %s, '{}')", values=(second,))
    shop.sql("UPDATE payments SET note = 'seen' WHERE id = 1")
    shop.sql("UPDATE payments SET note = 'seen' WHERE id = 2")
    shop.sql("DELETE FROM idempotency_keys WHERE key IN ('k7', 'k8', 'k9')")
    shop.restore("live")
    audits = shop.count("audit")

    planned = carry(shop, check=True)
    assert planned["carried"] == {key(shop, "payments"): 2, key(shop, "idempotency_keys"): 1}
    assert shop.count() == 1000

    result = carry(shop)
    assert result["changed"]
    assert result["carried"] == {key(shop, "payments"): 2, key(shop, "idempotency_keys"): 1}
    assert result["left"] == {
        key(shop, "payments"): {"new": 0, "changed": 2, "deleted": 0, "conflicting": 0},
        key(shop, "idempotency_keys"): {"new": 0, "changed": 0, "deleted": 3, "conflicting": 0},
    }
    assert result["compared"] == {shop.name: "rows written since"}
    assert {first, second} <= shop.payments(shop.name)
    assert shop.sql("SELECT amount, cents FROM payments WHERE id = %s", values=(second,)) == [(20, 2000)]
    assert shop.count("audit") == audits, "a trigger fired for a payment that was taken long ago"
    assert shop.sql("SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'paid'") == [("O",)]
    assert result["left_in"][shop.name] in shop.family()

    again = carry(shop)
    assert not again["changed"]
    assert again["left"] == result["left"]
    assert shop.pay() > second + 9000


def test_a_flip_carries_in_the_same_call_and_so_does_the_way_back(shop: Shop) -> None:
    before = shop.pay(10)
    told = shop.restore("live", check=True, ledgers=LEDGERS, carry=True)
    assert "carried_back" not in told
    there = shop.restore("live", ledgers=LEDGERS, carry=True)
    assert there["carried_back"]["carried"] == {key(shop, "payments"): 1, key(shop, "idempotency_keys"): 0}
    assert there["carried_back"]["left_in"][shop.name] == there["kept"][shop.name]
    assert [step["step"] for step in there["steps"]][-1] == "carry"
    assert before in shop.payments(shop.name)

    after = shop.pay(20)
    back = shop.restore("previous", ledgers=LEDGERS, carry=True)
    assert back["carried_back"]["carried"][key(shop, "payments")] == 1
    assert {before, after} <= shop.payments(shop.name)
    again = shop.restore("previous", ledgers=LEDGERS, carry=True)
    assert not again["changed"]
    assert again["carried_back"]["carried"] == {key(shop, "payments"): 0, key(shop, "idempotency_keys"): 0}


def test_a_ledger_is_spelt_as_the_counts_spell_tables(shop: Shop) -> None:
    """Else a name that needs quotes stands in the report twice: once as carried back, and once as left behind."""
    shop.sql(
        'CREATE TABLE "Zahlung 1" (id serial PRIMARY KEY); CREATE TABLE "a.b" (id int PRIMARY KEY REFERENCES "Zahlung 1")', shop.roles.owner
    )
    shop.snapshot("odd")
    shop.sql('INSERT INTO "Zahlung 1" VALUES (1), (2); INSERT INTO "a.b" VALUES (2)', shop.roles.owner)
    ledgers = [{"table": "a.b"}, {"table": "Zahlung 1"}]
    staged = shop.restore("staged", version="odd", ledgers=ledgers)
    there = shop.restore("live", version="odd", ledgers=ledgers, carry=True)
    names = {'public."Zahlung 1"': 2, 'public."a.b"': 1}
    assert staged["databases"][shop.name]["rows_since"] == names
    assert there["carried_back"]["carried"] == {f"{shop.name}.{name}": number for name, number in names.items()}
    assert shop.sql('SELECT count(*) FROM "a.b"') == [(1,)]
    shop.restore("previous", ledgers=ledgers, carry=True)
    done = shop.ok("pg_restore", state="complete")
    assert {table for each in done["dropped"] for table in each["only_there"]} <= set(names)


def test_triggers_fire_on_request(shop: Shop) -> None:
    shop.pay()
    shop.restore("live")
    audits = shop.count("audit")
    assert carry(shop, fire_triggers=True)["changed"]
    assert shop.count("audit") == audits + 1


def test_a_number_used_on_both_sides_is_shown_and_left(shop: Shop) -> None:
    lost, kept_row, orphan = shop.pay(10, "A1"), shop.pay(11, "A2"), None
    shop.sql("INSERT INTO customers (email) VALUES ('new@example.com')")
    orphan = shop.sql("INSERT INTO payments (customer_id, amount) SELECT max(id), 5 FROM customers RETURNING id")[0][0]
    shop.restore("live")
    shop.pay(99, "A1")  # the application started too early: the invoice number is taken
    shop.sql("INSERT INTO payments (id, customer_id, amount) OVERRIDING SYSTEM VALUE VALUES (%s, 1, 77)", values=(kept_row,))
    result = carry(shop)
    assert result["carried"][key(shop, "payments")] == 0
    assert result["left"][key(shop, "payments")]["conflicting"] == 3
    text = " ".join(result["examples"])
    assert f"payments {lost}: duplicate key value violates unique constraint" in text
    assert f"payments {kept_row}: the live row was written after the flip" in text
    assert f"payments {orphan}: insert or update on table" in text
    assert shop.sql("SELECT amount FROM payments WHERE id = %s", values=(kept_row,)) == [(77,)]
    assert {lost, kept_row, orphan} <= shop.payments(result["left_in"][shop.name])


def test_one_refused_row_does_not_keep_the_others(shop: Shop) -> None:
    ids = [shop.pay(invoice=f"B{number}") for number in range(40)]
    shop.restore("live")
    shop.pay(invoice="B17")
    result = carry(shop)
    assert result["carried"][key(shop, "payments")] == 39
    assert set(ids) - shop.payments(shop.name) == {ids[17]}


def test_rows_written_between_flip_and_undo_go_the_other_way(shop: Shop) -> None:
    before = shop.pay()
    shop.restore("live")
    carry(shop)
    between = shop.pay(33)
    shop.restore("previous")
    assert between not in shop.payments(shop.name)
    result = carry(shop)
    assert result["carried"] == {key(shop, "payments"): 1, key(shop, "idempotency_keys"): 0}
    assert {before, between} <= shop.payments(shop.name)
    assert result["left"][key(shop, "payments")] == {"new": 0, "changed": 0, "deleted": 0, "conflicting": 0}
    assert not carry(shop)["changed"]


def test_a_second_restore_of_the_same_point_compares_all_rows(shop: Shop) -> None:
    """The live database no longer descends from the point: transaction numbers say nothing then."""
    shop.restore("live")
    shop.pay()
    new = shop.pay()
    result = shop.restore("live", again=True)
    assert result["changed"]
    assert result["databases"][shop.name]["rows_since"]["public.payments"] == 2
    result = carry(shop)
    assert result["carried"][key(shop, "payments")] == 2
    assert new in shop.payments(shop.name)


def test_columns_of_both_versions_are_carried(shop: Shop) -> None:
    shop.sql("ALTER TABLE payments ADD COLUMN channel text DEFAULT 'web'", shop.roles.owner)
    new = shop.pay(12)
    shop.restore("live")
    assert carry(shop)["carried"][key(shop, "payments")] == 1
    assert shop.sql("SELECT amount FROM payments WHERE id = %s", values=(new,)) == [(12,)]


def test_what_is_no_ledger_is_refused(shop: Shop) -> None:
    shop.pay()
    shop.restore("live")
    assert "no primary key" in shop.refused("pg_carry_back", ledgers=[{"table": "audit"}])["msg"]
    assert "is no table of the live database" in shop.refused("pg_carry_back", ledgers=[{"table": "nothing"}])["msg"]
    assert "declared twice" in shop.refused("pg_carry_back", ledgers=[{"table": "payments"}, {"table": "payments"}])["msg"]


def test_without_a_flip_there_is_nothing_to_carry(shop: Shop) -> None:
    assert not carry(shop)["changed"]
