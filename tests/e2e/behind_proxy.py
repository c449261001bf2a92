# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three application hosts behind a proxy, and their database. All of them are this machine."""

from __future__ import annotations

import abc
import json
import pathlib
import typing as t

from tests.e2e.harness import NEXT, World, play_in
from tests.e2e.harness import QUICK as OF_APPS
from tests.lab import traffic
from tests.lab.fixtures import unavailable
from tests.lab.nginx import Nginx

APPS = ("app1", "app2", "app3")
# Of one server, as its proxy counts: the part of answers 5xx, and how long one takes.
ERRORS = (
    'sum by (server) (rate(haproxy_server_http_responses_total{proxy="payments",server="{{ inventory_hostname }}",code="5xx"}[4s]))'
    ' / sum by (server) (rate(haproxy_server_http_responses_total{proxy="payments",server="{{ inventory_hostname }}"}[4s]))'
)
TIME = 'haproxy_server_total_time_average_seconds{proxy="payments",server="{{ inventory_hostname }}"}'
QUICK = {"rollback_gate_seconds": 2, "rollback_gate_interval": 0.5, "rollback_gate_patience": 12, "rollback_haproxy_drain_seconds": 20}


class Proxied(World, abc.ABC):
    """A world with a proxy in front, of either kind."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder, APPS)
        self.proxy: t.Any = None

    @abc.abstractmethod
    def start_proxy(self, servers: dict[str, int]) -> None: ...

    def settings(self) -> dict[str, t.Any]:
        """Variables of all hosts."""
        return {**OF_APPS, **QUICK}

    def build(self) -> None:
        super().build()
        self.start_proxy({host.name: host.port for host in self.hosts})
        tree = json.loads((self.inventory / "hosts.yml").read_text(encoding="utf-8").replace("---\n", ""))
        tree["all"]["children"]["proxies"] = {"hosts": {"proxy1": {}}}
        (self.inventory / "hosts.yml").write_text(f"---\n{json.dumps(tree)}\n", encoding="utf-8")
        self._write_vars("host_vars/proxy1.yml", {"rollback_components": ["haproxy"], **self.proxy.variables()})
        for host in self.hosts:
            own = {"rollback_haproxy_servers": [{"backend": "payments", "server": host.name}]}
            path = self.inventory / "host_vars" / f"{host.name}.yml"
            text = path.read_text(encoding="utf-8") if path.exists() else "---\n"
            path.write_text(text + "".join(f"{key}: {json.dumps(value)}\n" for key, value in own.items()), encoding="utf-8")
        self.set_variables(**self.settings())

    def clear(self) -> None:
        if self.proxy is not None:
            self.proxy.stop()
        super().clear()

    def start_clients(self, rate: float, port: int = 0) -> None:
        super().start_clients(rate, port or self.proxy.port)

    def running(self) -> list[str]:
        """The version that each application host answers with."""
        return [str(host.health()[1].get("version")) for host in self.hosts]

    def nothing_left(self) -> None:
        assert not self.locks() and not self.holds()


class Fleet(Proxied):
    """Behind HAProxy, which Prometheus watches."""

    prometheus: t.Any = None

    def start_proxy(self, servers: dict[str, int]) -> None:
        self.proxy = traffic.Proxy(self.folder / "haproxy", servers).start()
        self.prometheus = traffic.Prometheus(self.folder / "prometheus", self.proxy.metrics_port).start()

    def settings(self, slow_host: str = "", **more: t.Any) -> dict[str, t.Any]:
        """Variables of all hosts. Nothing is as quick as the gate wants ``slow_host`` to be."""
        slowest = f"{{{{ -1 if inventory_hostname == '{slow_host}' else 0.5 }}}}"
        common = {"type": "prometheus", "url": self.prometheus.url, "labels": {"server": "{{ inventory_hostname }}"}}
        probes = [
            {"name": "error rate", "query": ERRORS, "expect": {"max": 0.01}, **common},
            {"name": "response time", "query": TIME, "expect": {"max": slowest}, **common},
        ]
        return {**super().settings(), "rollback_gate_probes": probes, **more}

    def clear(self) -> None:
        if self.prometheus is not None:
            self.prometheus.stop()
        super().clear()

    def as_before(self) -> None:
        """Nothing is left of what a run did to the proxy."""
        assert self.proxy.states() == {host.name: (0, 100, f"127.0.0.1:{host.port}") for host in self.hosts}
        assert self.proxy.get("/.payops-rollback").text == "payops-share 100"
        self.nothing_left()


class BehindNginx(Proxied):
    def start_proxy(self, servers: dict[str, int]) -> None:
        self.proxy = Nginx(self.folder / "nginx", servers).start()
        self.first = self.proxy.upstream.read_text(encoding="utf-8")

    def as_before(self) -> None:
        """The team's own file, byte by byte; every customer gets in."""
        assert self.proxy.upstream.read_text(encoding="utf-8") == self.first
        assert self.proxy.get("/.payops-rollback").text == "payops-share 100"
        self.nothing_left()


AnyProxied = t.TypeVar("AnyProxied", bound=Proxied)


def deployed(kind: type[AnyProxied], *programs: str) -> t.Iterator[AnyProxied]:
    """A point of 1.0.0 exists, and 1.1.0 runs everywhere; a skip where a program is missing."""
    missing = traffic.missing(*programs)
    if missing:
        unavailable(missing)
    for made in play_in(kind):
        made.play("backup").ok()
        made.deploy(1, NEXT)
        yield made
