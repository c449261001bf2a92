# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry and an engine for all tests; each test has repositories of its own."""

from __future__ import annotations

import itertools
import pathlib
import typing as t

import pytest

from tests.lab import docker as lab_docker
from tests.lab import registry as lab_registry
from tests.lab.docker import Engine
from tests.lab.fixtures import engine_with_compose, unavailable
from tests.lab.registry import Registry
from tests.real.docker.compose_rig import ComposeRig
from tests.real.docker.rig import Rig

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def registry() -> t.Iterator[Registry]:
    """Without a login and without TLS."""
    need_registry()
    with Registry() as started:
        yield started


def need_registry() -> None:
    if not lab_registry.installed():
        unavailable(lab_registry.HOW_TO_GET)


@pytest.fixture
def repository() -> str:
    """A path that no other test uses."""
    return f"kejayangu/api-{next(_numbers)}"


@pytest.fixture
def rig(registry: Registry, tmp_path: pathlib.Path) -> Rig:
    return Rig(tmp_path / "store", registry={"url": registry.url})


@pytest.fixture(scope="session")
def engine() -> t.Iterator[Engine]:
    reason = lab_docker.unusable()
    if reason:
        unavailable(reason)
    with Engine() as started:
        yield started


@pytest.fixture
def engine_rig(engine: Engine, tmp_path: pathlib.Path) -> Rig:
    return Rig(tmp_path / "store", docker_host=engine.url)


@pytest.fixture(scope="session")
def running_engine() -> t.Iterator[Engine]:
    """One that runs containers, with docker compose."""
    with engine_with_compose() as started:
        yield started


@pytest.fixture
def compose_rig(running_engine: Engine, tmp_path: pathlib.Path) -> t.Iterator[ComposeRig]:
    made = ComposeRig(running_engine, tmp_path, f"shop{next(_numbers)}")
    try:
        yield made
    finally:
        made.clear()
