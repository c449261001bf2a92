# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same with nginx in front, which knows no commands: files that it includes, and reloads."""

from __future__ import annotations

import typing as t

import pytest

from tests.client.report import Failure, read
from tests.e2e.behind_proxy import BehindNginx, deployed
from tests.e2e.harness import GOOD, NEXT
from tests.lab.nginx import NGINX


@pytest.fixture(scope="module")
def fleet() -> t.Iterator[BehindNginx]:
    yield from deployed(BehindNginx, NGINX)


def test_a_gradual_rollback_fails_no_request(fleet: BehindNginx) -> None:
    with fleet.paying(30):
        done = fleet.play("rollback_gradual").ok()
        assert done.outcome == "DONE" and fleet.running() == [GOOD] * 3
        fleet.as_before()
        (point,) = fleet.points()
        assert fleet.play("rollback_gradual", version=point).ok().changed == 0
        fleet.play("undo").ok()
        assert fleet.running() == [NEXT] * 3
        fleet.as_before()
    # A reload closes the connections that customers keep open without a request; who sends at that very moment has to send again.
    failures = read(fleet.clients / "failures.jsonl", Failure)
    other = [each for each in failures if each.new_connection or each.error.startswith("HTTP")]
    assert fleet.clients_report()["acknowledged"] > 100 and not other and len(failures) < 5, failures


def test_an_emergency_closes_the_proxy_and_recover_opens_it_in_steps(fleet: BehindNginx) -> None:
    fleet.play("rollback_emergency").ok()
    answer = fleet.proxy.get()
    assert (answer.status, fleet.proxy.get("/webhooks/mpesa/result").status) == (503, 503)
    fleet.set_variables(**fleet.settings(), rollback_recover_steps=["read_only", 50, 100])
    recovered = fleet.play("recover").ok()
    assert recovered.flat.index("Receivers up, nobody else") < recovered.flat.index("50 %") < recovered.flat.index("100 %")
    fleet.as_before()
    with fleet.paying(20):
        fleet.await_payments(40)
    assert fleet.clients_report()["failed"] == 0, fleet.clients_report()
