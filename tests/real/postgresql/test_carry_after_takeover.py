# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run is stopped between its flip and its carrying back, and another one goes on: the rows are owed until somebody carries them."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._lock import close_run, open_run
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths
from tests.lab.postgres import Cluster
from tests.lab.roles import Role, Roles

from .restore_helpers import Shop

LEDGERS: list[dict[str, t.Any]] = [{"table": "payments"}, {"table": "idempotency_keys"}]


@pytest.fixture
def shop(cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path, operator: Role | None) -> Shop:
    shop = Shop(cluster, roles, database, tmp_path, operator).fill()
    shop.snapshot()
    return shop


def begin(shop: Shop, run: str, intent: str = "full", version: str | None = None) -> str:
    """Open a run as the transaction role does; an emergency takes the lock by force."""
    open_run(Paths(str(shop.store), "shop"), {"run": run, "intent": intent, "version": version or shop.version, "who": "amina"})
    return run


def end(shop: Shop, run: str, outcome: str) -> None:
    close_run(Paths(str(shop.store), "shop"), run, outcome)


def emergency(shop: Shop, run: str = "e1") -> None:
    end(shop, begin(shop, run, "emergency"), "stopped")


def roll_back(shop: Shop, run: str, version: str | None = None, carry: bool = True) -> dict[str, t.Any]:
    """Prepare, flip, carry back, as the role does; what prepare answered, and what was carried."""
    version = version or shop.version
    begin(shop, run, version=version)
    told: dict[str, t.Any] = shop.restore("staged", run_id=run, version=version, ledgers=LEDGERS)["databases"][shop.name]
    told["flip"] = shop.restore("live", run_id=run, version=version, ledgers=LEDGERS)
    if carry:
        told["carried"] = shop.ok("pg_carry_back", ledgers=LEDGERS, run_id=run)
        end(shop, run, "done")
    return told


def test_the_next_run_to_the_same_point_carries_what_is_owed(shop: Shop) -> None:
    paid = {shop.pay(10), shop.pay(20)}
    shop.sql("UPDATE payments SET note = 'seen' WHERE id = 1")
    shop.sql("INSERT INTO audit (what) VALUES ('no ledger')")
    roll_back(shop, "r1", carry=False)
    emergency(shop)
    assert not paid & shop.payments(shop.name)

    told = roll_back(shop, "r2")
    assert told["at_version"] and told["to_carry"]
    assert told["rows_waiting"] == {"public.payments": 3, "public.audit": 3}
    assert told["flip"]["kept"][shop.name] == told["waits_in"][0] == told["carried"]["left_in"][shop.name]
    assert "An interrupted run left rows newer than the point in" in told["flip"]["msg"]
    assert paid <= shop.payments(shop.name)
    assert told["carried"]["carried"][f"{shop.name}.public.payments"] == 2
    assert told["carried"]["left"][f"{shop.name}.public.payments"]["changed"] == 1
    assert told["carried"]["compared"] == {shop.name: "rows written since"}

    later = roll_back(shop, "r3")
    assert not later["to_carry"] and later["waits_in"] == [] and not later["carried"]["changed"]
    assert later["carried"]["left_in"] == {}, "a run that came to its end owes nothing"


def test_the_next_run_to_another_point_carries_what_is_owed(shop: Shop) -> None:
    """Two flips lie between the rows and the live database then."""
    first, second = shop.version, "20231202_120000"
    paid = {shop.pay(1)}
    shop.snapshot(second)
    paid.add(shop.pay(2))
    roll_back(shop, "r1", second, carry=False)
    paid.add(shop.pay(3))  # somebody started the application in between
    emergency(shop)
    told = roll_back(shop, "r2", first)
    assert not told["at_version"] and told["rows_waiting"]["public.payments"] == 2
    assert paid <= shop.payments(shop.name)
    assert len(told["carried"]["left_in"][shop.name].split(", ")) == 2
    assert told["carried"]["compared"] == {shop.name: "all rows"}
    assert told["carried"]["left"][f"{shop.name}.public.payments"] == {"new": 0, "changed": 0, "deleted": 0, "conflicting": 0}


def test_a_run_that_goes_on_itself_knows_what_it_owes_and_what_not(shop: Shop) -> None:
    """rollback_database has nothing to flip any more then, so nothing else would bring it to carry."""
    roll_back(shop, "r1", carry=False)
    told = shop.restore("staged", run_id="r1", ledgers=LEDGERS)["databases"][shop.name]
    assert told["at_version"] and told["to_carry"]
    assert not shop.restore("staged", run_id="r1")["databases"][shop.name]["to_carry"], "no ledgers, nothing to carry"
    shop.ok("pg_carry_back", ledgers=LEDGERS, run_id="r1")
    assert not shop.restore("staged", run_id="r1", ledgers=LEDGERS)["databases"][shop.name]["to_carry"]


def test_an_undo_that_was_interrupted_owes_too(shop: Shop) -> None:
    roll_back(shop, "r1")
    between = shop.pay(5)
    begin(shop, "u1", "undo")
    shop.restore("previous", run_id="u1", undo_run=["r1"])
    emergency(shop)
    begin(shop, "r2")
    assert not shop.ok("pg_carry_back", ledgers=LEDGERS, run_id="r2", source="undone")["changed"], "a run that fails touches nothing"
    end(shop, "r2", "failed")
    assert between not in shop.payments(shop.name)
    begin(shop, "u2", "undo")
    shop.restore("previous", run_id="u2", undo_run=["r1"])
    shop.ok("pg_carry_back", ledgers=LEDGERS, run_id="u2", source="undone")
    end(shop, "u2", "done")
    assert between in shop.payments(shop.name)


def test_a_run_that_fails_before_its_flip_carries_nothing(shop: Shop) -> None:
    paid = shop.pay(5)
    roll_back(shop, "r1", carry=False)
    emergency(shop)
    begin(shop, "r2")
    shop.restore("previous", run_id="r2")
    assert not shop.ok("pg_carry_back", ledgers=LEDGERS, run_id="r2", source="undone")["changed"]
    end(shop, "r2", "failed")
    assert paid not in shop.payments(shop.name)
    assert roll_back(shop, "r3")["carried"]["changed"]
    assert paid in shop.payments(shop.name)


def test_complete_does_not_drop_what_is_owed(shop: Shop) -> None:
    paid = shop.pay(5)
    roll_back(shop, "r1", carry=False)
    emergency(shop)
    begin(shop, "c1", "complete")
    refused = shop.refused("pg_restore", state="complete", run_id="c1")
    end(shop, "c1", "failed")
    assert [each["code"] for each in refused["blockers"]] == ["owed"]
    assert f"rollback_full.yml -e version={shop.version}" in refused["msg"] and "undo.yml" in refused["msg"]
    assert paid in shop.reachable()
    roll_back(shop, "r2")
    begin(shop, "c2", "complete")
    assert shop.restore("complete", run_id="c2")["changed"]
    assert paid in shop.payments(shop.name)


def test_what_was_carried_once_is_not_carried_again(shop: Shop) -> None:
    """The application may have deleted a carried row since: it must not come back with a later rollback."""
    paid = shop.pay(10)
    shop.sql("INSERT INTO idempotency_keys VALUES ('expires', %s, '{}')", values=(paid,))
    roll_back(shop, "r1", carry=False)
    emergency(shop)
    begin(shop, "c1", "recover")
    first = shop.ok("pg_carry_back", ledgers=LEDGERS, run_id="c1")
    assert first["carried"][f"{shop.name}.public.payments"] == 1
    again = shop.ok("pg_carry_back", ledgers=LEDGERS, run_id="c1")
    assert not again["changed"] and again["actions"] == [f"{shop.name}: its rows were carried back already"]
    end(shop, "c1", "done")

    shop.sql("DELETE FROM idempotency_keys WHERE key = 'expires'")
    shop.sql("DELETE FROM payments WHERE id = %s", values=(paid,))
    shop.snapshot("later")
    new = shop.pay(99)
    told = roll_back(shop, "r2", "later")
    assert told["carried"]["carried"] == {f"{shop.name}.public.payments": 1, f"{shop.name}.public.idempotency_keys": 0}
    assert told["carried"]["left_in"] == told["flip"]["kept"]
    assert new in shop.payments(shop.name) and paid not in shop.payments(shop.name)
