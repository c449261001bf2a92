# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Poolers stand still around a flip, so that their clients see a short wait and no error.

What is going to be paused is written down before it is, a watch resumes it when this process dies, and whoever comes later finds
it written down and resumes what is paused still. All of it holds for the undo as well.
"""

from __future__ import annotations

import time
import typing as t
from contextlib import contextmanager

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import now, read_json, write_json
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._connection import plain
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._console import Console, Entry, Pooler, answered
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._state import COMPONENT, Database, rows
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._watch import Watch

try:
    import psycopg2
except ImportError:  # the module says so through missing_required_lib
    psycopg2 = None  # type: ignore[assignment]

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._postgresql._restore import Restore
    from ansible_collections.payops.rollback.plugins.module_utils._run import Paths

RESUME_SECONDS = 10.0  # how long to try, before somebody is told to do it by hand
WATCH_SECONDS = 120.0  # how long the watch tries
FLIP_SECONDS = 90.0  # longer than any flip and its check take beside what the options allow for


def argument_spec() -> dict[str, t.Any]:
    """The option ``poolers``."""
    return {
        "poolers": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "host": {"type": "str", "default": "127.0.0.1"},
                "port": {"type": "int", "default": 6432},
                "user": {"type": "str", "required": True},
                "password": {"type": "str", "no_log": True},
                "dbname": {"type": "str", "default": "pgbouncer"},
                "databases": {"type": "list", "elements": "str", "default": []},
                "pause_timeout": {"type": "float", "default": 5},
                "ssl_mode": {
                    "type": "str",
                    "default": "prefer",
                    "choices": ["allow", "disable", "prefer", "require", "verify-ca", "verify-full"],
                },
                "ca_cert": {"type": "path"},
            },
        }
    }


def declared(given: t.Iterable[t.Mapping[str, t.Any]]) -> list[Pooler]:
    return [Pooler.of(each) for each in given]


# -- what is written down ---------------------------------------------------------------------------------------------


def noted(paths: Paths) -> list[dict[str, t.Any]]:
    """What a run was going to pause and has not resumed: ``{pooler, entry, database, run, at}`` each."""
    value = read_json(paths.state(COMPONENT), {})
    found = value.get("paused", []) if isinstance(value, dict) else []
    return [each for each in found if isinstance(each, dict)]


def note(paths: Paths, paused: t.Sequence[dict[str, t.Any]]) -> None:
    value = read_json(paths.state(COMPONENT), {})
    value = value if isinstance(value, dict) else {}
    if value.get("paused", []) != list(paused):
        write_json(paths.state(COMPONENT), {**value, "paused": list(paused)}, paths.file_mode)


def recover(work: Restore) -> list[str]:
    """First of all: resume what a killed run has left paused. The sentences say what was (or would be) done."""
    consoles = {pooler.where: Console(pooler) for pooler in work.poolers}
    said, left = [], []
    for each in noted(work.paths):
        console, entry = consoles.get(each["pooler"]), each["entry"]
        if console is None:
            what = f"Run {each['run']} paused {entry} at the pooler {each['pooler']}, which poolers does not name any more."
            work.report.block("pooler", each["database"], what, f'Name it there, or RESUME "{entry}" by hand and name it once.')
            left.append(each)
            continue
        paused = [found for found in console.entries([each["database"]]) if found.name == entry and found.paused]
        if not paused:
            said.append(f"{entry} at the pooler {each['pooler']} is no longer paused; an interrupted run had paused it")
            continue
        said.append(f"resumed {entry} at the pooler {each['pooler']}, which an interrupted run left paused")
        if work.acting:
            _resume(console, [entry])
    for console in consoles.values():
        console.close()
    if work.acting:
        note(work.paths, left)
    return said


# -- before anything is touched ---------------------------------------------------------------------------------------


def preflight(work: Restore, names: t.Collection[str]) -> None:
    """Every pooler answers, obeys us and serves a database of ours; else it is an obstacle. Reads only."""
    pooled: set[int] = set()
    for pooler in work.poolers if names else []:
        console = Console(pooler)
        try:
            _look(work, console, names, pooled)
        except RollbackError as exc:
            work.report.block("pooler", "", str(exc), "")
        finally:
            console.close()
    if work.poolers and names and not work.report.blockers:
        _past(work, names, pooled)


def _look(work: Restore, console: Console, names: t.Collection[str], pooled: set[int]) -> None:
    where = console.pooler.where
    entries = console.entries(names)
    if not console.is_admin():
        what = f"{console.pooler.user} may look at the pooler at {where} and not pause it."
        work.report.block("pooler", "", what, "Add it to admin_users in pgbouncer.ini and RELOAD, or give another user in poolers.")
        return
    inside = {each.name for each in entries if each.listed}
    if not inside or (console.pooler.databases and len(inside) < len(entries)):
        unlisted = ", ".join(each.name for each in entries if not each.listed)
        work.report.notes.append(
            f"The pooler at {where} shows no entry {unlisted}. Unless '*' serves it, the flip will refuse: correct databases of that pooler."
        )
    pooled.update(int(row["remote_pid"]) for row in console.servers(inside))
    for each in entries:
        if each.paused:
            work.report.notes.append(f"{each.name} at the pooler {where} is paused by somebody else; it will stay so.")
    if "session" in console.pool_modes(inside):
        work.report.notes.append(
            f"The pooler at {where} pools sessions: it can only be paused while none of its clients of {', '.join(sorted(inside))} is connected."
        )


def _past(work: Restore, names: t.Collection[str], pooled: t.Container[int]) -> None:
    """Who is connected past the poolers sees an error after all."""
    query = (
        "SELECT datname, pid, usename FROM pg_catalog.pg_stat_activity WHERE datname = ANY (%s) AND usename IS NOT NULL"
        " AND pid <> pg_catalog.pg_backend_pid() AND application_name NOT LIKE 'payops.rollback/%%'"
    )
    direct: dict[str, list[str]] = {}
    for name, pid, user in rows(work.conn, query, (list(names),)):
        if pid not in pooled:
            direct.setdefault(name, []).append(user)
    for name, users in sorted(direct.items()):
        work.report.notes.append(
            f"{len(users)} session(s) of {', '.join(sorted(set(users)))} in {name} do not come through the poolers; each sees one error at the flip."
        )


# -- around the flip --------------------------------------------------------------------------------------------------


@contextmanager
def paused(work: Restore, names: t.Collection[str]) -> t.Iterator[t.Callable[..., t.Any]]:
    """Poolers stand still inside, and are resumed whatever happens there. Yields how to connect for the flip.

    The check after the flip belongs inside: what it takes back was then never seen, and never written to, by their clients.
    """
    pause = Pause(work, names)
    try:
        with work.run.step("drain") as learnt:
            connect = Ready(work.server.connect, work.server.maintenance, 2 if work.poolers else 0)
            learnt["paused"] = pause.begin()
        yield connect
    except BaseException as exc:
        try:
            pause.end()
        except RollbackError as stuck:
            raise RollbackError(f"{exc} {stuck}", **getattr(exc, "details", {})) from exc
        raise
    try:
        with work.run.step("resume") as learnt:
            pause.end()
            learnt["paused_ms"] = pause.milliseconds
    finally:
        pause.end()
    if pause.milliseconds is not None:
        work.result["paused_ms"] = pause.milliseconds
        work.result["outage_ms"] = max(pause.milliseconds, float(work.result.get("outage_ms") or 0))


class Ready:
    """Connects like ``connect``, and for the flip hands out sessions that were opened before customers began to wait."""

    def __init__(self, connect: t.Callable[..., t.Any], database: str, number: int) -> None:
        self._connect = connect
        self._database = database
        self._sessions = [connect(database) for unused in range(number)]

    def __call__(self, database: str | None = None, **settings: t.Any) -> t.Any:
        if self._sessions and database == self._database and not settings:
            return self._sessions.pop()
        return self._connect(database, **settings)


class Pause:
    """One pause of all declared poolers."""

    def __init__(self, work: Restore, names: t.Collection[str]) -> None:
        self.work = work
        self.names = names
        self.ours: list[tuple[Console, Entry]] = []
        self.milliseconds: float | None = None
        self._begun = 0.0
        self._watch: Watch | None = None

    def begin(self) -> list[str]:
        """PAUSE all at once and wait for all. What does not drain in time is resumed with the rest, and nothing was changed."""
        if not self.work.poolers:
            return []
        waiters: list[tuple[t.Any, Console, Entry]] = []
        try:
            for pooler in self.work.poolers:
                console = Console(pooler)
                for entry in console.entries(self.names):
                    waiters.append((console.waiter(), console, entry))
                    if not entry.paused:
                        self.ours.append((console, entry))
            stamp = now()
            note(
                self.work.paths,
                noted(self.work.paths)
                + [
                    {"pooler": c.pooler.where, "entry": e.name, "database": e.database, "run": self.work.mark, "at": stamp}
                    for c, e in self.ours
                ],
            )
            self._begun = time.monotonic()
            patience = max(pooler.pause_timeout for pooler in self.work.poolers)
            self._watch = Watch(self._resume_for_the_dead, patience + self.work.options.terminate_wait + FLIP_SECONDS)
            cursors = [console.pause(waiter, entry) for waiter, console, entry in waiters]
            self._wait(waiters)
            del cursors
        except psycopg2.Error as exc:
            self.end()
            raise RollbackError(
                f"A pooler refused to pause: {plain(exc)}. All were resumed and nothing was changed. Correct poolers."
            ) from exc
        except BaseException:
            self.end()
            raise
        finally:
            for waiter, unused, unused_too in waiters:
                waiter.close()
        return [f"{entry.name} at {console.pooler.where}" for console, entry in self.ours]

    def _wait(self, waiters: t.Sequence[tuple[t.Any, Console, Entry]]) -> None:
        for limit in sorted({console.pooler.pause_timeout for unused, console, unused_too in waiters}):
            mine = [each for each in waiters if each[1].pooler.pause_timeout == limit]
            late, refused = answered([waiter for waiter, unused, unused_too in mine], self._begun + limit)
            self._forget_unserved(mine, refused)
            stuck = [(console, entry) for waiter, console, entry in mine if waiter in late]
            if stuck:
                raise self._not_drained(stuck)

    def _forget_unserved(self, waiters: t.Sequence[tuple[t.Any, Console, Entry]], refused: t.Mapping[t.Any, t.Any]) -> None:
        """A name that we only supposed may not exist there, if another leads to the database; any other refusal is an error."""
        for waiter, console, entry in waiters:
            if waiter not in refused:
                continue
            others = [each for each, where, unused in waiters if where is console and each not in refused]
            if entry.listed or "no such database" not in str(refused[waiter]) or console.pooler.databases or not others:
                raise refused[waiter]
            self.ours.remove((console, entry))

    def _not_drained(self, stuck: t.Sequence[tuple[Console, Entry]]) -> RollbackError:
        """Ask who holds it, resume first: asking the server may take a moment and customers wait."""
        console, entry = stuck[0]
        servers = console.servers([entry.name])
        sessions = "session" in console.pool_modes([entry.name])
        self.end()
        holders = _holders(self.work.conn, servers)
        advice = (
            "It pools sessions and waits until every client has left: stop them, or have it pool transactions."
            if sessions
            else "End what holds it, or raise pause_timeout."
        )
        return RollbackError(
            f"The pooler at {console.pooler.where} could not pause {entry.name} within {console.pooler.pause_timeout:g} s, because of "
            f"{'; '.join(holders) or 'an unknown client'}. It was resumed and nothing was changed. {advice} Then run the same command again.",
            sessions=holders,
        )

    def end(self) -> None:
        """RESUME what we paused. May be called twice."""
        if not self._begun:
            return
        failed = []
        for console, entry in self.ours:
            try:
                _resume(console, [entry.name])
            except RollbackError as exc:
                failed.append(str(exc))
        if failed:
            raise RollbackError(" ".join(failed))  # the watch goes on trying, and the next run does
        if self.milliseconds is None:
            self.milliseconds = round((time.monotonic() - self._begun) * 1000, 1)
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        mine = [(console.pooler.where, entry.name) for console, entry in self.ours]
        note(self.work.paths, [each for each in noted(self.work.paths) if (each["pooler"], each["entry"]) not in mine])
        for console, unused in self.ours:
            console.close()
        self.ours = []
        self._begun = 0.0

    def _resume_for_the_dead(self) -> None:
        """In the watch's process: sessions of the dead one are not usable there."""
        for console, entry in self.ours:
            fresh = Console(console.pooler)
            try:
                _resume(fresh, [entry.name], WATCH_SECONDS)
            except RollbackError:
                continue  # the next run does it


def _resume(console: Console, entries: t.Sequence[str], patience: float = RESUME_SECONDS) -> None:
    """RESUME, again and again for a while: as long as it fails customers wait."""
    deadline = time.monotonic() + patience
    for entry in entries:
        while True:
            try:
                console.resume(entry)
                break
            except (RollbackError, psycopg2.Error) as exc:
                if time.monotonic() >= deadline:
                    raise RollbackError(
                        f"{entry} at the pooler {console.pooler.where} is paused and could not be resumed: {' '.join(str(exc).split())} "
                        f"Its clients wait. Do it by hand: {console.pooler.by_hand(entry)}"
                    ) from exc
                time.sleep(0.2)


def _holders(connection: t.Any, servers: t.Sequence[dict[str, t.Any]]) -> list[str]:
    """Who keeps a pooler from draining, as people read it."""
    query = (
        "SELECT pid, state, round(extract(epoch FROM clock_timestamp() - coalesce(xact_start, state_change)))::int"
        " FROM pg_catalog.pg_stat_activity WHERE pid = ANY (%s)"
    )
    known = {row[0]: row[1:] for row in rows(connection, query, ([int(row["remote_pid"]) for row in servers],))}
    said = []
    for row in servers:
        client = row["client"] or {}
        state, seconds = known.get(int(row["remote_pid"]), (None, None))
        doing = f", {state} for {seconds} s" if state else ""
        name = f", {client['application_name']}" if client.get("application_name") else ""
        origin = f"the client {client['addr']}:{client['port']}" if client else "no client"
        said.append(f"{row['user']} from {origin}{name} (server session {row['remote_pid']}{doing})")
    return said


def remarks(work: Restore, found: t.Mapping[str, Database], names: t.Sequence[str]) -> list[str]:
    """For the plan."""
    if not work.poolers or not any(name in found for name in names):
        return []
    where = ", ".join(pooler.where for pooler in work.poolers)
    limit = max(pooler.pause_timeout for pooler in work.poolers)
    return [
        f"Clients of the pooler(s) {where} wait at the flip and see no error; one that does not finish its transaction in {limit:g} s stops it."
    ]
