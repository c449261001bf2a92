# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal keeps every line that was written whole, whatever happened to the one before."""

from __future__ import annotations

import os
import pathlib

import pytest

from ansible_collections.payops.rollback.plugins.module_utils import _run
from ansible_collections.payops.rollback.plugins.module_utils._lock import open_run
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths, Run, read_journal


@pytest.fixture
def paths(tmp_path: pathlib.Path) -> Paths:
    paths = Paths(str(tmp_path / "store"), "kejayangu")
    open_run(paths, {"run": "r1", "intent": "full", "who": "amina"})
    return paths


def act(paths: Paths) -> list[str]:
    with Run(paths, "pm2", ("flip",), run_id="r1") as run, run.step("flip"):
        pass
    return [record["phase"] for record in read_journal(paths, "r1")]


@pytest.mark.parametrize("cut", [1, 2, 30, 9999])
def test_a_torn_line_does_not_swallow_the_next(paths: Paths, cut: int) -> None:
    assert act(paths) == ["start", "end"]
    journal = pathlib.Path(paths.journal("r1", "pm2"))
    whole = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(whole[0] + whole[1][: -min(cut, len(whole[1]) - 1)])
    kept = ["end"] if cut == 1 else []  # only its newline is missing
    assert [record["phase"] for record in read_journal(paths, "r1")] == ["start", *kept]
    assert act(paths) == ["start", *kept, "start", "end"]


def test_a_short_write_is_finished(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(_run.os, "write", lambda fd, data: real(fd, data[:7]))
    assert act(paths) == ["start", "end"]


def test_a_line_that_is_no_record_is_left_out(paths: Paths) -> None:
    pathlib.Path(paths.journal("r1", "other")).write_text("7\n[]\nnull\n")
    assert act(paths) == ["start", "end"]
