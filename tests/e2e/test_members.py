# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who takes part: hosts with a component. Needs no server, because nobody gets far enough to ask one."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest

from tests.lab.node import ROOT
from tests.lab.system import ansible_playbook

HERE: dict[str, t.Any] = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
AWAY: dict[str, t.Any] = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_ssh_common_args": "-o BatchMode=yes"}
APP: dict[str, t.Any] = {"rollback_components": ["pm2"]}


class Played(t.NamedTuple):
    rc: int
    text: str


@pytest.fixture
def play(tmp_path: pathlib.Path) -> t.Callable[..., Played]:
    def call(playbook: str, hosts: dict[str, t.Any]) -> Played:
        everywhere = {
            "rollback_system": "t",
            "rollback_store": str(tmp_path / "store"),
            "rollback_pm2_app": "api",
            "rollback_pm2_path": str(tmp_path / "api"),
            "rollback_pm2_home": str(tmp_path / "home"),
            "rollback_pm2_user": "",
            "rollback_pm2_bin": "/nonexistent/pm2",
        }
        inventory = tmp_path / "hosts.json"
        inventory.write_text(json.dumps({"all": {"vars": everywhere, "hosts": hosts}}), encoding="utf-8")
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        done = subprocess.run(
            [ansible_playbook(), f"playbooks/{playbook}.yml", "-i", str(inventory)],
            cwd=ROOT,
            env={**kept, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return Played(done.returncode, " ".join((done.stdout + done.stderr).split()))

    return call


def test_a_list_is_shown_although_a_host_does_not_answer(play: t.Callable[..., Played]) -> None:
    played = play("rollback_points", {"app1": {**HERE, **APP}, "app2": {**AWAY, **APP}})
    assert "No rollback points yet" in played.text, played.text[-3000:]
    assert played.rc == 4, "nobody says that a host was missing"


def test_a_host_without_a_component_takes_no_part(play: t.Callable[..., Played], tmp_path: pathlib.Path) -> None:
    """The first one by name, so that what runs once does not run there, and one that does not answer."""
    played = play("rollback_points", {"a-monitor": AWAY, "app1": {**HERE, **APP}})
    assert played.rc == 0 and "No rollback points yet" in played.text, played.text[-3000:]
    played = play("backup", {"a-monitor": AWAY, "app1": {**HERE, **APP}})
    assert "UNREACHABLE" not in played.text and "nonexistent/pm2" in played.text, played.text[-3000:]


@pytest.mark.parametrize("playbook", ["rollback_full", "verify", "rollback_emergency"])
def test_an_inventory_without_components_is_refused(play: t.Callable[..., Played], playbook: str) -> None:
    played = play(playbook, {"app1": HERE})
    assert played.rc != 0 and "No host of this inventory has rollback_components" in played.text, played.text[-3000:]
