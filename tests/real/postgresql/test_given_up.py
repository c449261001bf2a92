# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""complete drops what all flips and undos replaced, and says first which rows are only there."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from tests.lab.postgres import Cluster, ident
from tests.lab.roles import Role, Roles

from .restore_helpers import Shop, forge

LEDGERS: list[dict[str, t.Any]] = [{"table": "payments"}, {"table": "idempotency_keys"}]


@pytest.fixture
def shop(cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path, operator: Role | None) -> Shop:
    shop = Shop(cluster, roles, database, tmp_path, operator).fill()
    shop.sql("CREATE TABLE log (at date, what text, more jsonb)", roles.owner)
    shop.sql("INSERT INTO log SELECT '2023-01-01', 'same', '{\"a\": 1}' FROM generate_series(1, 5)")
    shop.snapshot()
    return shop


def by_kind(result: dict[str, t.Any]) -> dict[str, dict[str, int]]:
    return {each["kind"]: each["only_there"] for each in result["dropped"]}


def test_rows_that_are_only_in_a_replaced_database_are_told_first(shop: Shop) -> None:
    shop.pay()
    shop.pay()
    shop.sql("UPDATE customers SET email = 'new@example.com' WHERE id = 1")
    shop.sql("INSERT INTO log VALUES ('2023-01-01', 'same', '{\"a\": 1}'), ('2023-01-02', 'other', NULL)")
    shop.sql("SELECT lo_create(4711)", shop.roles.app)
    shop.restore("live", ledgers=LEDGERS)
    shop.ok("pg_carry_back", ledgers=LEDGERS)
    shop.pay(3)
    before = shop.family()

    planned = shop.run("pg_restore", check=True, state="complete")
    expected = {"public.audit": 2, "public.customers": 1, "public.log": 2, "large objects": 1}
    assert by_kind(planned) == {"kept": expected}, planned
    assert "6 row(s) that were only there would be gone" in planned["msg"]
    assert "1 row(s) of public.customers" in planned["plan"][0] and "are only there and will be gone" in planned["plan"][0]
    assert shop.family() == before

    done = shop.restore("complete")
    assert by_kind(done) == {"kept": expected}
    assert "6 row(s) that were only there are gone" in done["msg"]
    assert list(shop.family()) == [shop.name]


def test_every_flip_and_undo_is_told(shop: Shop) -> None:
    shop.pay()
    shop.restore("live")
    shop.pay()
    shop.pay()
    shop.restore("previous")
    shop.restore("staged")
    done = shop.run("pg_restore", check=True, state="complete")
    assert by_kind(done) == {"undone": {"public.payments": 2, "public.audit": 2}, "staged": {}}
    assert sum("it holds no row of its own" in line for line in done["plan"]) == 1
    shop.restore("live")
    done = shop.restore("complete")
    assert sorted(by_kind(done)) == ["kept", "undone"]
    assert by_kind(done)["kept"]["public.payments"] == 1


def test_without_common_history_everything_is_compared(shop: Shop) -> None:
    """Two points one after the other: numbers of transactions say nothing about the second replaced database."""
    first = shop.pay()
    shop.snapshot("second")
    shop.restore("live", version="second")
    shop.pay()
    shop.restore("live")
    done = shop.restore("complete")
    assert len(done["dropped"]) == 2
    assert sorted(each["only_there"].get("public.payments", 0) for each in done["dropped"]) == [0, 2], done["dropped"]
    assert first not in shop.payments(shop.name)


def test_a_large_object_that_was_written_since_is_only_there(shop: Shop) -> None:
    for oid in (4711, 4712):
        shop.sql(f"SELECT lo_from_bytea({oid}, 'receipt')", shop.roles.owner)
    shop.snapshot("second")
    shop.sql("SELECT lo_put(4711, 0, 'receipt that the customer signed')", shop.roles.owner)
    shop.restore("live", version="second")
    assert by_kind(shop.run("pg_restore", check=True, state="complete")) == {"kept": {"large objects": 1}}


HIDDEN = "EXECUTE ON FUNCTION pg_control_system() {} PUBLIC"


@pytest.mark.parametrize("how", ["another timeline", "a hidden timeline", "a hidden identifier", "an older point"])
def test_a_point_of_another_history_has_no_transaction_numbers_to_trust(shop: Shop, how: str) -> None:
    """A server restored to a moment and a clone have the same identifier and OIDs, and have counted on in another way."""
    if how == "a hidden identifier":
        shop.operator = shop.roles.operator  # from a superuser nothing is hidden
        shop.cluster.sql("REVOKE " + HIDDEN.format("FROM"))
    try:
        shop.version = "second"
        shop.snapshot(shop.version)
        paid, later = shop.pay(10), int(shop.sql("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")[0][0])

        def change(facts: dict[str, t.Any]) -> None:
            """What the other one had counted to when the point was taken, which is beyond the payment here."""
            facts["databases"][shop.name]["snapshot"] = f"{later}:{later}:"
            if how == "a hidden identifier":
                assert facts["system_identifier"] is None
            elif how == "an older point":
                facts.pop("timeline", None)
            else:
                facts["timeline"] = None if how == "a hidden timeline" else 99

        forge(shop, change)
        shop.sql("INSERT INTO customers (email) VALUES ('z')")
        planned = shop.run("pg_restore", check=True, state="staged", version=shop.version)
        shop.restore("live")
        told = by_kind(shop.run("pg_restore", check=True, state="complete"))["kept"]
        carried = shop.ok("pg_carry_back", ledgers=LEDGERS)
    finally:
        shop.cluster.sql("GRANT " + HIDDEN.format("TO"))
    known = how == "an older point"
    assert told.get("public.payments", 0) == (0 if known else 1)
    assert (paid in shop.payments(shop.name)) == (not known)
    assert carried["compared"] == {shop.name: "rows written since" if known else "all rows"}
    assert any("this server's own history" in note for note in planned["notes"]) == (not known)


@pytest.mark.parametrize("history", ["the point's", "another"])
def test_rows_that_the_live_columns_cannot_hold_do_not_stop_complete(shop: Shop, history: str) -> None:
    """As a release that adds a label to a type leaves them."""
    shop.sql("CREATE TYPE kind AS ENUM ('card', 'cash'); CREATE TABLE orders (id int PRIMARY KEY, kind kind)", shop.roles.owner)
    shop.snapshot("second")
    shop.version = "second"
    if history == "another":
        shop.restore("live")
    shop.sql("ALTER TYPE kind ADD VALUE 'mobile'", shop.roles.owner)
    shop.sql("INSERT INTO orders VALUES (1, 'mobile'), (2, 'card')", shop.roles.owner)
    shop.pay()
    shop.restore("live")
    planned = shop.run("pg_restore", check=True, state="complete")
    assert {"public.orders": 2, "public.payments": 1, "public.audit": 1} in [each["only_there"] for each in planned["dropped"]], planned
    assert "at most 2 row(s) of public.orders" in " ".join(planned["plan"])
    shop.restore("complete")
    assert list(shop.family()) == [shop.name]


@pytest.mark.parametrize("operator", ["owner"], indirect=True)  # a superuser can count everything
def test_what_cannot_be_counted_is_not_dropped(shop: Shop) -> None:
    shop.pay()
    kept = shop.restore("live")["kept"][shop.name]
    with shop.opened(kept):
        shop.sql("ALTER TABLE payments OWNER TO CURRENT_USER", name=kept)
        roles = ", ".join(ident(role.name) for role in (shop.roles.owner, shop.roles.app, shop.roles.migrator, shop.roles.readonly))
        shop.sql(f"REVOKE ALL ON payments FROM PUBLIC, {roles}", name=kept)
    refused = shop.refused("pg_restore", state="complete")
    assert [each["code"] for each in refused["blockers"]] == ["uncounted"]
    assert "permission denied" in refused["msg"]
    assert kept in shop.family()
