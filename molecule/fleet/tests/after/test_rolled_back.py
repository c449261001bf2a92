# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All three hosts run the point's release, and no request failed on the way."""

from __future__ import annotations

import typing as t

import pytest

from tests.lab.scenario import current


@pytest.mark.parametrize("name", ["app1", "app2", "app3"])
def test_each_host_runs_the_first_release(name: str) -> None:
    scenario = current()
    assert scenario.fleet.hosts[name].version() == "1.0.0"
    assert scenario.runs(name) == ["backup done", "gradual done", "gradual unchanged"]


def test_no_request_failed_and_no_payment_is_lost() -> None:
    scenario = current()
    failed = scenario.between("begin", "end", scenario.failures())
    paid: list[t.Any] = scenario.between("begin", "end", scenario.payments())
    print(f"{len(paid)} payments during the rollback, {len(failed)} failed")
    assert not failed and len(paid) > 20, failed[:3]
    found = scenario.check_payments()
    assert found.ok, found.sentence()
