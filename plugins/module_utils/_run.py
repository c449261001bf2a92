# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""What every acting module does around its work: fencing, a flock, and a journal of timed steps.

Files on each host, below ``<store>/<system>/.run/``::

    lock.json                       who may act now (see _lock.py); absent when nobody runs
    act.lock                        flock held by the module that is acting
    <run id>/run.json               what the run is (see _lock.py)
    <run id>/<component>.jsonl      the journal, one line before and one after every step

A step is written down and fsynced *before* it acts and again *after*, so whoever comes later knows
that a step without an end may have happened.
"""

from __future__ import annotations

import json
import os
import time
import typing as t
from contextlib import contextmanager

from ansible_collections.payops.rollback.plugins.module_utils._below import make_below
from ansible_collections.payops.rollback.plugins.module_utils._decide import REPLACED, describe
from ansible_collections.payops.rollback.plugins.module_utils._errors import Fenced, RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import (
    check_name,
    flock,
    make_dir,
    now,
    open_own,
    read_json,
    write_json,
)
from ansible_collections.payops.rollback.plugins.module_utils._store import make_way, share_existing, shared_group


class Paths:
    """Where things of one system lie in the store of one host."""

    def __init__(self, store: str, system: str, group: str | None = None) -> None:
        if not os.path.isabs(store):
            raise RollbackError(
                f"The store {store!r} is not an absolute path. Set rollback_store to a folder such as /var/lib/payops-rollback."
            )
        self.store = store
        self.group = group or shared_group(store)
        self.system = os.path.join(store, check_name("The system name", system))
        self.run = os.path.join(self.system, ".run")
        self.lock = os.path.join(self.run, "lock.json")
        self.act = os.path.join(self.run, "act.lock")

    @property
    def file_mode(self) -> int:
        return 0o660 if self.group else 0o600

    def make(self) -> None:
        """The folder of all runs. A store that was made for one user is shared now, if a group was named since."""
        make_way(self.store)
        if self.group is not None:
            share_existing(self.store, self.system, self.group)
        self.make_dir(self.run)

    def make_dir(self, path: str) -> None:
        """Create ``path``, which lies in the store, and its parents. No link is followed on the way from the store."""
        make_dir(self.store, self.group)
        make_below(self.store, path, self.group)

    def version(self, version: str) -> str:
        return os.path.join(self.system, check_name("The version", version))

    def component(self, version: str, component: str) -> str:
        return os.path.join(self.version(version), component)

    def state(self, component: str) -> str:
        """What a component remembers between runs (for example which OID a flip produced)."""
        return os.path.join(self.run, f"{component}.state.json")

    def run_dir(self, run_id: str) -> str:
        return os.path.join(self.run, check_name("The run id", run_id))

    def journal(self, run_id: str, component: str) -> str:
        return os.path.join(self.run_dir(run_id), f"{component}.jsonl")


class Run:
    """One module's turn in a run: ``with Run(...) as run: with run.step("swap"): ...``.

    ``steps`` are the declared step names in order; a step that is not declared is a programming error.
    Without ``run_id`` the module is used on its own: it still waits for the flock and refuses
    while another run holds the lock, but writes no journal.
    ``acting=False`` (check mode, pure reads) takes no lock and writes nothing.
    """

    def __init__(
        self,
        paths: Paths,
        component: str,
        steps: t.Sequence[str],
        run_id: str | None = None,
        acting: bool = True,
        lease: int = 900,
        wait: float = 30.0,
    ) -> None:
        self.paths = paths
        self.component = component
        self.declared = tuple(steps)
        self.run_id = run_id
        self.acting = acting
        self.lease = lease
        self.wait = wait
        self.steps: list[dict[str, t.Any]] = []
        self._flock: t.Any = None

    def __enter__(self) -> Run:
        if not self.acting:
            return self
        self.paths.make()
        busy = (
            f"Another module of payops.rollback is acting on this host (it holds {self.paths.act}); waited {self.wait:.0f} s. "
            f"Look at it there with 'fuser -v {self.paths.act}', and run the same command again when it is done."
        )
        self._flock = flock(self.paths.act, self.wait, busy, self.paths.file_mode)
        self._flock.__enter__()
        try:
            self.fence()
            self._renew_lease()
        except BaseException:
            self._flock.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *exc_info: t.Any) -> None:
        if self._flock is not None:
            self._flock.__exit__(None, None, None)
            self._flock = None

    def fence(self) -> None:
        """Refuse unless this run still holds the lock on this host."""
        holder = read_json(self.paths.lock)
        if holder is None:
            if self.run_id is not None:
                raise Fenced(
                    f"Run {self.run_id} does not hold the lock of this host any more, and nobody else does: it was closed or taken over. "
                    "This step touched nothing. See with rollback_points.yml how things stand, then run the same command again."
                )
            return
        if holder.get("run") != self.run_id:
            us = f"run {self.run_id}, {REPLACED}" if self.run_id else "this call, which belongs to no run"
            raise Fenced(
                f"The lock of this host is held by {describe(holder)}, not by {us}. This step touched nothing. "
                "Wait until that run is over, and see with rollback_points.yml how things stand.",
                holder=holder,
            )

    def _renew_lease(self) -> None:
        if self.run_id is None:
            return
        holder = read_json(self.paths.lock)
        holder["lease_until"] = time.time() + self.lease
        write_json(self.paths.lock, holder, self.paths.file_mode)

    def journal(self, record: dict[str, t.Any]) -> None:
        """Append one line and fsync it. Does nothing without a run id. A line that a killed writer left torn stays by itself."""
        if self.run_id is None or not self.acting:
            return
        self.paths.make_dir(self.paths.run_dir(self.run_id))
        line = json.dumps({"at": now(), "component": self.component, **record}, sort_keys=True, ensure_ascii=False)
        path = self.paths.journal(self.run_id, self.component)
        fd = open_own(path, os.O_RDWR | os.O_APPEND, self.paths.file_mode)
        try:
            size = os.fstat(fd).st_size
            data = line.encode("utf-8") + b"\n"
            if size and os.pread(fd, 1, size - 1) != b"\n":
                data = b"\n" + data
            while data:
                data = data[os.write(fd, data) :]
            os.fsync(fd)
        finally:
            os.close(fd)

    @contextmanager
    def step(self, name: str, **facts: t.Any) -> t.Iterator[dict[str, t.Any]]:
        """Time one step and journal it. Put what was learnt (plain JSON) into the yielded dict."""
        if name not in self.declared:
            raise ValueError(f"step {name!r} is not declared in {self.declared}")
        if self.acting:
            self.fence()
        fault(self.component, name, "before")
        self.journal({"step": name, "phase": "start", **facts})
        learnt: dict[str, t.Any] = {}
        start = time.monotonic()
        started = now()
        try:
            yield learnt
        except BaseException as exc:
            self._finished(name, started, start, {**facts, **learnt, "error": str(exc)})
            raise
        fault(self.component, name, "during")
        self._finished(name, started, start, {**facts, **learnt})
        fault(self.component, name, "after")

    def _finished(self, name: str, started: str, start: float, facts: dict[str, t.Any]) -> None:
        record = {"step": name, "started": started, "ms": round((time.monotonic() - start) * 1000, 1), **facts}
        self.steps.append({"component": self.component, **record})
        self.journal({"phase": "end", **record})


def read_journal(paths: Paths, run_id: str) -> list[dict[str, t.Any]]:
    """All journal lines of one run on this host in time order; torn lines are left out."""
    records: list[dict[str, t.Any]] = []
    folder = paths.run_dir(run_id)
    if not os.path.isdir(folder):
        return records
    for entry in sorted(os.listdir(folder)):
        if entry.endswith(".jsonl"):
            with open(os.path.join(folder, entry), encoding="utf-8", errors="replace") as handle:
                for line in handle:
                    try:
                        record = json.loads(line)
                    except ValueError:
                        continue
                    if isinstance(record, dict):
                        records.append(record)
    return sorted(records, key=lambda record: str(record.get("at")))


def fault(component: str, step: str, phase: str) -> None:
    """Does nothing. The tests put a function in its place that breaks here on purpose (tests/faults/sitecustomize.py).

    Phases: ``before`` (nothing journalled), ``during`` (all done, its end not journalled yet), ``after`` (end journalled).
    """
