# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An application without an error handler on its pool: Node exits whenever the server ends an idle connection."""

from __future__ import annotations

import contextlib
import typing as t

import pytest

from tests.e2e.harness import GOOD, NEXT, World
from tests.lab import ports
from tests.lab.app import APP_NAME


@contextlib.contextmanager
def without_a_handler(world: World) -> t.Iterator[None]:
    (host,) = world.hosts
    env = host.api / ".env"
    before = env.read_text(encoding="utf-8")

    def begin_anew(text: str) -> None:
        (host.api / ".env").write_text(text, encoding="utf-8")
        host.pm2.run("restart", APP_NAME)
        ports.wait_until(lambda: host.health("/health/detailed")[0] == 200, "a healthy release that has asked its database", 60)

    begin_anew(before + "POOL_ERROR_HANDLER=off\n")
    try:
        yield
    finally:
        begin_anew(before)


def restarts(world: World) -> int:
    """How often PM2 has started workers again that had died."""
    return sum(int(each["pm2_env"]["restart_time"]) for each in world.hosts[0].pm2.apps(APP_NAME))


@pytest.mark.full
def test_a_full_rollback_ends_its_workers_before_their_connections(deployed: World) -> None:
    """It is held before the databases change, so nobody loses a connection under it, and no worker of the release dies."""
    (point,) = deployed.points()
    with without_a_handler(deployed):
        with deployed.watching(), deployed.paying():
            assert deployed.play("rollback_full", version=point).ok().outcome == "DONE"
            deployed.await_payments(5)
            assert restarts(deployed) == 0
            assert deployed.play("undo").ok().outcome == "DONE"
            deployed.await_payments(5)
            assert restarts(deployed) == 0
        (deployed.clients / "acks.jsonl").unlink()
        deployed.all_at(NEXT)


@pytest.mark.full
def test_the_databases_alone_cost_it_its_workers_and_it_comes_back(deployed: World) -> None:
    (point,) = deployed.points()
    with without_a_handler(deployed):
        before = restarts(deployed)
        deployed.play("rollback_database", version=point, accept_schema_change=True).ok()
        ports.wait_until(lambda: restarts(deployed) > before, "a worker that died of the lost connection", 30)
        deployed.await_healthy()
        assert deployed.data_version() == GOOD
        deployed.play("undo").ok()
        deployed.await_healthy()
        deployed.all_at(NEXT)
