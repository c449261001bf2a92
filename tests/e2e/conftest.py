# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One system for all tests of the playbooks; each test begins in a state that it names.

``FULL=1`` plays the whole matrix of failures, otherwise a part of it that has one of each kind.
"""

from __future__ import annotations

import typing as t

import pytest

from tests.e2e.harness import NEXT, World, make_world
from tests.e2e.hosts import Hosts, five_hosts


@pytest.fixture(scope="session")
def the_world() -> t.Iterator[World]:
    yield from make_world("app1")


@pytest.fixture(scope="session")
def five() -> t.Iterator[Hosts]:
    """Proxy, three application hosts and database, reached by ssh; a test leaves 1.1.0 everywhere."""
    yield from five_hosts()


@pytest.fixture
def world(the_world: World) -> World:
    """Release 1.0.0 runs on a new database; the store is empty."""
    the_world.reset()
    return the_world


@pytest.fixture
def deployed(the_world: World) -> World:
    """A point of 1.0.0 exists, and 1.1.0 with a migration of its own runs. Built anew only if a test left something else."""
    if not _is_deployed(the_world):
        the_world.point_then_next()
    return the_world


def _is_deployed(world: World) -> bool:
    try:
        world.all_at(NEXT)
    except Exception:  # whatever a failed test left, for example a database that nobody may open
        return False
    return len(world.points()) == 1 and not world.clients.exists() and len(world.kept()) < 12


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> t.Iterator[None]:
    """A failing test shows the end of what was played last."""
    outcome: t.Any = yield
    report = outcome.get_result()
    given = getattr(item, "funcargs", {})
    the_world = given.get("world") or given.get("deployed") or given.get("five")
    if report.when == "call" and report.failed and the_world is not None and the_world.last is not None:
        report.sections.append((f"last played (exit code {the_world.last.rc})", the_world.last.text[-8000:]))
