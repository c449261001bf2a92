# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sample payment API does what the tests of the rollback rely on."""

from __future__ import annotations

import pathlib
import subprocess
import typing as t

import pytest
import requests

from tests.client.check import check
from tests.client.load import main as pay
from tests.lab import app, node, ports, processes
from tests.lab.fixtures import unavailable
from tests.lab.postgres import Cluster
from tests.lab.roles import Roles


class Running:
    """The API as a plain Node process on one database."""

    def __init__(self, folder: pathlib.Path, cluster: Cluster, roles: Roles, database: str) -> None:
        self.folder, self.cluster, self.roles, self.database = folder, cluster, roles, database
        self.process: subprocess.Popen[bytes] | None = None
        self.port = ports.free_port()

    def start(self, **extra: str) -> Running:
        url = self.cluster.url(self.database, **self.roles.app.login())
        migrator = self.cluster.url(self.database, **self.roles.migrator.login())
        app.write_env(self.folder, {"PORT": self.port, "DATABASE_URL": url, "MIGRATION_DATABASE_URL": migrator, **extra})
        app.migrate(self.folder)
        found = node.find_node()
        self.process = processes.start([str(found.bin), "src/server.js"], cwd=self.folder, log=self.folder / "app.log", env=found.env())
        ports.wait_for(self.port)
        return self

    def stop(self) -> None:
        if self.process is not None:
            processes.stop(self.process)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def pay(self, key: str = "k", amount: str = "12.50", provider: str = "stripe") -> requests.Response:
        body = {"amount": amount, "provider": provider, "phone": "+254700000001"}
        return requests.post(self.url("/payments"), json=body, headers={"Idempotency-Key": key}, timeout=10)

    def end_sessions(self) -> None:
        self.cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (self.database,))


@pytest.fixture(params=[1])
def api(request: t.Any, tmp_path: pathlib.Path, cluster: Cluster, roles: Roles, database: str) -> t.Iterator[Running]:
    try:
        node.find_node()
    except node.NodeMissing as exc:
        unavailable(str(exc))
    running = Running(app.build_release(tmp_path / "api", request.param), cluster, roles, database)
    yield running
    running.stop()


def test_health_version_and_security_headers(api: Running) -> None:
    api.start()
    answer = requests.get(api.url("/health"), timeout=5)
    assert (answer.status_code, answer.json()["status"], answer.json()["version"]) == (200, "ok", "1.0.0")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "X-Powered-By" not in answer.headers
    detailed = requests.get(api.url("/health/detailed"), timeout=5).json()
    assert detailed["checks"]["database"]["latency_ms"] > 0
    assert set(requests.get(api.url("/health/payments"), timeout=5).json()["providers"]) == {"mpesa", "stripe", "flutterwave"}


def test_a_retry_with_the_same_key_pays_once(api: Running) -> None:
    api.start()
    first, again = api.pay("same"), api.pay("same")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert api.pay("same", amount="13").status_code == 422
    assert api.cluster.sql("SELECT count(*) FROM payments", dbname=api.database) == [(1,)]


def test_an_mpesa_callback_counts_once(api: Running) -> None:
    api.start()
    payment = api.pay(provider="mpesa").json()
    items = [{"Name": "Amount", "Value": 12.5}, {"Name": "MpesaReceiptNumber", "Value": "NLJ7RT61SV"}]
    callback = {"CheckoutRequestID": payment["checkout_request_id"], "ResultCode": 0, "CallbackMetadata": {"Item": items}}
    for attempt in range(2):
        answer = requests.post(api.url("/mpesa/callback"), json={"Body": {"stkCallback": callback}}, timeout=5)
        assert answer.json() == {"ResultCode": 0, "ResultDesc": "Accepted"}
    assert api.cluster.sql("SELECT status, provider_ref FROM payments", dbname=api.database) == [("paid", "NLJ7RT61SV")]
    assert api.cluster.sql("SELECT count(*) FROM mpesa_callbacks", dbname=api.database) == [(1,)]


def test_lost_connections_are_survived_with_the_error_handler(api: Running) -> None:
    api.start()
    api.pay()
    api.end_sessions()
    ports.wait_until(lambda: api.pay("after").status_code in (200, 201), "a payment after the lost connections", 10)
    assert api.process is not None
    assert api.process.poll() is None


def test_without_the_handler_a_lost_connection_ends_the_process(api: Running) -> None:
    api.start(POOL_ERROR_HANDLER="off")
    api.pay()
    api.end_sessions()
    process = api.process
    assert process is not None
    assert ports.wait_until(process.poll, "the process to exit", 10) != 0


@pytest.mark.parametrize("api", [2], indirect=True)
def test_release_2_falls_ill_under_traffic_only(api: Running) -> None:
    api.start()
    assert requests.get(api.url("/health"), timeout=5).json()["version"] == "2.0.0"
    assert [api.pay(f"k{number}").status_code for number in range(4)] == [201] * 4
    answer = requests.get(api.url("/health"), timeout=5)
    assert (answer.status_code, answer.json()["failed"]) == (503, ["fees"])
    assert api.pay("card").status_code == 503
    assert api.pay("phone", provider="mpesa").status_code == 201


def test_clients_find_each_acknowledged_payment_and_miss_a_deleted_one(api: Running, tmp_path: pathlib.Path) -> None:
    api.start()
    folder = tmp_path / "clients"
    assert pay(["--port", str(api.port), "--folder", str(folder), "--rate", "40", "--duration", "1.5"]) == 0
    params = api.cluster.params()
    verdict = check(folder / "acks.jsonl", params, api.database, [])
    assert verdict.ok
    assert verdict.acknowledged >= 50
    gone = verdict.live[0]
    for statement in (
        "DELETE FROM idempotency_keys WHERE payment_id = %s",
        "DELETE FROM mpesa_callbacks WHERE payment_id = %s",
        "DELETE FROM audit_log WHERE payment_id = %s",
        "DELETE FROM payments WHERE id = %s",
    ):
        api.cluster.sql(statement, (gone,), dbname=api.database)
    assert check(folder / "acks.jsonl", params, api.database, []).lost == [gone]
