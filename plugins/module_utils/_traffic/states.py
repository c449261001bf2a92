# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The states of a proxy, whichever it is: each reads what is true, does what is missing, and reads again.

What was there before the first change is remembered once, before it is made, and forgotten when it is there again: so whoever comes
later, after however many interrupted calls, brings back exactly that.

State file ``<component>.state.json``:

    before     {frontends: {name: share}, servers: {backend/server: {state, weight}}}
    routes     {backend/server: {address, port}}: where a server was before it was routed elsewhere
    leaving    HAProxy only: {backend/server: [address, port]}: whose connections are waited for
    hold       {since, deadline, run}, while a frontend is held
    pending    nginx only: {file: what it said before}, while nginx may not have read what was written
"""

from __future__ import annotations

import abc
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import now, read_json, write_json
from ansible_collections.payops.rollback.plugins.module_utils._run import Run
from ansible_collections.payops.rollback.plugins.module_utils._traffic.doors import CLOSED, HELD, OPEN, Doors, words_of

STATES = ("observed", "held", "closed", "limited", "drained", "maint", "ready", "routed", "previous")
# States that are about servers, and those that are about frontends.
OF_SERVERS = ("drained", "maint", "ready", "routed")
OF_FRONTENDS = ("held", "closed", "limited")
Result = t.Dict[str, t.Any]
# What servers shall be: their state and their weight.
Wanted = t.Mapping[str, t.Tuple[str, int]]


class Settings(t.NamedTuple):
    receivers: t.Sequence[str] = ()
    share: int = OPEN
    percent: int = 100
    ramp: t.Sequence[int] = ()
    ramp_seconds: float = 5.0
    drain_seconds: float = 30.0
    cut_sessions: bool = False
    min_left: int = 1
    accept_down: bool = False
    wait_seconds: float = 30.0
    hold_seconds: int = 900
    address: str = ""
    ports: t.Mapping[str, t.Any] = {}


class Server(t.Protocol):
    """One server of a backend, as the proxy has it."""

    @property
    def key(self) -> str:
        """``backend/server``"""

    @property
    def backend(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def address(self) -> str: ...

    @property
    def port(self) -> int: ...

    @property
    def state(self) -> str:
        """V(ready), V(drain) or V(maint)."""

    @property
    def weight(self) -> int: ...

    @property
    def usable(self) -> bool:
        """Whether new connections go there."""

    @property
    def place(self) -> str: ...

    def described(self) -> dict[str, t.Any]:
        """What people are shown."""


S = t.TypeVar("S", bound=Server)


class Traffic(abc.ABC, t.Generic[S]):
    """What is the same for every kind of proxy; the rest is named at the end of this class."""

    proxy = ""
    component = ""

    def __init__(self, doors: Doors, run: Run, settings: Settings, check: bool) -> None:
        self.doors = doors
        self.run = run
        self.settings = settings
        self.check = check
        self.actions: list[str] = []

    def reach(self, state: str, keys: t.Sequence[str]) -> Result:
        servers = self._known(state)
        missing = [key for key in keys if key not in servers]
        if missing:
            raise RollbackError(
                f"{self.proxy} has no server {', '.join(missing)}; it has {', '.join(sorted(servers)) or 'none'}. Nothing was touched."
            )
        if state not in OF_SERVERS:
            self.doors.require(asking=state != "closed")
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
            self._in(keys, {key: ("ready", self._percent_of(servers[key])) for key in keys})
        elif state == "routed":
            told = self._routed(keys, servers)
        else:
            self._previous(keys)
        self._persist()
        after = before if self.check else self.picture(self._known(state))
        done = "; ".join(self.actions)
        return {
            "changed": bool(self.actions),
            "actions": self.actions,
            "steps": self.run.steps,
            "msg": f"would {done}" if done and self.check else done or f"{self.proxy}: nothing to do",
            "diff": {"before": _shown(before), "after": _shown(after if not self.check else {**before, "would": self.actions})},
            **after,
            **told,
        }

    # -- reading -------------------------------------------------------------------------------------------------------

    def _known(self, state: str) -> t.Mapping[str, S]:
        """All servers; an emergency shuts the doors also where the proxy does not say what is behind them."""
        try:
            return self.servers()
        except RollbackError:
            if state != "closed":
                raise
            return {}

    def picture(self, servers: t.Mapping[str, S]) -> Result:
        """What is true now."""
        state = self.state()
        return {
            "frontends": self.doors.shares(),
            "receivers": self.doors.receivers(),
            "servers": {key: each.described() for key, each in sorted(servers.items())},
            "before": state.get("before") or {},
            "hold": state.get("hold"),
        }

    def state(self) -> Result:
        state = read_json(self.run.paths.state(self.component), {})
        return state if isinstance(state, dict) else {}

    def write_state(self, **values: t.Any) -> None:
        state = {key: value for key, value in {**self.state(), **values}.items() if value}
        write_json(self.run.paths.state(self.component), state, self.run.paths.file_mode)

    def _observed(self, servers: t.Mapping[str, S]) -> Result:
        shares, written = self.doors.shares(), self.doors.written()
        notes = [
            f"{name} {words_of(shares[name])} now, but after a reload it would be another: {words_of(written[name])} (see {self.doors.file})"
            for name in shares
            if shares[name] != written[name]
        ]
        backends: dict[str, list[S]] = {}
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
        # What an interrupted run drained, closed or holds waits for the same command to bring it back.
        state = self.state()
        before = state.get("before") or {}
        waiting = [*(before.get("servers") or {}), *(f"frontend {name}" for name in before.get("frontends") or {})]
        if waiting or state.get("hold"):
            plan.append(f"bring back as it was before an earlier run: {', '.join(sorted(waiting)) or 'what is held'}")
        settled = not before and not state.get("hold")
        return {
            "notes": notes,
            "plan": plan + notes,
            "at_version": settled,
            "msg": "; ".join(notes) or f"{self.proxy} is as its state says",
        }

    # -- remembering ---------------------------------------------------------------------------------------------------

    def _remember(self, keys: t.Iterable[str] = (), names: t.Iterable[str] = ()) -> None:
        """What is there before the first change; what is remembered already is older and stays."""
        keys = list(keys)
        if self.check:
            return
        state = self.state()
        before = state.get("before") or {}
        servers, shares = self.servers() if keys else {}, self.doors.shares()
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
        self._write_doors(moves, shares, receivers if syncs else None)
        with self.run.step("verify", share=dict(wanted)):
            self.doors.prove(wanted)
        self._forget(names=self._as_before(wanted))

    def _as_before(self, shares: t.Mapping[str, int]) -> list[str]:
        known = (self.state().get("before") or {}).get("frontends") or {}
        return [name for name, share in shares.items() if known.get(name) == share]

    # -- servers -------------------------------------------------------------------------------------------------------

    def _others_left(self, keys: t.Iterable[str], servers: t.Mapping[str, S]) -> None:
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

    # -- back ----------------------------------------------------------------------------------------------------------

    def _previous(self, keys: t.Sequence[str]) -> None:
        """Servers first, so that there is somebody behind the frontends when they open. With ``keys`` those servers alone."""
        before = self.state().get("before") or {}
        servers = self.servers()
        known = {key: value for key, value in (before.get("servers") or {}).items() if key in servers and (not keys or key in keys)}
        wanted = {key: (str(value["state"]), int(value["weight"])) for key, value in known.items()}
        self._in(sorted(known), wanted, accept_down=self.settings.accept_down)
        self._forget(keys=known)
        if not keys:
            names = self.doors.shares()
            shares = {name: int(share) for name, share in (before.get("frontends") or {}).items() if name in names}
            self._share(shares, "limited")
            self._forget(
                keys=before.get("servers") or {}, names=before.get("frontends") or {}
            )  # those that are in no configuration any more

    # -- each kind of proxy says for itself ----------------------------------------------------------------------------

    @abc.abstractmethod
    def servers(self) -> t.Mapping[str, S]:
        """All of them, by ``backend/server``."""

    @abc.abstractmethod
    def _write_doors(self, moves: t.Mapping[str, int], shares: t.Mapping[str, int], receivers: t.Sequence[str] | None) -> None:
        """The frontends' shares, which are ``shares`` now, and the receivers unless they are None."""

    @abc.abstractmethod
    def _drained(self, keys: t.Sequence[str], servers: t.Mapping[str, S]) -> None:
        """No new connection goes there, and no session is left."""

    @abc.abstractmethod
    def _maint(self, keys: t.Sequence[str]) -> None:
        """Out of rotation, after they were drained."""

    @abc.abstractmethod
    def _in(self, keys: t.Sequence[str], wanted: Wanted, accept_down: bool = False) -> None:
        """Servers as ``wanted`` says. Whoever comes back into rotation takes more traffic step by step; one that is ill keeps no other out.

        With ``accept_down`` also the ill ones are what ``wanted`` says, and that is no failure: they were so before.
        """

    @abc.abstractmethod
    def _percent_of(self, server: S) -> int:
        """The weight that is ``percent`` of what a person gave the server."""

    @abc.abstractmethod
    def _routed(self, keys: t.Sequence[str], servers: t.Mapping[str, S]) -> Result:
        """Servers at another address, and back; nobody is left at the old one. Tells ``places``, where they are at home."""

    def _persist(self) -> None:
        """What is left to do after every state."""


def share_of(weight: int, percent: int) -> int:
    return max(1, round(weight * percent / 100)) if weight else 0


def _shown(picture: Result) -> str:
    lines = [f"frontend {name}: {words_of(share)}" for name, share in picture["frontends"].items()]
    lines += [f"server {key}: {each['state']}, weight {each['weight']}, {each['address']}" for key, each in picture["servers"].items()]
    lines += [f"would {text}" for text in picture.get("would") or []]
    return "\n".join(lines) + "\n"
