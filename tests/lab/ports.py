# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Free TCP ports, and waiting for something to become true."""

from __future__ import annotations

import os
import socket
import threading
import time
import typing as t

_handed_out: set[int] = set()
_lock = threading.Lock()


def _can_bind(port: int, host: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on and that this process has not handed out before.

    ``PAYOPS_TEST_PORTS=21000-21999`` confines the search, for machines on which several test runs share the ports.
    """
    wanted = os.environ.get("PAYOPS_TEST_PORTS", "")
    with _lock:
        if wanted:
            first, last = (int(part) for part in wanted.split("-", 1))
            for port in range(first, last + 1):
                if port not in _handed_out and _can_bind(port, host):
                    _handed_out.add(port)
                    return port
            raise RuntimeError(f"no free port in PAYOPS_TEST_PORTS={wanted}")
        while True:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.bind((host, 0))
                port = int(probe.getsockname()[1])
            if port not in _handed_out:
                _handed_out.add(port)
                return port


def free_ports(number: int, host: str = "127.0.0.1") -> int:
    """The first of so many ports in a row that nothing listens on."""
    while True:
        first = free_port(host)
        more = range(first + 1, first + number)
        with _lock:
            if all(port < 65536 and port not in _handed_out and _can_bind(port, host) for port in more):
                _handed_out.update(more)
                return first


def is_listening(port: int, host: str = "127.0.0.1", timeout: float = 0.5) -> bool:
    try:
        with socket.create_connection((host, port), timeout=timeout):
            return True
    except OSError:
        return False


T = t.TypeVar("T")


def wait_until(check: t.Callable[[], T | None], what: str, timeout: float = 30.0, interval: float = 0.05) -> T:
    """Call ``check`` until it answers something true and return that; :class:`TimeoutError` names ``what`` otherwise."""
    deadline = time.monotonic() + timeout
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}, last answer: {answer!r}")
        time.sleep(interval)


def wait_for(port: int, host: str = "127.0.0.1", timeout: float = 30.0) -> None:
    """Wait until something accepts connections on the port."""
    wait_until(lambda: is_listening(port, host), f"a listener on {host}:{port}", timeout)


def wait_closed(port: int, host: str = "127.0.0.1", timeout: float = 30.0) -> None:
    """Wait until nothing accepts connections on the port any more."""
    wait_until(lambda: not is_listening(port, host), f"{host}:{port} to be closed", timeout)
