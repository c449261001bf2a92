# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The states of ``haproxy_servers``, as HAProxy's runtime socket does them (see ``_traffic/states.py``)."""

from __future__ import annotations

import os
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._haproxy.doors import Doors
from ansible_collections.payops.rollback.plugins.module_utils._haproxy.routes import routed
from ansible_collections.payops.rollback.plugins.module_utils._haproxy.runtime import INHERITED, UP, Runtime, Server, parse_servers
from ansible_collections.payops.rollback.plugins.module_utils._io import write_atomic
from ansible_collections.payops.rollback.plugins.module_utils._run import Run
from ansible_collections.payops.rollback.plugins.module_utils._traffic import states
from ansible_collections.payops.rollback.plugins.module_utils._traffic.states import Settings, Wanted, share_of

COMPONENT = "haproxy"
STEPS = ("remember", "receivers", "share", "drain", "wait", "maint", "weight", "ready", "route", "persist", "verify", "forget")


class Traffic(states.Traffic[Server]):
    proxy = "HAProxy"
    component = COMPONENT
    doors: Doors

    def __init__(self, runtime: Runtime, doors: Doors, run: Run, settings: Settings, check: bool, state_file: str | None = None) -> None:
        super().__init__(doors, run, settings, check)
        self.runtime = runtime
        self.state_file = state_file

    def servers(self) -> t.Mapping[str, Server]:
        return self.runtime.servers()

    def _write_doors(self, moves: t.Mapping[str, int], shares: t.Mapping[str, int], receivers: t.Sequence[str] | None) -> None:
        if receivers is not None:
            with self.run.step("receivers", receivers=list(receivers)):
                self.doors.write_receivers(receivers)
        if moves:
            with self.run.step("share", was={name: shares[name] for name in moves}, share=dict(moves)):
                self.doors.write(moves)

    # -- servers -------------------------------------------------------------------------------------------------------

    def _drained(self, keys: t.Sequence[str], servers: t.Mapping[str, Server]) -> None:
        """No new connection goes there, and no session is left."""
        self._others_left(keys, servers)
        needed = [key for key in keys if servers[key].state == "ready"]
        sessions = self.runtime.sessions(key for key in keys if servers[key].state != "maint")
        if needed:
            self.actions.append(f"no new traffic to {', '.join(needed)}")
        if self.check:
            if any(sessions.values()):
                self.actions.append(f"wait until {sum(sessions.values())} sessions of {', '.join(keys)} are over")
            return
        self._remember(needed)
        if needed:
            with self.run.step("drain", servers=needed):
                for key in needed:
                    self.runtime.tell(f"set server {key} state drain")
                self._expect(dict.fromkeys(needed, "drain"))
        if needed or any(sessions.values()):
            with self.run.step("wait", servers=list(sessions)) as learnt:
                learnt["left"] = self._await_no_session(list(sessions))

    def _await_no_session(self, keys: t.Sequence[str]) -> dict[str, int]:
        deadline = time.monotonic() + self.settings.drain_seconds
        while True:
            left = {key: number for key, number in self.runtime.sessions(keys).items() if number}
            if not left:
                return {}
            if time.monotonic() >= deadline:
                if self.settings.cut_sessions:
                    return left
                raise RollbackError(
                    f"{', '.join(f'{key} still has {number}' for key, number in sorted(left.items()))} sessions after "
                    f"{self.settings.drain_seconds:g} s without new ones. Raise drain_seconds (rollback_haproxy_drain_seconds), or go on over "
                    "them with cut_sessions=true (rollback_haproxy_cut_sessions).",
                    changed=True,
                    sessions=left,
                )
            time.sleep(0.1)

    def _maint(self, keys: t.Sequence[str]) -> None:
        servers = self.runtime.servers()
        needed = [key for key in keys if servers[key].state != "maint"]
        if not needed:
            return
        self.actions.append(f"{', '.join(needed)} out of rotation")
        if self.check:
            return
        self._remember(needed)
        with self.run.step("maint", servers=needed):
            for key in needed:
                self.runtime.tell(f"set server {key} state maint")
            self._expect(dict.fromkeys(needed, "maint"))

    def _in(self, keys: t.Sequence[str], wanted: Wanted, accept_down: bool = False) -> None:
        servers = self.runtime.servers()
        needed = [key for key in keys if (servers[key].state, servers[key].weight) != wanted[key]]
        if not needed:
            return
        coming = [key for key in needed if wanted[key][0] == "ready"]
        ramped = [key for key in coming if servers[key].state != "ready" and wanted[key][1] > 1]
        stages = [percent for percent in self.settings.ramp if percent < 100] if ramped else []
        how = f" (first {', then '.join(f'{percent} %' for percent in stages)} of its weight)" if stages else ""
        self.actions += [f"{key} {wanted[key][0]} with weight {wanted[key][1]}{how if key in ramped else ''}" for key in needed]
        if self.check:
            return
        first = stages[0] if stages else 100
        with self.run.step("weight", servers=needed):
            for key in needed:
                weight = wanted[key][1] if key not in ramped else share_of(wanted[key][1], first)
                self.runtime.tell(f"set server {key} weight {weight}")
        with self.run.step("ready", servers=needed) as learnt:
            # Out of maint a server gets traffic before its first health check; out of drain it was checked all the time.
            for key in coming:
                if servers[key].state == "maint":
                    self.runtime.tell(f"set server {key} state drain")
            ill = self._not_up(coming, waiting=True)
            well = [key for key in coming if key not in ill]
            back = [key for key in needed if key not in ill or accept_down]
            for key in back:
                self.runtime.tell(f"set server {key} state {wanted[key][0]}")
            self._expect({key: wanted[key][0] for key in back})
            self.await_up(well)
            for percent in [*stages[1:], 100] if stages else []:
                time.sleep(self.settings.ramp_seconds)
                for key in ramped:
                    self.runtime.tell(f"set server {key} weight {share_of(wanted[key][1], percent)}")
                self.await_up(well)
            learnt["weights"] = {key: wanted[key][1] for key in needed}
            if ill and not accept_down:
                raise self._ill(ill, "so it was left out of rotation")
            if ill:
                self.actions.append(f"{', '.join(ill)} gets no traffic until it passes HAProxy's health check")
        with self.run.step("verify", servers=needed):
            found = self.runtime.servers()
            wrong = [
                f"{key} is {found[key].state} with weight {found[key].weight}"
                for key in needed
                if (found[key].state, found[key].weight) != wanted[key]
            ]
            if wrong:
                raise RollbackError(
                    f"HAProxy does not do what it was told: {'; '.join(wrong)}. Somebody else changes these servers; find out who.",
                    changed=True,
                )

    def await_up(self, keys: t.Sequence[str]) -> None:
        """HAProxy's own health check agrees."""
        down = self._not_up(keys)
        if down:
            raise self._ill(down, "so it takes no traffic although it was made ready")

    def _not_up(self, keys: t.Sequence[str], waiting: bool = False) -> list[str]:
        """Those that HAProxy still does not call healthy when the time is over; with ``waiting`` of servers that get no traffic yet."""
        deadline = time.monotonic() + self.settings.wait_seconds
        while True:
            servers, passing = self.runtime.servers(), self.runtime.passing(keys)
            up = [key for key in keys if servers[key].operational == UP and (passing[key] if waiting else not servers[key].admin)]
            down = [key for key in keys if key not in up]
            if not down or time.monotonic() >= deadline:
                return down
            time.sleep(0.1)

    def _ill(self, keys: t.Sequence[str], so: str) -> RollbackError:
        inherited = self.runtime.servers()[keys[0]].admin & INHERITED
        why = "tracks a server that is down, or its name does not resolve" if inherited else "fails HAProxy's health check"
        return RollbackError(
            f"{', '.join(keys)} {why} for {self.settings.wait_seconds:g} s, {so}. Look at the application there.",
            changed=True,
            down=list(keys),
        )

    def _expect(self, wanted: t.Mapping[str, str]) -> None:
        servers = self.runtime.servers()
        wrong = [f"{key} is {servers[key].state}" for key, state in wanted.items() if servers[key].state != state]
        if wrong:
            raise RollbackError(f"HAProxy was told {', '.join(sorted(set(wanted.values())))}, but {'; '.join(wrong)}.", changed=True)

    def _percent_of(self, server: Server) -> int:
        return share_of(server.initial_weight, self.settings.percent)

    def _routed(self, keys: t.Sequence[str], servers: t.Mapping[str, Server]) -> states.Result:
        return routed(self, keys, servers)

    def _persist(self) -> None:
        """A reload forgets what was said at run time, unless HAProxy finds it in its server-state-file."""
        path = self.state_file
        if not path or self.check:
            return
        text = self.runtime.ask("show servers state") + "\n"
        if not self.actions and _same_after_reload(path, text):  # a call that was killed may have left an older one
            return
        with self.run.step("persist", path=path):
            mode = os.stat(path).st_mode & 0o777 if os.path.exists(path) else 0o644
            write_atomic(path, text.encode("utf-8"), mode)


def _same_after_reload(path: str, text: str) -> bool:
    """Whether HAProxy would find the same in the file; without a file it goes by its configuration, as before."""
    if not os.path.exists(path):
        return True
    with open(path, encoding="utf-8", errors="replace") as handle:
        written = parse_servers(handle.read())
    live = parse_servers(text)
    return all(
        key in written and (written[key].state, written[key].weight, written[key].place) == (each.state, each.weight, each.place)
        for key, each in live.items()
    )
