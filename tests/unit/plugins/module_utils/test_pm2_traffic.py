# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which connections wait for an answer, asked of this machine's own kernel."""

from __future__ import annotations

import os
import socket
import time
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._pm2 import drain, traffic


@pytest.fixture(name="pair", params=["127.0.0.1", "::1"])
def _pair(request: pytest.FixtureRequest) -> t.Iterator[tuple[socket.socket, socket.socket, int]]:
    host = request.param
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((host, port)) as client:
            server = listener.accept()[0]
            with server:
                yield client, server, port


def inode(sock: socket.socket) -> str:
    return str(os.fstat(sock.fileno()).st_ino)


def settled(watch: traffic.Watch, server: socket.socket, wanted: int, within: float = 2.0) -> bool:
    until = time.monotonic() + within
    while time.monotonic() < until:
        watch.look()
        if watch.busy({inode(server)}) == wanted:
            return True
        time.sleep(0.005)
    return False


def test_a_connection_waits_from_its_request_to_the_answer(pair: tuple[socket.socket, socket.socket, int]) -> None:
    client, server, port = pair
    watch = traffic.Watch(port)
    assert settled(watch, server, 0)  # open, nothing asked
    for unused in range(20):  # from the second time on as a kept connection, asked again right behind the answer
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert settled(watch, server, 1)  # not read yet
        server.recv(100)
        assert settled(watch, server, 1)  # read, not answered
        server.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        client.recv(100)
        assert settled(watch, server, 0)


def test_a_first_request_waits_however_long_it_takes(pair: tuple[socket.socket, socket.socket, int]) -> None:
    client, server, port = pair
    client.sendall(b"x")
    server.recv(1)
    time.sleep(traffic.TIE_MS / 1000 + 0.2)
    assert settled(traffic.Watch(port), server, 1)


def test_an_answer_within_the_same_tick_counts_as_one_after_a_while(pair: tuple[socket.socket, socket.socket, int]) -> None:
    client, server, port = pair
    client.sendall(b"x")
    server.recv(1)
    server.sendall(b"y")
    client.recv(1)
    assert settled(traffic.Watch(port), server, 0, traffic.TIE_MS / 1000 + 1)


def test_only_the_asked_sockets_count(pair: tuple[socket.socket, socket.socket, int]) -> None:
    client, server, port = pair
    client.sendall(b"x")
    watch, other = traffic.Watch(port), traffic.Watch(port + 1 if port < 65535 else port - 1)
    assert settled(watch, server, 1)
    assert watch.busy({inode(server)}, but=client.getsockname()[1]) == 0
    assert watch.busy({inode(client)}) == 0
    other.look()
    assert other.busy({inode(server)}) == 0


LOOK = traffic.Flow("1", 5, received=10, sent=10, unread=0, unsent=0, since_received=50, since_sent=20)


@pytest.mark.parametrize(
    ("was_busy", "now", "expected"),
    [
        (False, {}, False),
        (False, {"received": 20}, True),
        (True, {"sent": 20}, False),
        # both within two looks, at the same tick: only what was before tells them apart
        (False, {"received": 20, "sent": 20, "since_received": 2, "since_sent": 2}, False),
        (True, {"received": 20, "sent": 20, "since_received": 2, "since_sent": 2}, True),
        # answered and asked again, or asked and answered: the times tell
        (False, {"received": 20, "sent": 20, "since_received": 2, "since_sent": 6}, True),
        (True, {"received": 20, "sent": 20, "since_received": 6, "since_sent": 2}, False),
        (False, {"received": 20, "sent": 20, "unread": 5}, True),
    ],
)
def test_what_moved_between_two_looks_decides(monkeypatch: pytest.MonkeyPatch, was_busy: bool, now: dict[str, int], expected: bool) -> None:
    first = LOOK._replace(since_sent=90) if was_busy else LOOK
    looks = iter([[first], [first._replace(**now)]])
    monkeypatch.setattr(traffic, "flows", lambda port: next(looks))
    watch = traffic.Watch(80)
    watch.look()
    assert watch.busy({"1"}) == int(was_busy)
    watch.look()
    assert watch.busy({"1"}) == int(expected)


def test_who_listens_is_told_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (found,) = drain.listeners(port, ())
        assert found.endswith(f"(pid {os.getpid()})")
        assert drain.listeners(port, {os.getpid()}) == []
    assert drain.listeners(port, ()) == []


def test_a_kernel_that_does_not_tell_is_no_idle_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "NETLINK_SOCK_DIAG", 999)
    assert traffic.flows(80) is None
    watch = traffic.Watch(80)
    watch.look()
    assert watch.busy({"1"}) is None


def test_a_truncated_answer_is_refused_and_not_guessed() -> None:
    message = bytes(4) + (80).to_bytes(2, "big") + bytes(66)
    data = traffic.HEADER.pack(traffic.HEADER.size + len(message), traffic.SOCK_DIAG_BY_FAMILY, 0, 1, 0) + message
    with pytest.raises(ValueError, match="nothing about the connection"):
        traffic.parse(data, 80)
    with pytest.raises(ValueError, match="gave up"):
        traffic.parse(traffic.HEADER.pack(20, traffic.NLMSG_DONE, 0, 1, 0) + (-2).to_bytes(4, "little", signed=True), 80)
    assert traffic.parse(traffic.HEADER.pack(20, traffic.NLMSG_DONE, 0, 1, 0) + bytes(4), 80) == (False, [])
    with pytest.raises(ValueError, match="refused"):
        traffic.parse(traffic.HEADER.pack(20, traffic.NLMSG_ERROR, 0, 1, 0) + bytes(4), 80)
