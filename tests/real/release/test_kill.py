# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 of app_release at every step, in both layouts: the same command finishes the job, ``previous`` takes it back, and what
is live is one release and no mixture at every moment."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._release.release import STEPS
from tests.lab import modules

PASSES: dict[str, tuple[str, ...]] = {
    "archive": ("archived",),
    "prepare_layout": ("staged", "live"),
    "adopt": ("staged", "live"),
    "stage": ("staged", "live"),
    "flip": ("live", "previous"),
    "finish": ("live", "previous"),
    "complete": ("complete",),
}


def cases(*steps: str) -> list[t.Any]:
    """Layout, state, step and phase of each kill; one of each step is always played."""
    return [
        pytest.param(layout, state, step, phase, marks=[] if (number, phase, layout) == (0, "during", "exchange") else [pytest.mark.full])
        for step in steps
        for number, state in enumerate(PASSES[step])
        for layout in ("exchange", "symlink")
        for phase in ("before", "during", "after")
    ]


ENDS = {"archived": "2", "staged": "2", "live": "1", "previous": "2", "complete": "1"}


class Place:
    """One application in one layout, with something persistent; release 2 is live and release 1 is the point v1."""

    def __init__(self, base: pathlib.Path, layout: str) -> None:
        self.base = base
        self.layout = layout
        self.top = base / "srv" / "api"
        self.home = self.top / "current" if layout == "symlink" else self.top
        self.deploy("1")
        (self.home / "uploads").mkdir()
        (self.home / "uploads" / "receipt").write_text("paid")
        self.ok("archived", version="v1")
        self.deploy("2")

    def deploy(self, number: str) -> None:
        tree = self.top / "releases" / number if self.layout == "symlink" else self.top
        tree.mkdir(parents=True, exist_ok=True)
        for name in ("main.js", "other.js"):
            (tree / name).write_text(number)
        if self.layout == "symlink":
            if self.home.is_symlink():
                os.rename(self.home / "uploads", tree / "uploads")
                self.home.unlink()
            self.home.symlink_to(tree)

    def run(self, state: str, fault: str | None = None, **options: t.Any) -> dict[str, t.Any]:
        given = {"store": str(self.base / "store"), "system": "demo", "app_dir": str(self.top), "state": state, **options}
        return modules.result_of(modules.start("app_release", given, fault))

    def ok(self, state: str, **options: t.Any) -> dict[str, t.Any]:
        result = self.run(state, **options)
        assert not result.get("failed") and not result.get("killed"), result
        return result

    def live(self) -> str:
        """Which release is live: all of it, with what customers wrote."""
        (number,) = {(self.home / name).read_text() for name in ("main.js", "other.js")}
        assert (self.home / "uploads" / "receipt").read_text() == "paid"
        return number


def test_every_step_is_killed() -> None:
    assert set(PASSES) == set(STEPS)


@pytest.mark.parametrize(("layout", "state", "step", "phase"), cases(*PASSES))
def test_the_same_command_finishes_the_job(tmp_path: pathlib.Path, layout: str, state: str, step: str, phase: str) -> None:
    place = Place(tmp_path, layout)
    if state in ("previous", "complete"):
        place.ok("live", version="v1")
    options = {"archived": {"version": "v2"}, "staged": {"version": "v1"}, "live": {"version": "v1"}}.get(state, {})
    assert place.run(state, f"release/{step}/{phase}=kill", **options) == {"killed": True}
    assert place.live() in ("1", "2")
    place.ok(state, **options)
    assert place.live() == ENDS[state]
    assert not place.ok(state, **options)["changed"]
    if state == "archived":
        place.ok("live", version="v1")
        place.ok("live", version="v2")
        assert place.live() == "2"
    left = [name for name in os.listdir(tmp_path / "store" / "demo") if name.startswith(".partial")]
    left += [str(path) for path in (tmp_path / "srv").rglob(".*") if path.name.startswith((".partial", ".probe"))]
    assert not left


@pytest.mark.parametrize(("layout", "state", "step", "phase"), cases("flip", "finish"))
def test_previous_takes_back_what_was_killed(tmp_path: pathlib.Path, layout: str, state: str, step: str, phase: str) -> None:
    place = Place(tmp_path, layout)
    place.ok("staged" if state == "live" else "live", version="v1")
    options = {"version": "v1"} if state == "live" else {}
    assert place.run(state, f"release/{step}/{phase}=kill", **options) == {"killed": True}
    result = place.run("previous")
    assert not result.get("failed") or (step, phase) == ("flip", "before"), result  # nothing was begun
    assert place.live() == "2"
    place.ok("live", version="v1")
    assert place.live() == "1"
    place.ok("complete")
