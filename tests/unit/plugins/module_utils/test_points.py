# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One component of a point: whole or absent, and nothing hostile is believed."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import shutil
import subprocess
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils import _points
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import sha256_bytes, write_atomic
from ansible_collections.payops.rollback.plugins.module_utils._points import load_component, verify_component
from ansible_collections.payops.rollback.plugins.module_utils._pointset import list_points
from ansible_collections.payops.rollback.plugins.module_utils._pointwriter import new_component
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths


@pytest.fixture
def paths(tmp_path: pathlib.Path) -> Paths:
    return Paths(str(tmp_path / "store"), "kejayangu")


def write(paths: Paths, version: str = "v1", component: str = "postgresql", run_id: str = "run-1") -> dict[str, t.Any]:
    with new_component(paths, version, component, run_id) as writer:
        base = pathlib.Path(writer.path)
        (base / "dump").mkdir()
        (base / "dump" / "1.dat").write_bytes(b"rows")
        (base / "dump" / "leer zeichen ü.dat").write_bytes(b"more")
        return writer.seal({"server_major": 15, "release": "abc"})


def rewrite(folder: pathlib.Path, change: t.Callable[[dict[str, t.Any]], None]) -> None:
    """What an attacker with write access does: change the manifest and its checksum together."""
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    change(manifest)
    data = json.dumps(manifest).encode("utf-8", "surrogatepass")
    (folder / "manifest.json").write_bytes(data)
    lines = [f"{sha256_bytes(data)}  manifest.json"]
    lines += [f"{entry['sha256']}  {name}" for name, entry in manifest["files"].items() if isinstance(entry, dict) and "sha256" in entry]
    (folder / "MANIFEST.sha256").write_bytes(("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"))


def test_seal_then_load_and_verify(paths: Paths) -> None:
    manifest = write(paths)
    folder = pathlib.Path(paths.component("v1", "postgresql"))
    assert load_component(paths, "v1", "postgresql") == manifest
    assert verify_component(paths, "v1", "postgresql") == manifest
    assert manifest["size"] == 8
    assert manifest["facts"] == {"server_major": 15, "release": "abc"}
    assert sorted(os.listdir(paths.version("v1"))) == ["postgresql"]
    assert (folder / "manifest.json").stat().st_mode & 0o777 == 0o600
    assert subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "MANIFEST.sha256"], cwd=folder, check=False).returncode == 0


def test_an_error_leaves_nothing(paths: Paths) -> None:
    with pytest.raises(ZeroDivisionError), new_component(paths, "v1", "pm2", "run-1") as writer:
        pathlib.Path(writer.path, "half").write_text("x")
        raise ZeroDivisionError
    assert not os.path.exists(paths.version("v1"))


def test_forgetting_to_seal_leaves_nothing(paths: Paths) -> None:
    with new_component(paths, "v1", "pm2", "run-1") as writer:
        pathlib.Path(writer.path, "half").write_text("x")
    assert not os.path.exists(paths.component("v1", "pm2"))


def test_a_killed_writer_leaves_only_a_partial_that_the_next_one_removes(paths: Paths) -> None:
    killed = new_component(paths, "v1", "pm2", "run-1")
    killed.__enter__()
    other = new_component(paths, "v1", "postgresql", "run-1")
    other.__enter__()
    assert not os.path.exists(paths.component("v1", "pm2"))
    write(paths, "v2", "pm2", "run-2")
    assert not os.path.exists(killed.path)
    assert os.path.exists(other.path), "another component's writer was disturbed"


def test_a_sealed_component_is_never_overwritten(paths: Paths) -> None:
    write(paths)
    with pytest.raises(RollbackError, match="already has the component postgresql"):
        write(paths)
    verify_component(paths, "v1", "postgresql")


@pytest.mark.parametrize("version", ["latest", "previous"])
def test_words_that_choose_a_point_are_no_names(paths: Paths, version: str) -> None:
    with pytest.raises(RollbackError, match="cannot be named"):
        new_component(paths, version, "pm2", "run-1")


@pytest.mark.parametrize(
    "version", ["../v1", ".", "..", "", "a/b", ".hidden", "-rf", "v 1", "v\n1", "ü", "x" * 101, 2.1, 20231201, None, True]
)
def test_unsafe_names_are_refused_before_anything_is_created(paths: Paths, version: t.Any) -> None:
    for call in (lambda: new_component(paths, version, "pm2", "r").__enter__(), lambda: load_component(paths, version, "pm2")):
        with pytest.raises(
            RollbackError, match="is not a safe name: expected" if isinstance(version, str) else "^The version must be text, found"
        ):
            call()
    assert not os.path.exists(paths.store)


def test_links_and_special_files_cannot_be_sealed(paths: Paths) -> None:
    for make in (lambda path: os.symlink("/etc/passwd", path), os.mkfifo):
        with pytest.raises(RollbackError, match="not a regular file"), new_component(paths, "v1", "pm2", "run-1") as writer:
            make(os.path.join(writer.path, "odd"))
            writer.seal({})
    assert not os.path.exists(paths.version("v1"))


def test_names_that_no_manifest_can_hold_cannot_be_sealed(paths: Paths) -> None:
    for name in (b"new\nline", b"not-utf8-\xff", b"back\\slash"):
        with pytest.raises(RollbackError, match="lists the file"), new_component(paths, "v1", "pm2", "run-1") as writer:
            with open(os.path.join(os.fsencode(writer.path), name), "wb"):
                pass
            writer.seal({})


def test_trees_are_left_to_the_component(paths: Paths) -> None:
    with new_component(paths, "v1", "pm2", "run-1") as writer:
        tree = pathlib.Path(writer.path, "tree", "node_modules")
        tree.mkdir(parents=True)
        (tree / "a.js").write_text("12345")
        (tree / "link").symlink_to("a.js")
        pathlib.Path(writer.path, "listing").write_text("x")
        manifest = writer.seal({}, trees=("tree",))
    assert list(manifest["files"]) == ["listing"]
    assert manifest["size"] == 1 + 5 + len("a.js")
    verify_component(paths, "v1", "pm2")
    shutil.rmtree(pathlib.Path(paths.component("v1", "pm2"), "tree"))
    with pytest.raises(RollbackError, match="the folder .tree. of component .*choose another point"):
        verify_component(paths, "v1", "pm2")


# -- damage -----------------------------------------------------------------------------------------------------------


def damage_file(name: str, data: bytes) -> t.Callable[[pathlib.Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def add_link(folder: pathlib.Path) -> None:
    (folder / "dump" / "1.dat").unlink()
    (folder / "dump" / "1.dat").symlink_to("/etc/hostname")


DAMAGE: dict[str, tuple[t.Callable[[pathlib.Path], t.Any], str]] = {
    "same size, other content": (damage_file("dump/1.dat", b"rowz"), "another SHA-256"),
    "truncated": (damage_file("dump/1.dat", b"row"), "has 3 bytes; expected 4"),
    "missing file": (lambda folder: (folder / "dump/1.dat").unlink(), "1 file.s. are missing"),
    "added file": (damage_file("extra", b"x"), "not in the manifest"),
    "file became a link": (add_link, "symbolic link or a special file"),
    "manifest changed": (damage_file("manifest.json", b"{}"), "differs from its checksum"),
    "manifest missing": (lambda folder: (folder / "manifest.json").unlink(), "is missing"),
    "manifest is a link": (
        lambda folder: ((folder / "manifest.json").unlink(), (folder / "manifest.json").symlink_to("/etc/hostname")),
        "symbolic link",
    ),
    "checksums missing": (lambda folder: (folder / "MANIFEST.sha256").unlink(), "is missing"),
    "checksums name other files": (
        lambda folder: (folder / "MANIFEST.sha256").write_text((folder / "MANIFEST.sha256").read_text().replace("1.dat", "9.dat")),
        "names other files",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found(paths: Paths, name: str) -> None:
    write(paths)
    change, message = DAMAGE[name]
    change(pathlib.Path(paths.component("v1", "postgresql")))
    with pytest.raises(RollbackError, match=message):
        verify_component(paths, "v1", "postgresql")


def entry(name: str) -> t.Callable[[dict[str, t.Any]], None]:
    return lambda manifest: manifest["files"].update({name: {"sha256": "0" * 64, "size": 1}})


HOSTILE: dict[str, tuple[t.Callable[[dict[str, t.Any]], t.Any], str]] = {
    "absolute": (entry("/etc/passwd"), "absolute path"),
    "parent": (entry("../../../etc/passwd"), "leaves or repeats its folder"),
    "parent inside": (entry("dump/../../x"), "leaves or repeats its folder"),
    "empty part": (entry("dump//x"), "leaves or repeats its folder"),
    "terminal escape": (entry("\x1b[2Jx"), "control characters"),
    "surrogate": (entry("\udcff"), "not valid UTF-8|not a JSON file in UTF-8"),
    "own name": (entry("summary.json"), "manifest itself uses"),
    "entry without hash": (lambda manifest: manifest["files"].update(x={"size": 1}), "no SHA-256 and size"),
    "entry is text": (lambda manifest: manifest["files"].update(x="y"), "no SHA-256 and size"),
    "negative size": (lambda manifest: manifest["files"].update(x={"sha256": "0" * 64, "size": -1}), "no SHA-256 and size"),
    "files is a list": (lambda manifest: manifest.update(files={}, facts=[]), "lacks files, trees, facts or size"),
    "tree outside": (lambda manifest: manifest.update(trees={"../..": {}}), "leaves or repeats its folder"),
    "tree over files": (lambda manifest: manifest.update(trees={"dump": {}}), "both as a tree and as files"),
    "foreign system": (lambda manifest: manifest.update(system="polaris"), "belongs to system 'polaris'; expected 'kejayangu'"),
    "foreign version": (lambda manifest: manifest.update(version="v2"), "belongs to version 'v2'"),
    "foreign component": (lambda manifest: manifest.update(component="pm2"), "belongs to component 'pm2'"),
    "later format": (lambda manifest: manifest.update(format=2), "has format 2"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_manifests_are_refused(paths: Paths, name: str) -> None:
    write(paths)
    change, message = HOSTILE[name]
    rewrite(pathlib.Path(paths.component("v1", "postgresql")), change)
    with pytest.raises(RollbackError, match=message) as caught:
        load_component(paths, "v1", "postgresql")
    assert str(caught.value).isprintable(), "a refusal must not carry control characters to the terminal"


@pytest.mark.parametrize("data", [b"\xff\xfe", b"[]", b"null", b"{", b"[" * 100000])
def test_manifests_that_are_no_object_are_refused(paths: Paths, data: bytes) -> None:
    write(paths)
    folder = pathlib.Path(paths.component("v1", "postgresql"))
    (folder / "manifest.json").write_bytes(data)
    (folder / "MANIFEST.sha256").write_text(f"{sha256_bytes(data)}  manifest.json\n")
    with pytest.raises(RollbackError, match="is damaged"):
        load_component(paths, "v1", "postgresql")


def test_a_huge_manifest_is_refused_without_reading_it(paths: Paths) -> None:
    write(paths)
    with open(os.path.join(paths.component("v1", "postgresql"), "manifest.json"), "wb") as handle:
        handle.truncate(_points.MAX_MANIFEST + 1)
    with pytest.raises(RollbackError, match="expected at most"):
        load_component(paths, "v1", "postgresql")


def test_a_fifo_in_place_of_the_manifest_does_not_hang(paths: Paths) -> None:
    write(paths)
    path = os.path.join(paths.component("v1", "postgresql"), "manifest.json")
    os.unlink(path)
    os.mkfifo(path)
    with pytest.raises(RollbackError, match="not a regular file"):
        load_component(paths, "v1", "postgresql")


@pytest.mark.parametrize("level", ["version", "component"])
def test_a_folder_that_is_a_link_is_refused(paths: Paths, tmp_path: pathlib.Path, level: str) -> None:
    write(paths)
    target = paths.version("v1") if level == "version" else paths.component("v1", "postgresql")
    os.rename(target, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", target)
    with pytest.raises(RollbackError, match="is a symbolic link"):
        load_component(paths, "v1", "postgresql")


def test_a_point_that_does_not_exist_is_named(paths: Paths) -> None:
    with pytest.raises(RollbackError, match="point v9 does not exist"):
        load_component(paths, "v9", "postgresql")
    write(paths)
    with pytest.raises(RollbackError, match="component pm2 of point v1 does not exist"):
        load_component(paths, "v1", "pm2")


@pytest.mark.parametrize("data", [b"{ trunc", b"[]", b"\xff", b""])
def test_a_damaged_point_is_no_reason_not_to_find_another(paths: Paths, data: bytes) -> None:
    write(paths, "old")
    write(paths, "v2")
    pathlib.Path(paths.component("old", "postgresql"), "summary.json").write_bytes(data)
    assert _points.newest_with(paths, "postgresql", "abc") == "v2"
    assert _points.newest_with(paths, "postgresql", "other") is None
    damaged = {point["version"]: bool(point["problems"]) for point in list_points(paths)}
    assert damaged == {"old": True, "v2": False}


def test_a_full_store_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write knows its descriptor only; without a path nobody would know which disk is full."""

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device: '.*/run.json'"):
        write_atomic(str(tmp_path / "run.json"), b"{}")
    assert list(tmp_path.iterdir()) == []
