# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The aims, and whether this run met them. A missed aim is said aloud; it is no error of the benchmark. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from tests.bench.stats import Records, ratio, total
from tests.bench.table import number

SHORTER = 200.0
AT_SCALE = 100
FLAT = 1.5
STAGING = 1.3
STOPPED = 5.0  # seconds
TEN_HOSTS = 2.0  # seconds of the controller


@dataclasses.dataclass(frozen=True)
class Verdict:
    """``met`` is None where this run cannot tell."""

    what: str
    measured: str
    aim: str
    met: bool | None
    why: str = ""

    def word(self) -> str:
        return {True: "met", False: "NOT MET", None: "not judged"}[self.met]

    def to_json(self) -> dict[str, t.Any]:
        return dataclasses.asdict(self)


def database(records: Records, scale: int, small: int) -> list[Verdict]:
    """What was promised about databases."""
    ours = records.median("ours", "outage")
    shorter = ratio(records.median("team", "outage"), ours)
    found = [
        Verdict(
            "database outage, team's procedure / ours",
            f"{number(shorter)} x" if shorter is not None else "not measured",
            f">= {SHORTER:.0f} x, scale {AT_SCALE}",
            None if shorter is None or scale != AT_SCALE else shorter >= SHORTER,
            "" if scale == AT_SCALE else f"this was scale {scale}; it grows with size: make bench SCALE={AT_SCALE}",
        )
    ]
    growth = ratio(ours, records.median("small", "outage"))
    found.append(
        Verdict(
            f"our outage at scale {scale} / at scale {small}",
            f"{number(growth)} x" if growth is not None else "not measured",
            f"<= {FLAT} x (flat)",
            None if growth is None or scale <= small else growth <= FLAT,
        )
    )
    rival = total(records.median("parallel", "restore"), records.median("parallel", "check"))
    staging = ratio(records.median("ours", "staging"), rival)
    found.append(
        Verdict(
            "staging / (pg_restore -j + content check)",
            f"{number(staging)} x" if staging is not None else "not measured",
            f"<= {STAGING} x",
            None if staging is None else staging <= STAGING,
        )
    )
    return found


def _none_failed(records: Records, method: str, what: str) -> Verdict:
    failed, asked = records.get(method, "failed"), records.get(method, "requests")
    measured = f"max {failed.high:.0f}; {sum(asked.values):.0f} sent" if failed and asked else "not measured"
    return Verdict(what, measured, "0 in every run", None if failed is None else failed.high == 0)


def application(records: Records) -> list[Verdict]:
    """What was promised about applications: none of the requests of any run may fail."""
    found = []
    for method, what in (("ours", "failed requests of ours, good target"), ("ours-bad", "failed requests of ours, bad target")):
        found.append(_none_failed(records, method, what))
    intact = records.get("ours-bad", "untouched")
    found.append(
        Verdict(
            "old workers untouched by a bad target",
            f"{sum(intact.values):.0f} of {len(intact.values)} runs" if intact else "not measured",
            "every run",
            None if intact is None else intact.low == 1,
        )
    )
    return found


def containers(records: Records) -> list[Verdict]:
    """What was promised about containers behind a proxy, and about tags of a registry."""
    found = [_none_failed(records, "blue-green", "failed requests of ours, behind a proxy")]
    sizes = records.sizes("retag-")
    growth = ratio(records.median(f"retag-{sizes[-1]}", "seconds"), records.median(f"retag-{sizes[0]}", "seconds")) if sizes else None
    found.append(
        Verdict(
            f"image_retag, {sizes[-1]} MB / {sizes[0]} MB" if sizes else "image_retag, by size",
            f"{number(growth)} x" if growth is not None else "not measured",
            f"<= {FLAT} x (flat)",
            None if growth is None else growth <= FLAT,
        )
    )
    return found


def fleet(records: Records) -> list[Verdict]:
    """What was promised about several hosts."""
    last = records.get("emergency", "last payment")
    found = [
        _none_failed(records, "gradual", "failed payments of a gradual rollback"),
        Verdict(
            "emergency on five hosts, the last payment after",
            f"max {number(last.high)} s" if last else "not measured",
            f"<= {STOPPED:.0f} s",
            None if last is None else last.high <= STOPPED,
        ),
    ]
    sizes = records.sizes("hosts-")
    costs = [records.median(f"hosts-{size}", "controller") for size in sizes]
    known = [(size, cost) for size, cost in zip(sizes, costs) if cost is not None]
    added = None
    if len(known) > 1:
        (few, less), (many, more) = known[0], known[-1]
        added = (more - less) / (many - few) * 10
    found.append(
        Verdict(
            "controller's CPU for ten hosts more",
            f"{number(added)} s" if added is not None else "not measured",
            f"<= {TEN_HOSTS:.0f} s",
            None if added is None else added <= TEN_HOSTS,
        )
    )
    return found
