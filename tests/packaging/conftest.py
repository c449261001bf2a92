# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection as its users get it: from a clone, by name, and built and installed."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tarfile
import typing as t

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml") if not path.name.endswith(".meta.yml"))

Run = t.Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: pathlib.Path) -> Run:
    """Call a program of ansible-core as somebody else would: nothing of this process's Ansible settings, a home of its own."""

    def call(program: str, *arguments: str, cwd: pathlib.Path, ok: bool = True, **extra: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHON"))}
        environment.update(HOME=str(tmp_path / "home"), ANSIBLE_NOCOLOR="1", LC_ALL="C.UTF-8", **extra)
        done = subprocess.run(
            [str(pathlib.Path(sys.executable).with_name(program)), *arguments],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=180,
            check=False,
        )
        output = f"{done.stdout}\n{done.stderr}"
        assert not ok or done.returncode == 0, f"{program} {' '.join(arguments)}: exit code {done.returncode}\n{output}"
        return done

    return call


@pytest.fixture
def inventory(tmp_path: pathlib.Path) -> pathlib.Path:
    """One local host of a system without points."""
    path = tmp_path / "hosts.yml"
    path.write_text(
        f"""all:
  hosts:
    one:
      ansible_connection: local
      ansible_python_interpreter: {sys.executable}
      ansible_remote_tmp: {tmp_path}/remote
      rollback_system: packaged
      rollback_store: {tmp_path}/store
      rollback_components: [postgresql]
"""
    )
    return path


@pytest.fixture(scope="session")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A copy of the tracked files, as a release is built from."""
    copy = tmp_path_factory.mktemp("tracked")
    done = subprocess.run([str(ROOT / "tests/ci/copy.sh"), str(copy)], capture_output=True, text=True, check=True)
    return pathlib.Path(done.stdout.strip())


@pytest.fixture(scope="session")
def tarball(tracked: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The collection, built."""
    target = tmp_path_factory.mktemp("built")
    galaxy = pathlib.Path(sys.executable).with_name("ansible-galaxy")
    subprocess.run([str(galaxy), "collection", "build", str(tracked), "--output-path", str(target)], check=True, capture_output=True)
    (path,) = target.glob("payops-rollback-*.tar.gz")
    return path


@pytest.fixture
def installed(tarball: pathlib.Path, tmp_path: pathlib.Path, run: Run) -> pathlib.Path:
    """The built collection, installed into an empty folder. Nothing else is on the collections path."""
    target = tmp_path / "collections"
    target.mkdir()
    run("ansible-galaxy", "collection", "install", str(tarball), "-p", str(target), "--offline", cwd=tmp_path)
    return target


def members(tarball: pathlib.Path) -> set[str]:
    with tarfile.open(tarball) as archive:
        return {member.name for member in archive.getmembers() if member.isfile()}
