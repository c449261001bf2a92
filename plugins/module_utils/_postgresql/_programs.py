# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Find pg_dump and pg_restore of the server's own major version, and the codecs that they were built with.

An older pg_dump refuses a newer server; a newer pg_restore writes settings that an older server does not know.
"""

from __future__ import annotations

import os
import re
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._module import Cli

CODECS = ("zstd", "lz4", "gzip", "none")
SUFFIXES = {"zstd": ".zst", "lz4": ".lz4", "gzip": ".gz", "none": ""}
FOLDERS = (
    "/usr/lib/postgresql/{major}/bin",
    "/usr/pgsql-{major}/bin",
    "/usr/local/pgsql-{major}/bin",
    "/opt/homebrew/opt/postgresql@{major}/bin",
)
VERSION = re.compile(r"\(PostgreSQL\)\s+(\d+)(?:\.(\d+))?")


class Programs(t.NamedTuple):
    """The client programs of one folder."""

    folder: str
    pg_dump: str
    pg_restore: str
    major: int
    version: str


def candidates(major: int, bin_dir: str | None, path: str | None = None) -> list[str]:
    """Folders to look in, best first. With ``bin_dir`` only that one."""
    if bin_dir:
        return [bin_dir]
    folders = [folder.format(major=major) for folder in FOLDERS]
    folders += [folder for folder in (path if path is not None else os.environ.get("PATH", "")).split(os.pathsep) if folder]
    return list(dict.fromkeys(folders))


def find(cli: Cli, major: int, bin_dir: str | None = None, path: str | None = None) -> Programs:
    """pg_dump and pg_restore of PostgreSQL ``major``, or a message that names what was found instead."""
    wrong: list[str] = []
    looked = candidates(major, bin_dir, path)
    for folder in looked:
        pg_dump, pg_restore = (os.path.join(folder, name) for name in ("pg_dump", "pg_restore"))
        missing = [name for name in (pg_dump, pg_restore) if not os.access(name, os.X_OK) or os.path.isdir(name)]
        if missing:
            if len(missing) == 1:
                wrong.append(f"{missing[0]} is missing")
            continue
        found = {name: program_version(cli, name) for name in (pg_dump, pg_restore)}
        other = [f"{name} is {text or 'not a PostgreSQL program'}" for name, (number, text) in found.items() if number != major]
        if other:
            wrong += other
            continue
        return Programs(folder, pg_dump, pg_restore, major, found[pg_dump][1])
    what = "; ".join(wrong) if wrong else "found neither in " + ", ".join(looked)
    raise RollbackError(
        f"pg_dump and pg_restore of PostgreSQL {major}, the server's major version, are needed: {what}. "
        f"Install them (package postgresql-client-{major}) or set bin_dir (rollback_postgresql_bin_dir) to their folder.",
        looked=looked,
    )


def program_version(cli: Cli, program: str) -> tuple[int, str]:
    """``(18, "18.6")`` of a client program; ``(0, "")`` when it is none. Debian's wrapper says the newest version it has."""
    try:
        done = cli([program, "--version"])
    except OSError:
        return 0, ""
    match = VERSION.search(done.stdout) if done.rc == 0 else None
    if match is None:
        return 0, ""
    return int(match.group(1)), ".".join(part for part in match.groups() if part)


def supported(cli: Cli, programs: Programs, codec: str) -> bool:
    """Whether these programs can write and read ``codec``; found out by trying, without a server."""
    if codec == "none":
        return True
    if programs.major < 16:
        return codec == "gzip"
    done = cli([programs.pg_dump, "--no-password", "-Fc", f"--compress={codec}:1", "-f", os.devnull, "-d", "host=/nonexistent dbname=none"])
    return "support compression" not in done.stderr and "compression algorithm" not in done.stderr


def choose_codec(cli: Cli, programs: Programs, wanted: str = "auto") -> str:
    """The codec to write: the wished-for one, or for ``auto`` the best of zstd, lz4, gzip that works here."""
    if wanted == "auto":
        return next(codec for codec in CODECS if supported(cli, programs, codec))
    if wanted not in CODECS:
        raise RollbackError(f"The codec {wanted!r} is unknown: expected auto, {', '.join(CODECS)}.")
    if not supported(cli, programs, wanted):
        raise RollbackError(
            f"{programs.pg_dump} ({programs.version}) cannot compress with {wanted}. Use compress=auto, or install a build that can."
        )
    return wanted


def compress_argument(programs: Programs, codec: str) -> str:
    """The value of ``-Z`` for a codec that :func:`choose_codec` gave."""
    if programs.major < 16:
        return {"gzip": "1", "none": "0"}[codec]
    return {"zstd": "zstd:3", "lz4": "lz4:1", "gzip": "gzip:1", "none": "none"}[codec]
