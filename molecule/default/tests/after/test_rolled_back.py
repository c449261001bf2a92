# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After the rollback code, data and PM2's own list are those of the point, and no payment is lost."""

from __future__ import annotations

import json
import typing as t

from tests.lab.scenario import current

testinfra_hosts = ["ansible://app1"]


def test_the_host_runs_the_first_release(host: t.Any) -> None:
    assert '"version": "1.0.0"' in host.file("/srv/payments/api/package.json").content_string
    listed = json.loads(host.check_output("sudo -u payments PM2_HOME=/home/payments/.pm2 /opt/pm2/bin/pm2 jlist --silent"))
    assert sorted((each["name"], each["pm2_env"]["status"]) for each in listed) == [("kejayangu-api", "online")] * 2
    assert current().runs("app1") == ["backup done", "full done", "full unchanged"]


def test_customers_pay_again_and_no_payment_is_lost() -> None:
    scenario = current()
    scenario.await_payments()
    assert scenario.fleet.hosts["app1"].answers()[0] == 200
    found = scenario.check_payments()
    print(found.sentence(), f"{len(scenario.failures())} requests failed meanwhile")
    assert found.ok and found.acknowledged > 20, found.sentence()
