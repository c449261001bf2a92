# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Breaking on purpose belongs to the tests: nothing in the collection does it, whatever the environment says."""

from __future__ import annotations

import ast
import json
import os
import pathlib
import subprocess
import sys

import pytest

from ansible_collections.payops.rollback.plugins.module_utils import _run
from ansible_collections.payops.rollback.plugins.module_utils._pointwriter import new_component
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths
from tests.lab.faults import FOLDER, VARIABLE, with_fault

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIRECT = """
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths, Run
with Run(Paths({store!r}, "demo"), "pm2", ("flip",)) as run:
    with run.step("flip"):
        pass
print("reached the end")
"""


@pytest.fixture
def wanted(tmp_path: pathlib.Path) -> pathlib.Path:
    """The file that a fault of the kind ``wait:`` would write."""
    return tmp_path / "written"


def direct(tmp_path: pathlib.Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A step in a Python of its own."""
    env = {**env, "PYTHONPATH": os.pathsep.join([*filter(None, [env.get("PYTHONPATH")]), str(ROOT / "playbooks" / "collections")])}
    program = DIRECT.format(store=str(tmp_path / "store"))
    return subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60, check=False)


def through_ansible(tmp_path: pathlib.Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The same in a module that Ansible sends: remove a point, whose only step is ``point/delete``."""
    store = tmp_path / "store"
    with new_component(Paths(str(store), "demo"), "old", "pm2", "run-1") as writer:
        writer.seal({"release": "r1"})
    options = {"store": str(store), "system": "demo", "state": "absent", "version": "old"}
    argv = [str(pathlib.Path(sys.executable).with_name("ansible")), "all", "-i", "localhost,", "-c", "local"]
    return subprocess.run(
        [*argv, "-e", f"ansible_python_interpreter={sys.executable}", "-m", "payops.rollback.rollback_point", "-a", json.dumps(options)],
        cwd=ROOT,
        env={**env, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_collection_holds_a_function_that_does_nothing() -> None:
    """And nothing in it reads the variable or another switch of tests."""
    (function,) = [
        node
        for node in ast.parse(pathlib.Path(_run.__file__).read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == "fault"
    ]
    assert [type(node) for node in function.body] == [ast.Expr], "fault() has a body"
    for path in sorted((ROOT / "plugins").rglob("*.py")):
        assert VARIABLE not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("what", ["kill", "fail", "wait"])
def test_the_variable_alone_does_nothing(tmp_path: pathlib.Path, wanted: pathlib.Path, what: str) -> None:
    env = {**os.environ, VARIABLE: f"pm2/flip/during={what if what != 'wait' else f'wait:{wanted}'}"}
    done = direct(tmp_path, env)
    assert (done.returncode, done.stdout) == (0, "reached the end\n"), done.stderr
    assert not wanted.exists()


def test_armed_by_the_tests_it_breaks(tmp_path: pathlib.Path) -> None:
    """What the test above would see if it were armed; the other places are passed."""
    assert direct(tmp_path, with_fault("pm2/flip/during=kill")).returncode == -9
    failed = direct(tmp_path, with_fault("pm2/flip/before=fail"))
    assert failed.returncode == 1 and "Broken on purpose at pm2/flip/before" in failed.stderr
    assert direct(tmp_path, with_fault("pm2/start/during=kill")).returncode == 0
    assert direct(tmp_path, with_fault(None, {**os.environ, VARIABLE: "pm2/flip/during=kill"})).returncode == 0
    once = tmp_path / "once"
    once.touch()
    assert [direct(tmp_path, with_fault(f"pm2/flip/after=kill:{once}")).returncode for turn in range(2)] == [-9, 0]


def test_the_same_through_ansible(tmp_path: pathlib.Path, wanted: pathlib.Path) -> None:
    place = "point/delete/during"
    alone = through_ansible(tmp_path, {**os.environ, VARIABLE: f"{place}=wait:{wanted}"})
    assert alone.returncode == 0 and "Removed point old" in alone.stdout and not wanted.exists(), alone.stdout + alone.stderr
    armed = through_ansible(tmp_path, with_fault(f"{place}=fail"))
    assert armed.returncode != 0 and f"Broken on purpose at {place}" in armed.stdout, armed.stdout + armed.stderr
    assert (FOLDER / "sitecustomize.py").is_file()
