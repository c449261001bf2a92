# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees, copies, layouts and the states of app_release, on real folders."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._release import copy, legacy
from ansible_collections.payops.rollback.plugins.module_utils._release.copy import copy_tree, remove_tree
from ansible_collections.payops.rollback.plugins.module_utils._release.layout import detect
from ansible_collections.payops.rollback.plugins.module_utils._release.legacy import app_version
from ansible_collections.payops.rollback.plugins.module_utils._release.tree import compare, list_tree, release_of, stamp
from tests.unit.plugins.module_utils.releases import backend, reach, write


def test_a_full_disk_is_named_and_nothing_half_remains(app: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call that fails knows descriptors only; without a path nobody would know which disk is full."""

    def full(*unused: t.Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(OSError, match="No space left on device: '.*copy/") as failed:
        copy_tree(str(app), str(tmp_path / "copy"))
    assert str(failed.value.filename).startswith(str(tmp_path / ".partial-copy"))
    assert not (tmp_path / "copy").exists() and not (tmp_path / ".partial-copy").exists()


@pytest.mark.parametrize("often", [1, 3])
def test_files_that_go_while_they_are_copied(app: pathlib.Path, often: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [often]
    copied = copy.Copier.file

    def vanishing(self: copy.Copier, source: str, target: str, found: os.stat_result) -> None:
        if left[0] and source.endswith("session"):
            left[0] -= 1
            os.unlink(source)
            (app / "src" / f"{left[0]}-session").write_text("the next")
        copied(self, source, target, found)

    monkeypatch.setattr(copy.Copier, "file", vanishing)
    (app / "src" / "session").write_text("of a customer")
    if often == 1:
        assert reach(app, "archived", "v1")["changed"]
        return
    with pytest.raises(RollbackError, match="changes while it is copied.*Name the paths that the application writes to as persistent"):
        reach(app, "archived", "v1")
    assert not (app.parent / "store" / "demo" / "v1").exists()


def test_round_trip(app: pathlib.Path) -> None:
    assert reach(app, "archived", "v1")["changed"]
    assert not reach(app, "archived", "v1")["changed"]
    (app / "src" / "main.js").write_text("// 2.0.0\n")
    (app / "uploads" / "receipt").write_text("paid")
    with pytest.raises(RollbackError, match="already holds release"):
        reach(app, "archived", "v1")
    assert reach(app, "live", "v1", check=True)["changed"]
    assert (app / "src" / "main.js").read_text() == "// 2.0.0\n"
    assert reach(app, "live", "v1")["changed"]
    assert (app / "src" / "main.js").read_text() == "// 1.0.0\n"
    assert (app / "uploads" / "receipt").read_text() == "paid"
    assert not reach(app, "live", "v1")["changed"]
    assert reach(app, "previous")["changed"]
    assert (app / "src" / "main.js").read_text() == "// 2.0.0\n"
    assert not reach(app, "previous")["changed"]
    assert reach(app, "live", "v1")["changed"]
    assert reach(app, "complete")["changed"]
    assert not reach(app, "complete")["changed"]
    with pytest.raises(RollbackError, match="no previous release"):
        reach(app, "previous")


def test_a_changed_live_file_is_not_the_version_and_an_added_one_is_told(app: pathlib.Path) -> None:
    reach(app, "archived", "v1")
    (app / "src" / "main.js").write_text("// 2\n")
    reach(app, "live", "v1")
    (app / "cache").write_text("x")
    again = reach(app, "live", "v1")
    assert not again["changed"] and again["drift"] == ["cache"]
    (app / "src" / "main.js").write_text("// hot fix\n")
    assert reach(app, "live", "v1")["changed"]
    assert (app / "src" / "main.js").read_text() == "// 1.0.0\n"


@pytest.mark.parametrize("damage", ["content", "mode", "missing", "added", "link", "listing"])
def test_damaged_points_are_refused_before_anything_is_created(app: pathlib.Path, damage: str) -> None:
    reach(app, "archived", "v1")
    (app / "src" / "main.js").write_text("// 2\n")
    point = app.parent / "store" / "demo" / "v1" / "release"
    victim = point / "tree" / "src" / "main.js"
    if damage == "content":
        victim.write_text("// 9.0.0\n")
    elif damage == "mode":
        victim.chmod(0o777)
    elif damage == "missing":
        victim.unlink()
    elif damage == "added":
        (point / "tree" / "evil.js").write_text("")
    elif damage == "link":
        (point / "tree" / "bin").unlink()
        (point / "tree" / "bin").symlink_to("/etc/passwd")
    else:
        (point / "tree.json").write_text("{}")
    before = sorted(map(str, app.parent.rglob("*")))
    said = {"content": "1 changed", "mode": "1 changed", "missing": "1 missing", "added": "1 added", "link": "1 changed"}
    with pytest.raises(RollbackError, match=said.get(damage, "'tree.json' has 2 bytes; expected")):
        reach(app, "live", "v1")
    assert sorted(map(str, app.parent.rglob("*"))) == before


def test_hash_covers_names_modes_links_and_contents(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "a"
    write(root, "1")
    seen = {release_of(list_tree(str(root), ("uploads",)))}

    def changed() -> None:
        found = release_of(list_tree(str(root), ("uploads",)))
        assert found not in seen
        seen.add(found)

    (root / "src" / "main.js").chmod(0o755)
    changed()
    (root / "src" / "main.js").write_text("// 2\n")
    changed()
    (root / "bin").unlink()
    (root / "bin").symlink_to("package.json")
    changed()
    (root / "empty").mkdir()
    changed()
    (root / "uploads" / "x").write_text("x")
    assert release_of(list_tree(str(root), ("uploads",))) in seen
    pathlib.Path(os.fsdecode(os.fsencode(str(root)) + b"/\xff")).write_text("")
    changed()


def test_what_vanishes_while_it_is_looked_at_was_not_there(app: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As sessions and uploads of an application that runs: gone before the folder is read, before the look, before the content."""
    root = app / "src"
    expected = list_tree(str(root))
    seen = stamp(str(root))
    scandir = os.scandir

    def vanishing(path: str) -> t.Any:
        for name in ("folder", "file", "link"):
            (root / name).mkdir() if name == "folder" else (root / name).symlink_to("x") if name == "link" else (root / name).write_text(
                "x"
            )
        with scandir(path) as entries:
            found = list(entries)
        for name in ("folder", "file", "link"):
            (root / name).rmdir() if name == "folder" else (root / name).unlink()
        return contextlib.nullcontext(iter(found))

    def opened(path: t.Any, *rest: t.Any, **more: t.Any) -> int:
        if str(path).endswith("late"):
            os.unlink(path)
        return really_open(path, *rest, **more)

    really_open = os.open
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", lambda path: vanishing(path) if path == str(root) else scandir(path))
        assert list_tree(str(root)) == expected
        assert stamp(str(root)) == seen
    with monkeypatch.context() as patched:
        (root / "late").write_text("x")
        patched.setattr(os, "open", opened)
        assert list_tree(str(root)) == expected
    with pytest.raises(FileNotFoundError):
        list_tree(str(root / "none"))


def test_copies_are_the_same_release_and_partials_go(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "a"
    write(root, "1")
    (root / "src").chmod(0o555)
    for link in (False, True):
        copy_tree(str(root), str(tmp_path / f"b{link}"), link=link)
        assert not compare(list_tree(str(root)), list_tree(str(tmp_path / f"b{link}")))
    with pytest.raises(FileNotFoundError):
        copy_tree(str(tmp_path / "none"), str(tmp_path / "c"))
    remove_tree(str(tmp_path / "bTrue"))
    assert not (tmp_path / "bTrue").exists() and not list(tmp_path.glob(".partial*"))


def test_layouts(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "api", "1")
    assert detect(str(tmp_path / "api")).kind == "exchange"
    with pytest.raises(RollbackError, match="needs a symlink"):
        detect(str(tmp_path / "api"), "symlink")
    with pytest.raises(RollbackError, match="does not exist"):
        detect(str(tmp_path / "none"))
    with pytest.raises(RollbackError, match="not an absolute path"):
        detect("api")
    with pytest.raises(RollbackError, match="mount point"):
        detect("/proc", "exchange").prepare()
    (tmp_path / "api" / "current").symlink_to("gone")
    with pytest.raises(RollbackError, match="which is no folder"):
        detect(str(tmp_path / "api"))
    assert detect(str(tmp_path / "api"), there=False).home == str(tmp_path / "api" / "current")
    assert detect(str(tmp_path / "none"), there=False).live() == str(tmp_path / "none")
    assert detect(str(tmp_path / "none"), "symlink", there=False).kind == "symlink"


@pytest.mark.parametrize("finish", ["previous", "live"])
def test_a_killed_way_back_is_finished_not_turned_round(app: pathlib.Path, finish: str) -> None:
    reach(app, "archived", "v1")
    (app / "src" / "main.js").write_text("// 2\n")
    reach(app, "live", "v1")
    made = backend(app)
    with made.run:  # what is on the disk when the module dies between the flip and the end of ``previous``
        record = made.releases.back()
        made.releases.begin(made.run, record, undone=True)
        made.releases.flip(record)
    assert reach(app, finish, "v1" if finish == "live" else None)["changed"]
    assert (app / "src" / "main.js").read_text() == ("// 2\n" if finish == "previous" else "// 1.0.0\n")
    assert not reach(app, finish, "v1" if finish == "live" else None)["changed"]


def deploy(app: pathlib.Path, version: str, name: str = "new") -> None:
    """As a team deploys: a new release and the symlink, or over the folder."""
    if app.is_symlink():
        write(app.parent / "releases" / name, version)
        app.unlink()
        app.symlink_to(app.parent / "releases" / name)
    else:
        write(app, version)


def test_previous_does_not_undo_a_newer_deployment(app: pathlib.Path) -> None:
    reach(app, "archived", "v1")
    deploy(app, "2.0.0")
    reach(app, "live", "v1")
    deploy(app, "3.0.0", "newest")
    for check in (True, False):
        with pytest.raises(RollbackError, match=r"deployed or changed after the switch: found .*, expected v1 \(.*-e version="):
            reach(app, "previous", check=check)
    assert (app / "src" / "main.js").read_text() == "// 3.0.0\n"


@pytest.mark.parametrize("run_id", [None, "r1"])
def test_what_the_application_writes_does_not_stop_its_own_undo(app: pathlib.Path, run_id: str | None) -> None:
    (app / "api.log").write_text("begun\n")  # part of the release, as where nobody said that it is persistent
    reach(app, "archived", "v1")
    deploy(app, "2.0.0")
    reach(app, "live", "v1")
    (app / "cache").write_text("x")
    (app / "api.log").write_text("begun\nand written to\n")
    made = backend(app)
    state = made.releases.state()
    made.releases.remember(live={**state["live"], "run": "r1"})
    if run_id:
        (app / "src" / "main.js").write_text("// it writes this, too\n")
    assert made.releases.back(run_id)["tree"] == state["kept"]["tree"]


def test_previous_knows_the_kept_release_by_more_than_its_inode(app: pathlib.Path) -> None:
    reach(app, "archived", "v1")
    deploy(app, "2.0.0")
    reach(app, "live", "v1")
    kept = pathlib.Path(backend(app).releases.state()["kept"]["path"])
    (kept / "late").write_text("a worker that was still there")
    releases = backend(app).releases
    releases.remember(kept={**releases.state()["kept"], "left": stamp(str(kept), ("uploads",))})
    assert releases.back()["path"] == str(kept)
    write(kept, "3.0.0")  # the same inode, as after its number was given away again
    with pytest.raises(RollbackError, match=r"previous release was replaced or changed since: found release .* as it was left"):
        reach(app, "previous")
    assert (app / "src" / "main.js").read_text() == "// 1.0.0\n"


@pytest.mark.parametrize(
    ("content", "version"),
    [
        (b'{"version": "1.2.0"}', "1.2.0"),
        (b'\xef\xbb\xbf{"version": "1.2.0"}', "1.2.0"),
        (b'<<<<<<< HEAD\n{"version": "1"}\n=======\n', None),
        (b"\xff\xfe\x00", None),
        (b"[" * 100_000, None),
        (b'["1.2.0"]', None),
        (b'{"version": {"major": 1}}', None),
        (b'{"version": "\\ud800"}', None),
        (b"", None),
        (None, None),
    ],
)
def test_an_odd_package_json_is_no_reason_to_refuse(app: pathlib.Path, content: bytes | None, version: str | None) -> None:
    package = app / "package.json"
    package.unlink(missing_ok=True)
    if content is not None:
        package.write_bytes(content)
    assert app_version(str(app)) == version
    reach(app, "archived", "odd")
    (app / "src" / "main.js").write_text("// 2\n")
    assert reach(app, "live", "odd")["changed"]


def test_a_release_of_the_team_that_got_the_number_of_a_removed_tree_is_not_ours(app: pathlib.Path) -> None:
    if not app.is_symlink():
        return
    reach(app, "archived", "v1")
    deploy = app.parent / "releases"
    write(deploy / "two", "2.0.0")
    app.unlink()
    app.symlink_to(deploy / "two")
    staged = pathlib.Path(reach(app, "staged", "v1")["path"])
    staged.rename(deploy / "20240101")  # to the eye of the kernel: removed, and the next folder has its number
    assert reach(app, "complete")["removed"] == []
    assert (deploy / "20240101").is_dir()
    again = pathlib.Path(reach(app, "staged", "v1")["path"])
    assert reach(app, "complete")["removed"] == [str(again)]


def test_a_release_built_from_a_legacy_backup_is_on_the_disk_before_it_has_its_name(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("live", "backup"):
        write(tmp_path / name, name)
        (tmp_path / name / "package-lock.json").write_text("{}")
    flushed: list[bool] = []
    target = tmp_path / "built"
    monkeypatch.setattr(legacy, "sync_filesystem", lambda path: flushed.append(target.exists()), raising=False)
    legacy.build(str(tmp_path / "backup"), str(tmp_path / "live"), str(target), (), "reuse", lambda *unused: None, ("npm",), {})
    assert flushed == [False] and (target / "src" / "main.js").read_text() == "// backup\n"
