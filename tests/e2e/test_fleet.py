# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three application hosts behind a proxy, and their database: a rollback in batches, maintenance, and a recovery in steps."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from tests.e2e.harness import GOOD, NEXT, World, play_in
from tests.e2e.harness import QUICK as OF_APPS
from tests.e2e.played import Played
from tests.lab import traffic
from tests.lab.fixtures import unavailable

APPS = ("app1", "app2", "app3")
# Of one server, as its proxy counts: the part of answers 5xx, and how long one takes.
ERRORS = (
    'sum by (server) (rate(haproxy_server_http_responses_total{proxy="payments",server="{{ inventory_hostname }}",code="5xx"}[4s]))'
    ' / sum by (server) (rate(haproxy_server_http_responses_total{proxy="payments",server="{{ inventory_hostname }}"}[4s]))'
)
TIME = 'haproxy_server_total_time_average_seconds{proxy="payments",server="{{ inventory_hostname }}"}'
QUICK = {"rollback_gate_seconds": 2, "rollback_gate_interval": 0.5, "rollback_gate_patience": 12, "rollback_haproxy_drain_seconds": 20}


class Fleet(World):
    """A world with a proxy in front. All of its hosts are this machine."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder, APPS)
        self.proxy: t.Any = None
        self.prometheus: t.Any = None

    def build(self) -> None:
        super().build()
        self.proxy = traffic.Proxy(self.folder / "haproxy", {host.name: host.port for host in self.hosts}).start()
        self.prometheus = traffic.Prometheus(self.folder / "prometheus", self.proxy.metrics_port).start()
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

    def settings(self, slow_host: str = "", **more: t.Any) -> dict[str, t.Any]:
        """Variables of all hosts. Nothing is as quick as the gate wants ``slow_host`` to be."""
        slowest = f"{{{{ -1 if inventory_hostname == '{slow_host}' else 0.5 }}}}"
        common = {"type": "prometheus", "url": self.prometheus.url, "labels": {"server": "{{ inventory_hostname }}"}}
        probes = [
            {"name": "error rate", "query": ERRORS, "expect": {"max": 0.01}, **common},
            {"name": "response time", "query": TIME, "expect": {"max": slowest}, **common},
        ]
        return {**OF_APPS, **QUICK, "rollback_gate_probes": probes, **more}

    def clear(self) -> None:
        for each in (self.prometheus, self.proxy):
            if each is not None:
                each.stop()
        super().clear()

    def start_clients(self, rate: float, port: int = 0) -> None:
        super().start_clients(rate, port or self.proxy.port)

    def running(self) -> list[str]:
        """The version that each application host answers with."""
        return [str(host.health()[1].get("version")) for host in self.hosts]

    def as_before(self) -> None:
        """Nothing is left of what a run did to the proxy."""
        assert self.proxy.states() == {host.name: (0, 100, f"127.0.0.1:{host.port}") for host in self.hosts}
        assert self.proxy.get("/.payops-rollback").text == "payops-share 100"
        assert not self.locks() and not self.holds()


@pytest.fixture(scope="module")
def fleet() -> t.Iterator[Fleet]:
    missing = traffic.missing(traffic.HAPROXY, traffic.PROMETHEUS)
    if missing:
        unavailable(missing)
    for made in play_in(Fleet):
        made.play("backup").ok()
        made.deploy(1, NEXT)
        yield made


def batches(played: Played) -> list[str]:
    return [line.strip() for line in played.text.splitlines() if line.startswith("  Batch ")]


def test_the_plan_reads_like_the_runbook(fleet: Fleet) -> None:
    planned = fleet.play("rollback_gradual", "--check").ok()
    assert batches(planned) == ["Batch 1 of 3 (canary): app1", "Batch 2 of 3: app2", "Batch 3 of 3: app3"]
    for words in (
        "disable new traffic to payments/app1 at proxy1",
        "shift traffic to payments/app2, payments/app3",
        "update app1 to",
        "re-enable",
    ):
        assert words in planned.flat
    assert fleet.running() == [NEXT] * 3


def test_a_gradual_rollback_fails_no_request_and_a_bad_batch_stops_it(fleet: Fleet) -> None:
    with fleet.paying(30):
        fleet.set_variables(**fleet.settings(slow_host="app2"))
        stopped = fleet.play("rollback_gradual")
        stopped.refused("it stopped at batch 2 of 3: app2 is back", "app1 stays at", "app3 was not touched", "response time")
        assert fleet.running() == [GOOD, NEXT, NEXT]
        fleet.as_before()

        fleet.set_variables(**fleet.settings())
        pids = [each["pid"] for each in fleet.hosts[0].pm2.jlist()]
        done = fleet.play("rollback_gradual").ok()  # no version: where it was going
        assert done.outcome == "DONE" and fleet.running() == [GOOD] * 3
        assert [each["pid"] for each in fleet.hosts[0].pm2.jlist()] == pids, "a batch that was done is not touched again"
        fleet.as_before()

        (point,) = fleet.points()
        assert fleet.play("rollback_gradual", version=point).ok().changed == 0
        fleet.play("undo").ok()
        assert fleet.running() == [NEXT] * 3
        fleet.as_before()
    report = fleet.clients_report()
    assert report["acknowledged"] > 100 and report["failed"] == 0, report


@pytest.mark.full
def test_an_emergency_closes_the_proxy_and_recover_opens_it_in_steps(fleet: Fleet) -> None:
    fleet.play("rollback_emergency").ok()
    assert (fleet.proxy.get().status, fleet.proxy.get("/webhooks/mpesa/result").status) == (503, 503)
    fleet.set_variables(**fleet.settings(rollback_recover_steps=["read_only", 50, 100], rollback_gate_probes=[]))
    recovered = fleet.play("recover").ok()
    assert recovered.flat.index("Receivers up, nobody else") < recovered.flat.index("50 %") < recovered.flat.index("100 %")
    fleet.as_before()
    with fleet.paying(20):  # nothing is left that may only read
        fleet.await_payments(40)
        fleet.play("recover").ok()
    assert fleet.clients_report()["failed"] == 0, fleet.clients_report()
    fleet.as_before()
