# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A compose application and its PostgreSQL behind a proxy, while customers pay all the time.

They notice nothing of an application that goes back, is killed in the middle of it, and goes on; and lose nothing when the database
goes back, too.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import typing as t

import pytest

from tests.e2e.harness import GOOD, NEXT, NOTE, World, play_in
from tests.lab import app, compose, images, ports, traffic
from tests.lab.docker import Engine
from tests.lab.fixtures import engine_with_compose, unavailable
from tests.lab.node import ROOT
from tests.lab.system import DATABASE

IMAGE = "kejayangu/api:latest"
COMPOSE = """\
name: kejayangu
services:
  api:
    image: {image}
    ports: ['127.0.0.1:{port}:5000']
    env_file: .env
    restart: always
    volumes: ['{sockets}:/run/postgresql:ro']
"""


class Composed(World):
    """As a world, with one host under docker compose instead of PM2, and a proxy before it."""

    def __init__(self, folder: pathlib.Path, engine: Engine) -> None:
        super().__init__(folder)
        self.engine = engine
        self.app = self.hosts[0]
        self.proxy: t.Any = None

    def build(self) -> None:
        self.make_folder()
        self.start_database()
        cluster, roles = self.ready()
        self.app.port = ports.free_port()
        self.app.api.mkdir()
        login = cluster.url(DATABASE, **roles.app.login()).replace(f"127.0.0.1:{cluster.port}", f"%2Frun%2Fpostgresql:{cluster.port}")
        # On a busy machine a second is too short for a new container's first connections; the API would say 503 itself.
        app.write_env(self.app.api, {"DATABASE_URL": login, "CONNECT_TIMEOUT_MS": 8000})
        text = COMPOSE.format(image=IMAGE, port=self.app.port, sockets=cluster.socket_dir)
        (self.app.api / "docker-compose.yml").write_text(text, encoding="utf-8")
        self.deploy(1)
        self._write_history()
        self.proxy = traffic.Proxy(self.folder / "haproxy", {"app1": self.app.port}).start()
        self.write_inventory()

    def deploy(self, number: int, version: str | None = None, migration: str | None = None) -> None:
        """As the team's deployment does it: migrate, build, up."""
        cluster, roles = self.ready()
        fresh = self.folder / "fresh-release"
        app.build_release(fresh, number, version)
        if migration:
            (fresh / "migrations" / f"{100 + number:03d}_more.sql").write_text(migration, encoding="utf-8")
        urls = {"DATABASE_URL": roles.app, "MIGRATION_DATABASE_URL": roles.migrator}
        app.write_env(fresh, {name: cluster.url(DATABASE, **role.login()) for name, role in urls.items()})
        app.migrate(fresh)
        shutil.rmtree(fresh)
        images.payments_api(self.engine, IMAGE, number, version, migration)
        self.compose("up", "--detach", "--no-build")
        wanted = version or app.RELEASES[number]
        ports.wait_until(lambda: self.app.health()[1].get("version") == wanted, f"release {wanted}", 60)

    def compose(self, *words: str) -> str:
        env = {**os.environ, **compose.env(), "DOCKER_HOST": self.engine.url}
        argv = ["docker", "compose", *words]
        done = subprocess.run(argv, cwd=self.app.api, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def write_inventory(self, **more: t.Any) -> pathlib.Path:
        cluster, roles = self.ready()
        shutil.copytree(ROOT / "inventories" / "demo", self.inventory)
        values = {
            "demo_dir": str(self.folder),
            "demo_python": sys.executable,
            "demo_database_port": cluster.port,
            "demo_database_password": roles.operator.password,
            "demo_database_bin": str(cluster.bin_dir),
        }
        self._write_vars("group_vars/all/generated.yml", values)
        tree = {"database": {"hosts": {"db1": {}}}, "api": {"hosts": {"app1": {}}}, "proxies": {"hosts": {"proxy1": {}}}}
        (self.inventory / "hosts.yml").write_text(f"---\n{json.dumps({'all': {'children': tree}})}\n", encoding="utf-8")
        self._write_vars(
            "host_vars/app1.yml",
            {
                "rollback_components": ["docker"],
                "rollback_docker_dir": str(self.app.api),
                "rollback_docker_services": ["api"],
                "rollback_docker_host": self.engine.url,
                "rollback_docker_stable_seconds": 1,
                "rollback_docker_next_ports": [ports.free_port()],
                "rollback_docker_probes": [{"name": "health", "url": f"http://127.0.0.1:{self.app.port}/health"}],
                "rollback_haproxy_servers": [{"backend": "payments", "server": "app1"}],
            },
        )
        self._write_vars("host_vars/proxy1.yml", {"rollback_components": ["haproxy"], **self.proxy.variables()})
        return self.inventory

    def env(self, fault: str | None = None) -> dict[str, str]:
        return {**super().env(fault), **compose.env()}

    def start_clients(self, rate: float, port: int = 0) -> None:
        super().start_clients(rate, port or self.proxy.port)

    def clear(self) -> None:
        if self.proxy is not None:
            self.proxy.stop()
        self.engine.clear()
        super().clear()

    def versions(self) -> dict[str, str]:
        return {"db1": self.data_version(), "app1": str(self.app.health()[1].get("version"))}

    def as_the_team_knows_it(self, version: str) -> None:
        """One project with one container under its own name and port; the next ``up`` finds nothing to do."""
        assert self.app.health()[1].get("version") == version
        containers = {each["Names"][0].lstrip("/"): each["Id"] for each in self.engine.client().containers(all=True)}
        assert list(containers) == ["kejayangu-api-1"], containers
        self.compose("up", "--detach", "--no-build")
        assert [each["Id"] for each in self.engine.client().containers(all=True)] == list(containers.values())
        assert self.proxy.states() == {"app1": (0, 100, f"127.0.0.1:{self.app.port}")}
        assert not self.locks() and not self.holds()


@pytest.fixture(scope="module")
def world() -> t.Iterator[Composed]:
    reason = traffic.missing(traffic.HAPROXY)
    if reason:
        unavailable(reason)
    with engine_with_compose() as engine:
        yield from play_in(lambda folder: Composed(folder, engine))


def test_customers_notice_nothing_of_an_application_that_goes_back(world: Composed) -> None:
    world.play("backup", version="v1").ok()
    world.deploy(1, NEXT)
    with world.paying(10):
        with world.stopped_at("docker/recreate/during", "rollback_application", version="v1") as stopped:
            planned = " ".join(stopped.text().split())
            assert "beside it as kejayangu-next" in planned and "nobody is served" not in planned
            world.await_payments(10)  # the second project takes them
            stopped.kill()
        world.await_payments(10)
        gone_on = world.play("rollback_application", version="v1").ok()
        assert gone_on.outcome == "DONE", gone_on.text
        world.as_the_team_knows_it(GOOD)
        world.play("undo").ok()
        world.as_the_team_knows_it(NEXT)
    report = world.clients_report()
    print(f"application: {report['acknowledged']} payments, {report['failed']} failed")
    assert report["acknowledged"] > 100 and report["failed"] == 0, (world.clients / "failures.jsonl").read_text(encoding="utf-8")


def test_a_second_project_stays_while_its_proxy_takes_no_part(world: Composed) -> None:
    """With the proxy's host left out nobody would send customers back before the second project goes."""
    with world.paying(10):
        with world.stopped_at("docker/recreate/during", "rollback_application", version="v1") as stopped:
            stopped.kill()
        refused = world.play("rollback_application", "--limit", "app1,db1", version="v1", allow_partial=True)
        refused.refused("left kejayangu-next serving", "proxy1 may send customers there", "nothing was touched")
        assert world.proxy.get("/health").status == 200
        undone = world.play("undo", "--limit", "app1,db1", allow_partial=True)
        undone.refused("proxy1")
        assert world.proxy.get("/health").status == 200
        world.play("undo").ok()
        world.as_the_team_knows_it(NEXT)
    assert world.clients_report()["failed"] == 0, (world.clients / "failures.jsonl").read_text(encoding="utf-8")


@pytest.mark.full
def test_no_payment_is_lost_when_the_database_goes_back_too(world: Composed) -> None:
    world.deploy(1, NEXT, NOTE)
    with world.paying(10):
        world.await_payments(10)
        done = world.play("rollback_full", version="v1").ok()
        assert done.outcome == "DONE" and "answer 503 with Retry-After" in done.flat
        assert "beside it as" not in done.flat and "nobody is served" not in done.flat, "what a hold makes untrue"
        world.as_the_team_knows_it(GOOD)
        world.await_payments(10)
    assert world.versions() == {"db1": GOOD, "app1": GOOD}
    world.all_at(GOOD)
