# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After the rollback the service runs the point's image, the data is the point's, and no payment is lost."""

from __future__ import annotations

from tests.lab.scenario import current


def test_the_service_runs_the_first_image() -> None:
    scenario = current()
    assert scenario.compose is not None and scenario.compose.version() == "1.0.0"
    client = scenario.engine.client()
    (container,) = client.containers(filters={"label": "com.docker.compose.project=payments"})
    assert container["State"] == "running" and container["ImageID"] == scenario.engine.names("payments/api:latest")
    assert scenario.runs("db1") == ["backup done", "full done", "full unchanged"]


def test_customers_pay_again_and_no_payment_is_lost() -> None:
    scenario = current()
    scenario.await_payments()
    found = scenario.check_payments()
    print(found.sentence(), f"{len(scenario.failures())} requests failed meanwhile")
    assert found.ok and found.acknowledged > 20, found.sentence()
