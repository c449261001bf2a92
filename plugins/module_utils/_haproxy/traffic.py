# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The states of ``haproxy_servers``: each reads what is true, does what is missing, and reads again.

What was there before the first change is remembered once, before it is made, and forgotten when it is there again: so whoever comes
later, after however many interrupted calls, brings back exactly that.

State file ``haproxy.state.json``:

    before     {frontends: {name: share}, servers: {backend/server: {state, weight}}}
    routes     {backend/server: {address, port}}: where a server was before it was routed elsewhere (routes.py)
    leaving    {backend/server: [address, port]}: whose connections are waited for
    hold       {since, deadline, run}, while a frontend is held
"""

from __future__ import annotations

import os
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._haproxy.doors import CLOSED, HELD, OPEN, Doors, words_of
from ansible_collections.payops.rollback.plugins.module_utils._haproxy.routes import routed
from ansible_collections.payops.rollback.plugins.module_utils._haproxy.runtime import INHERITED, UP, Runtime, Server, parse_servers
from ansible_collections.payops.rollback.plugins.module_utils._io import now, read_json, write_atomic, write_json
from ansible_collections.payops.rollback.plugins.module_utils._run import Run

COMPONENT = "haproxy"
STATES = ("observed", "held", "closed", "limited", "drained", "maint", "ready", "routed", "previous")
# States that are about servers, and those that are about frontends.
OF_SERVERS = ("drained", "maint", "ready", "routed")
OF_FRONTENDS = ("held", "closed", "limited")
STEPS = ("remember", "receivers", "share", "drain", "wait", "maint", "weight", "ready", "route", "persist", "verify", "forget")
Result = t.Dict[str, t.Any]


class Settings(t.NamedTuple):
    receivers: t.Sequence[str] = ()
    share: int = OPEN
    percent: int = 100
    ramp: t.Sequence[int] = ()
    ramp_seconds: float = 5.0
    drain_seconds: float = 30.0
    cut_sessions: bool = False
    min_left: int = 1
    wait_seconds: float = 30.0
    hold_seconds: int = 900
    address: str = ""
    ports: t.Mapping[str, t.Any] = {}
    state_file: str | None = None


class Traffic:
    def __init__(self, runtime: Runtime, doors: Doors, run: Run, settings: Settings, check: bool) -> None:
        self.runtime = runtime
        self.doors = doors
        self.run = run
        self.settings = settings
        self.check = check
        self.actions: list[str] = []

    def reach(self, state: str, keys: t.Sequence[str]) -> Result:
        servers = self.runtime.servers()
        missing = [key for key in keys if key not in servers]
        if missing:
            raise RollbackError(
                f"HAProxy has no server {', '.join(missing)}; it has {', '.join(sorted(servers)) or 'none'}. Nothing was touched."
            )
        if state not in OF_SERVERS:
            self.doors.require()
        before = self.picture(servers)
        told: Result = {}
        if state == "observed":
            told = self._observed(servers)
        elif state in OF_FRONTENDS:
            share = {"held": HELD, "closed": CLOSED}.get(state, self.settings.share)
            self._share({name: self._bounded(name, share) for name in self.doors.shares()}, state)
        elif state == "drained":
            self._drained(keys, servers)
        elif state == "maint":
            self._drained(keys, servers)
            self._maint(keys)
        elif state == "ready":
            self._remember(keys)
            self._in(keys, {key: ("ready", _percent_of(servers[key], self.settings.percent)) for key in keys})
        elif state == "routed":
            told = routed(self, keys, servers)
        else:
            self._previous(keys)
        self._persist()
        after = before if self.check else self.picture(self.runtime.servers())
        done = "; ".join(self.actions)
        return {
            "changed": bool(self.actions),
            "actions": self.actions,
            "steps": self.run.steps,
            "msg": f"would {done}" if done and self.check else done or "HAProxy: nothing to do",
            "diff": {"before": _shown(before), "after": _shown(after if not self.check else {**before, "would": self.actions})},
            **after,
            **told,
        }

    # -- reading -------------------------------------------------------------------------------------------------------

    def picture(self, servers: t.Mapping[str, Server]) -> Result:
        """What is true now."""
        state = self.state()
        return {
            "frontends": self.doors.shares(),
            "receivers": self.doors.receivers(),
            "servers": {
                key: {"state": each.state, "weight": each.weight, "address": each.place, "up": each.operational != 0}
                for key, each in sorted(servers.items())
            },
            "before": state.get("before") or {},
            "hold": state.get("hold"),
        }

    def state(self) -> Result:
        state = read_json(self.run.paths.state(COMPONENT), {})
        return state if isinstance(state, dict) else {}

    def write_state(self, **values: t.Any) -> None:
        state = {key: value for key, value in {**self.state(), **values}.items() if value}
        write_json(self.run.paths.state(COMPONENT), state, self.run.paths.file_mode)

    def _observed(self, servers: t.Mapping[str, Server]) -> Result:
        shares, written = self.doors.shares(), self.doors.written()
        notes = [
            f"{name} {words_of(shares[name])} now, but after a reload it would be another: {words_of(written[name])} (see {self.doors.places.share_map})"
            for name in shares
            if shares[name] != written[name]
        ]
        backends: dict[str, list[Server]] = {}
        for each in servers.values():
            backends.setdefault(each.backend, []).append(each)
        notes += [
            f"backend {name} has no server that takes traffic ({', '.join(f'{each.name} {each.state}' for each in found)})"
            for name, found in sorted(backends.items())
            if not any(each.usable for each in found)
        ]
        plan = [f"{name} {words_of(share)}; it can be held" for name, share in shares.items()]
        if shares:
            receivers = ", ".join(self.settings.receivers)
            plan.append(f"receivers that stay up while it is held: {receivers or 'none is listed, so providers get 503 and must retry'}")
        else:
            plan.append("no frontend is listed, so nothing can be held here: list them in rollback_haproxy_frontends")
        return {"notes": notes, "plan": plan + notes, "at_version": True, "msg": "; ".join(notes) or "HAProxy is as its state says"}

    # -- remembering ---------------------------------------------------------------------------------------------------

    def _remember(self, keys: t.Iterable[str] = (), names: t.Iterable[str] = ()) -> None:
        """What is there before the first change; what is remembered already is older and stays."""
        if self.check:
            return
        state = self.state()
        before = state.get("before") or {}
        servers, shares = self.runtime.servers(), self.doors.shares()
        known_servers, known_shares = before.get("servers") or {}, before.get("frontends") or {}
        new_servers = {key: {"state": servers[key].state, "weight": servers[key].weight} for key in keys if key not in known_servers}
        new_shares = {name: shares[name] for name in names if name not in known_shares}
        if not new_servers and not new_shares:
            return
        with self.run.step("remember", servers=new_servers, frontends=new_shares):
            self.write_state(before={"servers": {**known_servers, **new_servers}, "frontends": {**known_shares, **new_shares}})

    def _forget(self, keys: t.Iterable[str] = (), names: t.Iterable[str] = ()) -> None:
        keys, names = set(keys), set(names)
        before = self.state().get("before") or {}
        left = {
            "servers": {key: value for key, value in (before.get("servers") or {}).items() if key not in keys},
            "frontends": {name: value for name, value in (before.get("frontends") or {}).items() if name not in names},
        }
        left = {key: value for key, value in left.items() if value}
        if left == before or self.check:
            return
        with self.run.step("forget", servers=sorted(keys), frontends=sorted(names)):
            self.write_state(before=left, hold=self.state().get("hold") if left.get("frontends") else None)

    # -- frontends -----------------------------------------------------------------------------------------------------

    def _bounded(self, name: str, share: int) -> int:
        """Never more than was let in before somebody of ours closed it."""
        known = (self.state().get("before") or {}).get("frontends") or {}
        return min(share, known.get(name, OPEN))

    def _share(self, wanted: t.Mapping[str, int], state: str) -> None:
        if not wanted:
            return
        shares, written = self.doors.shares(), self.doors.written()
        if state == "held":  # what an emergency closed is not opened for the receivers by a hold
            wanted = {name: min(share, shares[name]) for name, share in wanted.items()}
        receivers = list(self.settings.receivers)
        syncs = any(share >= HELD for share in wanted.values()) and self.doors.receivers() != sorted(receivers)
        moves = {name: share for name, share in wanted.items() if shares[name] != share or written[name] != share}
        if not moves and not (syncs and state == "held"):
            self._forget(names=self._as_before(wanted))
            return
        self.actions += [f"frontend {name} {words_of(share)}" for name, share in moves.items()]
        if syncs:
            self.actions.append(f"keep {', '.join(receivers) or 'no receiver'} up whatever is held")
        if self.check:
            return
        if any(share < shares[name] for name, share in moves.items()):
            self._remember(names=moves)
        if state == "held" and not self.state().get("hold"):
            deadline = time.time() + self.settings.hold_seconds
            self.write_state(hold={"since": now(), "deadline": deadline, "run": self.run.run_id})
        if syncs:
            with self.run.step("receivers", receivers=receivers):
                self.doors.write_receivers(receivers)
        if moves:
            with self.run.step("share", was={name: shares[name] for name in moves}, share=moves):
                self.doors.write(moves)
        with self.run.step("verify", share=dict(wanted)):
            self.doors.prove(wanted)
        self._forget(names=self._as_before(wanted))

    def _as_before(self, shares: t.Mapping[str, int]) -> list[str]:
        known = (self.state().get("before") or {}).get("frontends") or {}
        return [name for name, share in shares.items() if known.get(name) == share]

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

    def _others_left(self, keys: t.Iterable[str], servers: t.Mapping[str, Server]) -> None:
        """Somebody must be there to shift the traffic to."""
        keys = set(keys)
        for backend in sorted({servers[key].backend for key in keys if servers[key].usable}):
            left = [each for each in servers.values() if each.backend == backend and each.usable and each.key not in keys]
            if len(left) < self.settings.min_left:
                raise RollbackError(
                    f"Backend {backend} would have {len(left)} servers that take traffic without {', '.join(sorted(keys))}; expected at least "
                    f"{self.settings.min_left} to shift the traffic to. Nothing was touched. Take fewer hosts at a time (rollback_batches), or "
                    "bring the others up first."
                )

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

    def _in(self, keys: t.Sequence[str], wanted: t.Mapping[str, tuple[str, int]]) -> None:
        """Servers as ``wanted`` says: (state, weight). Whoever comes back into rotation takes more traffic step by step."""
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
                weight = wanted[key][1] if key not in ramped else _share_of(wanted[key][1], first)
                self.runtime.tell(f"set server {key} weight {weight}")
        with self.run.step("ready", servers=needed) as learnt:
            # Out of maint a server gets traffic before its first health check; out of drain it was checked all the time.
            for key in coming:
                if servers[key].state == "maint":
                    self.runtime.tell(f"set server {key} state drain")
            self.await_up(coming, waiting=True)
            for key in needed:
                self.runtime.tell(f"set server {key} state {wanted[key][0]}")
            self._expect({key: wanted[key][0] for key in needed})
            self.await_up(coming)
            for percent in [*stages[1:], 100] if stages else []:
                time.sleep(self.settings.ramp_seconds)
                for key in ramped:
                    self.runtime.tell(f"set server {key} weight {_share_of(wanted[key][1], percent)}")
                self.await_up(coming)
            learnt["weights"] = {key: wanted[key][1] for key in needed}
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

    def await_up(self, keys: t.Sequence[str], waiting: bool = False) -> None:
        """HAProxy's own health check agrees; with ``waiting`` of servers that get no traffic yet."""
        deadline = time.monotonic() + self.settings.wait_seconds
        while True:
            servers, passing = self.runtime.servers(), self.runtime.passing(keys)
            down = [key for key in keys if not (passing[key] and servers[key].operational == UP if waiting else servers[key].usable)]
            if not down:
                return
            if time.monotonic() >= deadline:
                why = (
                    "tracks a server that is down, or its name does not resolve"
                    if servers[down[0]].admin & INHERITED
                    else "fails HAProxy's health check"
                )
                raise RollbackError(
                    f"{', '.join(down)} takes no traffic {self.settings.wait_seconds:g} s after it was made ready: it {why}. "
                    "Look at the application there.",
                    changed=True,
                )
            time.sleep(0.1)

    def _expect(self, wanted: t.Mapping[str, str]) -> None:
        servers = self.runtime.servers()
        wrong = [f"{key} is {servers[key].state}" for key, state in wanted.items() if servers[key].state != state]
        if wrong:
            raise RollbackError(f"HAProxy was told {', '.join(sorted(set(wanted.values())))}, but {'; '.join(wrong)}.", changed=True)

    # -- back ----------------------------------------------------------------------------------------------------------

    def _previous(self, keys: t.Sequence[str]) -> None:
        """Servers first, so that there is somebody behind the frontends when they open. With ``keys`` those servers alone."""
        before = self.state().get("before") or {}
        servers = self.runtime.servers()
        known = {key: value for key, value in (before.get("servers") or {}).items() if key in servers and (not keys or key in keys)}
        self._in(sorted(known), {key: (str(value["state"]), int(value["weight"])) for key, value in known.items()})
        self._forget(keys=known)
        if not keys:
            names = self.doors.shares()
            shares = {name: int(share) for name, share in (before.get("frontends") or {}).items() if name in names}
            self._share(shares, "limited")
            self._forget(
                keys=before.get("servers") or {}, names=before.get("frontends") or {}
            )  # those that are in no configuration any more

    def _persist(self) -> None:
        """A reload forgets what was said at run time, unless HAProxy finds it in its server-state-file."""
        path = self.settings.state_file
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


def _share_of(weight: int, percent: int) -> int:
    return max(1, round(weight * percent / 100)) if weight else 0


def _percent_of(server: Server, percent: int) -> int:
    return _share_of(server.initial_weight, percent)


def _shown(picture: Result) -> str:
    lines = [f"frontend {name}: {words_of(share)}" for name, share in picture["frontends"].items()]
    lines += [f"server {key}: {each['state']}, weight {each['weight']}, {each['address']}" for key, each in picture["servers"].items()]
    lines += [f"would {text}" for text in picture.get("would") or []]
    return "\n".join(lines) + "\n"
