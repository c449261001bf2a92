# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The responder of a held project: a program of its own, which needs nothing but Python. A module copies this file to the host.

It answers 503 with Retry-After on the ports that the containers publish, so that payment providers and customers try again. It
outlives the module, takes each address in the moment in which Docker lets go of it, and ends by SIGTERM.

    docker-hold.py <seconds of Retry-After> <run> <address>:<port>...
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys

HEADERS = 64 << 10
PATIENCE = 2.0  # seconds for a request to come whole


class Responder:
    def __init__(self, retry_after: str, run: str) -> None:
        body = {
            "status": "unavailable",
            "error": "maintenance",
            "message": "A rollback is under way. Nothing was processed; please try again.",
            "retry_after": int(retry_after),
        }
        self.body = json.dumps(body).encode("utf-8")
        lines = [
            "HTTP/1.1 503 Service Unavailable",
            "Content-Type: application/json; charset=utf-8",
            f"Content-Length: {len(self.body)}",
            "Cache-Control: no-store",
            f"Retry-After: {retry_after}",
            f"X-Payops-Hold: {run}",
            "Connection: close",
        ]
        self.head = ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method = b""
        try:
            method = await asyncio.wait_for(self._request(reader), PATIENCE)
        except (asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, OSError):
            pass  # answered all the same
        try:
            writer.write(self.head if method == b"HEAD" else self.head + self.body)
            await asyncio.wait_for(writer.drain(), PATIENCE)
        except (asyncio.TimeoutError, OSError):
            pass
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        for line in head.split(b"\r\n"):
            name, unused, value = line.partition(b":")
            if name.strip().lower() == b"content-length":
                left = int(value)
                while left > 0:
                    data = await reader.read(min(left, 1 << 16))
                    if not data:
                        break
                    left -= len(data)
        return head.split(b" ", 1)[0]

    async def listen(self, host: str, port: int) -> None:
        """On the address as soon as it is free; without a host on all, of both families where the machine has them."""
        waiting = [(socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")] if host in ("", "0.0.0.0", "::") else []
        waiting = waiting or [(socket.AF_INET6 if ":" in host else socket.AF_INET, host)]
        while waiting:
            for family, name in list(waiting):
                try:
                    sock = socket.socket(family, socket.SOCK_STREAM)
                except OSError:
                    waiting.remove((family, name))  # no IPv6 here
                    continue
                try:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    sock.bind((name, port))
                    await asyncio.start_server(self.answer, sock=sock, limit=HEADERS, backlog=1024)
                    waiting.remove((family, name))
                except OSError:
                    sock.close()
            await asyncio.sleep(0.002)


async def serve(retry_after: str, run: str, addresses: list[str]) -> None:
    responder = Responder(retry_after, run)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    listening = [
        asyncio.ensure_future(responder.listen(host, int(port))) for host, unused, port in (each.rpartition(":") for each in addresses)
    ]
    await ended.wait()
    for each in listening:
        each.cancel()


def detach() -> bool:
    """True in the process that stays, which belongs to nobody's session."""
    if os.fork():
        return False
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    return True


if __name__ == "__main__" and detach():
    asyncio.run(serve(sys.argv[1], sys.argv[2], sys.argv[3:]))
