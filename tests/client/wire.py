# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The smallest HTTP/1.1 client that tells a new connection from a kept one (on asyncio streams)."""

from __future__ import annotations

import asyncio
import json
import typing as t


class Connection:
    """One TCP connection to the API."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.used = False

    @classmethod
    async def open(cls, host: str, port: int) -> Connection:
        return cls(*await asyncio.open_connection(host, port))

    @property
    def usable(self) -> bool:
        """False once the server has closed its side."""
        return not self._reader.at_eof() and not self._writer.is_closing()

    def close(self) -> None:
        self._writer.close()

    async def post(self, host: str, path: str, body: dict[str, t.Any], headers: dict[str, str], keep: bool) -> tuple[int, t.Any, bool]:
        """Send one POST; its status, its JSON answer, and whether the connection may be used again."""
        self.used = True
        payload = json.dumps(body).encode()
        lines = [
            f"POST {path} HTTP/1.1",
            f"Host: {host}",
            "Content-Type: application/json",
            f"Content-Length: {len(payload)}",
            f"Connection: {'keep-alive' if keep else 'close'}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self._writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + payload)
        await self._writer.drain()
        status, answered = await self._head()
        if answered.get("transfer-encoding", "").lower() == "chunked":
            content = await self._chunks()
        elif "content-length" in answered:
            content = await self._reader.readexactly(int(answered["content-length"]))
        else:
            content = await self._reader.read()
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        return status, answer, keep and answered.get("connection", "").lower() != "close"

    async def _head(self) -> tuple[int, dict[str, str]]:
        first = (await self._reader.readline()).split()
        if len(first) < 2:
            raise ConnectionResetError("closed before an answer")
        headers: dict[str, str] = {}
        while True:
            line = (await self._reader.readline()).decode("latin-1").strip()
            if not line:
                return int(first[1]), headers
            name, unused, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()

    async def _chunks(self) -> bytes:
        content = b""
        while True:
            size = int((await self._reader.readline()).split(b";")[0], 16)
            content += await self._reader.readexactly(size)
            await self._reader.readline()
            if size == 0:
                return content
