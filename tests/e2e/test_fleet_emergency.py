# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An emergency on five hosts by ssh: how long payments are still taken, and what is stopped where something is broken."""

from __future__ import annotations

import re
import time
import typing as t

import pytest

from tests.e2e.hosts import NEXT, SMALL, Hosts
from tests.lab.fleet import STORE

RUN = f"{STORE}/payments/.run"
# The aim is 5 s and one connection by ssh, on a machine that does nothing else. Here six machines share two processors with whatever else
# is tested, so a test can only notice that somebody waits for a host that does not answer, or calls modules one after another.
BOUND = 40.0


def stop(five: Hosts) -> tuple[t.Any, float]:
    """An emergency while customers pay: what it said, and the seconds from Enter to the last payment that was taken."""
    with five.paying(30, "--retries", "0", "--grace", "5", closed=True):
        begin = time.time()
        played = five.play("rollback_emergency")
        time.sleep(1)
    return played, five.last_payment() - begin


def stopped(five: Hosts, *names: str) -> None:
    """Whatever the proxy says: nobody is left who could take a payment."""
    for name in names:
        assert five.hosts[name].answers()[0] == 0, f"{name} still answers"
        assert "online" not in five.hosts[name].pm2("jlist"), f"PM2 of {name} runs something"
    assert five.entrance.answers("/health")[0] == 503
    assert five.server.sql("SELECT datallowconn FROM pg_database WHERE datname = 'payments'") == [(False,)]


@pytest.mark.full
def test_five_hosts_are_stopped_at_once(five: Hosts) -> None:
    played, seconds = stop(five)
    assert played.ok().outcome == "STOPPED"
    five.shown(f"emergency: the last payment was taken {seconds:.1f} s after Enter")
    stopped(five, "app1", "app2", "app3")
    assert not five.locks() and seconds < BOUND
    # one call stops a host, one gives the lock back
    calls = re.findall(r"^TASK \[(.*emergency \| (?:Write|Take).*|.*: stop \| .*)\] \*+$", played.text, re.MULTILINE)
    assert len({name for name in calls if "Take" not in name}) == 4, calls
    assert five.play("recover").ok().outcome == "DONE"
    five.all_at(NEXT)
    five.payments_are_safe()


def test_a_damaged_store_a_full_one_and_a_host_that_hangs_keep_nothing_from_being_stopped(five: Hosts) -> None:
    damaged, full, hanging = (five.hosts[name] for name in ("app1", SMALL, "app2"))
    damaged.run("sh", "-c", f"echo '{{' > {RUN}/lock.json; echo '{{' > {RUN}/pm2.state.json")
    full.run("sh", "-c", f"cat /dev/zero > {STORE}/filler; true")
    five.engine.client().pause(hanging.id)
    try:
        played, seconds = stop(five)
        five.shown(f"emergency with three broken hosts: the last payment was taken {seconds:.1f} s after Enter")
    finally:
        five.engine.client().unpause(hanging.id)
    assert played.rc != 0 and seconds < BOUND
    stopped(five, "app1", SMALL)
    assert "pm2 on app1 is stopped, but this could not be written down there" in played.flat and "lock.json is damaged" in played.flat
    assert "No space left on device" in played.flat
    assert re.search(r"app2 +pm2 +NOT STOPPED", played.text) and "NOT STOPPED: pm2 on app2" in played.flat
    # what hung takes no payment either: its database is closed
    hanging.pm2("stop", "all")
    damaged.run("rm", f"{RUN}/lock.json", f"{RUN}/pm2.state.json")
    full.run("rm", f"{STORE}/filler")
    assert five.play("recover").ok().outcome == "DONE"
    five.all_at(NEXT)
    five.payments_are_safe()
