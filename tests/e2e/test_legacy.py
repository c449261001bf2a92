# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups that the team's own script wrote: listed, marked, and rolled back to only when that is said aloud."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess

import pytest

from tests.e2e.harness import GOOD, NEXT, NOTE, World, differences
from tests.lab.system import DATABASE

NAME = "backup_20231201_120000"


def old_script(world: World) -> pathlib.Path:
    """What ``rollback.sh backup`` leaves: src, package*.json and a plain pg_dump."""
    cluster, roles = world.ready()
    folder = world.folder / "legacy" / NAME
    folder.mkdir(parents=True)
    api = world.hosts[0].api
    shutil.copytree(api / "src", folder / "src")
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(api / name, folder / name)
    with (folder / "database_backup.sql").open("wb") as out:
        subprocess.run([cluster.program("pg_dump")], env=cluster.env(DATABASE, **roles.migrator.login()), stdout=out, check=True)
    world.set_variables(**world.quick, rollback_legacy_path=str(folder.parent))
    return folder


@pytest.mark.full
def test_a_backup_of_the_old_script(world: World) -> None:
    folder = old_script(world)
    world.deploy(1, NEXT, NOTE)
    lock = (folder / "package-lock.json").read_bytes()
    (row,) = world.play("rollback_points", output="json").ok().json()
    assert (row["version"], row["legacy"], row["complete"]) == (NAME, True, True)
    table = world.play("rollback_points").ok()
    assert NAME in table.text and "legacy" in table.text

    before = world.picture(runs=False)
    world.play("rollback_full", version=NAME).refused("allow_plain_sql=true")
    assert not differences(before, world.picture(runs=False))

    # The lock file of 1.1.0 differs: its node_modules do not belong to 1.0.0.
    world.play("rollback_full", version=NAME, allow_plain_sql=True).refused("differs from the live package-lock.json", "allow_npm_ci=true")
    world.all_at(NEXT)

    shutil.copyfile(world.hosts[0].api / "package-lock.json", folder / "package-lock.json")
    with world.watching():
        done = world.play("rollback_full", version=NAME, allow_plain_sql=True).ok()
    assert done.outcome == "DONE"
    world.all_at(GOOD)
    again = world.play("rollback_full", version=NAME, allow_plain_sql=True).ok()
    assert again.changed == 0
    world.play("undo").ok()
    world.all_at(NEXT)
    (folder / "package-lock.json").write_bytes(lock)


@pytest.mark.full
def test_a_legacy_dump_that_is_cut_off_is_shown_and_refused(world: World) -> None:
    folder = old_script(world)
    dump = folder / "database_backup.sql"
    dump.write_bytes(dump.read_bytes()[:-200])
    (row,) = world.play("rollback_points", output="json").ok().json()
    assert row["complete"] is False and "cut off" in json.dumps(row["problems"])
    world.play("rollback_full", version=NAME, allow_plain_sql=True).refused("cut off")
    world.all_at(GOOD)
