# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a stranger copies works: examples name options that exist and all that are required; the README's commands and words are real."""

from __future__ import annotations

import ast
import pathlib
import re
import shlex
import typing as t

import pytest
import yaml
from ansible.parsing.splitter import parse_kv

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = {path.stem: path for path in sorted((ROOT / "plugins/modules").glob("*.py"))}
README = (ROOT / "README.md").read_text(encoding="utf-8")


def constant(path: pathlib.Path, name: str) -> t.Any:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return yaml.safe_load(ast.literal_eval(node.value))
    return None


def options(path: pathlib.Path) -> dict[str, t.Any]:
    """Options of a module with those of its fragments."""
    documentation = constant(path, "DOCUMENTATION")
    found: dict[str, t.Any] = {}
    for fragment in documentation.get("extends_documentation_fragment", []):
        name, unused, part = fragment.removeprefix("payops.rollback.").partition(".")
        found.update(constant(ROOT / f"plugins/doc_fragments/{name}.py", part.upper() or "DOCUMENTATION").get("options") or {})
    return {**found, **(documentation.get("options") or {})}


@pytest.mark.parametrize("name", MODULES)
def test_examples_name_options_that_exist_and_all_that_are_required(name: str) -> None:
    examples = constant(MODULES[name], "EXAMPLES")
    assert examples
    for task in examples:
        for called, given in task.items():
            if called.startswith("payops.rollback."):
                known = options(MODULES[called.rpartition(".")[2]])
                assert set(given) <= set(known), f"{task['name']}: {set(given) - set(known)}"
                missing = {option for option, spec in known.items() if spec.get("required")} - set(given)
                assert not missing, f"{task['name']}: {missing}"


@pytest.mark.parametrize("name", MODULES)
def test_every_returned_value_says_when_it_comes_and_what_it_is(name: str) -> None:
    values = constant(MODULES[name], "RETURN")
    assert values
    for key, spec in values.items():
        assert {"description", "returned", "type"} <= set(spec), key


def words() -> list[str]:
    return list(yaml.safe_load((ROOT / "playbooks/vars/words.yml").read_text(encoding="utf-8"))["transaction_words"])


def test_the_readme_names_every_playbook_and_no_other() -> None:
    there = {path.stem for path in (ROOT / "playbooks").glob("*.yml")}
    assert set(re.findall(r"(?:playbooks/|ansible-playbook )([a-z_]+)\.yml", README)) == there


def test_the_readme_explains_every_word_and_no_other() -> None:
    table = README.partition("## Words for `-e`")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`([a-z_]+)[`=]", " ".join(cells))) == sorted(words())
    used = set(re.findall(r"-e ([a-z_]+)=", README))
    assert used - set(words()) == set(), "the gate would refuse them"


SOURCES = [ROOT / "README.md", *sorted((ROOT / "playbooks").glob("*.yml")), *sorted((ROOT / "roles").rglob("*.*"))]
GIVEN = re.compile(r"""-e ((?:"[^"]*"|'[^']*'|[^\s"'`|])+)""")


def test_what_is_shown_after_e_keeps_all_of_its_words() -> None:
    shown = [given for path in SOURCES for given in GIVEN.findall(path.read_text(encoding="utf-8")) if "=" in given and "{{" not in given]
    assert len(shown) > 10
    for given in shown:
        (argument,) = shlex.split(given)
        assert "_raw_params" not in parse_kv(argument), f"-e {given}"


def test_the_readme_explains_every_variable_of_the_system() -> None:
    source = (ROOT / "plugins/plugin_utils/_gate.py").read_text(encoding="utf-8")
    declared = set(re.findall(r'"(rollback_[a-z_]+)"', source.partition("SYSTEM_VARIABLES")[2].partition(")\n)")[0]))
    table = README.partition("| variable of the inventory |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(rollback_[a-z_]+)`", table))
    assert declared and declared - {"rollback_lock"} <= named
    shipped = {
        key
        for path in (ROOT / "inventories/kejayangu").rglob("*.yml")
        for key in yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if key.startswith("rollback_") and not key.startswith(("rollback_docker_", "rollback_pm2_", "rollback_postgresql_"))
    }
    assert shipped <= named
