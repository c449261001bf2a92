# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Words count only when somebody typed them; a playbook run with an inventory that has variables of the same names."""

from __future__ import annotations

import json
import pathlib
import subprocess
import typing as t

import pytest

from tests.lab.node import ROOT
from tests.lab.system import ansible_playbook

INVENTORY = {
    "version": "2.4.0",
    "label": "blue",
    "output": "/var/log",
    "corruption": True,
    "pin": "1234",
    "rollback_postgresql_again": True,
    "rollback_pm2_allow_npm_ci": True,
}
SHOWN = {
    "version": "{{ typed.version | default('none') }}",
    "emergency": "{{ typed.version is defined }}",
    "kind": "{{ typed.version | default('') | type_debug }}",
    "label": "{{ transaction_label }}",
    "output": "{{ typed.output | default('table') }}",
    "corruption": "{{ transaction_corruption }}",
    "pin": "{{ transaction_pin }}",
    "again": "{{ rollback_postgresql_again }}",
    "plain": "{{ rollback_postgresql_allow_plain_sql }}",
    "ci": "{{ rollback_pm2_allow_npm_ci }}",
}


def shown(folder: pathlib.Path, *more: str, inventory: t.Mapping[str, t.Any] | None = None) -> dict[str, t.Any]:
    """What playbooks/vars/words.yml makes of an inventory and a command line."""
    inventory = INVENTORY if inventory is None else inventory
    (folder / "hosts.yml").write_text(json.dumps({"all": {"hosts": {"app1": dict(inventory)}}}))
    play = {
        "hosts": "all",
        "gather_facts": False,
        "vars_files": [str(ROOT / "playbooks/vars/words.yml")],
        "tasks": [{"name": "Show", "ansible.builtin.debug": {"msg": SHOWN}}],
    }
    (folder / "play.yml").write_text(json.dumps([play]))
    done = subprocess.run(
        [ansible_playbook(), "play.yml", "-i", "hosts.yml", *more],
        cwd=folder,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "playbooks/collections"),
            "LC_ALL": "C.UTF-8",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    start = done.stdout.index("=> {") + 3
    return dict(json.JSONDecoder().raw_decode(done.stdout[start:])[0]["msg"])


NOTHING = {"version": "none", "emergency": False, "kind": "str", "label": "", "output": "table", "corruption": False, "pin": ""}


def test_an_inventory_types_nothing(tmp_path: pathlib.Path) -> None:
    assert shown(tmp_path) == {**NOTHING, "again": True, "plain": False, "ci": True}


@pytest.mark.parametrize("way", ["-e", "file"])
def test_what_was_typed_wins_in_its_own_type(tmp_path: pathlib.Path, way: str) -> None:
    words = {"version": 2.1, "label": "before 2", "corruption": True, "again": False, "allow_plain_sql": True}
    text = json.dumps(words)
    if way == "file":  # as AWX hands surveys over
        (tmp_path / "extravars").write_text(text)
        text = "@extravars"
    found = shown(tmp_path, "-e", text)
    expected = {**NOTHING, "version": 2.1, "emergency": True, "kind": "float", "label": "before 2", "corruption": True}
    assert found == {**expected, "again": False, "plain": True, "ci": True}


def test_without_anything_the_defaults_count(tmp_path: pathlib.Path) -> None:
    assert shown(tmp_path, inventory={}) == {**NOTHING, "again": False, "plain": False, "ci": False}
    assert shown(tmp_path, "-e", "again=yes", "-e", "version=20231201_120000", inventory={})["again"] is True
