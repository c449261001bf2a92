# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an emergency takes the lock with the module that stops, and what it does where the store cannot be used."""

from __future__ import annotations

import json
import os
import pathlib
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._decide import identity
from ansible_collections.payops.rollback.plugins.module_utils._errors import Fenced, RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._lock import open_run, read_lock
from ansible_collections.payops.rollback.plugins.module_utils._module import execute, paths_of, run_of
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths

CLAIM = {"who": "amina", "controller": identity(), "hosts": ["app1"], "components": ["pm2"]}


class Ended(Exception):
    """What the module said at its end."""


class Module:
    check_mode = False

    def __init__(self, store: pathlib.Path, **more: t.Any) -> None:
        self.params = {"store": str(store), "store_group": None, "system": "shop", "run_id": "stop1", "lease": 900, "claim": CLAIM, **more}

    def fail_json(self, msg: str, **more: t.Any) -> None:
        raise Ended({"failed": True, "msg": msg, **more})

    def exit_json(self, **more: t.Any) -> None:
        raise Ended(more)


def stop(module: Module, during: t.Callable[[], None] = lambda: None) -> dict[str, t.Any]:
    """A module that stops something, and writes down that it did."""

    def action(given: t.Any) -> dict[str, t.Any]:
        with run_of(given, "pm2", ["stop"]) as run, run.step("stop"):
            during()
            pathlib.Path(paths_of(given).state("pm2")).write_text("{}", encoding="utf-8")
        return {"changed": True, "where": paths_of(given).store}

    with pytest.raises(Ended) as caught:
        execute(t.cast(t.Any, module), action)
    return dict(caught.value.args[0])


def hold(store: pathlib.Path, intent: str, run: str = "other") -> Paths:
    """Another run, which lives, holds the lock."""
    paths = Paths(str(store), "shop")
    wanted = {"run": run, "intent": intent, "version": "v1", "who": "juma", "controller": identity(), "hosts": [], "components": []}
    open_run(paths, wanted)
    return paths


def holder(paths: Paths) -> str:
    return str((read_lock(paths) or {}).get("run"))


def test_it_takes_the_lock_where_nobody_has_it(tmp_path: pathlib.Path) -> None:
    done = stop(Module(tmp_path / "store"))
    assert done == {"changed": True, "where": str(tmp_path / "store")}
    assert holder(Paths(str(tmp_path / "store"), "shop")) == "stop1"
    assert stop(Module(tmp_path / "store"))["changed"], "the second component of the host has the lock already"


@pytest.mark.parametrize("intent", ["full", "backup", "undo", "emergency"])
def test_it_takes_the_lock_over_from_whoever_has_it(tmp_path: pathlib.Path, intent: str) -> None:
    paths = hold(tmp_path, intent)
    assert "unrecorded" not in stop(Module(tmp_path))
    assert holder(paths) == "stop1"
    assert json.loads((tmp_path / "shop" / ".run" / "other" / "run.json").read_text())["taken_over_by"]["who"] == "amina"


def damage_the_lock(store: pathlib.Path) -> None:
    (store / "shop" / ".run" / "lock.json").write_text("{", encoding="utf-8")


def a_file_in_its_place(store: pathlib.Path) -> None:
    (store / "shop" / ".run").rename(store / "away")
    (store / "shop" / ".run").touch()


@pytest.mark.parametrize("damage", [damage_the_lock, a_file_in_its_place])
def test_it_stops_where_the_store_is_damaged(tmp_path: pathlib.Path, damage: t.Callable[[pathlib.Path], None]) -> None:
    hold(tmp_path, "full")
    damage(tmp_path)
    done = stop(Module(tmp_path))
    assert done["changed"] and not done["where"].startswith(str(tmp_path)), done
    assert str(tmp_path / "shop" / ".run") in done["unrecorded"]


def test_it_stops_where_the_store_becomes_full_in_the_middle(tmp_path: pathlib.Path) -> None:
    def full() -> None:
        if full_once:
            raise full_once.pop()

    full_once = [OSError(28, "No space left on device", "/var/lib/store")]
    done = stop(Module(tmp_path), full)
    assert done["changed"] and "No space left" in done["unrecorded"]


def test_without_a_claim_a_damaged_store_is_an_error(tmp_path: pathlib.Path) -> None:
    paths = hold(tmp_path, "full", run="stop1")
    damage_the_lock(tmp_path)
    done = stop(Module(tmp_path, claim=None))
    assert done["failed"] and "is damaged" in done["msg"] and os.path.exists(paths.lock)


@pytest.mark.parametrize(
    "why", [Fenced("Another emergency has the lock."), RollbackError("The lock is held.", commands=["wait", "take over"])]
)
def test_a_lock_that_was_lost_or_refused_is_respected(tmp_path: pathlib.Path, why: Exception) -> None:
    def lost() -> None:
        if once:
            raise once.pop()

    once = [why]
    assert stop(Module(tmp_path), lost)["failed"]
