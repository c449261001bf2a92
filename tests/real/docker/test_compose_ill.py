# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""compose_rollback on a project that somebody else has left ill: what a dead deployment leaves is when people roll back."""

from __future__ import annotations

import pytest

from tests.lab.ports import free_ports
from tests.real.docker.compose_rig import ComposeRig

FIRST = ("no compose file", "another service", "no docker compose", "a probe without its certificate")
ILL = [*FIRST, *(pytest.param(how, marks=pytest.mark.full) for how in ("no project_dir", "broken compose file", "no env file"))]


def make_ill(rig: ComposeRig, how: str) -> dict[str, object]:
    """Options with which the module is called from then on."""
    compose = rig.dir / "docker-compose.yml"
    if how == "no project_dir":
        rig.dir.rename(rig.dir.with_name("gone"))
    elif how == "no compose file":
        compose.unlink()
    elif how == "broken compose file":
        compose.write_text(compose.read_text().replace("services:", "services: ["))
    elif how == "no env file":
        (rig.dir / ".env").unlink()
        return {"env_files": ["api.env"]}
    elif how == "another service":
        compose.write_text(compose.read_text().replace("  api:", "  backend:"))
    elif how == "a probe without its certificate":
        return {"probes": [{"url": "https://127.0.0.1/health", "ca_cert": str(rig.dir / "ca.pem")}]}
    else:
        return {"compose_bin": str(rig.dir / "docker-compose")}
    return {}


@pytest.mark.parametrize("how", ILL)
@pytest.mark.parametrize("known", [pytest.param(True, marks=pytest.mark.full), False], ids=["known", "unknown"])
def test_an_emergency_needs_the_engine_alone(compose_rig: ComposeRig, how: str, known: bool) -> None:
    rig = compose_rig
    rig.one = rig.deploy("1.0.0")
    if known:
        rig.module("archived", version="v1")
    options = make_ill(rig, how)
    assert rig.run("stopped", check=True, **options)["changed"]
    done = rig.run("stopped", **options)
    assert not done.get("failed"), done["msg"]
    assert done["changed"] and rig.ask()[0] == 0
    found = rig.containers()
    api = found[f"{rig.project}-api-1"]
    assert api["State"]["Status"] == "exited" and api["HostConfig"]["RestartPolicy"]["Name"] == "no"
    assert found[f"{rig.project}-db-1"]["State"]["Status"] == "running", "nobody said that it is to stop"
    assert not rig.run("stopped", **options)["changed"]


@pytest.mark.parametrize("broken", [False, True], ids=["readable", "broken"])
def test_an_emergency_finds_a_project_whose_name_was_changed(compose_rig: ComposeRig, broken: bool) -> None:
    """The file names another project, or an older one is remembered; what runs was made in this folder."""
    rig = compose_rig
    rig.one = rig.deploy("1.0.0")
    rig.module("archived", version="v1")
    compose = rig.dir / "docker-compose.yml"
    compose.write_text(compose.read_text().replace(f"name: {rig.project}", f"name: {rig.project}-new"))
    if broken:
        rig.compose("--project-name", rig.project, "down")
        rig.compose("up", "--detach", "--no-build")
        rig.await_version("1.0.0")
        compose.write_text(compose.read_text().replace("services:", "services: ["))
    assert rig.module("stopped")["changed"] and rig.ask()[0] == 0
    assert not rig.module("stopped")["changed"]


def test_an_emergency_finds_a_project_that_was_started_through_a_link(compose_rig: ComposeRig) -> None:
    rig = compose_rig
    (rig.dir.parent / "current").symlink_to(rig.dir)
    real, rig.dir = rig.dir, rig.dir.parent / "current"
    rig.one = rig.build("1.0.0")
    rig.compose("--project-directory", str(rig.dir), "up", "--detach", "--no-build")
    rig.await_version("1.0.0")
    (real / "docker-compose.yml").unlink()
    assert rig.module("stopped")["changed"] and rig.ask()[0] == 0


def test_the_way_back_brings_a_listed_file_that_is_gone(compose_rig: ComposeRig) -> None:
    rig = compose_rig
    (rig.dir / "more.env").write_text("MORE=1\n")
    options = {"env_files": [".env", "more.env"]}
    rig.one = rig.deploy("1.0.0")
    rig.module("archived", version="v1", **options)
    rig.two = rig.deploy("2.0.0", feature="two")
    for name in ("more.env", "docker-compose.yml"):
        (rig.dir / name).unlink()
    assert "more.env" in rig.refused("archived", version="v2", **options)
    assert rig.module("started", check=True, **options)["app"] == rig.project  # what a rollback looks at first
    rig.module("staged", version="v1", **options)
    rig.module("live", version="v1", **options)
    assert (rig.dir / "more.env").read_text() == "MORE=1\n"
    rig.check_complete("1.0.0", again=False)


def test_a_point_with_other_files_is_not_the_one_that_is_asked_for(compose_rig: ComposeRig) -> None:
    """The same images by another environment: a backup under the same name would hold what is no more."""
    rig = compose_rig
    rig.one = rig.deploy("1.0.0")
    assert rig.module("archived", version="v1")["changed"]
    assert not rig.module("archived", version="v1")["changed"]
    rig.write_files("two")
    rig.compose("up", "--detach", "--no-build")
    message = rig.refused("archived", version="v1")
    assert "other compose or environment files" in message and "another version" in message
    assert not rig.module("archived", version="v1", config_from="live")["changed"], "where files are no part of a release"


def test_a_deployment_that_died_half_way_is_left(compose_rig: ComposeRig) -> None:
    """One container runs the old image, the other one the new."""
    rig = compose_rig
    rig.replicas = 2
    rig.more = "    deploy: {replicas: 2}"
    rig.port = free_ports(2)
    rig.publish = f"{rig.port}-{rig.port + 1}"
    rig.write_files("one")
    rig.one = rig.deploy("1.0.0")
    rig.module("archived", version="v1")
    rig.two = rig.build("2.0.0")
    rig.write_files("two")
    rig.engine.client().remove_container(f"{rig.project}-api-2", force=True)
    rig.compose("up", "--detach", "--no-build", "--no-recreate")
    images = {each["Image"] for name, each in rig.containers().items() if "api" in name}
    assert images == {rig.one, rig.two}
    assert "different images" in rig.refused("archived", version="v2")
    rig.module("started", check=True)  # what a rollback looks at first
    rig.module("staged", version="v1")
    rig.module("live", version="v1")
    rig.check_complete("1.0.0")
    rig.module("previous")
    rig.check_complete("2.0.0")


def test_the_plan_names_what_stays_as_it_is(compose_rig: ComposeRig) -> None:
    """What extends, include or a mount brings in is in no point, unless it is listed."""
    rig = compose_rig
    (rig.dir / "common.yml").write_text("services:\n  base:\n    environment: {FEATURE: one}\n")
    (rig.dir / "app.json").write_text("{}\n")
    rig.more = "    extends: {file: common.yml, service: base}\n    volumes: ['./app.json:/app/app.json:ro']"
    rig.write_files("from common.yml")
    (rig.dir / ".env").write_text("A=1\n")
    rig.one = rig.deploy("1.0.0")
    options = {"env_files": ["common.yml"]}
    told = " ".join(rig.module("archived", version="v0")["actions"])
    assert "common.yml is in no point" in told and "app.json is mounted, in no point" in told
    assert "common.yml" not in " ".join(rig.module("archived", version="v1", **options)["actions"])
    (rig.dir / "common.yml").write_text("services:\n  base:\n    environment: {FEATURE: two}\n")
    rig.two = rig.deploy("2.0.0")
    assert rig.ask()[1]["feature"] == "two"
    plan = " ".join(rig.module("staged", version="v1", **options)["plan"])
    assert "app.json is mounted" in plan and "common.yml" not in plan
    rig.module("live", version="v1", **options)
    assert rig.ask()[1] == {"version": "1.0.0", "feature": "one"}
