# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rolled back out of the emergency: everybody pays, nothing is lost."""

from __future__ import annotations

from tests.lab.scenario import current


def test_customers_pay_again_and_no_payment_is_lost() -> None:
    scenario = current()
    assert scenario.fleet.versions() == {"proxy1": "answers 200", "app1": "1.0.0", "app2": "1.0.0", "app3": "1.0.0", "db1": "1.0.0"}
    scenario.await_payments()
    found = scenario.check_payments()
    assert found.ok, found.sentence()
