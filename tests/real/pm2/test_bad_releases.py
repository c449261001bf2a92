# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases that must never be called a success, and what must be refused before anything is touched."""

from __future__ import annotations

import json
import os
import pathlib
import shutil

import pytest

from tests.real.pm2.conftest import MakeRig
from tests.real.pm2.rig import SECRET, Failed, Load, Rig


def archive_bad(rig: Rig, behaviour: str) -> None:
    """A good release 2 runs; the point v1 holds a release that misbehaves."""
    rig.deploy("2.0.0")
    rig.start()
    if rig.layout == "symlink":
        good = os.readlink(rig.home)
        rig.deploy("1.0.0", behaviour)
        rig.module("archived", version="v1")
        rig.home.unlink()
        rig.home.symlink_to(good)
    else:
        rig.write_release(rig.top, "1.0.0", behaviour)
        rig.module("archived", version="v1")
        rig.write_release(rig.top, "2.0.0", "good")
    rig.pm2.run("save")


OFTEN = {("silent", "cluster"), ("crash-late", "cluster"), ("crash", "cluster"), ("sick", "fork")}


@pytest.mark.parametrize(
    ("behaviour", "mode"),
    [
        pytest.param(behaviour, mode, marks=[] if (behaviour, mode) in OFTEN else pytest.mark.full)
        for behaviour in ("crash", "silent", "sick", "crash-late")
        for mode in ("cluster", "fork")
    ],
)
def test_preflight_refuses_and_nobody_notices(make_rig: MakeRig, mode: str, behaviour: str) -> None:
    """The false successes of pm2 reload: throws at boot, never listens, online in a restart loop, healthy by name only."""
    rig = make_rig("exchange", mode)
    archive_bad(rig, behaviour)
    pids = [each["pid"] for each in rig.pm2.apps("api")]
    with Load(rig.port, 50) as load, pytest.raises(Failed, match="preflight of v1 failed, and the live release was not touched") as caught:
        rig.module("live", version="v1", wait_seconds=4)
    load.say(f"{mode}: {behaviour}")
    assert not load.failed and set(load.answers) == {(200, "2.0.0")}
    assert [each["pid"] for each in rig.pm2.apps("api")] == pids
    assert rig.list() == rig.complete_list()
    assert ("told by PORT to listen on port" in str(caught.value)) is (behaviour == "silent")  # it may take its port from elsewhere
    assert SECRET not in json.dumps(caught.value.result) and "password ********" in str(caught.value) or behaviour != "crash"


@pytest.mark.parametrize(
    ("layout", "behaviour"),
    [
        ("exchange", "crash-in-production"),
        ("symlink", "sick-in-production"),
        pytest.param("exchange", "sick-in-production", marks=pytest.mark.full),
        pytest.param("symlink", "crash-in-production", marks=pytest.mark.full),
    ],
)
def test_green_is_judged_before_the_old_release_goes(make_rig: MakeRig, layout: str, behaviour: str) -> None:
    rig = make_rig(layout, worker=True)
    archive_bad(rig, behaviour)
    pids = [each["pid"] for each in rig.pm2.apps("api")]
    # Twice: PM2 brings a deleted worker back that waited for its restart, and the second attempt must not take that for a release.
    for attempt in (1, 2):
        with Load(rig.port, 50) as load, pytest.raises(Failed, match="runs what it ran before") as caught:
            rig.module("live", version="v1", wait_seconds=5)
        load.say(f"{layout}: {behaviour}, attempt {attempt}")
        assert caught.value.result["undone"]
        assert [each["pid"] for each in rig.pm2.apps("api")] == pids
        assert rig.list() == rig.complete_list()
        assert not load.failed
        assert rig.state().get("switch") is None


def test_fork_mode_goes_back_when_the_release_is_sick_in_production(make_rig: MakeRig) -> None:
    rig = make_rig("exchange", "fork")
    archive_bad(rig, "sick-in-production")
    with pytest.raises(Failed, match="runs what it ran before"):
        rig.module("live", version="v1", wait_seconds=4)
    rig.check_complete("2.0.0")
    assert rig.state().get("switch") is None


def test_a_hold_stays_when_the_release_fails(make_rig: MakeRig) -> None:
    rig = make_rig()
    archive_bad(rig, "crash-in-production")
    rig.module("staged", version="v1")
    rig.module("held")
    with Load(rig.port, 50) as load, pytest.raises(Failed, match="stays on hold"):
        rig.module("live", version="v1", wait_seconds=5)
    load.say("held, bad target")
    assert not load.failed
    assert rig.list() == [("api@hold", 0, "online")]
    rig.module("started")
    rig.check_complete("2.0.0")


def test_refusals_name_the_reason(make_rig: MakeRig, tmp_path: pathlib.Path) -> None:
    rig = make_rig()
    rig.first_and_second()
    before = rig.list()

    def refused(match: str, state: str = "live", **options: object) -> None:
        with pytest.raises(Failed, match=match):
            rig.module(state, **({"version": "v1"} if state in ("live", "staged", "archived") else {}), **options)

    refused("no application called nope; it has api", app="nope")
    refused("PM2_HOME .* does not exist", pm2_home=str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    refused("PM2 is not running: no daemon", pm2_home=str(tmp_path / "empty"))
    assert not list((tmp_path / "empty").iterdir()), "asking must not start a daemon"
    refused("belongs to nobody", user="nobody")
    refused("user 'no-such' does not exist", user="no-such")
    refused("not below", app_dir=str(tmp_path))
    refused("pm2 was not found", pm2_bin="/nonexistent/pm2")
    refused("persistent path '../x' is not usable", persistent=["../x"])
    refused("already holds release", "archived")
    with pytest.raises(Failed, match="point v9"):
        rig.module("live", version="v9")
    victim = next((rig.store / "demo" / "v1" / "pm2" / "tree").rglob("index.js"))
    victim.write_text("exports.version = 'evil';\n")
    refused("differ from its listing: 1 changed")
    assert rig.list() == before
    assert not (rig.base / "srv" / "api.rollback").exists()


def test_a_resolved_path_is_refused_with_the_way_out(make_rig: MakeRig) -> None:
    rig = make_rig("symlink")
    rig.deploy("1.0.0")
    rig.pm2.start(rig.ecosystem(cwd=rig.home.resolve()))
    rig.wait_version("1.0.0")
    with pytest.raises(Failed, match="from the resolved path .*releases/1.0.0.*pm2 delete api"):
        rig.module("archived", version="v1")


def legacy_backup(rig: Rig, lock: str) -> pathlib.Path:
    folder = rig.top / "rollback-versions" / "backup_1"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "main.js").write_text("require('../server.js');\n")
    (folder / "package.json").write_text(json.dumps({"name": "api", "version": "0.9.0", "behaviour": "good"}))
    (folder / "package-lock.json").write_text(lock)
    return folder


def test_legacy_backup(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.deploy("2.0.0")
    lock = json.dumps({"name": "api", "version": "1.0.0", "lockfileVersion": 3, "requires": True, "packages": {"": {"name": "api"}}})
    (rig.top / "package-lock.json").write_text(lock)
    folder = legacy_backup(rig, lock + "\n")
    rig.start()
    with pytest.raises(Failed, match="differs from the live package-lock.json.*allow_npm_ci=true"):
        rig.module("staged", version="backup_1", legacy_path=str(rig.top / "rollback-versions"))
    (folder / "package-lock.json").write_text(lock)
    options = {"version": "backup_1", "legacy_path": str(rig.top / "rollback-versions")}
    assert rig.module("live", **options)["changed"]
    assert rig.ask()[1]["version"] == "0.9.0"
    assert (rig.top / "src" / "main.js").exists()
    assert not rig.module("live", **options)["changed"]
    rig.module("previous")
    rig.check_complete("2.0.0")
    rig.module("complete")
    (folder / "package-lock.json").write_text(lock + "\n")
    (folder / "src" / "other.js").write_text("")
    result = rig.module("staged", **options, allow_npm_ci=True, preflight=False)
    assert not (pathlib.Path(result["path"]) / "node_modules" / "dep").exists(), "node_modules must come from npm ci"
    shutil.rmtree(result["path"])
    rig.check_complete("2.0.0")
