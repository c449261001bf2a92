# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the clients write down, and the figures that follow from it. Pure: no network, no clock."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import typing as t


@dataclasses.dataclass(frozen=True)
class Ack:
    """A payment that the API acknowledged: from now on it must never be lost."""

    time: float
    id: str
    amount: str
    key: str
    provider: str
    attempts: int
    replayed: bool
    seconds: float


@dataclasses.dataclass(frozen=True)
class Failure:
    """A request that was not answered with success."""

    time: float
    key: str
    attempt: int
    kind: str
    error: str
    new_connection: bool


@dataclasses.dataclass(frozen=True)
class Gap:
    """A time without a single successful payment."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


Record = t.TypeVar("Record", Ack, Failure)


def read(path: pathlib.Path, kind: type[Record]) -> list[Record]:
    """Records of a JSON lines file; a last line that a killed client left half written is not counted."""
    found: list[Record] = []
    if not path.exists():
        return found
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if not line:
            continue
        try:
            found.append(kind(**json.loads(line)))
        except ValueError:
            if number == len(lines) - 1:
                break
            raise
    return found


def percentile(values: t.Sequence[float], share: float) -> float:
    """The nearest-rank percentile; 0 for no values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    rank = math.ceil(share * len(ordered) - 1e-9)
    return ordered[min(max(rank, 1), len(ordered)) - 1]


def gaps(times: t.Iterable[float], start: float, end: float) -> list[Gap]:
    """The times between one success and the next that touch [start, end], longest first.

    Before the first success the clock runs from ``start``, after the last one until ``end``: silence counts as outage.
    """
    marks = sorted(times)
    inside = [mark for mark in marks if start <= mark <= end]
    before = [mark for mark in marks if mark < start]
    after = [mark for mark in marks if mark > end]
    edges = [before[-1] if before else start, *inside, after[0] if after else end]
    found = [Gap(one, two) for one, two in zip(edges, edges[1:]) if two > one]
    return sorted(found, key=lambda gap: gap.seconds, reverse=True)


def summary(acks: t.Sequence[Ack], failures: t.Sequence[Failure], start: float, end: float) -> dict[str, t.Any]:
    """The clients' view of the time between ``start`` and ``end``."""
    good = [ack for ack in acks if start <= ack.time <= end]
    bad = [failure for failure in failures if start <= failure.time <= end]
    longest = gaps([ack.time for ack in acks], start, end)
    errors: dict[str, int] = {}
    for failure in bad:
        errors[failure.error] = errors.get(failure.error, 0) + 1
    return {
        "seconds": round(end - start, 3),
        "requests": len(good) + len([failure for failure in bad if failure.kind == "payment"]),
        "acknowledged": len(good),
        "failed": len([failure for failure in bad if failure.kind == "payment"]),
        "failed_callbacks": len([failure for failure in bad if failure.kind == "callback"]),
        "retried_with_success": len([ack for ack in good if ack.attempts > 1]),
        "outage_seconds": round(longest[0].seconds, 3) if longest else 0.0,
        "outage_start": longest[0].start if longest else None,
        "p50_ms": round(percentile([ack.seconds for ack in good], 0.50) * 1000, 1),
        "p95_ms": round(percentile([ack.seconds for ack in good], 0.95) * 1000, 1),
        "errors": dict(sorted(errors.items(), key=lambda item: -item[1])),
    }
