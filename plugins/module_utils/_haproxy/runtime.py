# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""HAProxy's runtime socket: one command a connection, its answer as text, and what the answers mean.

HAProxy answers errors as text and without a code, so an answer to a write says little: whoever writes reads again.
"""

from __future__ import annotations

import re
import socket
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._traffic.places import place_of

# Bits of srv_admin_state: what the configuration says and what somebody said at run time.
MAINT, DRAIN = 0x01, 0x08
INHERITED = 0x02 | 0x10 | 0x20 | 0x40  # from a tracked server, or because its name does not resolve
UP = 2  # srv_op_state
# What a command may answer that is no error.
FINE = re.compile(r"(no need to change|changed from|port updated|\d+ \(initial)")
TIMEOUT = 5.0


class Server(t.NamedTuple):
    """One server of a backend, as HAProxy runs it now."""

    backend: str
    name: str
    address: str
    port: int
    admin: int
    operational: int
    weight: int
    initial_weight: int
    check_port: int = 0  # where its health check asks; 0 where that is the server's own port
    check_address: str = "-"

    @property
    def key(self) -> str:
        return f"{self.backend}/{self.name}"

    @property
    def state(self) -> str:
        """V(ready), V(drain) or V(maint), as ``set server state`` calls it."""
        return "maint" if self.admin & MAINT else "drain" if self.admin & DRAIN else "ready"

    @property
    def usable(self) -> bool:
        """Whether new connections go there."""
        return not self.admin and self.operational == UP and self.weight > 0

    @property
    def place(self) -> str:
        return place_of(self.address, self.port)

    def described(self) -> dict[str, t.Any]:
        return {"state": self.state, "weight": self.weight, "address": self.place, "up": self.operational != 0}


class Runtime:
    """``path`` is the socket's path, or ``host:port``."""

    def __init__(self, path: str) -> None:
        self.path = path

    def _connect(self) -> socket.socket:
        if self.path.startswith("/"):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(TIMEOUT)
            try:
                connection.connect(self.path)
            except OSError:
                connection.close()
                raise
            return connection
        host, unused, port = self.path.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), TIMEOUT)

    def ask(self, command: str) -> str:
        """The whole answer to one command."""
        try:
            with self._connect() as connection:
                connection.sendall(command.encode("utf-8") + b"\n")
                parts = []
                while True:
                    part = connection.recv(1 << 16)
                    if not part:
                        break
                    parts.append(part)
        except (OSError, ValueError) as exc:
            raise RollbackError(
                f"HAProxy's runtime socket {self.path} did not answer: {exc}. Expected 'stats socket {self.path} level admin' in the section "
                "global of haproxy.cfg, HAProxy running, and a user here that may open it; then run the same command again."
            ) from exc
        return b"".join(parts).decode("utf-8", errors="replace").strip("\n")

    def tell(self, command: str) -> None:
        """A command that changes something: no words, or harmless ones, come back."""
        answer = self.ask(command).strip()
        if answer and not FINE.search(answer):
            if "ermission denied" in answer:
                raise RollbackError(
                    f"HAProxy refused '{command}' on {self.path}: {answer} Expected a socket of level admin: "
                    f"'stats socket {self.path} level admin' in the section global of haproxy.cfg; then reload HAProxy."
                )
            raise RollbackError(f"HAProxy refused '{command}' on {self.path}: {answer}")

    # -- servers ---------------------------------------------------------------------------------------------------------

    def servers(self) -> dict[str, Server]:
        """Every server of every backend, by ``backend/server``."""
        text = self.ask("show servers state")
        found = parse_servers(text)
        if not found and not text.lstrip().startswith("1"):
            raise RollbackError(f"HAProxy did not list its servers on {self.path}; it said: {text[:200] or 'nothing'}")
        return found

    def sessions(self, keys: t.Iterable[str]) -> dict[str, int]:
        """How many sessions each of the servers has now, those that wait in its queue among them."""
        return {key: int(row.get("scur") or 0) + int(row.get("qcur") or 0) for key, row in self._statistics(keys).items()}

    def passing(self, keys: t.Iterable[str]) -> dict[str, bool]:
        """Whether the last health checks of each server succeeded; true where it has none.

        A server that leaves maint counts as up at once, one failure before down. Only a success after that lifts its health to the top.
        """
        found = {}
        for key, row in self._statistics(keys).items():
            rise, fall, health = (int(row.get(f"check_{name}") or 0) for name in ("rise", "fall", "health"))
            found[key] = not row.get("check_rise") or health >= rise + fall - 1
        return found

    def _statistics(self, keys: t.Iterable[str]) -> dict[str, dict[str, str]]:
        lines = self.ask("show stat -1 4 -1").splitlines()
        names = lines[0].lstrip("# ").split(",") if lines else []
        wanted = set(keys)
        found = {}
        for line in lines[1:]:
            row = dict(zip(names, line.split(",")))
            key = f"{row.get('pxname')}/{row.get('svname')}"
            if key in wanted:
                found[key] = row
        missing = sorted(wanted - set(found))
        if missing:
            raise RollbackError(f"HAProxy has no statistics of {', '.join(missing)}. Did somebody reload it with another configuration?")
        return found

    # -- maps ------------------------------------------------------------------------------------------------------------

    def maps(self) -> set[str]:
        """The files of all maps that the configuration uses."""
        return set(re.findall(r"^-?\d+ \((.+?)\) ", self.ask("show map"), re.MULTILINE))

    def map(self, path: str) -> dict[str, str]:
        """What a map says now; a later line of a key that stands there twice never counts."""
        found: dict[str, str] = {}
        answer = self.ask(f"show map {path}")
        for line in answer.splitlines():
            parts = line.split(None, 2)
            if len(parts) == 3 and parts[0].startswith("0x"):
                found.setdefault(parts[1], parts[2])
            elif line.strip():
                raise RollbackError(f"HAProxy does not show the map {path}: {answer[:200]}")
        return found

    def set_map(self, path: str, key: str, value: str, there: bool) -> None:
        self.tell(f"{'set' if there else 'add'} map {path} {key} {value}")


def parse_servers(text: str) -> dict[str, Server]:
    """What ``show servers state`` says, or a file that was written from it; lines that are not understood are left out."""
    found: dict[str, Server] = {}
    names: list[str] = []
    for line in text.splitlines():
        if line.startswith("#"):
            names = line.lstrip("# ").split()
            continue
        values = line.split()
        if len(values) < 2 or len(values) > len(names):
            continue
        row = dict(zip(names, values))
        server = Server(
            row["be_name"],
            row["srv_name"],
            row["srv_addr"],
            int(row["srv_port"]),
            int(row["srv_admin_state"]),
            int(row["srv_op_state"]),
            int(row["srv_uweight"]),
            int(row["srv_iweight"]),
            int(row.get("srv_check_port") or 0),
            row.get("srv_check_addr") or "-",
        )
        found[server.key] = server
    return found
