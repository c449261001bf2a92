# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody else, on another controller: nothing that a run needs may lie in the folders, the memory or the name of the first one.

The other controller is this machine with another host name and, for root, another machine id; its person has another name, home
and clone, in a folder that the first one never saw. The hosts are the same, reached as the same user of theirs, as two
people's keys for one deployment account do it.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import typing as t

import pytest

from tests.e2e.harness import COLOURS, GOOD, NEXT, TIMEOUT, Played, World
from tests.lab.system import ansible_playbook

# Another machine id only for root, who may mount.
AS_ANOTHER_MACHINE = """
hostname another-controller || exit 97
if [ "$1" != "" ]; then mount --bind "$1" /etc/machine-id || exit 98; fi
shift
exec "$@"
"""


class Elsewhere:
    """A controller of its own: clone, home, temporary folders, the name of a person, host name and machine id."""

    def __init__(self, world: World, folder: pathlib.Path) -> None:
        self.world = world
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        copied = subprocess.run([str(world.root / "tests/ci/copy.sh"), str(folder)], capture_output=True, text=True, check=True)
        self.clone = pathlib.Path(copied.stdout.strip())
        shutil.copytree(world.inventory, folder / "inventory")
        (folder / "machine-id").write_text("0123456789abcdef0123456789abcdef\n", encoding="ascii")

    def argv(self, playbook: str, **words: t.Any) -> list[str]:
        root = os.geteuid() == 0
        apart = ["unshare", "--uts", *(["--mount"] if root else ["--map-root-user"])]
        machine = str(self.folder / "machine-id") if root and os.path.exists("/etc/machine-id") else ""
        played = [ansible_playbook(), str(self.clone / "playbooks" / f"{playbook}.yml"), "-i", str(self.folder / "inventory")]
        given = ["-e", json.dumps(words)] if words else []
        return [*apart, "sh", "-c", AS_ANOTHER_MACHINE, "sh", machine, *played, *given]

    def play(self, playbook: str, **words: t.Any) -> Played:
        env = {key: value for key, value in self.world.env().items() if key not in ("SUDO_USER", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
        env.update(
            HOME=str(self.home),
            USER="wanjiku",
            LOGNAME="wanjiku",
            ANSIBLE_HOME=str(self.home / ".ansible"),
            ANSIBLE_CONFIG=str(self.clone / "ansible.cfg"),
            ANSIBLE_COLLECTIONS_PATH=str(self.folder),
            ANSIBLE_LOCAL_TEMP=str(self.home / "local"),
            ANSIBLE_REMOTE_TEMP=str(self.folder / "remote"),
        )
        done = subprocess.run(
            self.argv(playbook, **words), cwd=self.home, env=env, capture_output=True, text=True, check=False, timeout=TIMEOUT
        )
        assert self.world.secret not in done.stdout + done.stderr
        return Played(done.returncode, COLOURS.sub("", done.stdout + done.stderr))


@pytest.fixture
def elsewhere(deployed: World) -> t.Iterator[Elsewhere]:
    folder = deployed.folder / "elsewhere"
    shutil.rmtree(folder, ignore_errors=True)
    yield Elsewhere(deployed, folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.full
def test_undo_of_a_finished_run(deployed: World, elsewhere: Elsewhere) -> None:
    (point,) = deployed.points()
    deployed.play("rollback_full", version=point).ok()
    done = elsewhere.play("undo").ok()
    assert done.outcome == "DONE" and done.facts["by"] == "wanjiku", done.text[-3000:]
    deployed.all_at(NEXT)


@pytest.mark.full
def test_undo_of_a_run_that_died_there(deployed: World, elsewhere: Elsewhere) -> None:
    """Its lease has not run out, and from here nobody can see whether it lives: only saying so aloud takes over."""
    (point,) = deployed.points()
    with deployed.stopped_at("pm2/flip/before", "rollback_full", version=point) as stopped:
        run = deployed.holder()["run"]
        stopped.kill()
    elsewhere.play("undo").refused(f"takeover={run}")
    assert deployed.holder()["run"] == run
    done = elsewhere.play("undo", takeover=run, who="night shift").ok()
    assert done.facts["by"] == "night shift", done.text[-3000:]
    deployed.all_at(NEXT)


@pytest.mark.full
def test_the_same_command_by_somebody_else(deployed: World, elsewhere: Elsewhere) -> None:
    (point,) = deployed.points()
    with deployed.stopped_at("postgresql/swap/during", "rollback_full", version=point) as stopped:
        run = deployed.holder()["run"]
        stopped.kill()
    elsewhere.play("rollback_full", version=point, takeover=run).ok()
    deployed.all_at(GOOD)
    deployed.play("undo").ok()
    deployed.all_at(NEXT)
