# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""However many backups follow, undo and complete find the rollback that they are about."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._history import prune_runs
from ansible_collections.payops.rollback.plugins.module_utils._lock import list_runs
from ansible_collections.payops.rollback.plugins.module_utils._overview import overview
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths
from ansible_collections.payops.rollback.plugins.plugin_utils import _gate


@pytest.fixture
def paths(tmp_path: pathlib.Path) -> Paths:
    return Paths(str(tmp_path), "demo")


def write(paths: Paths, number: int, intent: str, outcome: str | None = "done", **more: t.Any) -> str:
    """The record of run ``number``; the higher, the later."""
    name = f"r{number:04}"
    folder = pathlib.Path(paths.run_dir(name))
    folder.mkdir(parents=True)
    record = {"run": name, "intent": intent, "since": f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}.000000Z"}
    record.update(state="open" if outcome is None else "closed", outcome=outcome, version="v1", components=["pm2"], **more)
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "pm2.jsonl").write_text("{}\n")
    return name


def last(paths: Paths) -> _gate.Last:
    return _gate.last_rollback(overview(paths, None)["runs"])


@pytest.mark.parametrize("backups", [9, 10, 11, 250])
def test_undo_finds_the_rollback_behind_any_number_of_backups(paths: Paths, backups: int) -> None:
    killed = write(paths, 1, "full", "taken_over")
    write(paths, 2, "emergency", "stopped")
    rollback = write(paths, 3, "full")
    for number in range(backups):
        write(paths, 10 + number, "backup")
    prune_runs(paths)
    found = last(paths)
    assert found.target is not None and found.target["run"] == rollback and found.runs == [rollback, killed]


def test_what_was_undone_or_completed_long_ago_stays_so(paths: Paths) -> None:
    write(paths, 1, "full")
    undo, complete = write(paths, 2, "undo"), write(paths, 3, "complete")
    for number in range(30):
        write(paths, 10 + number, "backup")
    found = last(paths)
    assert (found.undone_by or {})["run"] == undo and (found.completed_by or {})["run"] == complete


def test_only_old_backups_that_are_over_go(paths: Paths) -> None:
    kinds = [("full", "done"), ("database", None), ("undo", "lost"), ("complete", "failed"), ("emergency", "stopped"), ("backup", None)]
    stay = [write(paths, number, intent, outcome) for number, (intent, outcome) in enumerate(kinds)]
    backups = [write(paths, 100 + number, "backup") for number in range(7)]
    pathlib.Path(paths.lock).write_text(json.dumps({"run": backups[0]}))
    assert sorted(prune_runs(paths, keep=3)) == backups[1:4]
    assert sorted(run["run"] for run in list_runs(paths)) == [*stay, backups[0], *backups[4:]]
    assert prune_runs(paths, keep=3) == []
