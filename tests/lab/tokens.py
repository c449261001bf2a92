# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A token server for a registry with ``auth: token``: checks the login, signs what the user may do, writes down what was asked."""

from __future__ import annotations

import base64
import http.server
import json
import pathlib
import ssl
import subprocess
import threading
import time
import typing as t
from urllib.parse import parse_qs, urlsplit

from tests.lab import ports
from tests.lab.certificates import Authority
from tests.lab.registry import PASSWORD, USER


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenServer:
    """``may`` says what whom is allowed: {user or "": actions}. Speaks https with a certificate of ``authority``."""

    ISSUER, SERVICE = "payops tests", "the registry"

    def __init__(self, authority: Authority, may: dict[str, list[str]], plain: bool = False, answer_key: str = "token") -> None:
        self.may = may
        self.answer_key = answer_key
        self.seen: list[tuple[str, str]] = []
        self.certificate, self.key = authority.issue(f"tokens-{id(self)}")
        self.port = ports.free_port()
        self.realm = f"{'http' if plain else 'https'}://127.0.0.1:{self.port}/token"
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *unused: t.Any) -> None:
                pass

            def do_GET(self) -> None:
                outer.answer(self)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        if not plain:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, self.key)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self) -> TokenServer:
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def section(self, root: pathlib.Path) -> dict[str, t.Any]:
        """The section ``auth`` of the registry that believes this server."""
        return {"token": {"realm": self.realm, "service": self.SERVICE, "issuer": self.ISSUER, "rootcertbundle": str(root)}}

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        login = request.headers.get("Authorization", "")
        user = ""
        if login:
            name, unused, password = base64.b64decode(login.partition(" ")[2]).decode().partition(":")
            if (name, password) != (USER, PASSWORD):
                return self._send(request, 401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]})
            user = name
        query = parse_qs(urlsplit(request.path).query)
        scope = query.get("scope", [""])[0]
        self.seen.append((user, scope))
        kind, name, actions = (scope.split(":", 2) + ["", "", ""])[:3]
        allowed = [each for each in actions.split(",") if each in self.may.get(user, [])]
        self._send(request, 200, {self.answer_key: self.token(user, [{"type": kind, "name": name, "actions": allowed}] if allowed else [])})
        return None

    def _send(self, request: http.server.BaseHTTPRequestHandler, status: int, answer: t.Any) -> None:
        data = json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def token(self, user: str, access: list[dict[str, t.Any]]) -> str:
        der = base64.b64encode(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).decode()
        now = int(time.time())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [der]}
        claims = {
            "iss": self.ISSUER,
            "sub": user,
            "aud": self.SERVICE,
            "exp": now + 60,
            "nbf": now - 10,
            "iat": now,
            "jti": str(now),
            "access": access,
        }
        body = f"{_b64(json.dumps(header).encode())}.{_b64(json.dumps(claims).encode())}"
        argv = ["openssl", "dgst", "-sha256", "-sign", str(self.key)]
        return f"{body}.{_b64(subprocess.run(argv, input=body.encode(), capture_output=True, timeout=20, check=True).stdout)}"
