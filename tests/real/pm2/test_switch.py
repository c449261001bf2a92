# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Switches on a real PM2: both layouts, both modes, there and back, without a lost request."""

from __future__ import annotations

import json
import pathlib

import pytest

from tests.real.pm2.conftest import MakeRig
from tests.real.pm2.rig import SECRET, Failed, Load

LAYOUTS = ("exchange", "symlink")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_there_and_back_in_cluster_mode_loses_no_request(make_rig: MakeRig, layout: str) -> None:
    rig = make_rig(layout, worker=True)
    rig.first_and_second()
    staged = rig.module("staged", version="v1")
    assert staged["changed"] and staged["preflight"]["probes"][0]["ok"]
    again = rig.module("staged", version="v1")
    assert not again["changed"]
    with Load(rig.port) as load:
        live = rig.module("live", version="v1")
    load.say(f"cluster, {layout}, to v1")
    assert live["changed"] and live["live"]["version"] == "v1"
    rig.check_complete("1.0.0")
    assert not load.failed
    assert set(load.answers) == {(200, "1.0.0"), (200, "2.0.0")}
    assert not rig.module("live", version="v1")["changed"]
    assert not rig.module("started")["changed"]
    with Load(rig.port) as load:
        back = rig.module("previous")
    load.say(f"cluster, {layout}, undo")
    assert back["changed"] and not load.failed
    rig.check_complete("2.0.0")
    assert not rig.module("previous")["changed"]
    assert rig.module("live", version="v1")["changed"]
    rig.check_complete("1.0.0")
    done = rig.module("complete")
    assert done["changed"] and not rig.module("complete")["changed"]
    rig.check_complete("1.0.0")
    with pytest.raises(Failed, match="no previous release"):
        rig.module("previous")


@pytest.mark.parametrize("layout", ["exchange", pytest.param("symlink", marks=pytest.mark.full)])
def test_fork_mode_restarts_and_says_so(make_rig: MakeRig, layout: str) -> None:
    rig = make_rig(layout, "fork")
    rig.first_and_second()
    plan = rig.module("staged", version="v1")["plan"]
    assert any("its port is closed for the time that it takes to boot" in step for step in plan)
    with Load(rig.port) as load:
        rig.module("live", version="v1")
    load.say(f"fork, {layout}, to v1")
    rig.check_complete("1.0.0")
    assert len(load.failed) < 400
    rig.module("previous")
    rig.check_complete("2.0.0")


@pytest.mark.parametrize(
    ("layout", "mode"),
    [
        ("exchange", "cluster"),
        ("symlink", "fork"),
        pytest.param("symlink", "cluster", marks=pytest.mark.full),
        pytest.param("exchange", "fork", marks=pytest.mark.full),
    ],
)
def test_reboot_brings_up_what_is_live(make_rig: MakeRig, layout: str, mode: str) -> None:
    rig = make_rig(layout, mode)
    rig.first_and_second()
    rig.module("live", version="v1")
    rig.reboot()
    rig.wait_version("1.0.0")
    rig.check_complete("1.0.0")
    rig.module("previous")
    rig.reboot()
    rig.wait_version("2.0.0")
    rig.check_complete("2.0.0")


@pytest.mark.parametrize("mode", ["cluster", "fork"])
def test_hold_answers_503_and_flip_ends_it(make_rig: MakeRig, mode: str) -> None:
    rig = make_rig("exchange", mode, worker=True)
    rig.first_and_second()
    rig.module("staged", version="v1")
    with Load(rig.port) as load:
        held = rig.module("held", hold_seconds=60)
        status, body, headers = rig.ask()
        assert status == 503 and headers["Retry-After"] == "30" and body["error"] == "maintenance"
        assert rig.list() == [("api@hold", 0, "online"), ("worker", 0, "stopped")]
        assert held["hold"]["deadline"] > 0
        assert not rig.module("held")["changed"]
        rig.module("live", version="v1")
    load.say(f"{mode}: held, then live")
    rig.check_complete("1.0.0")
    assert rig.state().get("hold") is None
    if mode == "cluster":
        assert not load.failed
    rig.module("held")
    rig.reboot()
    assert rig.list() == [("api@hold", 0, "online"), ("worker", 0, "stopped")]
    rig.module("previous")
    rig.check_complete("2.0.0")
    rig.module("held")
    rig.module("started")
    rig.check_complete("2.0.0")
    assert not rig.module("started")["changed"]


def test_stopped_stays_stopped_over_a_reboot_and_starts_again(make_rig: MakeRig) -> None:
    rig = make_rig(worker=True)
    rig.first_and_second()
    assert rig.module("stopped")["changed"]
    assert not rig.module("stopped")["changed"]
    assert rig.ask()[0] == 0
    rig.reboot()
    assert {status for unused, unused2, status in rig.list()} == {"stopped"}
    assert rig.module("started")["changed"]
    rig.check_complete("2.0.0")
    rig.module("stopped")
    rig.module("live", version="v1")
    rig.check_complete("1.0.0")


@pytest.mark.parametrize("host", ["0.0.0.0", *(pytest.param(host, marks=pytest.mark.full) for host in ("127.0.0.1", ""))])
def test_a_hold_of_a_stopped_app_listens_where_the_app_will(make_rig: MakeRig, host: str) -> None:
    """As after an emergency: nobody is there to share the port with, and the release must get it from the responder."""
    rig = make_rig()
    rig.first_and_second(HOST=host)
    rig.module("stopped")
    rig.module("held")
    assert rig.ask()[0] == 503
    rig.module("live", version="v1")
    rig.check_complete("1.0.0")


def test_persistent_paths_and_environment(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.deploy("1.0.0")
    rig.start(FEATURE="one")
    (rig.top / "uploads" / "receipt").write_text("paid")
    rig.module("archived", version="v1")
    rig.deploy("2.0.0")
    rig.pm2.run("delete", "api")
    rig.start(FEATURE="two")
    rig.module("live", version="v1")
    rig.check_complete("1.0.0")
    assert rig.ask()[1]["feature"] == "one"
    assert (rig.top / "uploads" / "receipt").read_text() == "paid"
    assert pathlib.Path(rig.top / "uploads").is_symlink()
    (rig.top / "uploads" / "later").write_text("x")
    rig.module("previous")
    assert rig.ask()[1]["feature"] == "two"
    assert (rig.top / "uploads" / "later").read_text() == "x"
    rig.module("live", version="v1", env_from="live", env={"EXTRA": "1"})
    for path in rig.store.rglob("*"):
        if path.is_file() and SECRET in path.read_text(errors="replace").replace('\\"', '"'):
            assert path.stat().st_mode & 0o077 == 0, path


def test_check_mode_changes_nothing_and_plans(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.first_and_second()
    before = (rig.pm2.jlist(), sorted(map(str, rig.base.rglob("*"))))
    pids = [each["pid"] for each in before[0]]
    for state, extra in (
        ("archived", {"version": "v2"}),
        ("staged", {"version": "v1"}),
        ("live", {"version": "v1"}),
        ("held", {}),
        ("stopped", {}),
    ):
        result = rig.module(state, check=True, **extra)
        assert result["changed"] and result["actions"], state
    assert not rig.module("started", check=True)["changed"] or rig.module("started", check=True)["actions"] == ["save PM2's list"]
    assert [each["pid"] for each in rig.pm2.jlist()] == pids
    assert sorted(map(str, rig.base.rglob("*"))) == before[1]
    diff = rig.module("live", check=True, version="v1")["diff"]
    assert json.loads(diff["before"])["live"] != json.loads(diff["after"])["live"]
