# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three application hosts behind a proxy, and their database: a rollback in batches, maintenance, and a recovery in steps."""

from __future__ import annotations

import typing as t

import pytest

from tests.e2e.behind_proxy import Fleet, deployed
from tests.e2e.harness import GOOD, NEXT
from tests.e2e.played import Played
from tests.lab import ports, traffic


@pytest.fixture(scope="module")
def fleet() -> t.Iterator[Fleet]:
    yield from deployed(Fleet, traffic.HAPROXY, traffic.PROMETHEUS)


def batches(played: Played) -> list[str]:
    return [line.strip() for line in played.text.splitlines() if line.startswith("  Batch ")]


def test_the_plan_reads_like_the_runbook(fleet: Fleet) -> None:
    planned = fleet.play("rollback_gradual", "--check").ok()
    assert batches(planned) == ["Batch 1 of 3 (canary): app1", "Batch 2 of 3: app2", "Batch 3 of 3: app3"]
    for words in (
        "disable new traffic to payments/app1 at proxy1",
        "shift traffic to payments/app2, payments/app3",
        "update app1 to",
        "re-enable",
    ):
        assert words in planned.flat
    assert fleet.running() == [NEXT] * 3


def test_a_gradual_rollback_fails_no_request_and_a_bad_batch_stops_it(fleet: Fleet) -> None:
    with fleet.paying(30):
        fleet.set_variables(**fleet.settings(slow_host="app2"))
        stopped = fleet.play("rollback_gradual")
        stopped.refused("it stopped at batch 2 of 3: app2 is back", "app1 stays at", "app3 was not touched", "response time")
        assert fleet.running() == [GOOD, NEXT, NEXT]
        fleet.as_before()

        fleet.set_variables(**fleet.settings())
        pids = [each["pid"] for each in fleet.hosts[0].pm2.jlist()]
        done = fleet.play("rollback_gradual").ok()  # no version: where it was going
        assert done.outcome == "DONE" and fleet.running() == [GOOD] * 3
        assert [each["pid"] for each in fleet.hosts[0].pm2.jlist()] == pids, "a batch that was done is not touched again"
        fleet.as_before()

        (point,) = fleet.points()
        assert fleet.play("rollback_gradual", version=point).ok().changed == 0
        fleet.play("undo").ok()
        assert fleet.running() == [NEXT] * 3
        fleet.as_before()
    report = fleet.clients_report()
    assert report["acknowledged"] > 100 and report["failed"] == 0, report


def test_an_emergency_closes_the_proxy_and_recover_opens_it_in_steps(fleet: Fleet) -> None:
    fleet.play("rollback_emergency").ok()
    assert (fleet.proxy.get().status, fleet.proxy.get("/webhooks/mpesa/result").status) == (503, 503)
    # A typo must not open everything at once, and a step that is not good goes back to the one before.
    fleet.set_variables(**fleet.settings(rollback_recover_steps=["readonly", "50 %"], rollback_gate_probes=[]))
    fleet.play("recover").refused("rollback_recover_steps of", "'readonly'", "Nothing was touched")
    never = [{"name": "never", "type": "tcp", "host": "127.0.0.1", "port": 1}]
    fleet.set_variables(
        **fleet.settings(rollback_recover_steps=["read_only", 50, 100], rollback_gate_probes=never, rollback_gate_patience=1)
    )
    stopped = fleet.play("recover")
    stopped.refused("With 50 % of the clients it was not good", "never", "0 % are let in now")
    assert stopped.flat.index("Receivers up, nobody else") < stopped.flat.index("50 %")
    assert fleet.proxy.get("/.payops-rollback").text == "payops-share 0"
    fleet.set_variables(**fleet.settings(rollback_recover_steps=["read_only", 50, 100], rollback_gate_probes=[]))
    recovered = fleet.play("recover").ok()
    assert recovered.flat.index("50 %") < recovered.flat.index("100 %")
    fleet.as_before()
    with fleet.paying(20):  # nothing is left that may only read
        fleet.await_payments(40)
        fleet.play("recover").ok()
    assert fleet.clients_report()["failed"] == 0, fleet.clients_report()
    fleet.as_before()


def test_a_rollback_that_was_killed_before_the_proxy_opened_goes_on(fleet: Fleet) -> None:
    """Everything is at the point already, only the proxy answers 503: that is no reason to bring the bad release back."""
    (point,) = fleet.points()
    with fleet.stopped_at("haproxy/share/before", "rollback_full", version=point) as stopped:
        stopped.go_on()  # there it was about to close; the next time it is about to open
        ports.wait_until(stopped.stands, "the proxy's turn", 120)
        stopped.kill()
    assert fleet.running() == [GOOD] * 3 and fleet.proxy.get().status == 503
    assert fleet.play("rollback_full", version=point).ok().outcome == "DONE"
    assert fleet.running() == [GOOD] * 3
    fleet.as_before()
    fleet.play("undo").ok()
    assert fleet.running() == [NEXT] * 3
    fleet.as_before()


def test_a_batch_that_a_dead_run_left_out_of_rotation_comes_back(fleet: Fleet) -> None:
    """Its hosts are at the point, but nobody is sent there: taking over the dead run finishes what it began."""
    (point,) = fleet.points()
    with fleet.paying(30):  # without requests the thresholds have nothing to say
        with fleet.stopped_at("haproxy/weight/before", "rollback_gradual", version=point) as stopped:
            stopped.kill()
        assert fleet.running() == [GOOD, NEXT, NEXT] and fleet.proxy.states()["app1"][0] != 0
        done = fleet.play("rollback_gradual", version=point, takeover=fleet.holder()["run"]).ok()
    assert done.outcome == "DONE" and "gate" in done.text
    assert fleet.running() == [GOOD] * 3
    fleet.as_before()
    fleet.play("undo").ok()
    assert fleet.running() == [NEXT] * 3
