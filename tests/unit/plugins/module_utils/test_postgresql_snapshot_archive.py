# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A data file is read to its very end in every codec; each byte less is noticed."""

from __future__ import annotations

import gzip
import pathlib
import struct
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._module import Completed
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _archive
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._programs import SUFFIXES, Programs

PROGRAMS = Programs("/b", "/b/pg_dump", "/b/pg_restore", 18, "18.1")
DATA = b"1\tone\n2\ttwo\n3\tthree\n\\.\n\n\n"
LISTING = """;
; Selected TOC Entries:
;
219; 1259 16388 TABLE public t owner
3001; 0 16388 TABLE DATA public t owner
3002; 0 0 BLOBS - 555 owner
3003; 0 17000 MATERIALIZED VIEW DATA public m owner
"""


def zstd(data: bytes, checksum: bool = True, single: bool = False) -> bytes:
    """One frame of two raw blocks and a run-length block, as RFC 8878 describes them."""
    descriptor = (0x20 if single else 0) | (4 if checksum else 0)
    frame = struct.pack("<IB", 0xFD2FB528, descriptor) + (bytes([min(len(data) + 3, 255)]) if single else b"\x58")
    half = len(data) // 2
    for part in (data[:half], data[half:]):
        frame += struct.pack("<I", len(part) << 3)[:3] + part
    frame += struct.pack("<I", 3 << 3 | 1 << 1 | 1)[:3] + b"x"
    return frame + (b"sum!" if checksum else b"")


def lz4(data: bytes, sums: bool = True, size: bool = True) -> bytes:
    """One frame of two stored blocks and the end mark."""
    flags = 0x40 | (0x10 if sums else 0) | (0x08 if size else 0) | (0x04 if sums else 0)
    frame = struct.pack("<IBB", 0x184D2204, flags, 0x40) + (struct.pack("<Q", len(data)) if size else b"") + b"h"
    half = len(data) // 2
    for part in (data[:half], data[half:]):
        frame += struct.pack("<I", len(part) | 0x80000000) + part + (b"bsum" if sums else b"")
    return frame + struct.pack("<I", 0) + (b"csum" if sums else b"")


ENCODED: dict[str, list[bytes]] = {
    "none": [DATA],
    "gzip": [gzip.compress(DATA), gzip.compress(DATA[:9]) + gzip.compress(DATA[9:])],
    "zstd": [
        zstd(DATA),
        zstd(DATA, checksum=False),
        zstd(DATA, single=True),
        zstd(DATA) * 2,
        struct.pack("<II", 0x184D2A50, 3) + b"abc" + zstd(DATA),
    ],
    "lz4": [lz4(DATA), lz4(DATA, sums=False, size=False), lz4(DATA) * 2],
}
CASES = [(codec, number) for codec, variants in ENCODED.items() for number in range(len(variants))]


def cli(argv: t.Sequence[str], **unused: t.Any) -> Completed:
    assert argv[:2] == ["/b/pg_restore", "-l"]
    return Completed(0, LISTING, "")


def folder_with(tmp_path: pathlib.Path, codec: str, data: bytes) -> str:
    (tmp_path / "toc.dat").write_bytes(b"PGDMP")
    (tmp_path / f"3001.dat{SUFFIXES[codec]}").write_bytes(data)
    return str(tmp_path)


@pytest.mark.parametrize("codec, number", CASES)
def test_a_whole_file(tmp_path: pathlib.Path, codec: str, number: int) -> None:
    data = ENCODED[codec][number]
    assert _archive.check(cli, PROGRAMS, folder_with(tmp_path, codec, data), codec, {16388: 3}) == {"files": 2, "bytes": len(data) + 5}
    assert _archive.check(cli, PROGRAMS, str(tmp_path), codec, {16388: None})["files"] == 2


@pytest.mark.parametrize("codec", ENCODED)
def test_every_byte_less_is_noticed(tmp_path: pathlib.Path, codec: str) -> None:
    data = ENCODED[codec][0]
    for length in range(len(data)):
        with pytest.raises(RollbackError, match="is damaged"):
            _archive.check(cli, PROGRAMS, folder_with(tmp_path, codec, data[:length]), codec, {16388: 3})


@pytest.mark.parametrize("codec", ["gzip", "zstd", "lz4"])
def test_what_is_no_frame_is_noticed(tmp_path: pathlib.Path, codec: str) -> None:
    with pytest.raises(RollbackError, match="is damaged"):
        _archive.check(cli, PROGRAMS, folder_with(tmp_path, codec, b"\x00" * 64), codec, {16388: 3})


@pytest.mark.parametrize("codec, said", [("zstd", "no zstd frame"), ("lz4", "no lz4 frame")])
def test_a_frame_of_another_kind_is_noticed(tmp_path: pathlib.Path, codec: str, said: str) -> None:
    """Also behind a whole frame, and where what follows the number would pass for one."""
    whole = ENCODED[codec][0]
    for data in (b"\x00" + whole[1:], whole + b"\x00" + whole[1:]):
        with pytest.raises(RollbackError, match=said):
            _archive.check(cli, PROGRAMS, folder_with(tmp_path, codec, data), codec, {16388: 3})


@pytest.mark.parametrize("codec", ["none", "gzip"])
def test_data_without_its_end_mark_is_noticed_where_rows_were_not_counted(tmp_path: pathlib.Path, codec: str) -> None:
    data = DATA[:-5]
    encoded = gzip.compress(data) if codec == "gzip" else data
    with pytest.raises(RollbackError, match="does not end with the end-of-data mark"):
        _archive.check(cli, PROGRAMS, folder_with(tmp_path, codec, encoded), codec, {16388: None})


@pytest.mark.parametrize("codec", ["none", "gzip"])
@pytest.mark.parametrize("rows", [2, 4])
def test_a_wrong_number_of_rows_is_noticed(tmp_path: pathlib.Path, codec: str, rows: int) -> None:
    with pytest.raises(RollbackError, match=f"it has 3 rows, expected {rows}"):
        _archive.check(cli, PROGRAMS, folder_with(tmp_path, codec, ENCODED[codec][0]), codec, {16388: rows})


def test_a_flipped_byte_in_gzip_is_noticed(tmp_path: pathlib.Path) -> None:
    data = bytearray(gzip.compress(DATA))
    data[-12] ^= 1
    with pytest.raises(RollbackError, match="is damaged"):
        _archive.check(cli, PROGRAMS, folder_with(tmp_path, "gzip", bytes(data)), "gzip", {16388: 3})


def test_tables_that_are_missing_or_surplus(tmp_path: pathlib.Path) -> None:
    folder = folder_with(tmp_path, "none", DATA)
    for expected in ({}, {16388: 3, 99: 0}, {99: 3}):
        with pytest.raises(RollbackError, match="holds the data of 1 tables"):
            _archive.check(cli, PROGRAMS, folder, "none", expected)
    (tmp_path / "3001.dat").unlink()
    with pytest.raises(RollbackError, match=r"lacks the data file 3001\.dat"):
        _archive.check(cli, PROGRAMS, folder, "none", {16388: 3})


def test_a_toc_that_cannot_be_read(tmp_path: pathlib.Path) -> None:
    with pytest.raises(RollbackError, match=r"exit -11\): no message; a damaged toc\.dat"):
        _archive.check(lambda *unused, **also: Completed(-11, "", ""), PROGRAMS, str(tmp_path), "none", {})
