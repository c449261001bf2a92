# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""How much of the traffic a frontend lets in: a map that HAProxy reads on every request, and a file that a reload reads.

``share`` is a percentage of the clients: 100 is everybody, 0 nobody but the receivers that may not be down, -1 (closed) nobody
at all. Whoever is not let in gets 503 with Retry-After. HAProxy needs a few lines in each frontend for it (``snippet``); whether
they are there is asked over HTTP, at a path that only these lines answer.
"""

from __future__ import annotations

import os
import re
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._haproxy.runtime import Runtime
from ansible_collections.payops.rollback.plugins.module_utils._io import write_atomic
from ansible_collections.payops.rollback.plugins.module_utils._probe import check_probes
from ansible_collections.payops.rollback.plugins.module_utils._probe_attempts import Failed, attempt

OPEN, HELD, CLOSED = 100, 0, -1
ASK = "/.payops-rollback"
HEADER = "X-Payops-Hold"
WORD = re.compile(r"[!-~]+\Z")  # what fits into one word of a map and of a command
RECEIVER = re.compile(r"/[!-:<-\[\]-~]*\Z")  # and no semicolon, which would end the command, and no backslash


class Frontend(t.NamedTuple):
    """A frontend of HAProxy that can be held. ``url`` is where it listens, as seen from this host."""

    name: str
    url: str
    validate_certs: bool = True
    ca_cert: str | None = None
    server_name: str | None = None


class Places(t.NamedTuple):
    share_map: str
    receivers_map: str
    retry_after: int


def words_of(share: int) -> str:
    if share == CLOSED:
        return "answers 503 to everybody"
    if share == HELD:
        return "answers 503 to everybody but the receivers"
    return "lets everybody in" if share == OPEN else f"lets {share} % of the clients in"


def snippet(places: Places, name: str) -> str:
    """The lines that a frontend needs, for people to paste."""
    deny = (
        f"http-request return status 503 content-type application/json hdr Retry-After {places.retry_after} hdr {HEADER} 1 "
        """string '{"error":"maintenance"}'"""
    )
    return "\n".join(
        [
            f"frontend {name}",
            f"    http-request set-var(txn.payops_share) str({name}),map_str_int({places.share_map},{OPEN})",
            "    http-request set-var(txn.payops_client) src,xxh32,mod(100)",
            f"    acl payops_in var(txn.payops_share) -m int ge {OPEN}",  # also where nothing tells the client
            "    acl payops_in var(txn.payops_client),sub(txn.payops_share) lt 0",
            "    acl payops_closed var(txn.payops_share) -m int lt 0",
            f"    acl payops_receiver path,map_beg({places.receivers_map}) -m found",
            f'    http-request return status 200 content-type text/plain lf-string "payops-share %[var(txn.payops_share)]" if {{ path {ASK} }}',
            f"    {deny} if payops_closed",
            f"    {deny} if !payops_in !payops_receiver",
        ]
    )


def check_frontends(frontends: t.Sequence[t.Mapping[str, t.Any]]) -> list[Frontend]:
    found = []
    for each in frontends:
        name = str(each["name"])
        if not WORD.match(name) or ";" in name:
            raise RollbackError(f"The frontend name {name!r} is not one word; expected the name as haproxy.cfg has it.")
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


class Doors:
    """The frontends of one HAProxy."""

    def __init__(self, runtime: Runtime, frontends: t.Sequence[Frontend], places: Places) -> None:
        self.runtime = runtime
        self.frontends = list(frontends)
        self.places = places

    # -- reading -------------------------------------------------------------------------------------------------------

    def require(self) -> None:
        """The configuration has what a hold needs, in every frontend; or one refusal with the lines to add."""
        if not self.frontends:
            return
        missing = [path for path in (self.places.share_map, self.places.receivers_map) if path not in self.runtime.maps()]
        wrong = [f"no frontend uses the map {path}" for path in missing]
        wrong += [text for text in map(self._unprepared, self.frontends) if not missing and text]
        if wrong:
            lines = "\n".join(snippet(self.places, each.name) for each in self.frontends)
            raise RollbackError(
                f"HAProxy is not prepared for a hold: {'; '.join(wrong)}. Nothing was touched. Make the two files (touch "
                f"{self.places.share_map} {self.places.receivers_map}), add these lines before all other http-request lines of the "
                f"frontend in haproxy.cfg, check it with haproxy -c -f, reload, and run the same command again:\n{lines}",
                snippet=lines,
            )

    def _unprepared(self, frontend: Frontend) -> str:
        try:
            attempt(self._probe(frontend, ASK, expect_body=r"\Apayops-share -?\d+\Z"), 5.0)
        except Failed as exc:
            if not exc.observed:
                return f"{frontend.name} at {frontend.url} does not answer: {exc}"
            return f"{frontend.name} at {frontend.url} passes {ASK} on to a server instead of answering it"
        return ""

    def _probe(self, frontend: Frontend, path: str, **more: t.Any) -> dict[str, t.Any]:
        probe: dict[str, t.Any] = {"name": frontend.name, "type": "http", "url": frontend.url.rstrip("/") + path, **more}
        if frontend.url.startswith("https:"):
            probe["validate_certs"] = frontend.validate_certs
            probe.update({key: value for key, value in (("ca_cert", frontend.ca_cert), ("server_name", frontend.server_name)) if value})
        return check_probes([probe])[0]

    def shares(self) -> dict[str, int]:
        """What each frontend lets in, as the map says that HAProxy reads now."""
        if not self.frontends:
            return {}
        said = self.runtime.map(self.places.share_map)
        return {each.name: _number(said.get(each.name), self.places.share_map) for each in self.frontends}

    def written(self) -> dict[str, int]:
        """The same as a reload would read it."""
        said = read_map(self.places.share_map)
        return {each.name: _number(said.get(each.name), self.places.share_map) for each in self.frontends}

    def receivers(self) -> list[str]:
        return sorted(self.runtime.map(self.places.receivers_map)) if self.frontends else []

    # -- writing -------------------------------------------------------------------------------------------------------

    def write_receivers(self, wanted: t.Sequence[str]) -> None:
        write_map(self.places.receivers_map, dict.fromkeys(wanted, "1"))
        there = self.receivers()
        for path in wanted:
            if path not in there:
                self.runtime.set_map(self.places.receivers_map, path, "1", there=False)
        for path in there:
            if path not in wanted:
                self.runtime.tell(f"del map {self.places.receivers_map} {path}")
        found = self.receivers()
        if found != sorted(wanted):
            raise RollbackError(f"The map {self.places.receivers_map} lists {found} after it was written, expected {sorted(wanted)}.")

    def write(self, wanted: t.Mapping[str, int]) -> None:
        """File first: whatever kills this, a reload never opens what was to be closed."""
        write_map(self.places.share_map, {**read_map(self.places.share_map), **{name: str(share) for name, share in wanted.items()}})
        there = self.runtime.map(self.places.share_map)
        for name, share in wanted.items():
            if there.get(name) != str(share):
                self.runtime.set_map(self.places.share_map, name, str(share), name in there)

    def prove(self, wanted: t.Mapping[str, int]) -> None:
        """HAProxy's map says it, each frontend says it over HTTP, and a closed one does answer 503 with Retry-After."""
        found = self.shares()
        wrong = [f"{name} has share {found.get(name)}" for name, share in wanted.items() if found.get(name) != share]
        for frontend in self.frontends:
            if frontend.name not in wanted or wrong:
                continue
            share = wanted[frontend.name]
            try:
                attempt(self._probe(frontend, ASK, expect_body=rf"\Apayops-share {share}\Z"), 5.0)
                if share <= HELD:
                    headers = [{"name": "Retry-After", "exists": True}, {"name": HEADER, "exists": True}]
                    attempt(self._probe(frontend, f"{ASK}-closed", status=[503], expect_headers=headers), 5.0)
            except Failed as exc:
                wrong.append(f"{frontend.name} at {frontend.url}: {exc}")
        if wrong:
            expected = ", ".join(f"{name} {words_of(share)}" for name, share in wanted.items())
            raise RollbackError(f"HAProxy does not do what it was told: {'; '.join(wrong)}. Expected: {expected}.")


def _number(text: str | None, path: str) -> int:
    if text is None:
        return OPEN
    if not re.match(r"-?\d+\Z", text) or not CLOSED <= int(text) <= OPEN:
        raise RollbackError(
            f"{path} says {text!r} of a frontend; expected a number from {CLOSED} to {OPEN}. Somebody wrote it by hand; correct it."
        )
    return int(text)


def read_map(path: str) -> dict[str, str]:
    """A map file as HAProxy would load it."""
    found: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            lines = handle.read().splitlines()
    except FileNotFoundError:
        return found
    for line in lines:
        parts = line.strip().split(None, 1)
        if parts and not parts[0].startswith("#"):
            found.setdefault(parts[0], parts[1].strip() if len(parts) > 1 else "")
    return found


def write_map(path: str, entries: t.Mapping[str, str]) -> None:
    """Whole or not at all, with the mode and the owner that the file had."""
    text = "# written by payops.rollback; read by HAProxy when it starts or reloads\n"
    text += "".join(f"{key} {value}\n" for key, value in sorted(entries.items()))
    if os.path.exists(path) and read_map(path) == dict(entries):
        return
    found = os.stat(path) if os.path.exists(path) else None
    write_atomic(path, text.encode("utf-8"), (found.st_mode & 0o777) if found else 0o644)
    if found is not None and os.geteuid() == 0:
        os.chown(path, found.st_uid, found.st_gid)
