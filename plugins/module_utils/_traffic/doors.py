# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""How much of the traffic a frontend of a proxy lets in, whichever proxy it is.

``share`` is a percentage of the clients: 100 is everybody, 0 nobody but the receivers that may not be down, -1 (closed) nobody
at all. Whoever is not let in gets 503 with Retry-After. The proxy needs a few lines in each frontend for it; whether they are
there is asked over HTTP, at a path that only these lines answer.
"""

from __future__ import annotations

import abc
import os
import re
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import write_atomic
from ansible_collections.payops.rollback.plugins.module_utils._probe_attempts import Failed, attempt
from ansible_collections.payops.rollback.plugins.module_utils._probe_input import check_probes

OPEN, HELD, CLOSED = 100, 0, -1
ASK = "/.payops-rollback"
HEADER = "X-Payops-Hold"
WORD = re.compile(r"[!-~]+\Z")  # what fits into one word of a map and of a command
RECEIVER = re.compile(r"/[!-:<-\[\]-~]*\Z")  # and no semicolon, which would end the command, and no backslash


class Frontend(t.NamedTuple):
    """A frontend (nginx: a server block) that can be held. ``url`` is where it listens, as seen from this host."""

    name: str
    url: str
    validate_certs: bool = True
    ca_cert: str | None = None
    server_name: str | None = None


def words_of(share: int) -> str:
    if share == CLOSED:
        return "answers 503 to everybody"
    if share == HELD:
        return "answers 503 to everybody but the receivers"
    return "lets everybody in" if share == OPEN else f"lets {share} % of the clients in"


def check_frontends(frontends: t.Sequence[t.Mapping[str, t.Any]]) -> list[Frontend]:
    found = []
    for each in frontends:
        name = str(each["name"])
        if not WORD.match(name) or ";" in name:
            raise RollbackError(f"The frontend name {name!r} is not one word; expected the name as the proxy's configuration has it.")
        known = {key: each[key] for key in Frontend._fields if each.get(key) is not None}
        found.append(Frontend(**known))
    names = [each.name for each in found]
    if len(set(names)) != len(names):
        raise RollbackError(f"A frontend is listed twice in {', '.join(names)}. List each one once.")
    return found


def check_receivers(receivers: t.Iterable[str]) -> list[str]:
    found = []
    for path in receivers:
        if not RECEIVER.match(str(path)) or path == "/":
            raise RollbackError(
                f"The receiver {path!r} is not the beginning of a path; expected for example /webhooks/mpesa. '/' alone would keep everything up."
            )
        found.append(str(path))
    return sorted(set(found))


class Doors(abc.ABC):
    """The frontends of one proxy. Each kind of proxy says for itself how it reads and writes their shares."""

    proxy = ""

    def __init__(self, frontends: t.Sequence[Frontend], file: str) -> None:
        self.frontends = list(frontends)
        self.file = file  # what says how much each of them lets in

    @abc.abstractmethod
    def require(self, asking: bool = True) -> None:
        """The configuration has what a hold needs, in every frontend; or one refusal with the lines to add.

        Without ``asking`` no frontend has to answer, as long as there is something to write to: an emergency closes first.
        """

    @abc.abstractmethod
    def shares(self) -> dict[str, int]:
        """What each frontend lets in."""

    @abc.abstractmethod
    def written(self) -> dict[str, int]:
        """The same as a reload would read it."""

    @abc.abstractmethod
    def receivers(self) -> list[str]:
        """The beginnings of paths that stay up whatever is held."""

    def unprepared(self, frontend: Frontend) -> str:
        try:
            attempt(self.probe(frontend, ASK, expect_body=r"\Apayops-share -?\d+\Z"), 5.0)
        except Failed as exc:
            if not exc.observed:
                return f"{frontend.name} at {frontend.url} does not answer: {exc}"
            return f"{frontend.name} at {frontend.url} passes {ASK} on to a server instead of answering it"
        return ""

    def probe(self, frontend: Frontend, path: str, **more: t.Any) -> dict[str, t.Any]:
        probe: dict[str, t.Any] = {"name": frontend.name, "type": "http", "url": frontend.url.rstrip("/") + path, **more}
        if frontend.url.startswith("https:"):
            probe["validate_certs"] = frontend.validate_certs
            probe.update({key: value for key, value in (("ca_cert", frontend.ca_cert), ("server_name", frontend.server_name)) if value})
        return check_probes([probe])[0]

    def prove(self, wanted: t.Mapping[str, int]) -> None:
        """After a write: the proxy's file says it, each frontend says it over HTTP, and a closed one does answer 503 with Retry-After."""
        found = self.shares()
        wrong = [f"{name} has share {found.get(name)}" for name, share in wanted.items() if found.get(name) != share]
        for frontend in self.frontends:
            if frontend.name not in wanted or wrong:
                continue
            share = wanted[frontend.name]
            try:
                attempt(self.probe(frontend, ASK, expect_body=rf"\Apayops-share {share}\Z"), 5.0)
                if share <= HELD:
                    headers = [{"name": "Retry-After", "exists": True}, {"name": HEADER, "exists": True}]
                    attempt(self.probe(frontend, f"{ASK}-closed", status=[503], expect_headers=headers), 5.0)
            except Failed as exc:
                wrong.append(f"{frontend.name} at {frontend.url}: {exc}")
        if wrong:
            expected = ", ".join(f"{name} {words_of(share)}" for name, share in wanted.items())
            raise RollbackError(f"{self.proxy} does not do what it was told: {'; '.join(wrong)}. Expected: {expected}.", changed=True)


def share_in(text: str | None, path: str) -> int:
    if text is None:
        return OPEN
    if not re.match(r"-?\d+\Z", text) or not CLOSED <= int(text) <= OPEN:
        raise RollbackError(
            f"{path} says {text!r} of a frontend; expected a number from {CLOSED} to {OPEN}. Somebody wrote it by hand; correct it."
        )
    return int(text)


def write_kept(path: str, text: str) -> None:
    """Whole or not at all, with the mode and the owner that the file had."""
    found = os.stat(path) if os.path.exists(path) else None
    write_atomic(path, text.encode("utf-8"), (found.st_mode & 0o777) if found else 0o644)
    if found is not None and os.geteuid() == 0:
        os.chown(path, found.st_uid, found.st_gid)
