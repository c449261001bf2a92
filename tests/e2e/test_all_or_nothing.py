# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Five hosts by ssh: whatever happens to one of them, all end on the version that they had, and who could not is named."""

from __future__ import annotations

import contextlib
import typing as t

import pytest

from tests.e2e.hosts import GOOD, NEXT, Hosts
from tests.e2e.played import Played
from tests.lab import ports


@contextlib.contextmanager
def in_the_middle_of_its_flip(five: Hosts, name: str) -> t.Iterator[t.Callable[[], Played]]:
    """A full rollback that stands still on one host, while the others flip; what is yielded lets it go on, and waits for its end."""
    host = five.hosts[name]
    host.break_at("pm2/flip/during=wait:/tmp/fault")
    process = five.start_play("rollback_full")
    try:
        ports.wait_until(lambda: host.succeeds("test", "-s", "/tmp/fault"), "the middle of the flip", 240, 0.3)
        ports.wait_until(lambda: {five.hosts[each].version() for each in ("app1", "app3")} == {GOOD}, "the flip of the others", 120, 0.3)
        five.shown(f"in the middle of the flip of {name}")
        yield lambda: five.finish(process)
    finally:
        if process.poll() is None:
            process.kill()


def is_lost(five: Hosts, played: Played, name: str) -> None:
    """Everybody else is back; this one is named with the command that repairs it."""
    five.shown(f"after the rollback failed on {name}")
    played.refused(f"{name} could not go back", "undo.yml")
    assert played.outcome == "HOSTS LEFT BEHIND"
    five.all_at(NEXT, but=(name,))


@pytest.mark.full
def test_a_host_without_sshd_is_found_before_anything_is_flipped(five: Hosts) -> None:
    five.hosts["app2"].stop_sshd()
    try:
        played = five.play("rollback_full")
    finally:
        five.hosts["app2"].start_sshd()
    assert played.rc == 4 and played.recap["app2"]["unreachable"] == 1 and not played.changed
    assert "flip" not in played.text and "open |" not in played.text, "something was done although a host does not answer"
    five.shown("sshd of app2 was gone before")
    five.all_at(NEXT)
    assert not five.locks()


@pytest.mark.full
def test_a_part_of_the_hosts_is_refused(five: Hosts) -> None:
    five.play("rollback_full", "--limit", "app1,db1").refused("allow_partial=true")
    five.all_at(NEXT)


def test_a_container_is_killed_in_the_middle_of_its_flip(five: Hosts) -> None:
    lost = five.hosts["app2"]
    with five.paying(10):
        with in_the_middle_of_its_flip(five, lost.name) as finish:
            lost.kill()
            is_lost(five, finish(), lost.name)
        lost.boot()
        lost.break_at(None)
        assert five.play("undo").ok().outcome == "DONE"
    five.shown("after undo")
    five.all_at(NEXT)
    assert not five.locks()


@pytest.mark.full
def test_sshd_of_a_host_goes_in_the_middle_of_its_flip(five: Hosts) -> None:
    lost = five.hosts["app2"]
    with in_the_middle_of_its_flip(five, "app2") as finish:
        lost.stop_sshd()
        is_lost(five, finish(), "app2")
    lost.start_sshd()
    lost.break_at(None)
    five.play("undo").ok()
    five.shown("after undo")
    five.all_at(NEXT)


@pytest.mark.full
@pytest.mark.parametrize("place", ["pm2/verdict/during", "pm2/flip/before"])
def test_a_release_that_fails_on_one_host_fails_on_all(five: Hosts, place: str) -> None:
    five.hosts["app3"].break_at(f"{place}=fail:/tmp/fault")
    five.hosts["app3"].run("touch", "/tmp/fault")
    five.hosts["app3"].run("chown", "payments", "/tmp/fault")
    try:
        with five.paying(10):
            played = five.play("rollback_full").refused("every host is back at the version it had")
    finally:
        five.hosts["app3"].break_at(None)
    assert played.outcome == "UNDONE"
    five.shown(f"after {place} failed on app3")
    five.all_at(NEXT)
