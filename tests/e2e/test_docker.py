# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks on a compose project: a point, a newer release, back, undo, an emergency and recovery."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest

from tests.lab import compose
from tests.lab.docker import Engine
from tests.lab.fixtures import engine_with_compose
from tests.lab.node import ROOT
from tests.lab.system import ansible_playbook
from tests.real.docker.compose_rig import ComposeRig


@pytest.fixture(scope="module")
def engine() -> t.Iterator[Engine]:
    with engine_with_compose() as started:
        yield started


@pytest.fixture
def rig(engine: Engine, tmp_path: pathlib.Path) -> t.Iterator[ComposeRig]:
    made = ComposeRig(engine, tmp_path, "played")
    values = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "rollback_system": "demo",
        "rollback_store": str(made.store),
        "rollback_components": ["docker"],
        "rollback_docker_dir": str(made.dir),
        "rollback_docker_services": ["api"],
        "rollback_docker_host": engine.url,
        "rollback_docker_stable_seconds": 1,
        "rollback_docker_probes": [{"name": "health", "url": f"http://127.0.0.1:{made.port}/health"}],
    }
    (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"hosts": {"app1": values}}}))
    try:
        yield made
    finally:
        made.clear()


def play(rig: ComposeRig, playbook: str, **words: t.Any) -> str:
    argv = [ansible_playbook(), f"playbooks/{playbook}.yml", "-i", str(rig.dir.parent / "hosts.yml")]
    argv += ["-e", json.dumps(words)] if words else []
    env = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "DOCKER_", "COMPOSE_"))}
    env.update(compose.env(), ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"), ANSIBLE_NOCOLOR="1", ANSIBLE_NOCOWS="1")
    done = subprocess.run(argv, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.full
def test_there_back_stopped_and_started(rig: ComposeRig) -> None:
    rig.one = rig.deploy("1.0.0")
    play(rig, "backup", version="v1")
    rig.two = rig.deploy("2.0.0", feature="two")
    assert "DONE" in play(rig, "rollback_full")
    rig.check_complete("1.0.0")
    play(rig, "undo")
    rig.check_complete("2.0.0")
    play(rig, "rollback_emergency")
    assert rig.ask()[0] == 0
    play(rig, "recover")
    rig.check_complete("2.0.0")
    play(rig, "rollback_application", version="v1")
    rig.check_complete("1.0.0")
    play(rig, "complete")
