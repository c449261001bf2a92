# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock where many ask at once, or a module of the old run still acts: real processes."""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._decide import identity
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._lock import (
    acting_pids,
    open_run,
    read_lock,
)
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths

DEAD = {**identity(), "pid": 2**22 + 1, "started": "1"}
ROOT = pathlib.Path(__file__).resolve().parents[4]


@pytest.fixture
def paths(tmp_path: pathlib.Path) -> Paths:
    return Paths(str(tmp_path / "store"), "kejayangu")


def wish(run_id: str = "r1", intent: str = "full", version: str | None = "v1", **more: t.Any) -> dict[str, t.Any]:
    return {"run": run_id, "intent": intent, "version": version, "who": "amina", "controller": identity(), "hosts": ["app1"], **more}


# -- many at once -----------------------------------------------------------------------------------------------------


def starter(store: str, number: int, gate: t.Any, results: t.Any, more: dict[str, t.Any], stay: t.Any) -> None:
    paths = Paths(store, "kejayangu")
    gate.wait()
    try:
        done = open_run(paths, wish(f"new{number}", **{"version": "v2", **more}))
        results.put(("won", done["run_id"], os.getpid()))
    except RollbackError as exc:
        results.put(("lost", str(exc), os.getpid()))
    stay.wait(60)


def race(store: str, **more: t.Any) -> list[tuple[str, str, int]]:
    """Twenty real processes that ask at the same moment and stay alive until all were answered."""
    context = multiprocessing.get_context("fork")
    gate, stay, results = context.Barrier(20), context.Event(), context.Queue()
    workers = [context.Process(target=starter, args=(store, number, gate, results, more, stay)) for number in range(20)]
    for worker in workers:
        worker.start()
    try:
        return [results.get(timeout=60) for unused in workers]
    finally:
        stay.set()
        for worker in workers:
            worker.join(60)


@pytest.mark.parametrize("situation", ["free", "dead", "unfinished", "takeover", "undo"])
def test_of_twenty_parallel_starters_exactly_one_wins(paths: Paths, situation: str) -> None:
    # Deployer: check, then write. Ansistrano, Capistrano: no lock at all.
    more: dict[str, t.Any] = {}
    if situation != "free":
        open_run(paths, wish("old", version="v2", controller=DEAD if situation != "takeover" else identity()))
    if situation == "unfinished":
        os.unlink(paths.lock)
    if situation == "takeover":
        more = {"takeover": "old"}
    if situation == "undo":
        more = {"intent": "undo", "version": None}
    found = race(paths.store, **more)
    won = [item for item in found if item[0] == "won"]
    assert len(won) == 1, found
    holder = read_lock(paths)
    assert holder is not None
    assert (holder["run"], holder["controller"]["pid"]) == (won[0][1], won[0][2])
    assert (holder["run"] == "old") is (situation in ("dead", "unfinished"))
    losers = [name for name in os.listdir(paths.run) if name.startswith("new") and name != holder["run"]]
    assert losers == [], "a loser left a record"
    assert not [name for name in os.listdir(paths.run) if ".new-" in name or ".tmp-" in name]


# -- a module of the old run still acts --------------------------------------------------------------------------------

ACTOR = """
import sys, time
sys.path.insert(0, {root!r})
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths, Run
with Run(Paths({store!r}, "kejayangu"), "pm2", ("x",), run_id="r1"):
    print("acting", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def actor(paths: Paths) -> t.Iterator[subprocess.Popen[bytes]]:
    open_run(paths, wish(controller=DEAD))
    code = ACTOR.format(root=str(ROOT / "playbooks" / "collections"), store=paths.store)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        if process.stdout is not None:
            assert process.stdout.readline() == b"acting\n"
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_a_takeover_waits_for_the_module_that_acts(paths: Paths, actor: subprocess.Popen[bytes]) -> None:
    assert acting_pids(paths) == [actor.pid]
    with pytest.raises(RollbackError, match=f"process {actor.pid} holds"):
        open_run(paths, wish("r2", "undo", None), wait=0.2)
    holder = read_lock(paths)
    assert holder is not None
    assert holder["run"] == "r1"


def test_an_emergency_may_end_the_module_that_acts(paths: Paths, actor: subprocess.Popen[bytes]) -> None:
    done = open_run(paths, wish("r2", "emergency", None, evict=True), wait=10)
    assert done["evicted"] == [actor.pid]
    assert actor.wait(10) == -signal.SIGKILL
    assert acting_pids(paths) == []
