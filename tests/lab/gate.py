# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A gate before a registry: lets requests through, refuses, changes or holds some, and counts bytes."""

from __future__ import annotations

import http.server
import threading
import typing as t

import requests

from tests.lab import ports

# Takes method and path; answers None to let it through, a status to refuse it, or something to do first.
Rule = t.Callable[[str, str], t.Optional[int]]


class Gate:
    def __init__(self, url: str, rule: Rule = lambda method, path: None) -> None:
        self.rule = rule
        self.seen: list[str] = []
        self.sent = 0
        self.headers: dict[str, str] = {}
        self.port = ports.free_port()
        self.netloc = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.netloc}"
        outer = self
        session = requests.Session()
        session.trust_env = False

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *unused: t.Any) -> None:
                pass

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.seen.append(f"{self.command} {self.path}")
                outer.sent += len(body)
                status = outer.rule(self.command, self.path)
                if status is not None:
                    return self.reply(status, outer.headers, b'{"errors": [{"code": "DENIED", "message": "by the gate"}]}')
                headers = {key: value for key, value in self.headers.items() if key.lower() != "host"}
                answer = session.request(self.command, f"{url}{self.path}", data=body, headers=headers, allow_redirects=False, timeout=20)
                kept = {key: value for key, value in answer.headers.items() if key.lower() not in ("content-length", "connection", "date")}
                return self.reply(answer.status_code, kept, answer.content, answer.headers.get("Content-Length", "0"))

            def reply(self, status: int, headers: t.Mapping[str, str], body: bytes, length: str | None = None) -> None:
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_PUT = do_POST = handle_any

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self) -> Gate:
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def writes(self) -> list[str]:
        return [each for each in self.seen if each.startswith(("PUT", "POST"))]
