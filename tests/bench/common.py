# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What both halves of the benchmark share: options, the clock on the screen, and how a method that cannot run is noted."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys
import time
import typing as t

from tests.bench.call import Failed
from tests.bench.stats import Records

STARTED = time.monotonic()


@dataclasses.dataclass(frozen=True)
class Options:
    scale: int = 20
    small: int = 1
    runs: int = 5
    jobs: int = 2
    rate: float = 50.0
    only: str = ""


class Missing(Exception):
    """A rival that is not to be had here; the benchmark goes on without it."""


def say(text: str) -> None:
    """A sign of life, on stderr: the result alone goes to stdout."""
    print(f"[{time.monotonic() - STARTED:6.1f} s, load {os.getloadavg()[0]:.1f}] {text}", file=sys.stderr, flush=True)


def attempt(records: Records, method: str, work: t.Callable[[], None]) -> bool:
    """Run one method once. Its failure is noted and ends that method, not the benchmark."""
    if records.reason(method) is not None:
        return False
    begin = time.monotonic()
    try:
        work()
    except Missing as exc:
        records.miss(method, str(exc), failure=False)
    except (Failed, OSError, RuntimeError) as exc:
        records.miss(method, f"{exc}", failure=True)
    reason = records.reason(method)
    say(f"    {method}: {time.monotonic() - begin:.1f} s" + (f", MISSING: {reason[:300]}" if reason else ""))
    return reason is None


def cache(name: str) -> pathlib.Path:
    """A folder for what is slow to get, and for the results."""
    from tests.lab.node import cache_dir

    folder = cache_dir() / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
