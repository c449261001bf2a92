# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups that a team's own script wrote."""

from __future__ import annotations

import os
import pathlib
import time

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._legacy import list_legacy

GOOD_SQL = b"--\n-- PostgreSQL database dump\n--\nCREATE TABLE t ();\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc\n"


def backup(base: pathlib.Path, stamp: str = "20231201_120000", parts: str = "src package lock sql", sql: bytes = GOOD_SQL) -> pathlib.Path:
    folder = base / f"backup_{stamp}"
    folder.mkdir(parents=True)
    if "src" in parts:
        (folder / "src").mkdir()
        (folder / "src" / "server.js").write_text("12345")
    if "package" in parts:
        (folder / "package.json").write_text("{}")
    if "lock" in parts:
        (folder / "package-lock.json").write_text("{}")
    if "sql" in parts:
        (folder / "database_backup.sql").write_bytes(sql)
    return folder


def test_a_whole_backup(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Africa/Nairobi")
    time.tzset()
    try:
        backup(tmp_path)
        entry = list_legacy(str(tmp_path))[0]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert entry["version"] == "backup_20231201_120000"
    assert entry["alias"] == "20231201_120000"
    assert entry["legacy"] is True
    assert entry["record"] is None
    assert entry["created"] == "2023-12-01T09:00:00.000000Z", "the script writes local time"
    assert entry["components"]["pm2"]["size"] == 5 + 2 + 2
    assert entry["components"]["postgresql"]["size"] == len(GOOD_SQL)
    assert entry["problems"] == []


@pytest.mark.parametrize(
    ("parts", "components", "problem"),
    [
        ("src package lock", ["pm2"], None),
        ("sql", ["postgresql"], None),
        ("src package sql", ["postgresql"], "package-lock.json is missing"),
        ("src lock", ["pm2"], "package.json is missing"),
        ("package lock", [], "holds nothing that can be restored"),
        ("", [], "holds nothing that can be restored"),
    ],
)
def test_any_part_may_be_missing(tmp_path: pathlib.Path, parts: str, components: list[str], problem: str | None) -> None:
    backup(tmp_path, parts=parts)
    entry = list_legacy(str(tmp_path))[0]
    assert sorted(entry["components"]) == components
    assert (problem is None and not entry["problems"]) or any(problem in text for text in entry["problems"] if problem)


@pytest.mark.parametrize(
    ("sql", "message"),
    [(b"", "is empty"), (GOOD_SQL[:40], "cut off"), (b"psql: error\n" * 1000, "cut off"), (b"\xff" * 10000, "cut off")],
)
def test_a_dump_that_failed_is_damaged(tmp_path: pathlib.Path, sql: bytes, message: str) -> None:
    backup(tmp_path, sql=sql)
    assert message in list_legacy(str(tmp_path))[0]["components"]["postgresql"]["damaged"]


def test_links_are_not_followed(tmp_path: pathlib.Path) -> None:
    folder = backup(tmp_path, parts="package lock")
    (folder / "src").symlink_to("/etc")
    (folder / "database_backup.sql").symlink_to("/etc/passwd")
    os.symlink(folder, tmp_path / "backup_20240101_000000")
    found = list_legacy(str(tmp_path))
    assert [entry["version"] for entry in found] == ["backup_20231201_120000"]
    assert found[0]["components"] == {}
    assert any("src is a link" in text for text in found[0]["problems"])


def test_only_the_scripts_own_names_count(tmp_path: pathlib.Path) -> None:
    for name in ("backup_2023", "backup_20231201_120000.old", "20231201_120000", "backup_20231201_120000\n"):
        (tmp_path / name).mkdir()
    assert list_legacy(str(tmp_path)) == []
    assert list_legacy(str(tmp_path / "absent")) == []


def test_a_name_that_is_no_date_gets_the_folders_time(tmp_path: pathlib.Path) -> None:
    folder = backup(tmp_path, "20231399_990000")
    os.utime(folder, (1700000000, 1700000000))
    assert list_legacy(str(tmp_path))[0]["created"] == "2023-11-14T22:13:20.000000Z"


def test_newest_first(tmp_path: pathlib.Path) -> None:
    for stamp in ("20231201_120000", "20240101_000000", "20231115_000000"):
        backup(tmp_path, stamp)
    assert [entry["alias"] for entry in list_legacy(str(tmp_path))] == ["20240101_000000", "20231201_120000", "20231115_000000"]
