# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host is ill, and the proxy has noticed."""

from __future__ import annotations

import typing as t

from tests.lab import ports
from tests.lab.scenario import current

testinfra_hosts = ["ansible://proxy1"]


def test_the_proxy_sends_nobody_to_the_ill_host(host: t.Any) -> None:
    stat = (
        "echo 'show stat' | sudo python3 -c \"import socket,sys; s=socket.socket(1); s.connect('/run/haproxy/admin.sock');"
        " s.sendall(sys.stdin.buffer.read()); print(b''.join(iter(lambda: s.recv(65536), b'')).decode())\""
    )

    def down() -> bool:
        rows = [row.split(",") for row in host.check_output(stat).splitlines()]
        return [row[17].split()[0] for row in rows if row[0] == "payments" and row[1] == "app3"] == ["DOWN"]

    ports.wait_until(down, "app3 out of the traffic", 30, 0.5)
    assert [each.version() for each in current().fleet.apps] == ["1.1.0", "1.1.0", "2.0.0"]
    current().await_payments()
