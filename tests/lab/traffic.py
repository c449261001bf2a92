# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real HAProxy, a receiver of webhooks behind it, and a real Prometheus that watches it: processes of the tests on loopback ports."""

from __future__ import annotations

import json
import pathlib
import shutil
import socket
import sys
import typing as t
import urllib.error
import urllib.parse
import urllib.request

from ansible_collections.payops.rollback.plugins.module_utils._haproxy.doors import Places, snippet
from tests.lab import ports, processes

HAPROXY, PROMETHEUS = (shutil.which(name) or f"/usr/sbin/{name}" for name in ("haproxy", "prometheus"))

# Answers every request with its own name; POST /slow holds the connection until /release is asked.
ECHO = """
import http.server, sys, threading
go = threading.Event()
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/release":
            go.set()
        elif self.path == "/slow":
            go.clear()
            go.wait(60)
        body = sys.argv[1].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *unused):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Echo)
server.daemon_threads = True
server.serve_forever()
"""


def missing(*programs: str) -> str:
    """What a person installs, or nothing."""
    names = [pathlib.Path(program).name for program in programs if not pathlib.Path(program).exists()]
    return f"install the operating system's packages {' '.join(names)}" if names else ""


class Answer(t.NamedTuple):
    status: int
    text: str
    headers: t.Mapping[str, str]


def fetch(url: str, headers: t.Mapping[str, str] | None = None) -> Answer:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers or {})), timeout=70) as answer:
            return Answer(answer.status, answer.read().decode(), dict(answer.headers.items()))
    except urllib.error.HTTPError as exc:
        with exc:
            return Answer(exc.code, exc.read().decode(), dict(exc.headers.items()))


class Echo:
    """A server that says its name."""

    def __init__(self, name: str, port: int = 0) -> None:
        self.name = name
        self.port = port or ports.free_port()
        self._process: t.Any = None

    def start(self) -> Echo:
        self._process = processes.start([sys.executable, "-c", ECHO, self.name, str(self.port)])
        ports.wait_for(self.port)
        return self

    def stop(self) -> None:
        processes.stop(self._process, timeout=3)


class Proxy:
    """One HAProxy with a frontend ``api`` before the backend ``payments``; ``/webhooks/`` goes to a receiver of its own.

    ``servers`` maps names to ports. Clients are told apart by their Idempotency-Key, since all of them are 127.0.0.1.
    """

    def __init__(
        self, folder: pathlib.Path, servers: dict[str, int], prepared: bool = True, check: str = "option httpchk GET /health"
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.servers = servers
        self.prepared = prepared
        self.check = check
        self.port = ports.free_port()
        self.metrics_port = ports.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.socket = folder / "admin.sock"
        self.places = Places(str(folder / "share.map"), str(folder / "receivers.map"), 30)
        self.state_file = folder / "server.state"
        self.receiver = Echo("kept for later")
        self._process: t.Any = None

    def write(self) -> None:
        lines = snippet(self.places, "api").replace("src,xxh32", "req.hdr(Idempotency-Key),xxh32").splitlines()[1:] if self.prepared else []
        for path in (self.places.share_map, self.places.receivers_map):
            pathlib.Path(path).touch()
        servers = "\n".join(f"    server {name} 127.0.0.1:{port} weight 100" for name, port in self.servers.items())
        (self.folder / "haproxy.cfg").write_text(
            f"""global
    stats socket {self.socket} level admin mode 600
    server-state-file {self.state_file}
defaults
    mode http
    load-server-state-from-file global
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout check 5s
    default-server check inter 200ms fall 2 rise 1
frontend api
    bind 127.0.0.1:{self.port}
{chr(10).join(lines)}
    use_backend receiver if {{ path_beg /webhooks/ }}
    default_backend payments
frontend metrics
    bind 127.0.0.1:{self.metrics_port}
    http-request use-service prometheus-exporter if {{ path /metrics }}
backend payments
    {self.check}
{servers}
backend receiver
    server kept 127.0.0.1:{self.receiver.port} no-check
""",
            encoding="utf-8",
        )

    def start(self) -> Proxy:
        self.write()
        self.receiver.start()
        self.run()
        return self

    def run(self) -> None:
        self._process = processes.start([HAPROXY, "-W", "-db", "-f", str(self.folder / "haproxy.cfg")], log=self.folder / "haproxy.log")
        ports.wait_for(self.port)
        ports.wait_until(lambda: self.usable() == sorted(self.servers), "servers that are up", 30)

    def reload(self) -> None:
        """As systemctl reload does it: the master starts a new worker from the files."""
        before = self.ask("show info").split("Pid: ")[1].split("\n")[0]
        self._process.send_signal(12)  # SIGUSR2
        ports.wait_until(lambda: self._pid() not in ("", before), "the new worker")
        ports.wait_for(self.port)

    def _pid(self) -> str:
        try:
            return self.ask("show info").split("Pid: ")[1].split("\n")[0]
        except (OSError, IndexError):
            return ""

    def stop(self) -> None:
        processes.stop(self._process)
        self.receiver.stop()

    # -- seen from outside, without the collection -----------------------------------------------------------------------

    def ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.socket))
            connection.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def states(self) -> dict[str, tuple[int, int, str]]:
        """server -> (what somebody said of it, its weight, where it is)."""
        found = {}
        for line in self.ask("show servers state payments").splitlines():
            words = line.split()
            if len(words) > 18 and words[1] == "payments":
                found[words[3]] = (int(words[6]), int(words[7]), f"{words[4]}:{words[18]}")
        return found

    def usable(self) -> list[str]:
        lines = [line.split(",") for line in self.ask("show stat -1 4 -1").splitlines()]
        return sorted(row[1] for row in lines if row[0] == "payments" and row[17].startswith("UP"))

    def get(self, path: str = "/", client: str = "somebody") -> Answer:
        return fetch(self.url + path, {"Idempotency-Key": client})

    def variables(self) -> dict[str, t.Any]:
        """What an inventory says of this proxy."""
        return {
            "rollback_haproxy_socket": str(self.socket),
            "rollback_haproxy_frontends": [{"name": "api", "url": self.url}],
            "rollback_haproxy_receivers": ["/webhooks/mpesa"],
            "rollback_haproxy_share_map": self.places.share_map,
            "rollback_haproxy_receivers_map": self.places.receivers_map,
            "rollback_haproxy_state_file": str(self.state_file),
        }


class Prometheus:
    """Scrapes HAProxy's own exporter, which tells requests, errors and times of each server, once a second.

    ``labels``: believe what the exporter says of ``instance``, as if there were many of them.
    """

    def __init__(self, folder: pathlib.Path, target: int, labels: bool = False) -> None:
        self.folder = folder
        self.port = ports.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.target = target
        self.labels = labels
        self._process: t.Any = None

    def start(self) -> Prometheus:
        self.folder.mkdir(parents=True, exist_ok=True)
        targets = [{"targets": [f"127.0.0.1:{self.target}"]}]
        jobs = [{"job_name": "haproxy", "honor_labels": self.labels, "static_configs": targets}]
        config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs}
        (self.folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
        argv = [PROMETHEUS, f"--config.file={self.folder / 'prometheus.yml'}", f"--storage.tsdb.path={self.folder / 'data'}"]
        self._process = processes.start([*argv, f"--web.listen-address=127.0.0.1:{self.port}"], log=self.folder / "prometheus.log")
        ports.wait_until(self._ready, "Prometheus", 60)
        return self

    def _ready(self) -> bool:
        try:
            return fetch(f"{self.url}/-/ready").status == 200
        except OSError:
            return False

    def ask(self, query: str) -> list[dict[str, t.Any]]:
        text = fetch(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': query})}").text
        return list(json.loads(text)["data"]["result"])

    def stop(self) -> None:
        processes.stop(self._process)
