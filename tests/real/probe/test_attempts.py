# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes against real servers: HTTP and HTTPS on this machine, a port where nothing listens, one that never answers."""

from __future__ import annotations

import base64
import http.server
import json
import pathlib
import socket
import ssl
import subprocess
import threading
import time
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._probe import failure_message, run_probes

HEALTH = {"status": "ok", "version": "20231201_120000", "checks": [{"name": "db", "ok": True}, {"name": "mpesa", "ok": True}]}


class Api(http.server.BaseHTTPRequestHandler):
    """The answers of a payment API, good and bad. ``seen`` keeps what was asked."""

    protocol_version = "HTTP/1.1"
    seen: t.ClassVar[list[tuple[str, dict[str, str], bytes]]] = []

    def log_message(self, *unused: t.Any) -> None:
        pass

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append((f"{self.command} {self.path}", dict(self.headers), body))
        path = self.path.partition("?")[0]
        if path == "/drip":
            return self.drip()
        if path == "/hangup":
            self.close_connection = True
            return None
        if path == "/slow":
            time.sleep(0.3)
        status = {"/down": 503, "/moved": 302}.get(path, 200)
        text = {"/down": "pool exhausted\n", "/text": "ready"}.get(path, json.dumps(HEALTH)).encode()
        self.send_response(status)
        self.send_header("X-Content-Type-Options", "nosniff")
        if path == "/moved":
            self.send_header("Location", "/health")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        return None

    do_POST = do_GET

    def drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            for unused in range(100):
                self.wfile.write(b" ")
                time.sleep(0.1)
        except OSError:
            pass
        self.close_connection = True


class Server(http.server.ThreadingHTTPServer):
    block_on_close = False


def serve(context: ssl.SSLContext | None = None) -> Server:
    server = Server(("127.0.0.1", 0), Api)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def port() -> t.Iterator[int]:
    server = serve()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A certificate for localhost and api.example.test that ends in 10 days."""
    folder = tmp_path_factory.mktemp("tls")
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 10 -keyout key.pem -out cert.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,DNS:api.example.test"]
    subprocess.run([*make.split(), *names], cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem"


@pytest.fixture(scope="module")
def tls_port(certificate: pathlib.Path) -> t.Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    server = serve(context)
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def once(probe: dict[str, t.Any], deadline: float = 0.5) -> dict[str, t.Any]:
    """One probe that should not be asked twice: the interval is as long as the deadline."""
    result = run_probes([probe], successes=1, deadline=deadline, interval=deadline)
    return {**result["probes"][0], "message": "" if result["ok"] else failure_message(result)}


def test_the_health_page_is_judged_by_status_json_headers_and_time(port: int) -> None:
    probe = {
        "url": f"http://127.0.0.1:{port}/health?full=1",
        "max_ms": 900,
        "expect_json": [
            {"path": "status", "in": ["ok", "healthy"]},
            {"path": "version", "equals": "20231201_120000"},
            {"path": "checks[*].ok", "equals": True},
        ],
        "expect_headers": [{"name": "x-content-type-options", "equals": "nosniff"}, {"name": "X-Powered-By", "exists": False}],
        "expect_body": '"mpesa"',
    }
    result = run_probes([probe], successes=3, deadline=5, interval=0.01)
    assert result["ok"]
    (seen,) = result["probes"]
    assert seen["attempts"] == 3 and seen["first_error"] is None
    assert 0 < seen["p50_ms"] <= seen["p95_ms"] < 900
    assert seen["observed"]["json"] == {"status": "ok", "version": "20231201_120000", "checks[*].ok": [True, True]}
    assert Api.seen[-1][0] == "GET /health?full=1"


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("/down", {}, "status 503, expected 200 (it said: pool exhausted)"),
        ("/moved", {}, "status 302, expected 200"),
        ("/health", {"status": [204, 404]}, "status 200, expected 204 or 404"),
        ("/health", {"expect_json": [{"path": "version", "equals": "2"}]}, "version is '20231201_120000', expected '2'"),
        ("/health", {"expect_json": [{"path": "uptime", "min": 1}]}, "uptime is absent"),
        ("/text", {"expect_json": [{"path": "status", "equals": "ok"}]}, "the body is not JSON"),
        (
            "/health",
            {"expect_headers": [{"name": "Strict-Transport-Security", "exists": True}]},
            "header Strict-Transport-Security is absent",
        ),
        ("/text", {"expect_body": "^steady$"}, "the body does not match '^steady$'"),
        ("/slow", {"max_ms": 100}, "ms, expected at most 100 ms"),
        ("/slow", {"timeout": 0.1}, "no answer within 0.1 s"),
        ("/hangup", {}, "the connection was closed without an answer"),
        ("/drip", {"timeout": 0.3}, "no answer within 0.3 s"),
    ],
)
def test_an_ill_answer_is_named(port: int, path: str, options: dict[str, t.Any], message: str) -> None:
    seen = once({"url": f"http://127.0.0.1:{port}{path}", **options})
    assert not seen["ok"]
    assert message in seen["message"]


def test_a_redirect_is_an_answer_and_can_be_expected(port: int) -> None:
    wanted = {"status": [302], "expect_headers": [{"name": "Location", "equals": "/health"}]}
    assert once({"url": f"http://127.0.0.1:{port}/moved", **wanted})["ok"]


def test_no_proxy_is_used(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert once({"url": f"http://127.0.0.1:{port}/health"})["ok"]


def test_logins_and_headers_are_sent_and_kept_out_of_the_result(port: int) -> None:
    url = f"http://127.0.0.1:{port}/down"
    seen = once({"url": url, "url_username": "ops", "url_password": "pä:ss", "headers": {"Host": "api.example.test"}})
    sent = Api.seen[-1][1]
    assert base64.b64decode(sent["Authorization"].split()[1]).decode() == "ops:pä:ss"
    assert sent["Host"] == "api.example.test"
    assert "pä:ss" not in json.dumps(seen, ensure_ascii=False)
    seen = once({"url": url, "secret_headers": {"Authorization": "Bearer tok3n"}})
    assert Api.seen[-1][1]["Authorization"] == "Bearer tok3n"
    assert "tok3n" not in json.dumps(seen)


def test_a_mapping_is_posted_as_json(port: int) -> None:
    assert once({"url": f"http://127.0.0.1:{port}/pay", "method": "POST", "body": {"amount": 1}})["ok"]
    asked, headers, body = Api.seen[-1]
    assert (asked, headers["Content-Type"], json.loads(body)) == ("POST /pay", "application/json", {"amount": 1})


def test_waits_for_a_server_that_comes_up_late() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        late = reserved.getsockname()[1]
    servers: list[Server] = []

    def start() -> None:
        servers.append(Server(("127.0.0.1", late), Api))
        servers[0].serve_forever()

    timer = threading.Timer(0.5, start)
    timer.start()
    result = run_probes([{"url": f"http://127.0.0.1:{late}/health"}], successes=3, deadline=10, interval=0.1)
    servers[0].shutdown()
    servers[0].server_close()
    (seen,) = result["probes"]
    assert result["ok"]
    assert seen["attempts"] > 3
    assert seen["first_error"] == "connection refused: nothing listens there"


def test_tcp(port: int) -> None:
    assert once({"type": "tcp", "host": "127.0.0.1", "port": port})["ok"]
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound, not listening
        seen = once({"type": "tcp", "host": "127.0.0.1", "port": reserved.getsockname()[1]})
    assert "connection refused" in seen["message"]


def test_tls_days_left(tls_port: int, certificate: pathlib.Path) -> None:
    probe = {"type": "tls", "host": "127.0.0.1", "port": tls_port, "server_name": "localhost", "ca_cert": str(certificate)}
    seen = once({**probe, "min_days": 9})
    assert seen["ok"], seen["message"]
    assert 9.9 < seen["observed"]["days_left"] <= 10
    assert seen["observed"]["protocol"] == "TLSv1.3"
    assert "expected at least 14 days" in once(probe)["message"]


def test_a_certificate_that_nobody_vouches_for(tls_port: int, certificate: pathlib.Path) -> None:
    probe = {"type": "tls", "host": "127.0.0.1", "port": tls_port, "min_days": 1}
    assert "the certificate was not accepted: self" in once(probe)["message"]
    assert "the certificate was not accepted: IP address mismatch" in once({**probe, "ca_cert": str(certificate)})["message"]
    seen = once({**probe, "validate_certs": False})
    assert seen["ok"] and 9.9 < seen["observed"]["days_left"] <= 10


def test_a_port_without_tls_is_named(port: int) -> None:
    assert "no TLS connection" in once({"type": "tls", "host": "127.0.0.1", "port": port})["message"]


def test_https_of_one_server_under_the_name_of_all(tls_port: int, certificate: pathlib.Path) -> None:
    probe = {"url": f"https://127.0.0.1:{tls_port}/health", "ca_cert": str(certificate)}
    assert "the certificate was not accepted" in once(probe)["message"]
    assert once({**probe, "server_name": "api.example.test", "headers": {"Host": "api.example.test"}})["ok"]


def test_a_name_that_does_not_resolve() -> None:
    assert "does not resolve" in once({"url": "http://nowhere.invalid/"}, deadline=5)["message"]
