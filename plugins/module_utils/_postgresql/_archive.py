# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Read a directory-format dump to its very end, because pg_restore does not.

pg_restore of a truncated zstd or lz4 file can end with exit code 0 and rows missing. zstd and lz4 are checked by walking their frames
(no decoder is needed: a frame names the length of each block and marks the last one); gzip is decoded, which checks its CRC; gzip and
uncompressed files are also counted, line by line, against the rows that the manifest names.
"""

from __future__ import annotations

import os
import re
import typing as t
import zlib

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._programs import SUFFIXES, Programs

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._module import Cli

ENTRY = re.compile(r"^(\d+); (\d+) (\d+) (TABLE DATA|BLOBS|MATERIALIZED VIEW DATA) ", re.MULTILINE)
END_OF_COPY = b"\\.\n\n\n"
BLOCK = 1 << 20


class Damaged(Exception):
    """What is wrong with one file."""


def table_data(cli: Cli, programs: Programs, folder: str) -> dict[int, int]:
    """``{table OID: dump number}`` of every TABLE DATA entry; the data is in ``<dump number>.dat<suffix>``."""
    done = cli([programs.pg_restore, "-l", folder])
    if done.rc != 0:
        raise RollbackError(
            f"pg_restore -l cannot read the archive {folder} (exit {done.rc}): {done.stderr.strip() or 'no message; a damaged toc.dat'}"
        )
    return {int(oid): int(number) for number, unused, oid, kind in ENTRY.findall(done.stdout) if kind == "TABLE DATA"}


def check(cli: Cli, programs: Programs, folder: str, codec: str, rows: dict[int, t.Any]) -> dict[str, int]:
    """Check the whole dump in ``folder``. ``rows`` is ``{table OID: number of rows, or None}`` of all tables that it must hold.

    Returns how many files and bytes were read; raises RollbackError naming the first damaged file.
    """
    entries = table_data(cli, programs, folder)
    if set(entries) != set(rows):
        raise RollbackError(
            f"The dump {folder} holds the data of {len(entries)} tables, expected {len(rows)}. "
            "A table was created or dropped meanwhile; take the snapshot again."
        )
    suffix = SUFFIXES[codec]
    expected = {f"{number}.dat{suffix}": rows[oid] for oid, number in entries.items()}
    names = sorted(os.listdir(folder))
    missing = sorted(set(expected) - set(names))
    if missing:
        raise RollbackError(f"The dump {folder} lacks the data file {missing[0]}. Take the snapshot again.")
    read = 0
    for name in names:
        path = os.path.join(folder, name)
        read += os.path.getsize(path)
        if name.endswith(".toc") or name == "toc.dat":
            continue
        try:
            lines, tail = DECODERS[codec](path)
            if name in expected and lines is not None:
                if not tail.endswith(END_OF_COPY):
                    raise Damaged("it does not end with the end-of-data mark")
                if expected[name] is not None and lines - 3 != expected[name]:
                    raise Damaged(f"it has {lines - 3} rows, expected {expected[name]}")
        except (Damaged, zlib.error) as exc:
            raise RollbackError(f"The data file {path} is damaged: {exc}. Check the disk, then take the snapshot again.") from exc
    return {"files": len(names), "bytes": read}


def _blocks(path: str) -> t.Iterator[bytes]:
    with open(path, "rb") as handle:
        yield from iter(lambda: handle.read(BLOCK), b"")


def read_plain(path: str) -> tuple[int, bytes]:
    """Lines and the last bytes."""
    lines, tail = 0, b""
    for block in _blocks(path):
        lines += block.count(b"\n")
        tail = (tail + block)[-8:]
    return lines, tail


def read_gzip(path: str) -> tuple[int, bytes]:
    """Decode to the end, CRC and length included."""
    lines, tail = 0, b""
    decoder = zlib.decompressobj(31)
    for block in _blocks(path):
        while block:
            if decoder.eof:
                decoder = zlib.decompressobj(31)
            data = decoder.decompress(block)
            lines += data.count(b"\n")
            tail = (tail + data)[-8:]
            block = decoder.unused_data if decoder.eof else b""
    if not decoder.eof:
        raise Damaged("it ends in the middle of its compressed data")
    return lines, tail


class _Reader:
    """Exact reads and skips; an early end is damage."""

    def __init__(self, path: str) -> None:
        self.handle = open(path, "rb")  # noqa: SIM115 (closed by close)
        self.size = os.path.getsize(path)
        self.at = 0

    def take(self, count: int) -> bytes:
        data = self.handle.read(count)
        self.at += count
        if len(data) != count:
            raise Damaged("it ends in the middle of its compressed data")
        return data

    def skip(self, count: int) -> None:
        self.at += count
        if self.at > self.size:
            raise Damaged("it ends in the middle of its compressed data")
        self.handle.seek(self.at)

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")


def _walk(path: str, frame: t.Callable[[_Reader, int], None]) -> tuple[None, bytes]:
    """Every frame of a compressed file, each read by ``frame`` after its magic number. Frames to be skipped are the same in both formats."""
    reader = _Reader(path)
    try:
        frames = 0
        while reader.at < reader.size:
            magic = reader.number(4)
            if 0x184D2A50 <= magic <= 0x184D2A5F:
                reader.skip(reader.number(4))
                continue
            frame(reader, magic)
            frames += 1
        if not frames:
            raise Damaged("it is empty")
    finally:
        reader.handle.close()
    return None, b""


def walk_zstd(path: str) -> tuple[None, bytes]:
    """Every frame and block of a zstd file is there (RFC 8878, section 3.1)."""
    return _walk(path, _zstd_frame)


def _zstd_frame(reader: _Reader, magic: int) -> None:
    if magic != 0xFD2FB528:
        raise Damaged("a part of it is no zstd frame")
    descriptor = reader.number(1)
    single = descriptor >> 5 & 1
    content = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    reader.skip((0 if single else 1) + (0, 1, 2, 4)[descriptor & 3] + content)
    last = 0
    while not last:
        header = reader.number(3)
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        if kind == 3:
            raise Damaged("a block of it is of an unknown kind")
        reader.skip(1 if kind == 1 else size)
    reader.skip(4 if descriptor & 4 else 0)


def walk_lz4(path: str) -> tuple[None, bytes]:
    """Every frame and block of an lz4 file is there, and each frame has its end mark."""
    return _walk(path, _lz4_frame)


def _lz4_frame(reader: _Reader, magic: int) -> None:
    if magic != 0x184D2204:
        raise Damaged("a part of it is no lz4 frame")
    flags = reader.number(1)
    if flags >> 6 != 1:
        raise Damaged("a frame of it has an unknown version")
    reader.skip(1 + (8 if flags & 8 else 0) + (4 if flags & 1 else 0) + 1)
    while True:
        size = reader.number(4)
        if size == 0:
            break
        reader.skip((size & 0x7FFFFFFF) + (4 if flags & 16 else 0))
    reader.skip(4 if flags & 4 else 0)


DECODERS: dict[str, t.Callable[[str], tuple[t.Any, bytes]]] = {
    "none": read_plain,
    "gzip": read_gzip,
    "zstd": walk_zstd,
    "lz4": walk_lz4,
}
