# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``molecule test`` of every scenario, all on one engine. By hand: ``.venv/bin/molecule test --all``."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import typing as t

import pytest

from tests.lab import docker, host_image
from tests.lab.fixtures import engine_with_compose, unavailable
from tests.lab.node import ROOT, NodeMissing
from tests.lab.scenario import HOSTS

SCENARIOS = sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))


@pytest.fixture(scope="module")
def engine() -> t.Iterator[docker.Engine]:
    with engine_with_compose() as started:
        try:
            host_image.make(started)
        except NodeMissing as exc:
            unavailable(str(exc))
        yield started


def test_every_scenario_has_hosts() -> None:
    assert sorted(HOSTS) == SCENARIOS


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(engine: docker.Engine, tmp_path: pathlib.Path, name: str) -> None:
    beside = pathlib.Path(sys.executable).parent
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "MOLECULE_", "DOCKER_", "COMPOSE_", "PYTEST_"))
    }
    env = {**kept, "PAYOPS_ENGINE": str(engine.root), "PATH": f"{beside}{os.pathsep}{kept.get('PATH', os.defpath)}", "NO_COLOR": "1"}
    log = tmp_path / "molecule.log"
    with log.open("wb") as out:
        argv = [str(beside / "molecule"), "test", "--scenario-name", name]
        done = subprocess.run(
            argv, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, timeout=900, check=False
        )
    assert done.returncode == 0, log.read_text(encoding="utf-8", errors="replace")[-12000:]
