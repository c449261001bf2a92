# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The states of ``nginx_servers``: write the included files, reload, and wait for the workers of before (see ``_traffic/states.py``).

What a file said is on disk (``pending``) until nginx has read the new one: so whoever comes after a crash loads what was written, or
puts back what nginx refuses.
"""

from __future__ import annotations

import os
import socket
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._nginx.doors import Doors
from ansible_collections.payops.rollback.plugins.module_utils._nginx.master import Broken, Master, peers, places_of
from ansible_collections.payops.rollback.plugins.module_utils._nginx.upstreams import Change, Server, changed, path_of, read_all
from ansible_collections.payops.rollback.plugins.module_utils._run import Run
from ansible_collections.payops.rollback.plugins.module_utils._traffic import states
from ansible_collections.payops.rollback.plugins.module_utils._traffic.doors import write_kept
from ansible_collections.payops.rollback.plugins.module_utils._traffic.places import Place, answers, home_of, place_of, wanted_places
from ansible_collections.payops.rollback.plugins.module_utils._traffic.states import Result, Settings, Wanted, share_of

COMPONENT = "nginx"
STEPS = ("remember", "write", "reload", "wait", "ready", "verify", "forget")
SERVES = "The nginx that runs goes on as before"


class Traffic(states.Traffic[Server]):
    proxy = "nginx"
    component = COMPONENT
    doors: Doors

    def __init__(self, master: Master, folder: str, doors: Doors, run: Run, settings: Settings, check: bool) -> None:
        super().__init__(doors, run, settings, check)
        self.master = master
        self.folder = folder

    def servers(self) -> t.Mapping[str, Server]:
        return read_all(self.folder)

    def reach(self, state: str, keys: t.Sequence[str]) -> Result:
        self.master.pid()
        self._whole(state)
        if self.state().get("pending") and state != "observed":
            self._load("nginx reads what was written before")
        return super().reach(state, keys)

    def _observed(self, servers: t.Mapping[str, Server]) -> Result:
        told = super()._observed(servers)
        if self.state().get("pending"):
            note = "nginx has not read yet what an interrupted call wrote; the next call of any other state has it read"
            told["notes"], told["plan"] = [*told["notes"], note], [*told["plan"], note]
        return told

    # -- the configuration ---------------------------------------------------------------------------------------------

    def _whole(self, state: str) -> None:
        """nginx would accept its configuration as it is now, and it includes our files; only the second is nothing to an emergency."""
        try:
            included = self.master.test()
        except Broken as exc:
            pending = self.state().get("pending")
            if pending and state != "observed" and not self.check:  # a call was killed before it could put back what nginx refused
                self._put_back(pending)
                self.actions.append(f"{', '.join(sorted(pending))} as before, since nginx refused what an interrupted call wrote")
                self._whole(state)
                return
            raise RollbackError(
                f"nginx would not accept its configuration as it is now: {exc}. Nothing was touched. {SERVES}, but cannot be "
                f"reloaded. Correct it until 'nginx -t -c {self.master.config}' is content, then run the same command again."
            ) from None
        if state == "closed":
            return
        mine = {path_of(self.folder, each.backend) for each in self.servers().values()}
        missing = sorted(path for path in mine if os.path.realpath(path) not in included)
        if missing:
            raise RollbackError(
                f"{self.master.config} does not include {', '.join(missing)}. Nothing was touched. Add 'include {missing[0]};' to that "
                "upstream block instead of its server lines, reload nginx, and run the same command again."
            )

    def _put_back(self, texts: t.Mapping[str, str]) -> None:
        for path, text in texts.items():
            write_kept(path, text)
        self.write_state(pending=None)

    def _change(self, texts: t.Mapping[str, str], what: str) -> None:
        """Files whole and accepted by nginx, and nginx has read them; or everything as before."""
        before = {path: _text(path) for path in texts}
        with self.run.step("write", files=sorted(texts), what=what):
            self.write_state(pending={**before, **(self.state().get("pending") or {})})
            try:
                for path, text in texts.items():
                    write_kept(path, text)
                self.master.test()
            except (Broken, OSError) as exc:
                self._put_back(before)
                raise RollbackError(
                    f"nginx would not accept {', '.join(sorted(texts))} with {what}: {exc}. The files are as before. {SERVES}."
                ) from None
        self._load(what, before)

    def _load(self, what: str, before: t.Mapping[str, str] | None = None) -> None:
        if before is None:
            self.actions.append(what)
        if self.check:
            return
        with self.run.step("reload", what=what) as learnt:
            if not self.master.reload(self.settings.wait_seconds):
                if before is not None:
                    self._put_back(before)
                raise RollbackError(
                    f"nginx has no new worker {self.settings.wait_seconds:g} s after it was told to reload, so it refused the configuration; "
                    f"its error log says why. {'The files are as before. ' if before is not None else ''}{SERVES}."
                )
            self.write_state(pending=None)
            learnt["ending"] = self.master.ending()

    def _write_doors(self, moves: t.Mapping[str, int], shares: t.Mapping[str, int], receivers: t.Sequence[str] | None) -> None:
        self._change({self.doors.file: self.doors.text(moves, receivers)}, "; ".join(self.actions))

    def _set(self, changes: t.Mapping[str, Change], what: str) -> None:
        servers = self.servers()
        texts = {}
        for backend in sorted({servers[key].backend for key in changes}):
            path = path_of(self.folder, backend)
            own = {servers[key].name: change for key, change in changes.items() if servers[key].backend == backend}
            texts[path] = changed(_text(path), backend, own)
        self._change(texts, what)

    # -- servers out ---------------------------------------------------------------------------------------------------

    def _drained(self, keys: t.Sequence[str], servers: t.Mapping[str, Server]) -> None:
        """The workers that would still send something there are gone, or at the least have no session there."""
        self._others_left(keys, servers)
        needed = [key for key in keys if servers[key].state == "ready"]
        if needed:
            self.actions.append(f"no new traffic to {', '.join(needed)}")
        places = {key: {(servers[key].address, servers[key].port)} for key in keys}
        busy = self._busy(places)
        if self.check:
            if busy:
                self.actions.append(f"wait for the workers of before: {'; '.join(busy)}")
            return
        self._remember(needed)
        if needed:
            self._set(dict.fromkeys(needed, Change(state="maint")), f"{', '.join(needed)} down")
        if needed or busy:
            with self.run.step("wait", servers=list(keys)) as learnt:
                learnt["left"] = self._await_gone(places)

    def _await_gone(self, places: t.Mapping[str, t.Iterable[Place]]) -> list[str]:
        deadline = time.monotonic() + self.settings.drain_seconds
        while True:
            ending = self.master.ending()
            if not ending:
                return []
            if time.monotonic() >= deadline:
                left = self._busy(places)
                if left and not self.settings.cut_sessions:
                    raise RollbackError(
                        f"{'; '.join(left)} {self.settings.drain_seconds:g} s after the last new one. Raise drain_seconds "
                        "(rollback_haproxy_drain_seconds), or go on over them with cut_sessions=true (rollback_haproxy_cut_sessions).",
                        changed=True,
                        sessions=self._sessions(places),
                    )
                return left or [f"worker {pid} ends its sessions with other servers" for pid in ending]
            time.sleep(0.1)

    def _sessions(self, places: t.Mapping[str, t.Iterable[Place]]) -> dict[str, int]:
        """How many connections the workers of before have to each server. Those to a Unix socket cannot be told apart: all count."""
        found: dict[str, int] = {}
        ends = [end for pid in self.master.ending() for end in peers(pid)]
        for key, addresses in places.items():
            mine = {place for address, port in addresses if port for place in places_of(address, port)}
            number = len(ends) if any(not port for unused, port in addresses) else sum(end in mine for end in ends)
            if number:
                found[key] = number
        return found

    def _busy(self, places: t.Mapping[str, t.Iterable[Place]]) -> list[str]:
        workers = ", ".join(map(str, self.master.ending()))
        return [f"{key} still has {number} sessions in old workers ({workers})" for key, number in self._sessions(places).items()]

    def _maint(self, keys: t.Sequence[str]) -> None:
        """nginx knows no difference: a server that is down gets nothing, with a cookie or without."""

    # -- servers in ----------------------------------------------------------------------------------------------------

    def _in(self, keys: t.Sequence[str], wanted: Wanted, accept_down: bool = False) -> None:
        """As said there; a reload for each step."""
        servers = self.servers()
        wanted = {key: ("ready" if state == "ready" else "maint", weight) for key, (state, weight) in wanted.items()}
        needed = [key for key in keys if (servers[key].state, servers[key].weight) != wanted[key]]
        if not needed:
            return
        coming = [key for key in needed if wanted[key][0] == "ready"]
        ramped = [key for key in coming if servers[key].state != "ready" and wanted[key][1] > 1]
        stages = [percent for percent in self.settings.ramp if percent < 100] if ramped else []
        how = f" (first {', then '.join(f'{percent} %' for percent in stages)} of its weight)" if stages else ""
        said = [f"{key} {wanted[key][0]} with weight {wanted[key][1]}{how if key in ramped else ''}" for key in needed]
        self.actions += said
        if self.check:
            return
        silent: list[str] = []
        if coming:
            with self.run.step("ready", servers=coming) as learnt:  # nginx has no check of its own before it sends customers there
                learnt["silent"] = silent = self._silent(coming, servers)
        left_out = [] if accept_down else silent
        needed, ramped = ([key for key in keys if key not in left_out] for keys in (needed, ramped))
        for number, percent in enumerate([*stages, 100]):
            if number:
                time.sleep(self.settings.ramp_seconds)
            changes = {
                key: Change(state=wanted[key][0], weight=share_of(wanted[key][1], percent) if key in ramped else wanted[key][1])
                for key in (ramped if number else needed)
            }
            if changes:
                self._set(changes, "; ".join(said))
        with self.run.step("verify", servers=needed):
            found = self.servers()
            wrong = [f"{key} is {found[key].state}" for key in needed if (found[key].state, found[key].weight) != wanted[key]]
            if wrong:
                raise RollbackError(f"Somebody else changes the files of nginx: {'; '.join(wrong)}. Find out who.", changed=True)
        if left_out:
            raise RollbackError(
                f"Nothing answers at {', '.join(f'{servers[key].place} ({key})' for key in left_out)} after {self.settings.wait_seconds:g} s, so "
                "it was not brought back into rotation. Look at the application there.",
                changed=bool(needed),
                down=left_out,
            )
        if silent:
            self.actions.append(f"nothing answers at {', '.join(silent)}")

    def _silent(self, keys: t.Sequence[str], servers: t.Mapping[str, Server]) -> list[str]:
        """Those where nothing listens when the time is over."""
        deadline = time.monotonic() + self.settings.wait_seconds
        while True:
            down = [key for key in keys if not _listens(servers[key])]
            if not down or time.monotonic() >= deadline:
                return down
            time.sleep(0.1)

    def _percent_of(self, server: Server) -> int:
        """Of the weight that it had before the first change; nginx keeps no other."""
        known = ((self.state().get("before") or {}).get("servers") or {}).get(server.key) or {}
        return share_of(int(known.get("weight", server.weight)), self.settings.percent)

    def _routed(self, keys: t.Sequence[str], servers: t.Mapping[str, Server]) -> Result:
        routes = self.state().get("routes") or {}
        homes = {key: home_of(key, routes, (servers[key].address, servers[key].port)) for key in keys}
        wanted = wanted_places(self.proxy, self.settings.address, self.settings.ports, homes, routes)
        told = {"places": {key: {"address": home[0], "port": home[1], "state": servers[key].state} for key, home in homes.items()}}
        needed = {key: place for key, place in wanted.items() if (servers[key].address, servers[key].port) != place}
        self.actions += [f"{key} to {place[0]}:{place[1]}, not {servers[key].place}" for key, place in needed.items()]
        if self.check:
            return told
        if self.settings.address or self.settings.ports:
            answers(sorted(set(needed.values())))
        new = {key: {"address": homes[key][0], "port": homes[key][1]} for key in needed if key not in routes and wanted[key] != homes[key]}
        if new:
            with self.run.step("remember", routes=new):
                self.write_state(routes={**routes, **new})
        if needed:
            self._move(needed, servers)
        self._left(wanted, homes, servers)
        back = {key for key in keys if key in routes and wanted[key] == homes[key]}
        if back:
            with self.run.step("forget", routes=sorted(back)):
                self.write_state(routes={key: place for key, place in (self.state().get("routes") or {}).items() if key not in back})
        return told

    def _move(self, needed: t.Mapping[str, Place], servers: t.Mapping[str, Server]) -> None:
        places = {key: Change(place=place if place.startswith("unix:") else place_of(place, port)) for key, (place, port) in needed.items()}
        self._set(places, "; ".join(self.actions))

    def _left(self, wanted: t.Mapping[str, Place], homes: t.Mapping[str, Place], servers: t.Mapping[str, Server]) -> None:
        """The old workers are gone: they alone still know the old addresses. Also those of a call that was killed."""
        before = {key: {homes[key], (servers[key].address, servers[key].port)} - {place} for key, place in wanted.items()}
        if any(before.values()) and self.master.ending():
            with self.run.step("wait", servers=sorted(wanted)) as learnt:
                learnt["left"] = self._await_gone(before)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", newline="") as handle:
            return handle.read()
    except UnicodeDecodeError as exc:
        raise RollbackError(f"{path} is not UTF-8 ({exc}), so it cannot be changed without damage. Write it as UTF-8.") from exc


def _listens(server: Server) -> bool:
    try:
        if server.port:
            socket.create_connection((server.address, server.port), 3.0).close()
        else:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(3.0)
                connection.connect(server.address[len("unix:") :])
    except OSError:
        return False
    return True
