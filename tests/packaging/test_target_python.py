# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is sent to hosts runs on the oldest Python that hosts may have (3.9), or the oldest that this machine has."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

import ansible.module_utils
import pytest

from tests.packaging.conftest import ROOT

OLDEST = (3, 9)
PREFIX = "ansible_collections.payops.rollback.plugins"


def version_of(program: str) -> tuple[int, int] | None:
    try:
        done = subprocess.run(
            [program, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True, timeout=20, check=False
        )
        major, minor = done.stdout.split()
        return int(major), int(minor)
    except (OSError, ValueError):
        return None


@pytest.fixture(scope="module")
def python() -> str:
    """The oldest interpreter here that is not older than 3.9."""
    home = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv")) / "versions"
    named = [shutil.which(f"python3.{minor}") for minor in range(9, 15)] + ["/usr/bin/python3"]
    programs = {*filter(None, named), *map(str, home.glob("3.*/bin/python3"))}
    found = sorted((version, program) for program in programs if (version := version_of(program)) is not None and version >= OLDEST)
    return found[0][1]


def test_everything_imports_there(python: str, tmp_path: pathlib.Path) -> None:
    """Compiling is not enough: `X | Y` outside annotations breaks only when it is evaluated."""
    # Of ansible-core only what travels to hosts, so that nothing else of this environment helps out.
    (tmp_path / "ansible").mkdir()
    (tmp_path / "ansible/__init__.py").touch()
    (tmp_path / "ansible/module_utils").symlink_to(pathlib.Path(ansible.module_utils.__file__).parent)
    sources = [*(ROOT / "plugins/modules").glob("*.py"), *(ROOT / "plugins/module_utils").rglob("*.py")]
    names = sorted(".".join(path.relative_to(ROOT / "plugins").with_suffix("").parts) for path in sources if path.name != "__init__.py")
    program = f"import importlib\nfor name in {names!r}:\n    importlib.import_module('{PREFIX}.' + name)\nprint(len({names!r}))"
    done = subprocess.run(
        [python, "-W", "error::SyntaxWarning", "-c", program],
        cwd=tmp_path,
        env={
            "PATH": os.defpath,
            "PYTHONPATH": f"{tmp_path}:{ROOT}/playbooks/collections",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LC_ALL": "C.UTF-8",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"with {python}:\n{done.stderr}"
    assert int(done.stdout) == len(names) > 10
