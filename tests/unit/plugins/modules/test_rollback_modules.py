# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""rollback_point, rollback_point_info, rollback_run and rollback_run_info as Ansible calls them."""

from __future__ import annotations

import json
import os
import pathlib
import types
import typing as t

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.payops.rollback.plugins.module_utils._decide import identity
from ansible_collections.payops.rollback.plugins.module_utils._io import make_dir, write_json
from ansible_collections.payops.rollback.plugins.module_utils._pointset import versions
from ansible_collections.payops.rollback.plugins.module_utils._pointwriter import new_component
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths
from ansible_collections.payops.rollback.plugins.modules import rollback_point, rollback_point_info, rollback_run, rollback_run_info

EXPECTED = {"app1": ["pm2"], "db1": ["postgresql"]}
Call = t.Callable[..., "dict[str, t.Any]"]


@pytest.fixture
def paths(tmp_path: pathlib.Path) -> Paths:
    return Paths(str(tmp_path / "store"), "kejayangu")


@pytest.fixture
def call(paths: Paths, capsys: pytest.CaptureFixture[str]) -> Call:
    """Call a module's main(); the result has ``failed`` set to a boolean."""

    def run(module: types.ModuleType, check: bool = False, **args: t.Any) -> dict[str, t.Any]:
        given = {"store": paths.store, "system": "kejayangu", "_ansible_check_mode": check, **args}
        with patch_module_args(given), pytest.raises(SystemExit):
            module.main()
        result: dict[str, t.Any] = json.loads(capsys.readouterr().out)
        return {"failed": False, **result}

    return run


def component(paths: Paths, version: str, name: str = "pm2", release: str = "r1") -> None:
    with new_component(paths, version, name, "run-1") as writer:
        pathlib.Path(writer.path, "file").write_text("content")
        writer.seal({"release": release})


def tree(paths: Paths) -> dict[str, bytes | None]:
    base = pathlib.Path(paths.store)
    return {str(path.relative_to(base)): path.read_bytes() if path.is_file() else None for path in base.rglob("*")}


def seal(call: Call, version: str, **more: t.Any) -> dict[str, t.Any]:
    args = {"version": version, "expected": EXPECTED, "inventory_host": "app1", "who": "amina", "healthy": True, **more}
    return call(rollback_point, **args)


# -- points -----------------------------------------------------------------------------------------------------------


def test_sealed_quartet(call: Call, paths: Paths) -> None:
    component(paths, "v1")
    before = tree(paths)
    checked = seal(call, "v1", check=True)
    assert tree(paths) == before
    real = seal(call, "v1")
    again = seal(call, "v1")
    assert [checked["changed"], real["changed"], again["changed"]] == [True, True, False]
    assert checked["actions"] == real["actions"] == ["Sealed point v1"]
    assert [step["step"] for step in real["steps"]] == ["seal"]
    assert real["diff"]["before"] == {}
    assert real["diff"]["after"]["healthy"] is True


def test_pin_and_unpin_quartets(call: Call, paths: Paths) -> None:
    component(paths, "v1")
    for state in ("pinned", "unpinned"):
        args = {"state": state, "version": "v1", "who": "amina", "why": "audit"}
        before = tree(paths)
        assert call(rollback_point, check=True, **args)["changed"] is True
        assert {name for name in tree(paths) if ".run" not in name} == {name for name in before if ".run" not in name}
        assert call(rollback_point, **args)["changed"] is True
        assert call(rollback_point, **args)["changed"] is False


def test_a_person_marks_a_release_quartet(call: Call, paths: Paths) -> None:
    component(paths, "v1")
    for state in ("bad", "good", "bad"):  # the last word counts, whatever was known before
        args = {"state": state, "version": "v1", "releases": ["r1"], "who": "amina", "why": "the network"}
        before = tree(paths)
        assert call(rollback_point, check=True, **args)["changed"] is True
        assert {name: what for name, what in tree(paths).items() if what} == {name: what for name, what in before.items() if what}
        real = call(rollback_point, **args)
        assert real["changed"] is True and [step["step"] for step in real["steps"]] == ["mark"]
        entry = real["point"]["r1"]
        assert (entry["status"], entry["who"], entry["why"], entry["version"]) == (state, "amina", "the network", "v1")
        assert call(rollback_point, **args)["changed"] is False
    assert [entry["status"] for entry in entry["history"]] == ["bad", "good"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"version": 2.1, "expected": EXPECTED}, "must be text, found the float 2.1"),
        ({"version": 20231201, "expected": EXPECTED}, "must be text, found the int"),
        ({"version": "../x", "expected": EXPECTED}, "is not a safe name"),
        ({"version": "", "expected": EXPECTED}, "is not a safe name"),
        ({"version": "latest", "expected": EXPECTED}, "cannot be named"),
        ({"version": "v9", "expected": EXPECTED}, "point v9 does not exist"),
        ({"version": "v1"}, "expected"),
        ({"state": "pinned"}, "version"),
        ({"state": "good", "version": "v1", "who": "amina", "why": "x"}, "releases"),
        ({"state": "bad", "version": "v1", "who": "amina", "releases": ["r1"]}, "why"),
        ({"state": "bad", "version": "v1", "who": "amina", "why": "x", "releases": []}, "names no release"),
        ({"state": "pruned"}, "keep_count, keep_days, versions"),
        ({"state": "pruned", "keep_count": 0}, "keep_count must be at least 1"),
        ({"state": "pinned", "version": "v9"}, "point v9 does not exist"),
    ],
)
def test_wrong_calls_fail_with_a_sentence(call: Call, paths: Paths, args: dict[str, t.Any], message: str) -> None:
    result = call(rollback_point, **args)
    assert result["failed"] is True
    assert message in result["msg"]
    assert "Traceback" not in json.dumps(result)


def test_absent_refuses_what_is_live_pinned_or_needed(call: Call, paths: Paths) -> None:
    for version in ("v1", "v2", "v3", "v4", "v5"):
        component(paths, version)
    make_dir(paths.run)
    write_json(paths.state("pm2"), {"version": "v1", "kept": {"tree": "/srv/api.kept", "version": "v2"}})
    call(rollback_point, state="pinned", version="v3", who="amina", why="audit")
    call(rollback_run, run_id="r9", intent="full", version="v4", controller={**identity(), "pid": 2**22 + 1, "started": "1"})
    os.unlink(paths.lock)
    messages = {"v1": "is live", "v2": "pm2 refers to it", "v3": "is pinned (audit)", "v4": "run r9 is not finished"}
    for version, message in messages.items():
        for check in (True, False):
            result = call(rollback_point, state="absent", version=version, check=check)
            assert result["failed"] is True
            assert message in result["msg"]
    before = tree(paths)
    assert call(rollback_point, state="absent", version="v5", check=True)["changed"] is True
    assert tree(paths) == before
    assert call(rollback_point, state="absent", version="v5")["changed"] is True
    assert call(rollback_point, state="absent", version="v5")["changed"] is False
    assert versions(paths) == ["v1", "v2", "v3", "v4"]


def test_pruned_quartet(call: Call, paths: Paths) -> None:
    for number in range(1, 7):
        component(paths, f"v{number}", release=f"r{number}")
        seal(call, f"v{number}", created=f"2023-12-0{number}T12:00:00.000000Z")
    component(paths, "v9", release="r9")  # newest, never sealed
    make_dir(paths.run)
    write_json(paths.state("pm2"), {"version": "v1", "release": "r1"})
    call(rollback_point, state="pinned", version="v2", who="amina", why="audit")
    args = {"state": "pruned", "keep_count": 2, "inventory_host": "app1", "protect": ["v3"]}
    before = tree(paths)
    checked = call(rollback_point, check=True, **args)
    assert tree(paths) == before
    real = call(rollback_point, **args)
    again = call(rollback_point, **args)
    assert [checked["changed"], real["changed"], again["changed"]] == [True, True, False]
    assert checked["removed"] == real["removed"]
    assert [item["version"] for item in real["removed"]] == ["v4"]
    assert versions(paths) == ["v1", "v2", "v3", "v5", "v6", "v9"]
    why = {item["version"]: item["why"] for item in real["kept"]}
    assert why["v1"] == "live"
    assert why["v2"] == "pinned (audit)"
    assert why["v3"] == "needed (another host needs it)"
    assert why["v6"] == "the last good point"
    assert real["diff"]["before"]["points"] == ["v9", "v6", "v5", "v4", "v3", "v2", "v1"]


def test_what_was_decided_elsewhere_is_pruned_unless_this_host_needs_it(call: Call, paths: Paths) -> None:
    for number in range(1, 6):
        component(paths, f"v{number}", release=f"r{number}")
        seal(call, f"v{number}")
    make_dir(paths.run)
    write_json(paths.state("pm2"), {"version": "v1", "kept": {"version": "v2"}})
    call(rollback_point, state="pinned", version="v3", who="amina", why="audit")
    args = {"state": "pruned", "versions": ["v1", "v2", "v3", "v4", "elsewhere"]}
    before = tree(paths)
    checked = call(rollback_point, check=True, **args)
    assert tree(paths) == before and checked["changed"] is True
    real = call(rollback_point, **args)
    assert real["removed"] == checked["removed"] == [{"version": "v4", "why": "it was asked for"}]
    assert {item["version"]: item["why"] for item in real["kept"]} == {
        "v1": "live",
        "v2": "needed (pm2 refers to it; see complete.yml)",
        "v3": "pinned (audit)",
        "v5": "it was not asked for",
    }
    assert call(rollback_point, **args)["changed"] is False
    assert call(rollback_point, state="pruned", versions=[])["changed"] is False
    assert "not a safe name" in call(rollback_point, state="pruned", versions=["../x"])["msg"]
    assert versions(paths) == ["v1", "v2", "v3", "v5"]


def test_nothing_is_pruned_while_it_is_unknown_what_is_live(call: Call, paths: Paths) -> None:
    component(paths, "v1")
    make_dir(paths.run)
    pathlib.Path(paths.state("pm2")).write_text("{")
    result = call(rollback_point, state="pruned", keep_days=1)
    assert result["failed"] is True
    assert "unknown what is live" in result["msg"]


def test_another_run_fences_points(call: Call, paths: Paths) -> None:
    component(paths, "v1")
    call(rollback_run, run_id="r1", intent="full", version="v1")
    for run_id in (None, "r2"):
        result = seal(call, "v1", run_id=run_id)
        assert result["failed"] is True
        assert "The lock of this host is held by run r1" in result["msg"] and "Wait until that run is over" in result["msg"]
    assert seal(call, "v1", run_id="r1")["changed"] is True
    journal = call(rollback_run, run_id="r1", state="closed", outcome="done")["journal"]
    assert [(record["component"], record["step"], record["phase"]) for record in journal] == [
        ("point", "seal", "start"),
        ("point", "seal", "end"),
    ]


def test_point_info(call: Call, paths: Paths, tmp_path: pathlib.Path) -> None:
    component(paths, "v1")
    seal(call, "v1")
    legacy = tmp_path / "rollback-versions" / "backup_20231201_120000" / "src"
    legacy.mkdir(parents=True)
    result = call(rollback_point_info, legacy_path=str(legacy.parents[1]))
    assert [point["version"] for point in result["points"]] == ["v1", "backup_20231201_120000"]
    assert result["changed"] is False
    result = call(rollback_point_info, legacy_path=str(legacy.parents[1]), versions=["20231201_120000", "v9"], verify="files")
    assert [point["version"] for point in result["points"]] == ["backup_20231201_120000"]
    assert result["missing"] == ["v9"]
    assert "must be text" in call(rollback_point_info, versions=[2.1])["msg"]


# -- runs -------------------------------------------------------------------------------------------------------------


def test_run_quartet(call: Call, paths: Paths) -> None:
    args = {"run_id": "r1", "intent": "full", "version": "v1", "who": "amina", "controller": identity()}
    checked = call(rollback_run, check=True, **args)
    assert not os.path.exists(paths.store)
    real, again = call(rollback_run, **args), call(rollback_run, **args)
    assert [checked["changed"], real["changed"], again["changed"]] == [True, True, False]
    assert checked["msg"] == "Run r1 would hold the lock of this host."
    assert real["msg"] == "Run r1 holds the lock of this host."
    assert real["diff"]["before"] == {}
    close = {"run_id": "r1", "state": "closed", "outcome": "done"}
    before = tree(paths)
    checked = call(rollback_run, check=True, **close)
    assert tree(paths) == before
    real, again = call(rollback_run, **close), call(rollback_run, **close)
    assert [checked["changed"], real["changed"], again["changed"]] == [True, True, False]
    assert real["run"]["outcome"] == "done"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"run_id": "r1"}, "intent"),
        ({"run_id": "r1", "state": "closed"}, "outcome"),
        ({"run_id": "r1", "intent": "fulll"}, "value of intent must be one of"),
        ({"run_id": "r1", "intent": "full", "version": 2.1}, "must be text, found the float 2.1"),
        ({"run_id": "../x", "intent": "full"}, "is not a safe name"),
        ({"run_id": "r1", "intent": "full", "controller": {"pid": 1}}, "missing required arguments"),
        ({"run_id": "r1", "state": "closed", "outcome": "done"}, "There is no run r1"),
    ],
)
def test_wrong_runs_fail_with_a_sentence(call: Call, paths: Paths, args: dict[str, t.Any], message: str) -> None:
    result = call(rollback_run, **args)
    assert result["failed"] is True
    assert message in result["msg"]
    assert not os.path.exists(paths.store)


def test_a_refusal_carries_its_commands_and_the_hold(call: Call, paths: Paths) -> None:
    call(rollback_run, run_id="r1", intent="full", version="v1", who="amina")
    write_json(paths.state("pm2"), {"version": "v1", "hold": {"deadline": "12:30", "command": "ansible-playbook undo.yml"}})
    result = call(rollback_run, run_id="r2", intent="database", version="v2", inventory="inventories/kejayangu")
    assert result["failed"] is True
    assert result["msg"].startswith(
        "pm2 is held closed on this host until 12:30; end that with 'ansible-playbook undo.yml'. The lock is held by run r1"
    )
    assert result["commands"] == [
        "ansible-playbook rollback_database.yml -i inventories/kejayangu -e version=v2",
        "ansible-playbook rollback_database.yml -i inventories/kejayangu -e version=v2 -e takeover=r1",
    ]
    assert result["holder"]["who"] == "amina"


def test_run_info(call: Call, paths: Paths) -> None:
    empty = call(rollback_run_info)
    assert (empty["lock"], empty["points"], empty["unfinished"], empty["states"]) == (None, [], [], {})
    assert empty["disk"]["free"] > 0
    assert not os.path.exists(paths.store)
    component(paths, "v1")
    call(rollback_run, run_id="r1", intent="full", version="v1", controller={**identity(), "pid": 2**22 + 1, "started": "1"})
    seal(call, "v1", run_id="r1")
    write_json(paths.state("pm2"), {"version": "v1", "hold": {"deadline": "12:30"}})
    pathlib.Path(paths.state("postgresql")).write_text("{")
    before = tree(paths)
    found = call(rollback_run_info)
    assert tree(paths) == before
    assert (found["lock"]["run"], found["lock_alive"]) == ("r1", False)
    assert found["lock_steps"]["point"]["finished"] == ["seal"]
    assert found["holds"] == [{"component": "pm2", "deadline": "12:30"}]
    assert len(found["problems"]) == 1
    os.unlink(paths.lock)
    found = call(rollback_run_info, points=False)
    assert found["points"] == []
    assert [(run["run"], run["steps"]["point"]["open"]) for run in found["unfinished"]] == [("r1", None)]


def test_releases_are_marked_and_refusals_warned(call: Call, paths: Paths) -> None:
    call(rollback_run, run_id="r1", intent="full", version="v1", who="amina")
    marks = [{"release": "x", "status": "bad", "why": "broken"}]
    assert call(rollback_run, run_id="r1", state="closed", outcome="done", releases=marks)["releases"]["x"]["who"] == "amina"
    call(rollback_run, run_id="r2", intent="full", version="v1", who="juma")
    good = [{"release": "x", "status": "good"}]
    result = call(rollback_run, run_id="r2", state="closed", outcome="done", releases=good)
    assert "stays bad" in result["refused_marks"][0]
    call(rollback_run, run_id="r3", intent="full", version="v1", who="juma")
    result = call(rollback_run, run_id="r3", state="closed", outcome="done", releases=[{**good[0], "overrule": True, "why": "false alarm"}])
    assert result["releases"]["x"]["status"] == "good"
    assert result["releases"]["x"]["history"][0]["who"] == "amina"
