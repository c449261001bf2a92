# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody stops a rollback after its databases were exchanged and before the payments were carried over. They are not forgotten."""

from __future__ import annotations

import pytest

from tests.e2e.harness import GOOD, NEXT, World

PLACE = "postgresql/carry/before"


def pay(world: World, reference: str) -> None:
    """A payment that was taken after the point."""
    world.sql(
        "INSERT INTO payments (customer_id, reference, amount, provider) SELECT id, %s, 10, 'mpesa' FROM customers LIMIT 1", (reference,)
    )


def paid(world: World, reference: str) -> bool:
    return world.sql("SELECT count(*) FROM payments WHERE reference = %s", (reference,)) == [(1,)]


@pytest.mark.full
def test_an_emergency_takes_over_between_flip_and_carrying_back(deployed: World) -> None:
    (point,) = deployed.points()
    pay(deployed, "owed-1")
    with deployed.stopped_at(PLACE, "rollback_full", version=point):
        done = deployed.play("rollback_emergency", version=point, reason="it takes too long").ok()
    assert done.outcome == "DONE"
    deployed.all_at(GOOD)
    assert paid(deployed, "owed-1"), done.text[-4000:]
    assert "kejayangu.public.payments" in done.text and "CARRIED BACK" in done.text, done.text[-4000:]
    again = deployed.play("rollback_full", version=point).ok()
    assert again.changed == 0 and "CARRIED BACK" not in again.text, again.text[-4000:]
    deployed.play("undo").ok()
    deployed.all_at(NEXT)
    assert paid(deployed, "owed-1")


@pytest.mark.parametrize("way", ["the same command", "an emergency"])
@pytest.mark.full
def test_the_databases_alone_have_nothing_to_flip_any_more_and_are_still_owed_their_rows(deployed: World, way: str) -> None:
    (point,) = deployed.points()
    pay(deployed, f"owed-{way}")
    with deployed.stopped_at(PLACE, "rollback_database", version=point, accept_schema_change=True) as stopped:
        stopped.kill()
    if way == "an emergency":
        assert deployed.play("rollback_emergency").ok().outcome == "STOPPED"
        deployed.play("complete").refused("was interrupted before it carried rows back")
        deployed.play("recover", rollback_pm2_wait_seconds=5)  # 1.1.0 on the schema of 1.0.0: how healthy that is does not matter here
    done = deployed.play("rollback_database", version=point, accept_schema_change=True).ok()
    assert paid(deployed, f"owed-{way}"), done.text[-4000:]
    deployed.play("undo").ok()
    assert paid(deployed, f"owed-{way}")
    deployed.all_at(NEXT)
