# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables for a terminal of 100 columns. Pure."""

from __future__ import annotations

import textwrap
import typing as t

from tests.bench.stats import Sample, ratio

WIDTH = 100
NAME = 49
COLUMNS = ("median", "min", "max")


def number(value: float | None) -> str:
    """Three significant digits are what such a measurement holds."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    if value >= 1:
        return f"{value:.2f}"
    return f"{value:.3f}"


def times(value: float | None) -> str:
    return "" if value is None else f"{number(value)} x"


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def heading(text: str) -> list[str]:
    return ["", *textwrap.wrap(text, WIDTH), "-" * WIDTH]


def columns(first: str, last: str) -> str:
    return f"{first:<{NAME}}" + "".join(f"{name:>11}" for name in COLUMNS) + f"{last:>17}"


def line(name: str, sample: Sample | None, against: float | None = None, missing: str | None = None) -> list[str]:
    """One row: median, min, max, and the median in units of ``against``; or why there is none."""
    if sample is None:
        reason = f"missing: {missing or 'not measured in this run'}"
        shown = textwrap.wrap(reason, WIDTH - NAME)
        return [f"{_fit(name, NAME - 1):<{NAME}}{shown[0]}", *(" " * NAME + rest for rest in shown[1:])]
    figures = "".join(f"{number(value):>11}" for value in (sample.median, sample.low, sample.high))
    return [f"{_fit(name, NAME - 1):<{NAME}}{figures}{times(ratio(sample.median, against)):>17}".rstrip()]


def grid(header: t.Sequence[str], widths: t.Sequence[int], rows: t.Iterable[t.Sequence[str]]) -> list[str]:
    """A table of texts: the first column to the left, the others to the right."""

    def draw(cells: t.Sequence[str]) -> str:
        parts = [_fit(cells[0], widths[0] - 1).ljust(widths[0])]
        parts += [_fit(cell, width - 1).rjust(width) for cell, width in zip(cells[1:], widths[1:])]
        return "".join(parts).rstrip()

    return [draw(header), *(draw(row) for row in rows)]


def paragraph(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
