# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole points on one host: sealing, the list, pins, deletion."""

from __future__ import annotations

import json
import os
import pathlib
import time
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils import _pointset
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._pointset import (
    delete_point,
    list_points,
    pin_point,
    seal_point,
    unpin_point,
)
from ansible_collections.payops.rollback.plugins.module_utils._pointwriter import new_component
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths

RECORD: dict[str, t.Any] = {"who": "amina", "run": "r1", "expected": {"app1": ["pm2"], "db1": ["postgresql"]}, "healthy": True}


@pytest.fixture
def paths(tmp_path: pathlib.Path) -> Paths:
    return Paths(str(tmp_path / "store"), "kejayangu")


def component(paths: Paths, version: str, name: str = "pm2", release: str = "r") -> None:
    with new_component(paths, version, name, "run-1") as writer:
        pathlib.Path(writer.path, "file").write_text("content")
        writer.seal({"release": release})


def tree(paths: Paths) -> dict[str, bytes | None]:
    base = pathlib.Path(paths.store)
    return {str(path.relative_to(base)): path.read_bytes() if path.is_file() else None for path in base.rglob("*")}


def test_sealing_completes_a_point_and_again_changes_nothing(paths: Paths) -> None:
    component(paths, "v1")
    assert list_points(paths)[0]["sealed"] is False
    assert seal_point(paths, "v1", RECORD, "app1", write=False)["changed"] is True
    assert list_points(paths)[0]["sealed"] is False, "check mode wrote"
    assert seal_point(paths, "v1", RECORD, "app1")["changed"] is True
    before = tree(paths)
    assert seal_point(paths, "v1", RECORD, "app1")["changed"] is False
    assert tree(paths) == before
    entry = list_points(paths)[0]
    assert entry["sealed"] is True
    assert entry["record"]["expected"] == RECORD["expected"]
    assert entry["components"]["pm2"]["release"] == "r"
    assert entry["problems"] == []


def test_a_point_is_not_sealed_without_its_components(paths: Paths) -> None:
    component(paths, "v1")
    with pytest.raises(RollbackError, match="component postgresql of point v1 does not exist"):
        seal_point(paths, "v1", RECORD, "db1")
    with pytest.raises(RollbackError, match="Host web9 is not part of point v1"):
        seal_point(paths, "v1", RECORD, "web9")
    assert list_points(paths)[0]["sealed"] is False


def test_what_a_point_consists_of_never_changes(paths: Paths) -> None:
    component(paths, "v1")
    seal_point(paths, "v1", RECORD)
    for change in ({"expected": {"app1": ["pm2"]}}, {"run": "r2"}, {"who": "juma"}):
        with pytest.raises(RollbackError, match="is sealed already and differs in"):
            seal_point(paths, "v1", {**RECORD, **change})
    done = seal_point(paths, "v1", {**RECORD, "healthy": False, "label": "later"})
    assert done["changed"] is True
    assert done["after"]["created"] == done["before"]["created"]


@pytest.mark.parametrize("expected", [None, {}, [], {"app1": []}, {"app1": "pm2"}, {"app1": ["../x"]}, {"": ["pm2"]}])
def test_expected_must_say_which_components(paths: Paths, expected: t.Any) -> None:
    component(paths, "v1")
    sentence = (
        "needs 'expected': which components" if not expected else "must map each host to a list|The component '../x' is not a safe name"
    )
    with pytest.raises(RollbackError, match=sentence):
        seal_point(paths, "v1", {**RECORD, "expected": expected})


def test_healthy_is_a_boolean_not_a_truthy_string(paths: Paths) -> None:
    # Ansistrano defect 4: the string "no" counted as true.
    component(paths, "v1")
    with pytest.raises(RollbackError, match="'healthy' must be true, false"):
        seal_point(paths, "v1", {**RECORD, "healthy": "no"})


@pytest.mark.parametrize("created", ["yesterday", "2023-12-01", 20231201])
def test_the_time_of_a_point_is_a_time(paths: Paths, created: t.Any) -> None:
    component(paths, "v1")
    with pytest.raises(RollbackError, match="'created' must be a time in UTC"):
        seal_point(paths, "v1", {**RECORD, "created": created})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not a JSON file"),
        (b"[]", "expected a JSON object"),
        (b'{"format":1,"system":"polaris","version":"v1","expected":{}}', "belongs to system 'polaris'"),
        (b'{"format":1,"system":"kejayangu","version":"v2","expected":{}}', "belongs to version 'v2'"),
        (b'{"format":1,"system":"kejayangu","version":"v1","expected":{"h":["../x"]}}', "does not say which components"),
        (b'{"format":1,"system":"kejayangu","version":"v1"}', "does not say which components"),
    ],
)
def test_a_damaged_or_foreign_record_is_a_problem_of_that_point_only(paths: Paths, content: bytes, message: str) -> None:
    for version in ("v1", "v2"):
        component(paths, version)
        seal_point(paths, version, RECORD)
    pathlib.Path(paths.version("v1"), "point.json").write_bytes(content)
    found = {entry["version"]: entry for entry in list_points(paths)}
    assert message in found["v1"]["problems"][0]
    assert found["v1"]["sealed"] is False
    assert found["v2"]["problems"] == []


def test_strange_entries_in_the_store(paths: Paths, tmp_path: pathlib.Path) -> None:
    component(paths, "v1")
    system = pathlib.Path(paths.system)
    (system / ".trash-old-1-1").mkdir()
    (system / ".run").mkdir()
    (system / "no name ü").mkdir()
    (system / "file").write_text("x")
    (system / "empty").mkdir()
    os.symlink(tmp_path, system / "link")
    pathlib.Path(paths.version("v1"), "other").symlink_to(tmp_path)
    found = {entry["version"]: entry for entry in list_points(paths)}
    assert sorted(found) == ["link", "v1"]
    assert "symbolic link" in found["link"]["problems"][0]
    assert "symbolic link" in found["v1"]["components"]["other"]["damaged"]


def test_an_interrupted_backup_is_shown(paths: Paths) -> None:
    new_component(paths, "v1", "post-gres", "run-1").__enter__()
    entry = list_points(paths)[0]
    assert entry["unfinished"] == ["post-gres"]
    assert entry["sealed"] is False
    assert entry["components"] == {}


def damage(paths: Paths, name: str, data: bytes) -> dict[str, t.Any]:
    component(paths, "v1")
    pathlib.Path(paths.component("v1", "pm2"), name).write_bytes(data)
    return {level: list_points(paths, verify=level)[0]["components"]["pm2"]["damaged"] for level in ("names", "sizes", "files")}


def test_how_deep_the_list_looks(paths: Paths) -> None:
    found = damage(paths, "file", b"CONTENT")
    assert (found["names"], found["sizes"]) == (None, None)
    assert "another SHA-256" in found["files"]


def test_truncation_is_found_by_size(paths: Paths) -> None:
    found = damage(paths, "file", b"cont")
    assert found["names"] is None
    assert "has 4 bytes" in found["sizes"]


@pytest.mark.parametrize("name", ["summary.json", "manifest.json"])
def test_damaged_summaries_are_found_by_every_list(paths: Paths, name: str) -> None:
    assert all(damage(paths, name, b"{}").values())


def test_a_summary_that_lies_about_its_release_is_found_by_every_list(paths: Paths) -> None:
    component(paths, "v1")
    summary = pathlib.Path(paths.component("v1", "pm2"), "summary.json")
    summary.write_text(summary.read_text().replace('"release": "r"', '"release": "x"'))
    assert "differs from its checksum" in list_points(paths)[0]["components"]["pm2"]["damaged"]


def test_pins(paths: Paths) -> None:
    component(paths, "v1")
    assert pin_point(paths, "v1", "amina", "audit", write=False)["changed"] is True
    assert list_points(paths)[0]["pinned"] is None
    assert pin_point(paths, "v1", "amina", "audit")["changed"] is True
    assert pin_point(paths, "v1", "amina", "audit")["changed"] is False
    assert list_points(paths)[0]["pinned"]["why"] == "audit"
    with pytest.raises(RollbackError, match="is pinned"):
        delete_point(paths, "v1")
    assert unpin_point(paths, "v1", write=False)["changed"] is True
    assert unpin_point(paths, "v1")["changed"] is True
    assert unpin_point(paths, "v1")["changed"] is False
    with pytest.raises(RollbackError, match="point v9 does not exist"):
        pin_point(paths, "v9", "amina", "audit")


def test_a_damaged_pin_still_protects(paths: Paths) -> None:
    component(paths, "v1")
    pathlib.Path(paths.version("v1"), "pin.json").write_text("{")
    assert list_points(paths)[0]["pinned"] is not None
    with pytest.raises(RollbackError, match=r"pin\.json is not a JSON file"):
        delete_point(paths, "v1")
    assert os.path.isdir(paths.version("v1"))


def test_delete_follows_no_links_and_sweeps_what_a_killed_one_left(paths: Paths, tmp_path: pathlib.Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    component(paths, "v1")
    os.symlink(outside, os.path.join(paths.component("v1", "pm2"), "link"))
    left = pathlib.Path(paths.system, ".trash-v0-1-1")
    left.mkdir()
    assert delete_point(paths, "v1") is True
    assert (outside / "precious").exists()
    assert not left.exists()
    assert os.listdir(paths.system) == []
    assert delete_point(paths, "v1") is False


def test_a_point_that_is_a_link_is_not_deleted(paths: Paths, tmp_path: pathlib.Path) -> None:
    component(paths, "v1")
    os.symlink(tmp_path, os.path.join(paths.system, "v2"))
    with pytest.raises(RollbackError, match="symbolic link"):
        delete_point(paths, "v2")
    assert tmp_path.exists()


def test_an_interrupted_deletion_leaves_no_half_point(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    component(paths, "v1")

    def killed(*unused: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_pointset, "_remove", killed)
    with pytest.raises(KeyboardInterrupt):
        delete_point(paths, "v1")
    assert list_points(paths) == []


def test_a_thousand_points_are_listed_in_about_a_second(paths: Paths) -> None:
    component(paths, "v0", "pm2")
    component(paths, "v0", "postgresql")
    seal_point(paths, "v0", RECORD)
    base = pathlib.Path(paths.version("v0"))
    for number in range(1, 1000):
        version = f"v{number}"
        for name in ("pm2", "postgresql"):
            folder = pathlib.Path(paths.component(version, name))
            folder.mkdir(parents=True)
            _copy(base / name, folder, version)
        (folder.parent / "point.json").write_text((base / "point.json").read_text().replace('"v0"', f'"{version}"'))
    start = time.process_time()  # what a busy machine cannot lengthen much
    found = list_points(paths)
    took = time.process_time() - start
    assert len(found) == 1000
    assert not any(entry["problems"] for entry in found)
    assert took < 2, f"{took:.2f} s of processor time; about 0.3 s when idle"


def _copy(source: pathlib.Path, target: pathlib.Path, version: str) -> None:
    from ansible_collections.payops.rollback.plugins.module_utils._io import sha256_bytes

    manifest = (source / "manifest.json").read_text().replace('"v0"', f'"{version}"').encode()
    summary = json.loads((source / "summary.json").read_text())
    summary.update(version=version, manifest_size=len(manifest))
    data = json.dumps(summary).encode()
    (target / "manifest.json").write_bytes(manifest)
    (target / "summary.json").write_bytes(data)
    (target / "MANIFEST.sha256").write_text(f"{sha256_bytes(manifest)}  manifest.json\n{sha256_bytes(data)}  summary.json\n")
