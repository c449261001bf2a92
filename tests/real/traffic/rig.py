# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module of a proxy in a process of its own, on a real one."""

from __future__ import annotations

import json
import pathlib
import shutil
import typing as t

from tests.lab import modules, ports
from tests.lab.nginx import Nginx
from tests.lab.traffic import Echo, Proxy

P = t.TypeVar("P", Proxy, Nginx)


class AnyRig(t.Generic[P]):
    """What is the same for every kind of proxy."""

    kind = ""

    def __init__(self, proxy: P, servers: dict[str, Echo], store: pathlib.Path) -> None:
        self.proxy = proxy
        self.echoes = servers
        self.store = store

    def options(self) -> dict[str, t.Any]:
        """Where the module finds the proxy."""
        raise AssertionError("each kind says it")

    def start(self, state: str, *servers: str, check: bool = False, fault: str = "", **options: t.Any) -> modules.Started:
        given = {
            "store": str(self.store),
            "system": "shop",
            "state": state,
            "servers": [{"backend": "payments", "server": name} for name in servers],
            "drain_seconds": 5,
            "wait_seconds": 10,
            "_ansible_diff": True,
            **self.options(),
            **options,
            **({"_ansible_check_mode": True} if check else {}),
        }
        return modules.start(f"{self.kind}_servers", given, fault or None)

    def run(self, state: str, *servers: str, **options: t.Any) -> dict[str, t.Any]:
        return modules.result_of(self.start(state, *servers, **options))

    def ok(self, state: str, *servers: str, **options: t.Any) -> dict[str, t.Any]:
        result = self.run(state, *servers, **options)
        assert not result.get("failed") and not result.get("killed"), result
        return result

    def refused(self, state: str, *servers: str, **options: t.Any) -> str:
        result = self.run(state, *servers, **options)
        assert result.get("failed"), result
        assert "Traceback" not in result["msg"], result
        return str(result["msg"])

    # -- what is true, seen from outside -----------------------------------------------------------------------------------

    def share(self) -> str:
        return self.proxy.get("/.payops-rollback").text.replace("payops-share ", "")

    def remembered(self) -> dict[str, t.Any]:
        path = self.store / "shop" / ".run" / f"{self.kind}.state.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


class Rig(AnyRig[Proxy]):
    kind = "haproxy"

    def __init__(self, proxy: Proxy, servers: dict[str, Echo], store: pathlib.Path) -> None:
        super().__init__(proxy, servers, store)
        self.open = {name: (0, 100, f"127.0.0.1:{each.port}") for name, each in servers.items()}

    def options(self) -> dict[str, t.Any]:
        return {key.replace("rollback_haproxy_", ""): value for key, value in self.proxy.variables().items()}

    def as_before(self) -> None:
        assert self.proxy.states() == self.open
        assert self.share() == "100" and self.proxy.get().status == 200
        assert self.remembered() == {}

    def clear(self) -> None:
        """By hand, whatever the test left."""
        for name, (state, weight, place) in self.open.items():
            host, unused, port = place.rpartition(":")
            for words in ("state ready", f"weight {weight}", f"addr {host} port {port}"):
                self.proxy.ask(f"set server payments/{name} {words}")
        for path in (self.proxy.places.share_map, self.proxy.places.receivers_map):
            self.proxy.ask(f"clear map {path}")
            pathlib.Path(path).write_text("", encoding="utf-8")
        self.proxy.state_file.unlink(missing_ok=True)
        shutil.rmtree(self.store, ignore_errors=True)
        ports.wait_until(lambda: self.proxy.usable() == sorted(self.open), "servers that are up")
