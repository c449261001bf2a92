# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock: one winner, no theft, and records that tell what happened."""

from __future__ import annotations

import json
import os
import pathlib
import time
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils import _lock
from ansible_collections.payops.rollback.plugins.module_utils._decide import identity
from ansible_collections.payops.rollback.plugins.module_utils._errors import Fenced, RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import make_dir, read_json, write_json
from ansible_collections.payops.rollback.plugins.module_utils._lock import (
    close_run,
    list_runs,
    open_run,
    read_lock,
    run_file,
    summarise_journal,
    unfinished_runs,
)
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths, Run

DEAD = {**identity(), "pid": 2**22 + 1, "started": "1"}
ELSEWHERE = {"machine_id": "m9", "boot_id": "b9", "pid": 7, "started": "1", "host": "pod-9"}


@pytest.fixture
def paths(tmp_path: pathlib.Path) -> Paths:
    return Paths(str(tmp_path / "store"), "kejayangu")


def wish(run_id: str = "r1", intent: str = "full", version: str | None = "v1", **more: t.Any) -> dict[str, t.Any]:
    return {"run": run_id, "intent": intent, "version": version, "who": "amina", "controller": identity(), "hosts": ["app1"], **more}


def tree(paths: Paths) -> dict[str, bytes | None]:
    base = pathlib.Path(paths.store)
    return {str(path.relative_to(base)): path.read_bytes() if path.is_file() else None for path in base.rglob("*")}


# -- open -------------------------------------------------------------------------------------------------------------


def test_open_and_again(paths: Paths) -> None:
    first = open_run(paths, wish())
    assert (first["changed"], first["run_id"], first["resumed"], first["took_over"]) == (True, "r1", False, None)
    before = tree(paths)
    again = open_run(paths, wish())
    assert (again["changed"], again["run_id"]) == (False, "r1")
    assert tree(paths) == before
    record = read_json(run_file(paths, "r1"))
    assert record["state"] == "open"
    assert record["hosts"] == ["app1"]
    assert os.stat(paths.lock).st_mode & 0o777 == 0o600
    assert not [name for name in os.listdir(paths.run) if ".new-" in name or ".tmp-" in name]


def test_check_mode_writes_nothing(paths: Paths) -> None:
    assert open_run(paths, wish(), write=False)["changed"] is True
    assert not os.path.exists(paths.store)
    open_run(paths, wish(controller=DEAD))
    before = tree(paths)
    assert open_run(paths, wish("r2"), write=False)["run_id"] == "r1"
    assert open_run(paths, wish("r2", "emergency", None), write=False)["took_over"] == "r1"
    assert close_run(paths, "r1", "done", [{"release": "x", "status": "good"}], write=False)["changed"] is True
    assert tree(paths) == before


def test_a_live_holder_is_respected(paths: Paths) -> None:
    open_run(paths, wish())
    with pytest.raises(RollbackError, match="held by run r1 .* still alive") as caught:
        open_run(paths, wish("r2", controller={**identity(), "pid": 1}))
    assert caught.value.details["holder"]["run"] == "r1"


def test_a_dead_run_is_resumed_under_its_own_id(paths: Paths) -> None:
    open_run(paths, wish(controller=DEAD, who="juma"))
    done = open_run(paths, wish("r2"))
    assert (done["run_id"], done["resumed"], done["changed"]) == ("r1", True, True)
    holder, record = read_lock(paths), read_json(run_file(paths, "r1"))
    assert holder is not None
    assert holder["controller"] == identity() == record["controller"]
    assert record["who"] == "juma"
    assert record["resumed"][0]["who"] == "amina"
    assert not os.path.exists(paths.run_dir("r2"))
    with Run(paths, "pm2", ("x",), run_id="r1"):
        pass


def test_a_dead_run_stops_another_version(paths: Paths) -> None:
    open_run(paths, wish(controller=DEAD))
    before = tree(paths)
    with pytest.raises(RollbackError, match="died without finishing"):
        open_run(paths, wish("r2", version="v2"))
    assert tree(paths) == before


@pytest.mark.parametrize("intent", ["undo", "emergency"])
def test_rescuers_take_over_from_the_dead_and_both_records_say_so(paths: Paths, intent: str) -> None:
    open_run(paths, wish(controller=DEAD))
    done = open_run(paths, wish("r2", intent, None))
    assert (done["run_id"], done["took_over"]) == ("r2", "r1")
    old, new = read_json(run_file(paths, "r1")), read_json(run_file(paths, "r2"))
    assert (old["state"], old["outcome"], old["taken_over_by"]["run"], old["taken_over_by"]["intent"]) == (
        "closed",
        "taken_over",
        "r2",
        intent,
    )
    assert new["took_over"]["run"] == "r1" and new["took_over"].keys() >= {"intent", "version", "who", "when"}
    with pytest.raises(Fenced), Run(paths, "pm2", ("x",), run_id="r1"):
        pass


def test_a_lease_counts_for_a_controller_elsewhere(paths: Paths) -> None:
    # Kamal, Deployer, PM2: locks go stale for ever. AWX: the pod is gone and its pids mean nothing here.
    open_run(paths, wish(controller=ELSEWHERE), lease=900)
    with pytest.raises(RollbackError, match="still alive"):
        open_run(paths, wish("r2"))
    holder = read_lock(paths)
    assert holder is not None
    pathlib.Path(paths.lock).write_text(json.dumps({**holder, "lease_until": time.time() - 1}))
    assert open_run(paths, wish("r2"))["resumed"] is True


def test_a_holder_that_its_controller_found_dead(paths: Paths) -> None:
    open_run(paths, wish(controller=ELSEWHERE), lease=900)
    judged = read_lock(paths)
    with pytest.raises(RollbackError, match="still alive"):
        open_run(paths, wish("r2", expect_holder={"run": "r1", "controller": {**ELSEWHERE, "pid": 8}}))
    with pytest.raises(RollbackError, match="still alive"):
        open_run(paths, wish("r2", expect_holder={}))
    assert open_run(paths, wish("r2", expect_holder=judged))["resumed"] is True
    # A second one who judged the same holder finds the first, who is alive.
    with pytest.raises(RollbackError, match="still alive"):
        open_run(paths, wish("r3", expect_holder=judged, controller=ELSEWHERE))


def test_a_resumed_run_reaches_the_other_hosts_by_its_id(paths: Paths) -> None:
    open_run(paths, wish(controller=ELSEWHERE), lease=900)
    done = open_run(paths, wish("r1", expect_holder=read_lock(paths)))
    assert (done["run_id"], done["resumed"]) == ("r1", True)


def test_unfinished_without_a_lock(paths: Paths) -> None:
    open_run(paths, wish(controller=DEAD))
    os.unlink(paths.lock)
    assert [run["run"] for run in unfinished_runs(list_runs(paths), None)] == ["r1"]
    with pytest.raises(RollbackError, match="was never finished"):
        open_run(paths, wish("r2", version="v2"))
    assert open_run(paths, wish("r2"))["run_id"] == "r1"


def test_an_interrupted_backup_stands_in_nobodys_way(paths: Paths) -> None:
    open_run(paths, wish("b1", "backup", controller=DEAD))
    os.unlink(paths.lock)
    assert open_run(paths, wish("r2"))["run_id"] == "r2"
    assert read_json(run_file(paths, "b1"))["outcome"] == "taken_over"


def test_a_crash_between_lock_and_record_is_repaired(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lock, "_write_records", lambda *args: (unused for unused in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        open_run(paths, wish())
    monkeypatch.undo()
    assert read_json(run_file(paths, "r1")) is None
    assert open_run(paths, wish())["changed"] is True
    assert read_json(run_file(paths, "r1"))["state"] == "open"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"run": "../x"}, "The run id '../x' is not a safe name"),
        ({"run": None}, "The run id must be text"),
        ({"version": 2.1}, "The version must be text, found the float 2.1"),
        ({"version": "../v"}, "The version '../v' is not a safe name"),
        ({"intent": None}, "A run needs an intent"),
        ({"controller": {"pid": 1}}, "The controller's identity lacks machine_id, boot_id, started, host"),
    ],
)
def test_bad_wishes_are_refused_before_anything_is_written(paths: Paths, change: dict[str, t.Any], said: str) -> None:
    with pytest.raises(RollbackError, match=said):
        open_run(paths, {**wish(), **change})
    assert not os.path.exists(paths.store)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"run": 5}', ""])
def test_a_damaged_lock_lets_nobody_in(paths: Paths, content: str) -> None:
    make_dir(paths.run)
    pathlib.Path(paths.lock).write_text(content)
    with pytest.raises(RollbackError, match="damaged"):
        open_run(paths, wish())


def test_without_a_controller_the_lease_decides(paths: Paths) -> None:
    open_run(paths, {**wish(), "controller": None}, lease=900)
    assert open_run(paths, {**wish(), "controller": None})["changed"] is False
    with pytest.raises(RollbackError, match="still alive"):
        open_run(paths, wish("r2"))


# -- close ------------------------------------------------------------------------------------------------------------


def test_close_and_again(paths: Paths) -> None:
    open_run(paths, wish())
    with Run(paths, "pm2", ("flip",), run_id="r1") as run, run.step("flip"):
        pass
    marks = [{"release": "new", "status": "good", "version": "v1"}, {"release": "old", "status": "bad", "why": "broken"}]
    done = close_run(paths, "r1", "done", marks)
    assert done["changed"] is True
    assert [record["phase"] for record in done["journal"]] == ["start", "end"]
    assert done["releases"]["old"]["status"] == "bad"
    assert done["releases"]["old"]["who"] == "amina"
    assert read_lock(paths) is None
    before = tree(paths)
    again = close_run(paths, "r1", "done", marks)
    assert again["changed"] is False
    assert tree(paths) == before
    with pytest.raises(Fenced), Run(paths, "pm2", ("flip",), run_id="r1"):
        pass
    assert open_run(paths, wish("r2", version="v2"))["run_id"] == "r2"


def test_a_run_that_was_taken_over_closes_nothing(paths: Paths) -> None:
    open_run(paths, wish())
    open_run(paths, wish("r2", "emergency", None))
    before = tree(paths)
    done = close_run(paths, "r1", "done", [{"release": "x", "status": "bad"}])
    assert (done["changed"], done["fenced"]) == (False, True)
    assert tree(paths) == before
    close_run(paths, "r2", "stopped")
    done = close_run(paths, "r1", "done", [{"release": "x", "status": "bad"}])
    assert (done["changed"], done["fenced"], done["releases"]) == (False, True, {})


def test_refused_marks_are_told(paths: Paths) -> None:
    open_run(paths, wish())
    close_run(paths, "r1", "done", [{"release": "x", "status": "bad", "why": "broken"}])
    open_run(paths, wish("r2"))
    done = close_run(paths, "r2", "done", [{"release": "x", "status": "good"}])
    assert "stays bad" in done["refused_marks"][0]
    assert done["releases"]["x"]["status"] == "bad"


def test_closing_an_unknown_run_fails(paths: Paths) -> None:
    with pytest.raises(RollbackError, match="There is no run r9"):
        close_run(paths, "r9", "done")


def test_a_lock_without_a_record_can_be_closed(paths: Paths) -> None:
    open_run(paths, wish())
    os.unlink(run_file(paths, "r1"))
    assert close_run(paths, "r1", "failed")["changed"] is True
    assert read_json(run_file(paths, "r1"))["intent"] == "full"


def test_run_records_of_another_name_are_ignored(paths: Paths) -> None:
    open_run(paths, wish())
    record = read_json(run_file(paths, "r1"))
    close_run(paths, "r1", "done")
    make_dir(paths.run_dir("r2"))
    pathlib.Path(run_file(paths, "r2")).write_text(json.dumps({**record, "run": "../../x"}))
    assert [run["run"] for run in list_runs(paths)] == ["r1"]


# -- another host refused the run ---------------------------------------------------------------------------------------


def test_a_refused_run_leaves_nothing_in_the_way(paths: Paths) -> None:
    open_run(paths, wish())
    assert close_run(paths, "r1", "refused")["changed"] is True
    assert read_lock(paths) is None
    assert open_run(paths, wish("r2", version="v2"))["run_id"] == "r2"


def test_a_host_that_the_refused_run_never_reached_is_left_alone(paths: Paths) -> None:
    assert close_run(paths, "r1", "refused")["changed"] is False
    open_run(paths, wish("other"))
    before = tree(paths)
    assert close_run(paths, "r1", "refused")["changed"] is False
    assert tree(paths) == before


@pytest.mark.parametrize("again", [{"run_id": "r1"}, {"run_id": "r2"}])
def test_an_unfinished_run_stays_unfinished_when_continuing_it_was_refused(paths: Paths, again: dict[str, str]) -> None:
    open_run(paths, wish(controller=DEAD))
    open_run(paths, wish(again["run_id"]))
    close_run(paths, "r1", "refused")
    assert read_lock(paths) is None
    assert [run["run"] for run in unfinished_runs(list_runs(paths), None)] == ["r1"]
    with pytest.raises(RollbackError, match="was never finished"):
        open_run(paths, wish("r3", version="v2"))


def test_what_a_refused_run_took_over_is_unfinished_again(paths: Paths) -> None:
    open_run(paths, wish(controller=DEAD))
    open_run(paths, wish("r2", "undo", None))
    close_run(paths, "r2", "refused")
    assert [run["run"] for run in unfinished_runs(list_runs(paths), None)] == ["r1"]
    record = read_json(run_file(paths, "r1"))
    assert "taken_over_by" not in record
    assert "outcome" not in record
    assert open_run(paths, wish("r3"))["run_id"] == "r1"


def test_the_journal_in_short() -> None:
    records = [
        {"component": "pm2", "step": "stage", "phase": "start", "at": "1"},
        {"component": "pm2", "step": "stage", "phase": "end", "at": "2"},
        {"component": "pm2", "step": "flip", "phase": "start", "at": "3"},
        {"component": "postgresql", "step": "swap", "phase": "start", "at": "4"},
        {"component": "postgresql", "step": "swap", "phase": "end", "error": "no", "at": "5"},
    ]
    assert summarise_journal(records) == {
        "pm2": {"finished": ["stage"], "open": "flip", "error": None, "last": "3"},
        "postgresql": {"finished": [], "open": None, "error": "no", "last": "5"},
    }


def test_no_run_is_older_than_one_before_it_although_the_clock_was_set_back(paths: Paths) -> None:
    open_run(paths, wish())
    close_run(paths, "r1", "done")
    record = read_json(run_file(paths, "r1"))
    write_json(run_file(paths, "r1"), {**record, "since": "2999-12-31T23:59:59.999999Z"})
    open_run(paths, wish("r2", "undo"))
    close_run(paths, "r2", "done")
    open_run(paths, wish("r3", version="v2"))
    assert [run["run"] for run in list_runs(paths)] == ["r3", "r2", "r1"]
