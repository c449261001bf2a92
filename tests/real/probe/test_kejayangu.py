# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probes of inventories/kejayangu on the sample payment API: all pass while it is healthy, and each has something that only it sees."""

from __future__ import annotations

import http.server
import json
import pathlib
import threading
import typing as t

import pytest
import requests
import yaml

from ansible_collections.payops.rollback.plugins.module_utils._probe import run_probes
from tests.lab import app, node, ports, processes
from tests.lab.fixtures import unavailable
from tests.lab.node import ROOT
from tests.lab.postgres import Cluster
from tests.lab.roles import Roles

VARIABLES = ROOT / "inventories/kejayangu/group_vars/all"
Answer = t.Tuple[int, t.Dict[str, str], t.Dict[str, t.Any]]
Tamper = t.Callable[[str, Answer], Answer]


def declared(name: str) -> dict[str, t.Any]:
    return dict(yaml.safe_load((VARIABLES / f"{name}.yml").read_text(encoding="utf-8")))


@pytest.fixture
def api(tmp_path: pathlib.Path, cluster: Cluster, roles: Roles, database: str) -> t.Iterator[int]:
    """The port of release 1."""
    try:
        found = node.find_node()
    except node.NodeMissing as exc:
        unavailable(str(exc))
    folder = app.build_release(tmp_path / "api", 1)
    port = ports.free_port()
    urls = {"DATABASE_URL": roles.app, "MIGRATION_DATABASE_URL": roles.migrator}
    app.write_env(folder, {"PORT": port, **{name: cluster.url(database, **role.login()) for name, role in urls.items()}})
    app.migrate(folder)
    process = processes.start([str(found.bin), "src/server.js"], cwd=folder, log=folder / "app.log", env=found.env())
    ports.wait_for(port)
    yield port
    processes.stop(process)


class Between:
    """Passes on what the API answers, changed by ``tamper``."""

    def __init__(self, api: int) -> None:
        self.tamper: Tamper = lambda path, answer: answer
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *unused: t.Any) -> None:
                pass

            def do_GET(self) -> None:
                got = requests.get(f"http://127.0.0.1:{api}{self.path}", timeout=5)
                headers = {name: value for name, value in got.headers.items() if name not in ("Content-Length", "Connection")}
                status, headers, body = outer.tamper(self.path, (got.status_code, headers, got.json()))
                text = json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def verdict(self) -> dict[str, bool]:
        text = json.dumps(declared("health")["kejayangu_probes"])
        text = text.replace("{{ kejayangu_port }}", str(self.server.server_address[1])).replace("localhost", "127.0.0.1")
        result = run_probes(json.loads(text), successes=1, deadline=5, interval=5)  # asked once, however slow the machine is
        return {probe["name"]: bool(probe["ok"]) for probe in result["probes"]}


@pytest.fixture
def between(api: int) -> t.Iterator[Between]:
    made = Between(api)
    yield made
    made.server.shutdown()
    made.server.server_close()


def failing(between: Between, tamper: Tamper) -> list[str]:
    between.tamper = tamper
    return sorted(name for name, ok in between.verdict().items() if not ok)


def gateway(name: str, status: str) -> Tamper:
    """One gateway is not well, and the answer is 200 all the same."""

    def change(path: str, answer: Answer) -> Answer:
        if path == "/health/payments":
            answer[2]["providers"][name]["status"] = status
        return answer

    return change


def header(name: str, value: str | None) -> Tamper:
    def change(path: str, answer: Answer) -> Answer:
        headers = {key: old for key, old in answer[1].items() if key != name}
        return answer[0], {**headers, **({name: value} if value else {})}, answer[2]

    return change


def check(name: str, status: str) -> Tamper:
    def change(path: str, answer: Answer) -> Answer:
        if path == "/health/detailed":
            answer[2]["checks"][name]["status"] = status
        return answer

    return change


def test_the_probes_of_the_shipped_inventory_see_what_is_wrong(between: Between) -> None:
    assert failing(between, lambda path, answer: answer) == []
    for name in ("mpesa", "stripe", "flutterwave"):
        assert failing(between, gateway(name, "degraded")) == ["payment gateways"], name
    for name in ("X-Content-Type-Options", "X-Frame-Options", "Strict-Transport-Security", "Content-Security-Policy"):
        assert failing(between, header(name, None)) == ["security headers"], name
    assert failing(between, header("X-Powered-By", "Express")) == ["security headers"]
    assert failing(between, header("X-Content-Type-Options", "none")) == ["security headers"]
    for name in ("database", "memory"):
        assert failing(between, check(name, "failed")) == ["detailed health"], name


def test_a_gateway_whose_payments_fail_is_seen(between: Between, cluster: Cluster, roles: Roles, database: str) -> None:
    login = {"dbname": database, **roles.migrator.login()}
    cluster.sql("INSERT INTO customers (phone) VALUES ('+254700000000')", **login)
    cluster.sql(
        "INSERT INTO payments (customer_id, amount, provider, status) SELECT id, 10, 'mpesa', 'failed' FROM customers, generate_series(1, 12)",
        **login,
    )
    assert failing(between, lambda path, answer: answer) == ["payment gateways"]


def test_the_version_is_where_the_inventory_says(api: int) -> None:
    answer = requests.get(f"http://127.0.0.1:{api}/health", timeout=5).json()
    assert answer[declared("rollback_pm2")["rollback_pm2_version_path"]] == "1.0.0"


def test_the_ledgers_are_those_that_a_new_payment_needs(api: int, cluster: Cluster, roles: Roles, database: str) -> None:
    """Every table that a ledger refers to is a ledger, too: its rows must be there before the payment that names them."""
    ledgers = {entry["table"] for entry in declared("rollback_postgresql")["rollback_postgresql_ledgers"]}
    named = cluster.sql(
        "SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint WHERE contype = 'f'", dbname=database
    )
    assert {target for source, target in named if source in ledgers} <= ledgers
    tables = {
        name
        for (name,) in cluster.sql(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace", dbname=database
        )
    }
    assert ledgers <= tables
