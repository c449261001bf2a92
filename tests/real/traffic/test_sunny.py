# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The thresholds of inventories/sunny as they are shipped, asked of a real Prometheus by Ansible: each host with a trouble of its own."""

from __future__ import annotations

import http.server
import json
import os
import pathlib
import subprocess
import threading
import time
import typing as t

import pytest

from tests.lab import ports, traffic
from tests.lab.fixtures import unavailable
from tests.lab.node import ROOT
from tests.lab.system import ansible_playbook

PLAY = """
- hosts: apps
  gather_facts: false
  tasks:
    - payops.rollback.health_probe: {probes: "{{ rollback_gate_probes }}", successes: 1, deadline: 3, interval: 0.2}
      register: asked
      failed_when: false
    - ansible.builtin.copy: {content: "{{ asked | to_json }}", dest: "{{ told }}/{{ inventory_hostname }}", mode: "0600"}
"""
TROUBLES = {
    "app1": {},
    "app2": {"response time at most 500 ms": "at most 0.5"},
    "app3": {"error rate at most 1 %": "at most 0.01", "memory at most 85 %": "at most 0.85"},
    "app4": {"CPU at most 80 %": "at most 0.8", "memory at most 85 %": "no data"},
}


PAST, FAST = 130.0, 20.0


def metrics(seconds: float, stamp: int) -> str:
    """What Node's, HAProxy's and the node exporter say after so many seconds, by the names that those use."""
    lines = []
    for host, troubles in TROUBLES.items():
        asked, words = 100 * seconds, " ".join(troubles)
        slow, bad = "response" in words, 0.05 if "error" in words else 0.005
        for le, part in (("0.1", 0.0 if slow else 1.0), ("0.5", 0.5 if slow else 1.0), ("1", 1.0), ("+Inf", 1.0)):
            lines.append(f'http_request_duration_seconds_bucket{{instance="{host}:3000",le="{le}"}} {asked * part}')
        for code, part in (("2xx", 1 - bad), ("5xx", bad)):
            lines.append(f'haproxy_server_http_responses_total{{proxy="payments",server="{host}",code="{code}"}} {asked * part}')
        lines.append(f'node_cpu_seconds_total{{instance="{host}:9100",cpu="0",mode="idle"}} {seconds * (0.1 if "CPU" in words else 0.5)}')
        if host != "app4":  # its exporter tells no memory
            free = 1e9 if "memory" in words else 4e9
            lines.append(f'node_memory_MemAvailable_bytes{{instance="{host}:9100"}} {free}')
        lines.append(f'node_memory_MemTotal_bytes{{instance="{host}:9100"}} 8e9')
    return "".join(f"{line} {stamp}\n" for line in lines)


class Exporter(http.server.BaseHTTPRequestHandler):
    """When it is first asked, its clock begins two minutes ago, how far the queries look back, and runs fast until it is right."""

    begin = 0.0

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        now = time.time()
        type(self).begin = self.begin or now - PAST
        seen = min(now, self.begin + FAST * (now - self.begin - PAST))
        self.wfile.write(metrics(max(0.0, seen - self.begin), int(seen * 1000)).encode())

    def log_message(self, *unused: t.Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def prometheus(tmp_path: pathlib.Path) -> t.Iterator[traffic.Prometheus]:
    missing = traffic.missing(traffic.PROMETHEUS)
    if missing:
        unavailable(missing)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exporter) as server:
        Exporter.begin = 0.0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started = traffic.Prometheus(tmp_path / "prometheus", server.server_address[1], labels=True).start()
        try:
            ports.wait_until(lambda: 0 < Exporter.begin < time.time() - PAST - PAST / (FAST - 1) - 2, "the exporter's clock", 30)
            yield started
        finally:
            started.stop()
            server.shutdown()


def test_each_threshold_sees_its_trouble_and_no_other(prometheus: traffic.Prometheus, tmp_path: pathlib.Path) -> None:
    told = tmp_path / "told"
    told.mkdir()
    (tmp_path / "play.yml").write_text(PLAY, encoding="utf-8")
    words = {"ansible_connection": "local", "ansible_become": False, "sunny_prometheus": prometheus.url, "told": str(told)}
    argv = [ansible_playbook(), str(tmp_path / "play.yml"), "-i", str(ROOT / "inventories/sunny")]
    env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(
        [*argv, "-e", json.dumps({**words, "vault_sunny_prometheus_password": "x"})],
        cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for host, troubles in TROUBLES.items():
        probes = json.loads((told / host).read_text(encoding="utf-8"))["probes"]
        assert len(probes) == 4
        failed = {each["name"]: each["first_error"] for each in probes if not each["ok"]}
        assert failed.keys() == troubles.keys(), f"{host}: {failed}"
        assert all(words in failed[name] for name, words in troubles.items()), f"{host}: {failed}"
