# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must agree across the files of the collection."""

from __future__ import annotations

import ast
import pathlib
import re
import typing as t

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = {path.stem: path for path in sorted((ROOT / "plugins/modules").glob("*.py"))}
RUNTIME = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())
SUPPORTED = ("2.19", "2.20", "2.21")
HEADER = "SPDX-License-" + "Identifier: GPL-3.0-or-later"  # in two parts: a licence checker reads this file, too


def documentation(path: pathlib.Path) -> dict[str, t.Any]:
    """DOCUMENTATION of a module without importing it."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "DOCUMENTATION":
            return dict(yaml.safe_load(ast.literal_eval(node.value)))
    raise AssertionError(f"{path} has no DOCUMENTATION")


def with_fragment(fragment: str) -> set[str]:
    return {name for name, path in MODULES.items() if fragment in documentation(path).get("extends_documentation_fragment", [])}


def test_the_group_of_all_modules_names_every_module() -> None:
    assert sorted(RUNTIME["action_groups"]["rollback"]) == sorted(MODULES)


@pytest.mark.parametrize("group", ["run", "postgresql"])
def test_a_group_names_the_modules_that_share_its_options(group: str) -> None:
    assert sorted(RUNTIME["action_groups"][group]) == sorted(with_fragment(f"payops.rollback.{group}"))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_says_what_it_supports(name: str) -> None:
    fragments = documentation(MODULES[name])["extends_documentation_fragment"]
    assert "payops.rollback.attributes" in fragments
    assert "payops.rollback.attributes.actiongroup" in fragments


def test_supported_versions_agree() -> None:
    assert RUNTIME["requires_ansible"] == f">={SUPPORTED[0]}.0"
    ignores = sorted(path.name for path in (ROOT / "tests/sanity").glob("ignore-*.txt"))
    assert ignores == [f"ignore-{version}.txt" for version in SUPPORTED]
    assert f"{SUPPORTED[0]} to {SUPPORTED[-1]}" in (ROOT / "README.md").read_text()
    for version in (SUPPORTED[0], SUPPORTED[-1]):
        assert (ROOT / f"requirements/controller-{version}.txt").exists()


def test_sanity_ignores_are_empty() -> None:
    assert [path.name for path in (ROOT / "tests/sanity").glob("ignore-*.txt") if path.read_bytes()] == []


def test_module_utils_are_private() -> None:
    names = [path.relative_to(ROOT).as_posix() for path in (ROOT / "plugins/module_utils").rglob("*.py")]
    public = [name for name in names if not any(part.startswith("_") for part in pathlib.PurePath(name).parts[2:])]
    assert public == []


@pytest.mark.parametrize("path", sorted((ROOT / "plugins").rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_plugins_carry_the_licence_and_no_assert(path: pathlib.Path) -> None:
    text = path.read_text()
    if path.name == "__init__.py" and not text:
        return
    assert HEADER in "".join(text.splitlines(keepends=True)[:6])
    assert not [node.lineno for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Assert)]


def spec_options(role: pathlib.Path) -> set[str]:
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]
    return {option for entry in specs.values() for option in entry.get("options", {})}


@pytest.mark.parametrize("role", sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir()), ids=lambda path: path.name)
def test_a_role_documents_each_of_its_defaults(role: pathlib.Path) -> None:
    assert (role / "README.md").exists()
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text()) if (role / "defaults/main.yml").exists() else {}
    public = {name for name in defaults or {} if not name.startswith("_")}
    assert public <= spec_options(role), f"in defaults/main.yml but not in meta/argument_specs.yml: {public - spec_options(role)}"
    strangers = {name for name in public if not re.match(rf"{role.name}_", name)}
    assert not strangers, f"variables of other prefixes: {strangers}"


@pytest.mark.parametrize("role", sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir()), ids=lambda path: path.name)
def test_a_result_never_takes_the_name_of_an_option(role: pathlib.Path) -> None:
    """The next include of the role would be given the result as that option, and refuse it."""
    texts = [path.read_text(encoding="utf-8") for path in (role / "tasks").rglob("*.yml")]
    results = {name for text in texts for name in re.findall(r"^\s*register: (\w+)", text, re.MULTILINE)}
    assert results.isdisjoint(spec_options(role))


# What a person of a playbook types himself, under the very same name (README, "Words for -e").
WORDS_OF_PLAYBOOKS = {"again", "allow_npm_ci", "allow_plain_sql"}
ADVICE = re.compile(r"\b[Ss]et ([a-z]+(?:_[a-z]+)*)\b")
COMPONENT_OF = {"_postgresql": "postgresql", "_pm2": "pm2", "_release": "pm2", "_docker": "docker", "_nginx": "haproxy"}


def sentences(path: pathlib.Path) -> list[str]:
    """The strings of a file, with {} for what is filled in."""
    found = []
    tree = ast.parse(path.read_text())
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            found.append(node.value)
    return found


def test_advice_to_set_an_option_names_the_variable_of_the_role_too() -> None:
    """Who plays a playbook never sees the module: ``-e bin_dir=...`` is refused as unknown."""
    seen = 0
    for folder, component in COMPONENT_OF.items():
        specs = yaml.safe_load((ROOT / f"roles/rollback_{component}/meta/argument_specs.yml").read_text())["argument_specs"]
        variables = {name for spec in specs.values() for name in spec.get("options", {})}
        for path in sorted((ROOT / "plugins/module_utils" / folder).glob("*.py")):
            for sentence in sentences(path):
                for option in ADVICE.findall(sentence):
                    if option not in WORDS_OF_PLAYBOOKS and (variable := f"rollback_{component}_{option}") in variables:
                        seen += 1
                        assert variable in sentence or f"(rollback_{option})" in sentence, f"{path.name}: {sentence}"
    assert seen >= 8
