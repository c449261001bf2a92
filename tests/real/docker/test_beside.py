# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Blue/green on a real engine behind a real HAProxy: no request fails, whatever is killed; and what cannot have it says why."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from tests.lab import traffic
from tests.lab.docker import Engine
from tests.lab.fixtures import unavailable
from tests.real.docker.compose_rig import Load
from tests.real.docker.proxied_rig import ProxiedRig


@pytest.fixture
def rig(running_engine: Engine, tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> t.Iterator[ProxiedRig]:
    missing = traffic.missing(traffic.HAPROXY)
    if missing:
        unavailable(missing)
    made = ProxiedRig(running_engine, tmp_path, f"green{abs(hash(request.node.name)) % 100000}")
    try:
        yield made
    finally:
        made.clear()


def test_nobody_notices(rig: ProxiedRig) -> None:
    rig.first_and_second()
    planned = rig.module("staged", version="v1", check=True, proxied_ports=[rig.port])
    assert "beside it" in " ".join(planned["plan"]) and "nobody is served" not in " ".join(planned["plan"])
    with Load(rig.proxy.port) as load:
        there = rig.go("live", version="v1")
        rig.check_complete("1.0.0")
        assert not rig.go("live", version="v1")["changed"]
        back = rig.go("previous")
        rig.check_complete("2.0.0")
    print(f"blue/green: {load.failed} of {len(load.answers)} failed, longest gap {load.outage():.2f} s")
    assert there["changed"] and back["changed"] and there["way"]["needed"] and "outage_ms" not in there
    assert load.failed == 0 and len(load.answers) > 100


# Steps of the whole way, those of the proxy too; one of them in every run, the others with FULL=1.
PLACES = [
    "docker/beside",
    "haproxy/remember",
    "haproxy/route",
    "haproxy/wait",
    "docker/tag",
    "docker/recreate",
    "docker/verdict",
    "docker/save",
]
PLACES += ["haproxy/forget", "docker/alone"]
KILLED = [
    pytest.param(place, phase, way, id=f"{way}-{place.replace('/', '-')}-{phase}", marks=[] if case == PLAYED else [pytest.mark.full])
    for PLAYED in [("docker/recreate", "during", "on")]
    for way in ("on", "back")
    for place in PLACES
    for phase in ("before", "during", "after")
    for case in [(place, phase, way)]
]


@pytest.mark.parametrize(("place", "phase", "way"), KILLED)
def test_killed_and_nobody_notices(rig: ProxiedRig, place: str, phase: str, way: str) -> None:
    """The same command goes on, or undo takes it back; customers do not notice either."""
    rig.first_and_second()
    with Load(rig.proxy.port) as load:
        assert rig.go("live", version="v1", fault=f"{place}/{phase}=kill") == {"killed": True}
        if way == "on":
            rig.go("live", version="v1")
            rig.check_complete("1.0.0")
            assert not rig.go("live", version="v1")["changed"]
        else:
            # a run that made no switch is known by its name; here, without a run, it has to be said
            rig.go("previous", **({} if rig.state().get("switch") or rig.state().get("kept") else {"undo_run": ["killed"]}))
            rig.check_complete("2.0.0")
    assert load.failed == 0 and len(load.answers) > 20  # on a busy machine they are few


def test_a_release_that_does_not_run_never_meets_a_customer(rig: ProxiedRig) -> None:
    rig.first_and_second("crash")
    before = rig.containers()[f"{rig.project}-api-1"]["Id"]
    with Load(rig.proxy.port) as load:
        message = rig.refused("beside", version="v1", wait_seconds=10, proxied_ports=[rig.port], next_ports=[rig.next_port])
        assert "cannot boot" in message and "were not touched" in message
        assert not rig.module("beside", undo_run=["r1"], proxied_ports=[rig.port])["needed"]
        rig.module("alone")
    assert load.failed == 0 and rig.containers()[f"{rig.project}-api-1"]["Id"] == before
    rig.check_complete("2.0.0")


@pytest.mark.full
def test_stopped_and_held_in_the_middle(rig: ProxiedRig) -> None:
    """An emergency ends the second project too, and a hold answers where the customers are."""
    rig.first_and_second()
    options = {"proxied_ports": [rig.port], "next_ports": [rig.next_port]}
    ports = rig.module("beside", version="v1", **options)["beside"]["ports"]
    assert ports == {str(rig.port): rig.next_port} and not rig.module("beside", version="v1", **options)["changed"]
    assert not rig.route(ports=ports).get("failed")
    assert "may still serve" in rig.refused("complete")
    rig.module("stopped")
    assert not [name for name, each in rig.containers().items() if each["State"]["Running"] and "db" not in name]
    rig.module("started")
    assert rig.module("held")["beside"]
    assert not rig.route().get("failed")
    assert rig.proxy.get().status == 503
    assert "nobody is served now" in " ".join(rig.module("beside", version="v1", **options)["against"])
    rig.module("alone")
    rig.module("live", version="v1")
    rig.check_complete("1.0.0")
