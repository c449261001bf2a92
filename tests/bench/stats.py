# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was measured: values by method and measure, or the reason why there are none. Pure: no clock, no network."""

from __future__ import annotations

import dataclasses
import statistics
import typing as t

from tests.client.report import gaps


@dataclasses.dataclass(frozen=True)
class Sample:
    """All values of one measure, in the order in which they were taken."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)

    def to_json(self) -> dict[str, t.Any]:
        rounded = [round(value, 6) for value in self.values]
        return {"median": round(self.median, 6), "min": min(rounded), "max": max(rounded), "values": rounded}


class Records:
    """Values by (method, measure). A method that cannot run has a reason instead; it never has both a reason and a number
    of an earlier run, because a failure in the middle makes its medians those of other conditions."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], list[float]] = {}
        self._missing: dict[str, str] = {}
        self.failures: list[str] = []
        self.notes: list[str] = []

    def add(self, method: str, measure: str, value: float) -> None:
        self._values.setdefault((method, measure), []).append(float(value))

    def miss(self, method: str, reason: str, failure: bool) -> None:
        """The method has no numbers. ``failure``: it should have run, so the benchmark as a whole has failed."""
        if method in self._missing:
            return
        self._missing[method] = " ".join(reason.split()) or "no reason known"
        if failure:
            self.failures.append(f"{method}: {self._missing[method]}")

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def reason(self, method: str) -> str | None:
        return self._missing.get(method)

    def get(self, method: str, measure: str) -> Sample | None:
        found = self._values.get((method, measure))
        return Sample(tuple(found)) if found and method not in self._missing else None

    def median(self, method: str, measure: str) -> float | None:
        found = self.get(method, measure)
        return found.median if found else None

    def measures(self, method: str) -> list[str]:
        """In the order in which they were first taken."""
        return [] if method in self._missing else [measure for name, measure in self._values if name == method]

    def methods(self) -> list[str]:
        """All that were tried."""
        return list(dict.fromkeys([*self._missing, *(name for name, unused in self._values)]))

    def sizes(self, prefix: str) -> list[int]:
        """Of the methods that are named by a prefix and a size, smallest first."""
        return sorted(int(method.removeprefix(prefix)) for method in self.methods() if method.startswith(prefix))

    def to_json(self) -> dict[str, t.Any]:
        methods: dict[str, t.Any] = {name: {"missing": reason} for name, reason in self._missing.items()}
        for name, measure in self._values:
            if name not in self._missing:
                methods.setdefault(name, {})[measure] = Sample(tuple(self._values[name, measure])).to_json()
        return {"methods": methods, "failures": self.failures, "notes": self.notes}


def outage(successes: t.Iterable[float], begin: float, end: float) -> float:
    """The longest time without a success that touches [begin, end].

    Both ends of that silence may lie outside: a client that last succeeded just before was waiting all the time.
    """
    longest = gaps(successes, begin, end)
    return longest[0].seconds if longest else 0.0


def ratio(one: float | None, other: float | None) -> float | None:
    """``one`` in units of ``other``; None when either was not measured or there is nothing to divide by."""
    if one is None or other is None or other <= 0:
        return None
    return one / other


def total(*parts: float | None) -> float | None:
    """The sum, or None when a part is missing: a sum of what happens to be there would be a lie."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def rotated(items: t.Sequence[t.Any], number: int) -> list[t.Any]:
    """The order of one run: each method comes first once, so that none always meets the same neighbour."""
    if not items:
        return []
    start = number % len(items)
    return [*items[start:], *items[:start]]
