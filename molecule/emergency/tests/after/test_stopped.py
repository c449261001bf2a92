# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nobody is left who could take a payment, and the customers' own file says since when."""

from __future__ import annotations

import typing as t

import pytest

from tests.lab.scenario import current

testinfra_hosts = ["ansible://apps"]


def test_the_application_is_stopped(host: t.Any) -> None:
    assert "online" not in host.check_output("sudo -u payments PM2_HOME=/home/payments/.pm2 /opt/pm2/bin/pm2 jlist --silent")


def test_proxy_and_database_are_closed() -> None:
    fleet = current().fleet
    assert [each.answers()[0] for each in fleet.apps] == [0, 0, 0]
    assert fleet.entrance.answers()[0] == 503
    assert fleet.server.sql("SELECT datallowconn FROM pg_database WHERE datname = 'payments'") == [(False,)]


def test_payments_end_soon_after_enter(record_property: t.Callable[[str, object], None]) -> None:
    scenario = current()
    last = max(each.time for each in scenario.payments()) - scenario.told["marks"]["begin"]
    record_property("seconds", last)
    print(f"the last payment was taken {last:.1f} s after the playbooks began")
    assert last < 40, "somebody waits for somebody"


@pytest.mark.parametrize("name", ["proxy1", "app1", "db1"])
def test_the_same_command_again_is_written_down(name: str) -> None:
    assert current().runs(name) == ["backup done", "emergency stopped", "emergency stopped"]
