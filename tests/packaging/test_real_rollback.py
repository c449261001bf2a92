# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The built and installed collection, called by name from a folder that is no clone, takes a real system back."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
import tempfile
import typing as t

import pytest

from tests.e2e.harness import GOOD, NEXT, NOTE, World, play_in
from tests.lab.system import ansible_playbook


class Installed(World):
    """Nothing of the clone is in reach: another folder, other settings, one folder of collections."""

    def __init__(self, folder: pathlib.Path, collections: pathlib.Path) -> None:
        super().__init__(folder)
        self.collections = collections
        self.root = collections.parent

    def argv(self, playbook: str, *more: str, **words: t.Any) -> list[str]:
        found = super().argv(playbook, *more, **words)
        return [ansible_playbook(), f"payops.rollback.{playbook}", *found[2:]]

    def env(self, fault: str | None = None) -> dict[str, str]:
        empty = self.root / "ansible.cfg"
        empty.touch()
        kept = {name: value for name, value in super().env(fault).items() if name != "PYTHONPATH"}
        return {**kept, "ANSIBLE_CONFIG": str(empty), "ANSIBLE_COLLECTIONS_PATH": str(self.collections), "HOME": str(self.root)}


@pytest.fixture
def installed_world(tarball: pathlib.Path) -> t.Iterator[Installed]:
    here = pathlib.Path(tempfile.mkdtemp(prefix="payops-installed-"))
    target = here / "collections"
    galaxy = pathlib.Path(sys.executable).with_name("ansible-galaxy")
    command = [str(galaxy), "collection", "install", str(tarball), "-p", str(target), "--offline"]
    subprocess.run(command, check=True, capture_output=True, cwd=here)
    try:
        yield from play_in(lambda folder: Installed(folder, target))
    finally:
        shutil.rmtree(here, ignore_errors=True)


def test_a_real_rollback_with_the_installed_collection(installed_world: Installed) -> None:
    world = installed_world
    world.play("backup").ok()
    (point,) = world.points()
    world.deploy(1, NEXT, NOTE)
    done = world.play("rollback_full", version=point).ok()
    assert done.outcome == "DONE"
    assert str(world.collections) in done.text, "the roles came from elsewhere"
    world.all_at(GOOD)
    world.play("undo").ok()
    world.all_at(NEXT)
