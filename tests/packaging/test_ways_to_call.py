# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every playbook resolves from the clone's root, from playbooks/, by collection name, and from the installed tarball."""

from __future__ import annotations

import json
import pathlib
import shutil
import typing as t

import pytest
import yaml

from tests.packaging.conftest import PLAYBOOKS, ROOT, Run, members

SYNTAX = "--syntax-check"


def by_name(names: t.Iterable[str]) -> list[str]:
    return [f"payops.rollback.{name}" for name in names]


def test_there_are_playbooks() -> None:
    assert {"backup", "rollback_full", "rollback_points", "undo", "verify", "complete"} <= set(PLAYBOOKS)


def test_from_the_root_of_a_clone(run: Run, inventory: pathlib.Path) -> None:
    run("ansible-playbook", *[f"playbooks/{name}.yml" for name in PLAYBOOKS], "-i", str(inventory), SYNTAX, cwd=ROOT)
    listed(run("ansible-playbook", "playbooks/rollback_points.yml", "-i", str(inventory), "-e", "output=json", cwd=ROOT))


def test_from_the_folder_of_playbooks(run: Run, inventory: pathlib.Path) -> None:
    folder = ROOT / "playbooks"
    run("ansible-playbook", *[f"{name}.yml" for name in PLAYBOOKS], "-i", str(inventory), SYNTAX, cwd=folder)
    listed(run("ansible-playbook", "rollback_points.yml", "-i", str(inventory), "-e", "output=json", cwd=folder))


def test_by_collection_name_in_a_clone(run: Run, inventory: pathlib.Path) -> None:
    run("ansible-playbook", *by_name(PLAYBOOKS), "-i", str(inventory), SYNTAX, cwd=ROOT)
    done = run("ansible-playbook", "payops.rollback.rollback_full", "-i", str(inventory), "--list-tasks", cwd=ROOT)
    assert "payops.rollback.transaction" in done.stdout or "transaction :" in done.stdout


def test_from_another_folder(run: Run, inventory: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run("ansible-playbook", str(ROOT / "playbooks/rollback_full.yml"), "-i", str(inventory), SYNTAX, cwd=tmp_path)


def test_without_an_inventory_it_is_an_error_and_no_silent_success(run: Run) -> None:
    done = run("ansible-playbook", "playbooks/rollback_points.yml", cwd=ROOT, ok=False)
    assert done.returncode != 0


@pytest.mark.parametrize("name", ["rollback_full", "rollback_emergency"])
def test_a_play_of_nothing_is_no_success(run: Run, inventory: pathlib.Path, tmp_path: pathlib.Path, name: str) -> None:
    """Without the clone's ansible.cfg: an inventory that is missing or empty, and tags that leave no task."""
    empty = tmp_path / "empty.yml"
    empty.write_text("all:\n  hosts: {}\n", encoding="utf-8")
    alone = {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / "playbooks/collections")}
    for words, says in (
        (("-i", str(empty)), "The inventory names no host, so nothing was done."),
        (("-i", str(tmp_path / "no-such-file")), "The inventory names no host, so nothing was done."),
        (("-i", str(inventory), "--tags", "database"), "--tags and --skip-tags would leave steps out"),
        (("-i", str(inventory), "--skip-tags", "untagged"), "--tags and --skip-tags would leave steps out"),
    ):
        done = run("ansible-playbook", f"payops.rollback.{name}", *words, cwd=tmp_path, ok=False, **alone)
        assert done.returncode != 0 and says in " ".join(f"{done.stdout} {done.stderr}".split()), (words, done.stdout, done.stderr)


def test_every_play_asks_for_somebody_to_play_on() -> None:
    for name in PLAYBOOKS:
        plays = yaml.safe_load((ROOT / f"playbooks/{name}.yml").read_text(encoding="utf-8"))
        assert {play["hosts"] for play in plays} == {"{{ lookup('payops.rollback.somebody') }}"}, name


def test_a_system_shipped_as_example_is_complete(run: Run) -> None:
    for folder in sorted(path for path in (ROOT / "inventories").iterdir() if path.is_dir()):
        done = run("ansible-inventory", "-i", str(folder), "--list", cwd=ROOT)
        hosts = json.loads(done.stdout)["_meta"]["hostvars"]
        assert hosts, folder
        for name, variables in hosts.items():
            assert {"rollback_system", "rollback_store", "rollback_components"} <= set(variables), f"{folder.name}: {name}"


def test_installed_from_the_tarball(run: Run, installed: pathlib.Path, inventory: pathlib.Path, tmp_path: pathlib.Path) -> None:
    here = tmp_path / "elsewhere"
    here.mkdir()
    only = {"ANSIBLE_COLLECTIONS_PATH": str(installed)}
    run("ansible-playbook", *by_name(PLAYBOOKS), "-i", str(inventory), SYNTAX, cwd=here, **only)
    listed(run("ansible-playbook", "payops.rollback.rollback_points", "-i", str(inventory), "-e", "output=json", cwd=here, **only))
    documents = json.loads(run("ansible-doc", "-t", "module", "--list", "--json", "payops.rollback", cwd=here, **only).stdout)
    assert set(documents) == set(by_name(path.stem for path in (ROOT / "plugins/modules").glob("*.py")))
    roles = json.loads(run("ansible-doc", "-t", "role", "--list", "--json", "payops.rollback", cwd=here, **only).stdout)
    assert set(roles) == set(by_name(path.name for path in (ROOT / "roles").iterdir() if path.is_dir()))


@pytest.mark.parametrize(
    "missing", ["plugins/module_utils/_errors.py", "plugins/modules/rollback_run_info.py", "roles/transaction", "meta"]
)
def test_a_tarball_that_misses_something_is_noticed(
    run: Run, installed: pathlib.Path, inventory: pathlib.Path, tmp_path: pathlib.Path, missing: str
) -> None:
    """The test above would be worthless if the clone could help out."""
    path = installed / "ansible_collections/payops/rollback" / missing
    assert path.exists()
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    only = {"ANSIBLE_COLLECTIONS_PATH": str(installed)}
    name = "payops.rollback.rollback_full" if missing == "meta" else "payops.rollback.rollback_points"
    mode = [SYNTAX] if missing == "meta" else []
    done = run("ansible-playbook", name, "-i", str(inventory), *mode, cwd=tmp_path, ok=False, **only)
    assert done.returncode != 0


def test_the_tarball_holds_all_that_users_need_and_no_more(tarball: pathlib.Path, tracked: pathlib.Path) -> None:
    inside = members(tarball)
    wanted = {
        path.relative_to(tracked).as_posix()
        for folder in ("plugins", "roles", "playbooks", "meta", "changelogs", "inventories", "LICENSES", "requirements")
        for path in (tracked / folder).rglob("*")
        if path.is_file()
    }
    assert wanted <= inside, f"missing: {sorted(wanted - inside)}"
    assert {"README.md", "COPYING", "MANIFEST.json", "FILES.json"} <= inside
    unwanted = (".venv", ".cache", ".demo", ".git/", ".ci/", "molecule/", "playbooks/collections")
    assert not [name for name in inside if name.startswith(unwanted) or "__pycache__" in name or "node_modules" in name]


def listed(done: t.Any) -> None:
    """The list of points came, as one JSON document on lines of its own, and it is empty."""
    assert [line for line in done.stdout.splitlines() if line.strip() == "[]"] == ["[]"], done.stdout
