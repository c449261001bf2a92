# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is sent to hosts suits the oldest Python that hosts may have (3.9).

Two ways, because few machines have that Python any more: vermin reads the source and knows since when each word and each
function of the standard library exists; and everything is imported by the oldest interpreter here. Where that one is not
3.9, what it proves beyond vermin is told in the warnings.
"""

from __future__ import annotations

import glob
import os
import pathlib
import shutil
import subprocess
import sys
import warnings

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
    programs = {*filter(None, named), *glob.glob(str(home / "3.*/bin/python3"))}  # nothing where that is somebody else's home
    found = sorted((version, program) for program in programs if (version := version_of(program)) is not None and version >= OLDEST)
    return found[0][1]


def test_nothing_newer_than_3_9_is_used() -> None:
    """By reading: what a test never calls is found, too. Annotations are not evaluated (from __future__ import annotations)."""
    done = newer_than_oldest(ROOT / "plugins/modules", ROOT / "plugins/module_utils")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "source", ["match x:\n    case 1: pass\n", "import tomllib\n", "zip([], [], strict=True)\n", "def f():\n    return int.bit_count(3)\n"]
)
def test_something_newer_is_found(tmp_path: pathlib.Path, source: str) -> None:
    (tmp_path / "newer.py").write_text(f"from __future__ import annotations\n{source}")
    done = newer_than_oldest(tmp_path)
    assert done.returncode == 1 and "Target versions not met:   3.9-" in done.stdout, done.stdout + done.stderr


def newer_than_oldest(*folders: pathlib.Path) -> subprocess.CompletedProcess[str]:
    wanted = f"-t={OLDEST[0]}.{OLDEST[1]}-"
    program = str(pathlib.Path(sys.executable).with_name("vermin"))
    argv = [program, "--no-tips", "--violations", "--no-parse-comments", wanted, *map(str, folders)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


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
    if version_of(python) != OLDEST:
        warnings.warn(f"no Python {OLDEST[0]}.{OLDEST[1]} here: imported by {python}; for 3.9 only vermin has spoken", stacklevel=1)
