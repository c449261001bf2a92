# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The frontends of HAProxy: a map that it reads on every request, and a file that a reload reads (see ``_traffic/doors.py``)."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._haproxy.runtime import Runtime
from ansible_collections.payops.rollback.plugins.module_utils._traffic import doors
from ansible_collections.payops.rollback.plugins.module_utils._traffic.doors import ASK, HEADER, OPEN, Frontend, share_in, write_kept


class Places(t.NamedTuple):
    share_map: str
    receivers_map: str
    retry_after: int


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


class Doors(doors.Doors):
    """The frontends of one HAProxy."""

    proxy = "HAProxy"

    def __init__(self, runtime: Runtime, frontends: t.Sequence[Frontend], places: Places) -> None:
        super().__init__(frontends, places.share_map)
        self.runtime = runtime
        self.places = places

    # -- reading -------------------------------------------------------------------------------------------------------

    def require(self, asking: bool = True) -> None:
        if not self.frontends:
            return
        missing = [path for path in (self.places.share_map, self.places.receivers_map) if path not in self.runtime.maps()]
        wrong = [f"no frontend uses the map {path}" for path in missing]
        wrong += [text for text in map(self.unprepared, self.frontends if asking else []) if not missing and text]
        if wrong:
            lines = "\n".join(snippet(self.places, each.name) for each in self.frontends)
            raise RollbackError(
                f"HAProxy is not prepared for a hold: {'; '.join(wrong)}. Nothing was touched. Make the two files (touch "
                f"{self.places.share_map} {self.places.receivers_map}), add these lines before all other http-request lines of the "
                f"frontend in haproxy.cfg, check it with haproxy -c -f, reload, and run the same command again:\n{lines}",
                snippet=lines,
            )

    def shares(self) -> dict[str, int]:
        """What each frontend lets in, as the map says that HAProxy reads now."""
        if not self.frontends:
            return {}
        said = self.runtime.map(self.places.share_map)
        return {each.name: share_in(said.get(each.name), self.places.share_map) for each in self.frontends}

    def written(self) -> dict[str, int]:
        """The same as a reload would read it."""
        said = read_map(self.places.share_map)
        return {each.name: share_in(said.get(each.name), self.places.share_map) for each in self.frontends}

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
    write_kept(path, text)
