# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which compose projects can have a second one beside them, and what is told of the others."""

from __future__ import annotations

import typing as t
from types import SimpleNamespace

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._docker._way import Way, way_of

API: dict[str, t.Any] = {
    "image": "shop/api:latest",
    "ports": [{"target": 5000, "published": "5000", "host_ip": "127.0.0.1", "protocol": "tcp"}],
    "environment": {"FEATURE": "one"},
    "networks": {"default": None},
    "volumes": [{"type": "bind", "source": "/srv/certificates", "target": "/certificates", "read_only": True}],
}
DB: dict[str, t.Any] = {"image": "postgres:15", "volumes": [{"type": "volume", "source": "data", "target": "/var/lib/postgresql/data"}]}
TO = {"images": {"api": "sha256:1", "worker": "sha256:2"}, "set": "same"}


def way(services: dict[str, t.Any], ports: tuple[int, ...] = (5000,), held: bool = False, alive: bool = True, strange: bool = False) -> Way:
    stack: t.Any = SimpleNamespace(
        settings=SimpleNamespace(proxied_ports=ports, proxied_against=()),
        has_config=lambda to, scene: True,
        state=dict,
        containers=SimpleNamespace(of_project=lambda name: ["somebody's"] if strange and name == "shop-next" else []),
    )
    scene: t.Any = SimpleNamespace(project="shop", spec={"services": services}, alive=["api"] if alive else [])
    return way_of(stack, scene, TO, held)


def test_a_stateless_service_with_a_port_has_a_twin() -> None:
    found = way({"api": API, "worker": {"image": "shop/worker"}, "db": DB})
    assert found.open and found.services == ("api",) and found.environments == {"api": {"FEATURE": "one"}} and not found.notes


def test_without_a_proxy_nothing_is_said() -> None:
    assert way({"api": API}, ports=()) == Way()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"container_name": "the-api"}, "service api has the fixed container_name the-api"),
        ({"network_mode": "host"}, "network_mode host"),
        ({"networks": {"inner": {"ipv4_address": "10.1.1.9"}}}, "a fixed address in the network inner"),
        ({"volumes": [{"type": "volume", "source": "uploads", "target": "/uploads"}]}, "service api has the volume uploads"),
        ({"volumes": [{"type": "bind", "source": "/srv/uploads", "target": "/uploads"}]}, "may write into the folder /srv/uploads"),
        ({"volumes_from": ["other"]}, "the volumes of another container"),
        ({"image": "registry.example:5000/library/redis:7"}, "keeps data otherwise (redis)"),
        ({"ports": [{"target": 5000, "published": "5001", "protocol": "tcp"}]}, "no service publishes port 5000"),
        ({"ports": [{"target": 5000}]}, "no service publishes port 5000"),
        ({"ports": [{"target": 5000, "published": "5000", "protocol": "udp"}]}, "no service publishes port 5000"),
    ],
)
def test_what_can_be_there_once_only(change: dict[str, t.Any], words: str) -> None:
    found = way({"api": {**API, **change}})
    assert not found.open and words in " ".join(found.against), found


def test_the_others_count_too() -> None:
    assert (
        "service worker has the volume spool" in way({"api": API, "worker": {"volumes": [{"type": "volume", "source": "spool"}]}}).against
    )
    assert "belongs to service web, which is not rolled back" in " ".join(way({"web": API, "api": {"image": "shop/api"}}).against)
    assert way({"api": API}, held=True).against == way({"api": API}, alive=False).against
    assert "which is not ours" in " ".join(way({"api": API}, strange=True).against)
    more = {**API, "ports": [*API["ports"], {"target": 9000, "published": "9000", "protocol": "tcp"}]}
    assert way({"api": more}).open and "Port 9000 of service api is not reached by the proxy" in way({"api": more}).notes[0]
