# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real nginx on loopback ports, prepared as the documentation of nginx_servers shows."""

from __future__ import annotations

import pathlib
import shutil
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._nginx.doors import Places, first_text, lines_of
from tests.lab import ports, processes
from tests.lab.traffic import Answer, Echo, fetch

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"


class Nginx:
    """One nginx with a server block ``api`` before the upstream ``payments``; ``/webhooks/`` goes to a receiver of its own.

    ``servers`` maps names to ports. Clients are told apart by their Idempotency-Key, since all of them are 127.0.0.1.
    """

    def __init__(self, folder: pathlib.Path, servers: dict[str, int], prepared: bool = True) -> None:
        self.folder = folder
        self.files = folder / "payops"
        self.files.mkdir(parents=True)
        self.servers = servers
        self.prepared = prepared
        self.port = ports.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "nginx.conf"
        self.pid_file = folder / "nginx.pid"
        self.upstream = self.files / "upstream-payments.conf"
        self.doors = self.files / "doors.conf"
        self.places = Places(str(self.doors), 30, "$http_idempotency_key")
        self.receiver = Echo("kept for later")
        self._process: t.Any = None

    def first_upstream(self) -> str:
        lines = [f"server 127.0.0.1:{port} weight=100 max_fails=0;  # {name}" for name, port in self.servers.items()]
        return "\n".join(["# the servers of payments", *lines]) + "\n"

    def write(self) -> None:
        self.upstream.write_text(self.first_upstream(), encoding="utf-8")
        if self.prepared:
            self.doors.write_text(first_text(self.places, ["api"]), encoding="utf-8")
        self.config.write_text(
            f"""worker_processes 2;
pid {self.pid_file};
error_log {self.folder}/error.log notice;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {self.folder}/body;
    proxy_temp_path {self.folder}/proxy;
    fastcgi_temp_path {self.folder}/fastcgi;
    uwsgi_temp_path {self.folder}/uwsgi;
    scgi_temp_path {self.folder}/scgi;
    # http
    {f"include {self.doors};" if self.prepared else ""}
    upstream payments {{
        include {self.upstream};
    }}
    upstream receiver {{ server 127.0.0.1:{self.receiver.port}; }}
    server {{
        listen 127.0.0.1:{self.port};
        # api
        {lines_of("api") if self.prepared else ""}
        location / {{ proxy_pass http://payments; }}
        location /webhooks/ {{ proxy_pass http://receiver; }}
    }}
}}
""",
            encoding="utf-8",
        )

    def start(self) -> Nginx:
        self.write()
        self.receiver.start()
        self._process = processes.start([NGINX, "-c", str(self.config), "-g", "daemon off;"], log=self.folder / "nginx.log")
        ports.wait_for(self.port)
        return self

    def reload(self) -> None:
        """As systemctl reload does it, and until the workers of before are gone."""
        before = self.workers()
        self._process.send_signal(1)  # SIGHUP
        ports.wait_until(lambda: self.workers() and not set(self.workers()) & set(before), "the new workers")

    def workers(self) -> list[int]:
        return sorted(processes.children(self._process.pid))

    def stop(self) -> None:
        processes.stop(self._process)
        self.receiver.stop()

    def get(self, path: str = "/", client: str = "somebody") -> Answer:
        return fetch(self.url + path, {"Idempotency-Key": client})

    def answering(self) -> set[str]:
        """The names of the servers that customers reach now."""
        return {self.get().text for unused in range(12)}

    def options(self) -> dict[str, t.Any]:
        return {
            "folder": str(self.files),
            "config": str(self.config),
            "pid_file": str(self.pid_file),
            "program": NGINX,
            "client": self.places.client,
            "frontends": [{"name": "api", "url": self.url}],
            "receivers": ["/webhooks/mpesa"],
        }

    def variables(self) -> dict[str, t.Any]:
        """What an inventory says of this proxy."""
        places = {f"rollback_haproxy_nginx_{key}": value for key, value in self.options().items() if key not in ("frontends", "receivers")}
        common = {f"rollback_haproxy_{key}": self.options()[key] for key in ("frontends", "receivers")}
        return {"rollback_haproxy_kind": "nginx", **places, **common}
