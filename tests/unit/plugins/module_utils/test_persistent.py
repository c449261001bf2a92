# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Persistent paths of a release: they move once, every tree has them, and nothing that customers wrote is lost."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._release.adopt import adopt, to_adopt, unshared
from ansible_collections.payops.rollback.plugins.module_utils._release.copy import copy_tree
from ansible_collections.payops.rollback.plugins.module_utils._release.layout import detect, identity
from ansible_collections.payops.rollback.plugins.module_utils._release.tree import check_persistent
from tests.unit.plugins.module_utils.releases import backend, reach, write


def test_a_persistent_file_that_an_editor_put_in_place_of_its_link(app: pathlib.Path) -> None:
    made = backend(app)
    with made.run:
        made.releases.layout.prepare()
        (app / "uploads" / "receipt").write_text("paid")
        adopt(made.releases.layout, "uploads")
        shared = pathlib.Path(os.readlink(app / "uploads"))
        (app / "uploads").unlink()
        (app / "uploads").mkdir()
        (app / "uploads" / "newer").write_text("paid, too")
        with pytest.raises(RollbackError, match="has become a folder.*Copy what is missing") as caught:
            adopt(made.releases.layout, "uploads")
        assert (shared / "receipt").exists() and (app / "uploads" / "newer").exists()
        shutil.copy(shared / "receipt", app / "uploads" / "receipt")
        subprocess.run(str(caught.value).partition("then: ")[2], shell=True, check=True)
        assert to_adopt(made.releases.layout, ("uploads",)) == []
    assert {path.name for path in (app / "uploads").iterdir()} == {"receipt", "newer"}


def test_adoption_is_atomic_and_refuses_two_truths(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "api"
    write(root, "1")
    (root / ".env").write_text("A=1")
    layout = detect(str(root))
    layout.prepare()
    tree = identity(str(root))
    for name in to_adopt(layout, (".env", "uploads", "logs")):
        adopt(layout, name)
    assert (root / ".env").read_text() == "A=1" and (root / ".env").is_symlink() and identity(str(root)) == tree
    assert to_adopt(layout, (".env", "uploads", "logs")) == []
    (root / ".env").unlink()
    (root / ".env").write_text("B=2")
    with pytest.raises(RollbackError, match="exists already"):
        adopt(layout, ".env")


@pytest.mark.parametrize("bad", ["", "/etc", ".", "..", "../x", "a/../../b"])
def test_bad_persistent_paths(bad: str) -> None:
    with pytest.raises(RollbackError, match="persistent path"):
        check_persistent([bad])


def test_persistent_paths_are_cleaned() -> None:
    assert check_persistent(["logs/", "logs/old", "./.env"]) == (".env", "logs")


def without_uploads(app: pathlib.Path) -> None:
    """v1 is a point, another release is live, and neither has seen an upload."""
    (app / "uploads").rmdir()
    reach(app, "archived", "v1")
    (app / "src" / "main.js").write_text("// 2\n")


@pytest.mark.parametrize("moment", ["staged", "live"])
def test_what_customers_wrote_first_after_staging_goes_along_there_and_back(app: pathlib.Path, moment: str) -> None:
    without_uploads(app)
    reach(app, moment, "v1")
    (app / "uploads").mkdir()
    (app / "uploads" / "receipt").write_text("paid")
    reach(app, "live" if moment == "staged" else "previous", "v1" if moment == "staged" else None)
    assert (app / "uploads" / "receipt").read_text() == "paid"
    assert reach(app, "complete")["changed"]
    assert (app / "uploads" / "receipt").read_text() == "paid"


def test_what_a_boot_wrote_into_the_staged_tree_becomes_shared(app: pathlib.Path) -> None:
    without_uploads(app)
    staged = pathlib.Path(reach(app, "staged", "v1")["path"])
    (staged / "uploads").mkdir()
    (staged / "uploads" / "made").write_text("at boot")
    reach(app, "live", "v1")
    reach(app, "previous")
    assert (app / "uploads" / "made").read_text() == "at boot"
    assert reach(app, "complete")["changed"] and (app / "uploads" / "made").exists()


def test_two_truths_are_refused_before_the_flip(app: pathlib.Path) -> None:
    without_uploads(app)
    staged = pathlib.Path(reach(app, "staged", "v1")["path"])
    for tree in (staged, app):
        (tree / "uploads").mkdir()
        (tree / "uploads" / "receipt").write_text(str(tree))
    with pytest.raises(RollbackError, match="Merge the first into the second"):
        reach(app, "live", "v1")
    assert (app / "src" / "main.js").read_text() == "// 2\n"
    assert (app / "uploads" / "receipt").read_text() == str(app) and (staged / "uploads" / "receipt").read_text() == str(staged)


def test_complete_keeps_a_tree_that_alone_has_something_persistent(app: pathlib.Path) -> None:
    without_uploads(app)
    staged = pathlib.Path(reach(app, "staged", "v1")["path"])
    (staged / "uploads").mkdir()
    assert reach(app, "complete", check=True)["actions"] == [f"remove {staged}"]
    (staged / "uploads" / "receipt").write_text("paid")
    with pytest.raises(RollbackError, match=f"{staged}/uploads is persistent and lies only in the tree that would be removed"):
        reach(app, "complete")
    assert (staged / "uploads" / "receipt").read_text() == "paid"
    (staged / "uploads" / "receipt").unlink()
    assert reach(app, "complete")["removed"] == [str(staged)]


def test_in_a_twin_only_what_its_original_has_not_counts(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "one", "1.0.0")
    (tmp_path / "one" / "uploads" / "old").write_text("x")
    copy_tree(str(tmp_path / "one"), str(tmp_path / "green-1"), link=True)
    assert unshared(str(tmp_path / "green-1"), ["uploads"]) and not unshared(str(tmp_path / "green-1"), ["uploads"], twin=True)
    (tmp_path / "green-1" / "uploads" / "new").write_text("y")
    assert unshared(str(tmp_path / "green-1"), ["uploads"], twin=True) == [str(tmp_path / "green-1" / "uploads")]
