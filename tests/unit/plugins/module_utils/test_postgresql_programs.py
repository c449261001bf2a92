# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which pg_dump is taken, and which codec it can write."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._module import Completed
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _programs
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._programs import Programs


class Machine:
    """Folders with programs that say a version."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.says: dict[str, str] = {}
        self.codecs: tuple[str, ...] = ("gzip",)

    def install(self, folder: str, version: str, names: t.Sequence[str] = ("pg_dump", "pg_restore")) -> str:
        path = self.root / folder
        path.mkdir()
        for name in names:
            (path / name).write_text("")
            (path / name).chmod(0o755)
            self.says[str(path / name)] = f"{name} (PostgreSQL) {version}\n"
        return str(path)

    def cli(self, argv: t.Sequence[str], **unused: t.Any) -> Completed:
        if argv[1] == "--version":
            return Completed(0, self.says[argv[0]], "")
        wanted = next(part.partition("=")[2].partition(":")[0] for part in argv if part.startswith("--compress="))
        if wanted in self.codecs:
            return Completed(1, "", 'pg_dump: error: connection to server on socket "/nonexistent" failed')
        return Completed(1, "", f"pg_dump: error: this build does not support compression with {wanted.upper()}")


@pytest.fixture
def machine(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(_programs, "FOLDERS", (str(tmp_path / "lib-{major}"),))
    return Machine(tmp_path)


def test_the_folder_of_the_major_version_comes_before_path(machine: Machine) -> None:
    other = machine.install("bin", "18.6 (Debian 18.6-1)")
    folder = machine.install("lib-15", "15.18")
    found = _programs.find(machine.cli, 15, path=other)
    assert (found.folder, found.major, found.version) == (folder, 15, "15.18")
    assert _programs.find(machine.cli, 18, path=other).folder == other


def test_bin_dir_is_the_only_place(machine: Machine) -> None:
    machine.install("lib-15", "15.18")
    mine = machine.install("mine", "15.2", ("pg_dump", "pg_restore"))
    found = _programs.find(machine.cli, 15, bin_dir=mine)
    assert found.folder == mine
    with pytest.raises(RollbackError, match="found neither in /nowhere"):
        _programs.find(machine.cli, 15, bin_dir="/nowhere")


@pytest.mark.parametrize(
    "version, names, expected",
    [
        ("14.9", ("pg_dump", "pg_restore"), r"pg_dump is 14\.9"),
        ("18.6", ("pg_dump", "pg_restore"), r"pg_dump is 18\.6"),
        ("15.1", ("pg_dump",), "pg_restore is missing"),
        ("nonsense", ("pg_dump", "pg_restore"), "is not a PostgreSQL program"),
    ],
)
def test_what_was_found_instead_is_said(machine: Machine, version: str, names: t.Sequence[str], expected: str) -> None:
    folder = machine.install("bin", version, names)
    with pytest.raises(RollbackError, match=expected) as caught:
        _programs.find(machine.cli, 15, path=folder)
    assert "postgresql-client-15" in str(caught.value)


def programs(major: int) -> Programs:
    return Programs("/b", "/b/pg_dump", "/b/pg_restore", major, f"{major}.1")


@pytest.mark.parametrize(
    "major, codecs, expected",
    [
        (18, ("zstd", "lz4", "gzip"), "zstd"),
        (17, ("lz4", "gzip"), "lz4"),
        (18, ("gzip",), "gzip"),
        (18, (), "none"),
        (15, ("zstd",), "gzip"),
    ],
)
def test_the_best_codec_that_works(machine: Machine, major: int, codecs: tuple[str, ...], expected: str) -> None:
    machine.codecs = codecs
    assert _programs.choose_codec(machine.cli, programs(major)) == expected


@pytest.mark.parametrize("major, wanted", [(15, "zstd"), (15, "lz4"), (18, "zstd"), (18, "brotli")])
def test_a_codec_that_does_not_work_is_refused(machine: Machine, major: int, wanted: str) -> None:
    with pytest.raises(RollbackError, match=wanted):
        _programs.choose_codec(machine.cli, programs(major), wanted)


def test_how_pg_dump_is_told() -> None:
    assert [_programs.compress_argument(programs(18), codec) for codec in _programs.CODECS] == ["zstd:3", "lz4:1", "gzip:1", "none"]
    assert [_programs.compress_argument(programs(15), codec) for codec in ("gzip", "none")] == ["1", "0"]
