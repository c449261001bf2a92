# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The files with the ``server`` lines of each upstream. People wrote them; only what must change is changed in them. Pure but for reading.

A server is named by the comment behind its line (``server 10.0.0.11:5000 weight=100; # app1``), or else by its address.
"""

from __future__ import annotations

import glob
import os
import re
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._traffic.places import place_of

LINE = re.compile(r"(?P<head>\s*server\s+)(?P<where>[^\s;#]+)(?P<words>[^;#]*);(?P<tail>\s*(?:#\s*(?P<name>\S+).*)?)\Z")
DOWN = re.compile(r"\s+down(?=\s|\Z)")
WEIGHT = re.compile(r"(\s+weight=)(\d+)(?=\s|\Z)")
START, END = "upstream-", ".conf"


class Server(t.NamedTuple):
    """One server of an upstream, as its line says."""

    backend: str
    name: str
    where: str
    words: str

    @property
    def key(self) -> str:
        return f"{self.backend}/{self.name}"

    @property
    def state(self) -> str:
        return "maint" if DOWN.search(self.words) else "ready"

    @property
    def weight(self) -> int:
        found = WEIGHT.search(self.words)
        return int(found.group(2)) if found else 1

    @property
    def address(self) -> str:
        """Without the port; a Unix socket is all address."""
        if self.where.startswith("unix:"):
            return self.where
        host, colon, port = self.where.rpartition(":")
        return host.strip("[]") if colon and port.isdigit() else self.where.strip("[]")

    @property
    def port(self) -> int:
        if self.where.startswith("unix:"):
            return 0
        unused, colon, port = self.where.rpartition(":")
        return int(port) if colon and port.isdigit() else 80

    @property
    def usable(self) -> bool:
        return self.state == "ready" and not re.search(r"\sbackup(?=\s|\Z)", self.words)

    @property
    def place(self) -> str:
        return self.where if self.where.startswith("unix:") else place_of(self.address, self.port)

    def described(self) -> dict[str, t.Any]:
        return {"state": self.state, "weight": self.weight, "address": self.place}


class Change(t.NamedTuple):
    """What a line shall say; None leaves it as it is."""

    state: str | None = None
    weight: int | None = None
    place: str | None = None


def path_of(folder: str, backend: str) -> str:
    return os.path.join(folder, f"{START}{backend}{END}")


def read_all(folder: str) -> dict[str, Server]:
    """Every server of every upstream file, by ``backend/server``."""
    found: dict[str, Server] = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), f"{START}*{END}"))):
        backend = os.path.basename(path)[len(START) : -len(END)]
        with open(path, encoding="utf-8", errors="replace") as handle:
            for each in parse(handle.read(), backend, path):
                if each.key in found:
                    raise RollbackError(
                        f"{path} has two servers with the name {each.name}. Name each by a comment behind its line: '# app1'."
                    )
                found[each.key] = each
    return found


def parse(text: str, backend: str, path: str) -> list[Server]:
    found = []
    for line in text.splitlines():
        match = LINE.match(line)
        if match:
            found.append(Server(backend, match.group("name") or match.group("where"), match.group("where"), match.group("words")))
        elif re.match(r"\s*server\s", line):
            raise RollbackError(
                f"{path} has the line {line.strip()!r}, which is not understood; expected one server a line, such as "
                "'server 10.0.0.11:5000 weight=100; # app1'. Nothing was touched."
            )
    return found


def changed(text: str, backend: str, changes: t.Mapping[str, Change]) -> str:
    """The file with ``changes`` (by name); every other byte stays."""
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        bare = line.rstrip("\r\n")
        match = LINE.match(bare)
        change = changes.get(match.group("name") or match.group("where")) if match else None
        if match and change:
            server = Server(backend, "", match.group("where"), match.group("words"))
            lines[number] = (
                f"{match.group('head')}{change.place or server.where}{_words(server, change)};{match.group('tail')}{line[len(bare) :]}"
            )
    return "".join(lines)


def _words(server: Server, change: Change) -> str:
    words = server.words
    if change.weight is not None and change.weight != server.weight:
        there = WEIGHT.search(words)
        words = WEIGHT.sub(rf"\g<1>{change.weight}", words) if there else f" weight={change.weight}{words}"
    if change.state is not None and change.state != server.state:
        words = DOWN.sub("", words) if change.state == "ready" else f"{words} down"
    return words
