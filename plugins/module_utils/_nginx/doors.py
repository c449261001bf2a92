# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The server blocks of nginx: one file of ours that nginx includes at the level http, and fixed lines in each block.

The file is written whole. Its second line says as JSON what it is made from, and is what is read again.
"""

from __future__ import annotations

import json
import os
import re
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._traffic import doors
from ansible_collections.payops.rollback.plugins.module_utils._traffic.doors import ASK, CLOSED, HEADER, HELD, OPEN, Frontend, share_in

NAME = re.compile(r"[A-Za-z0-9_]+\Z")  # what fits into the name of a variable
CLIENT = re.compile(r"\$[A-Za-z0-9_$]+\Z")
MARK = "# payops "


class Places(t.NamedTuple):
    file: str
    retry_after: int = 30
    client: str = "$remote_addr"


class Said(t.NamedTuple):
    """What the file says."""

    shares: t.Mapping[str, int]
    receivers: t.Sequence[str]


def text_of(said: Said, places: Places) -> str:
    """The file."""
    made_from = json.dumps({"receivers": sorted(said.receivers), "shares": dict(said.shares)}, sort_keys=True)
    receives = [f'    "~^{_pattern(path)}" receives;' for path in sorted(said.receivers)]
    lines = [
        "# written by payops.rollback; read by nginx when it starts or reloads",
        MARK + made_from,
        f'map "" $payops_retry_after {{ default {places.retry_after}; }}',
        "map $uri $payops_path {",
        '    default "";',
        f"    {ASK} asks;",
        *receives,
        "}",
    ]
    for name, share in sorted(said.shares.items()):
        let_in = "* in;" if share == OPEN else "* out;" if share <= HELD else f"{share}% in; * out;"
        shut = '"~ asks$" 0; default 1;' if share == CLOSED else '"out " 1; default 0;'
        lines += [
            f'map "" $payops_share_{name} {{ default {share}; }}',
            f'split_clients "{places.client}" $payops_in_{name} {{ {let_in} }}',
            f'map "$payops_in_{name} $payops_path" $payops_shut_{name} {{ {shut} }}',
        ]
    return "\n".join(lines) + "\n"


def _pattern(path: str) -> str:
    """A path as a regular expression that needs no quoting, neither for nginx's configuration nor for PCRE."""
    return "".join(char if re.match(r"[A-Za-z0-9/_-]", char) else f"\\x{ord(char):02x}" for char in path)


def lines_of(name: str) -> str:
    """The fixed lines of a server block."""
    return "\n".join(
        [
            f"if ($payops_shut_{name}) {{ rewrite ^ {ASK}-shut last; }}",
            f"location = {ASK} {{",
            "    default_type text/plain;",
            f'    return 200 "payops-share $payops_share_{name}";',
            "}",
            f"location = {ASK}-shut {{",
            "    internal;",
            "    default_type application/json;",
            "    add_header Retry-After $payops_retry_after always;",
            f"    add_header {HEADER} 1 always;",
            """    return 503 '{"error":"maintenance"}';""",
            "}",
        ]
    )


def snippet(places: Places, names: t.Sequence[str]) -> str:
    """What nginx.conf needs, for people to paste."""
    parts = ["http {", f"    include {places.file};"]
    for name in names:
        parts += ["    server {", f"        # {name}"]
        parts += [f"        {line}" for line in lines_of(name).splitlines()]
        parts += ["    }"]
    return "\n".join([*parts, "}"])


def first_text(places: Places, names: t.Sequence[str]) -> str:
    """The file for the beginning: it lets everybody in."""
    return text_of(Said(dict.fromkeys(names, OPEN), ()), places)


class Doors(doors.Doors):
    """The server blocks of one nginx."""

    proxy = "nginx"

    def __init__(self, frontends: t.Sequence[Frontend], places: Places) -> None:
        super().__init__(frontends, places.file)
        self.places = places
        for each in frontends:
            if not NAME.match(each.name):
                raise RollbackError(
                    f"The frontend name {each.name!r} cannot be part of an nginx variable; expected letters, digits and '_', for example api."
                )
        if not CLIENT.match(places.client):
            raise RollbackError(f"client {places.client!r} is not made of nginx variables; expected for example $remote_addr.")

    def require(self, asking: bool = True) -> None:
        """The file is there and every server block answers as its lines do; or one refusal with the lines to add."""
        if not self.frontends:
            return
        names = [each.name for each in self.frontends]
        if os.path.exists(self.file):
            known = self.read().shares
            wrong = [f"{self.file} does not know {name}" for name in names if name not in known]
            if not asking and len(wrong) < len(names):  # what can be shut is; the rest is found when it is proved
                return
        else:
            wrong = [f"{self.file} is missing"]
        wrong += [text for text in map(self.unprepared, self.frontends if asking else []) if not wrong and text]
        if wrong:
            first, lines = first_text(self.places, names), snippet(self.places, names)
            raise RollbackError(
                f"nginx is not prepared for a hold: {'; '.join(wrong)}. Nothing was touched. Write {self.file} with the first text below, add "
                "the lines of the second to nginx.conf, check it with nginx -t, reload, and run the same command again:\n"
                f"--- {self.file}\n{first}--- nginx.conf\n{lines}",
                snippet=f"{first}{lines}",
            )

    def read(self) -> Said:
        try:
            with open(self.file, encoding="utf-8", errors="replace") as handle:
                lines = [line for line in handle.read().splitlines() if line.startswith(MARK)]
        except FileNotFoundError:
            return Said({}, ())
        try:
            found = json.loads(lines[0][len(MARK) :])
            shares = {str(name): share_in(str(share), self.file) for name, share in found["shares"].items()}
            return Said(shares, [str(path) for path in found["receivers"]])
        except (IndexError, ValueError, KeyError, TypeError, AttributeError):
            first = first_text(self.places, [each.name for each in self.frontends])
            raise RollbackError(
                f"{self.file} has no line '{MARK}...' that can be read, so somebody wrote it by hand. Nothing was touched. "
                f"Put back a file that lets everybody in and reload nginx:\n{first}",
                snippet=first,
            ) from None

    def shares(self) -> dict[str, int]:
        said = self.read().shares if self.frontends else {}
        return {each.name: said.get(each.name, OPEN) for each in self.frontends}

    def written(self) -> dict[str, int]:
        return self.shares()

    def receivers(self) -> list[str]:
        return sorted(self.read().receivers) if self.frontends else []

    def text(self, moves: t.Mapping[str, int], receivers: t.Sequence[str] | None) -> str:
        """The file after these changes; server blocks of other calls stay as they are."""
        said = self.read()
        return text_of(Said({**said.shares, **moves}, said.receivers if receivers is None else list(receivers)), self.places)
