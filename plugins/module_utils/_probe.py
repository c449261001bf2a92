# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Is it healthy? Probes in parallel, each of which must succeed k times in a row before one deadline.

``run_probes(probes)`` checks all input first (nothing is sent when anything is wrong), and judges; it never raises because a
server is ill.
"""

from __future__ import annotations

import math
import threading
import time
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._probe_attempts import Failed, Probe, attempt
from ansible_collections.payops.rollback.plugins.module_utils._probe_input import check_probes, is_number

GRACE = 1.0


class _Watch(threading.Thread):
    """One probe, asked until it has succeeded ``successes`` times in a row, for ``stable`` seconds, or the deadline has passed."""

    def __init__(self, probe: Probe, successes: int, until: float, interval: float, stable: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.probe = probe
        self.successes = successes
        self.until = until
        self.interval = interval
        self.stable = stable
        self.since = 0.0  # when the first of the successes in a row was asked for
        self.lasted = 0.0  # how many seconds later the newest was
        self.guard = threading.Lock()
        self.attempts = 0
        self.consecutive = 0
        self.times: list[float] = []
        self.first_error: str | None = None
        self.last_error: str | None = None
        self.observed: dict[str, t.Any] = {}

    def run(self) -> None:
        while True:
            begun = time.monotonic()
            left = max(0.001, self.until - begun)
            try:
                seen, error = attempt(self.probe, min(self.probe["timeout"], left)), None
            except Failed as exc:
                seen, error = exc.observed, str(exc)
            except Exception as exc:  # a thread that dies silently would look like a server that hangs
                seen, error = {}, f"{type(exc).__name__}: {exc}"
            self._note(seen, error, begun)
            # From the beginning of one attempt to that of the next: slow answers do not stretch what is watched.
            following = max(time.monotonic(), begun + self.interval)
            lasting = self.stable - (following - self.since) if self.consecutive else self.stable
            if self.enough or following + max((self.successes - self.consecutive - 1) * self.interval, lasting) >= self.until:
                return  # enough, or too late for what is missing
            time.sleep(max(0.0, following - time.monotonic()))

    @property
    def enough(self) -> bool:
        return self.consecutive >= self.successes and self.lasted >= self.stable

    def _note(self, seen: dict[str, t.Any], error: str | None, begun: float) -> None:
        with self.guard:
            if error is None and time.monotonic() > self.until:
                error = "the answer came after the deadline"
            self.attempts += 1
            self.observed = seen or self.observed
            if error is None:
                self.since = self.since if self.consecutive else begun
                self.lasted = begun - self.since
                self.consecutive += 1
                self.times.append(float(seen["ms"]))
            else:
                self.consecutive = 0
                self.first_error = self.first_error or error
                self.last_error = error

    def result(self) -> dict[str, t.Any]:
        with self.guard:
            hanging = self.is_alive() and not self.enough
            silent = "no answer at all by the deadline" if hanging and self.last_error is None else None
            return {
                "name": self.probe["name"],
                "type": self.probe["type"],
                "ok": self.enough,
                "attempts": self.attempts + (1 if hanging else 0),
                "consecutive": self.consecutive,
                "p50_ms": percentile(self.times, 50),
                "p95_ms": percentile(self.times, 95),
                "first_error": self.first_error or silent,
                "last_error": self.last_error or silent,
                "observed": dict(self.observed),
            }


def percentile(values: t.Sequence[float], percent: int) -> float | None:
    """By nearest rank: a time that was measured, never one between two."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def run_probes(
    probes: t.Sequence[Probe], successes: int = 3, deadline: float = 30, interval: float = 0.5, stable: float = 0.0
) -> dict[str, t.Any]:
    """Ask all probes at once. ``{ok, probes: [...], successes, stable_seconds, seconds}``; see ``failure_message`` for the sentence."""
    checked = check_probes(probes)
    if successes < 1 or not is_number(deadline) or deadline <= 0 or any(not is_number(each) or each < 0 for each in (interval, stable)):
        raise RollbackError(
            "successes must be at least 1, deadline above 0, interval and stable_seconds not below 0; "
            f"found {successes}, {deadline}, {interval} and {stable}. Nothing was sent."
        )
    if max((successes - 1) * interval, stable) >= deadline:
        raise RollbackError(
            f"{successes} successes {interval:g} s apart, for {stable:g} s, cannot fit before the deadline of {deadline:g} s. "
            "Nothing was sent; raise deadline."
        )
    started = time.monotonic()
    watches = [_Watch(probe, successes, started + deadline, interval, stable) for probe in checked]
    for watch in watches:
        watch.start()
    for watch in watches:
        watch.join(max(0.0, started + deadline + GRACE - time.monotonic()))
    results = [watch.result() for watch in watches]
    return {
        "ok": all(result["ok"] for result in results),
        "probes": results,
        "successes": successes,
        "stable_seconds": stable,
        "seconds": round(time.monotonic() - started, 3),
    }


def _row(result: dict[str, t.Any]) -> str:
    times = "1 time" if result["successes"] == 1 else f"{result['successes']} times in a row"
    return f"{times}, for {result['stable_seconds']:g} s" if result.get("stable_seconds") else times


def success_message(result: dict[str, t.Any]) -> str:
    number = len(result["probes"])
    return f"{number} probe{'' if number == 1 else 's'} succeeded {_row(result)}."


def failure_message(result: dict[str, t.Any]) -> str:
    """What a tired person needs to know about a result that is not ok."""
    failed = [probe for probe in result["probes"] if not probe["ok"]]
    lines = []
    for probe in failed:
        tries = "1 attempt" if probe["attempts"] == 1 else f"{probe['attempts']} attempts"
        line = f"{probe['name']} after {tries}: {probe['last_error'] or 'too few answers before the deadline'}"
        if probe["first_error"] not in (None, probe["last_error"]):
            line += f" (first: {probe['first_error']})"
        lines.append(line)
    return (
        f"{len(failed)} of {len(result['probes'])} probes did not succeed {_row(result)} "
        f"within {result['seconds']:.1f} s. " + ". ".join(lines) + "."
    )
