# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The compose application behind a real HAProxy: what the role does with both modules, call by call."""

from __future__ import annotations

import pathlib
import typing as t

from tests.lab import modules
from tests.lab.docker import Engine
from tests.lab.ports import free_port
from tests.lab.traffic import Proxy
from tests.real.docker.compose_rig import ComposeRig


class ProxiedRig(ComposeRig):
    def __init__(self, engine: Engine, base: pathlib.Path, name: str) -> None:
        super().__init__(engine, base, name)
        self.next_port = free_port()
        self.proxy = Proxy(base / "haproxy", {"app1": self.port})

    def first_and_second(self, behaviour: str = "good") -> None:
        super().first_and_second(behaviour)
        self.proxy.start()

    def clear(self) -> None:
        self.proxy.stop()
        super().clear()

    # -- as the role does it -------------------------------------------------------------------------------------------

    def route(self, fault: str = "", **options: t.Any) -> dict[str, t.Any]:
        given = {
            "store": str(self.store),
            "system": "demo",
            "state": "routed",
            "socket": str(self.proxy.socket),
            "state_file": str(self.proxy.state_file),
            "servers": [{"backend": "payments", "server": "app1"}],
            "drain_seconds": 10,
            **options,
        }
        return modules.result_of(modules.start("haproxy_servers", given, fault or None))

    def go(self, state: str, fault: str = "", **options: t.Any) -> dict[str, t.Any]:
        """Tasks ``flip`` or ``undo``, up to the first that is killed (its result), else the result of ``live`` or ``previous``."""
        haproxy = fault if fault.startswith("haproxy/") else ""
        docker = fault if not haproxy else ""
        beside = self.run("beside", fault=docker, proxied_ports=[self.port], next_ports=[self.next_port], **options)
        if beside.get("killed"):
            return beside
        assert not beside.get("failed"), beside["msg"]
        if beside["needed"]:
            routed = self.route(fault=haproxy, ports=beside["beside"]["ports"])
            if routed.get("killed"):
                return routed
            assert not routed.get("failed"), routed["msg"]
        done = self.run(state, fault=docker, **options)
        if done.get("killed"):
            return done
        assert not done.get("failed"), done["msg"]
        if done["beside"]:
            home = self.route(fault=haproxy)
            if home.get("killed"):
                return home
            assert not home.get("failed"), home["msg"]
            alone = self.run("alone", fault=docker)
            if alone.get("killed"):
                return alone
            assert not alone.get("failed"), alone["msg"]
        return {**done, "way": beside}

    def check_complete(self, version: str, again: bool = True) -> None:
        """As without a proxy, and nothing is left of the second project."""
        super().check_complete(version, again)
        assert self.proxy.states() == {"app1": (0, 100, f"127.0.0.1:{self.port}")}
        assert not self.state().get("beside") and not list((self.store / "demo" / ".run").glob("docker.next*"))
