# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run modules and programs, each in a process of its own, and say how long it took.

A module is run as ansible runs it on a host: a new Python, its options as JSON. Every time includes the start of that Python.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time
import typing as t

from tests.lab import modules

LONGEST = 3600.0


class Failed(RuntimeError):
    """What should have run did not; the message says why."""


@dataclasses.dataclass(frozen=True)
class Ran:
    """One module call."""

    begin: float
    end: float
    result: dict[str, t.Any]

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    @property
    def ok(self) -> bool:
        return not self.result.get("failed")

    def steps(self) -> dict[str, float]:
        """Seconds per step; a step that came more than once is summed."""
        found: dict[str, float] = {}
        for step in self.result.get("steps", []):
            seconds = float(step.get("ms", 0.0)) / 1000
            found[str(step.get("step"))] = found.get(str(step.get("step")), 0.0) + seconds
        return found


def module(name: str, options: t.Mapping[str, t.Any], fails: bool = False) -> Ran:
    """Run a module of this collection. :class:`Failed` when it fails, unless ``fails`` says that it may."""
    env = {key: value for key, value in os.environ.items() if key != "PAYOPS_ROLLBACK_FAULT"}
    env["PYTHONPATH"] = modules.COLLECTIONS
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", modules.RUNNER],
        input=json.dumps({"module": name, **options}),
        capture_output=True,
        text=True,
        errors="replace",
        env=env,
        cwd="/",
        timeout=LONGEST,
        check=False,
    )
    end = time.monotonic()
    try:
        result = dict(json.loads(done.stdout))
    except ValueError:
        raise Failed(f"{name} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-600:]}") from None
    ran = Ran(begin, end, result)
    if not ran.ok and not fails:
        raise Failed(f"{name}: {str(result.get('msg'))[:600]}")
    return ran


def start_up() -> float:
    """Seconds that a module needs before it does anything: the interpreter, the imports, the options (which are refused)."""
    ran = module("pg_restore", {}, fails=True)
    if ran.ok:
        raise Failed("pg_restore without options did not refuse")
    return ran.seconds


def program(
    argv: t.Sequence[str],
    *,
    env: t.Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    out: pathlib.Path | None = None,
    fails: bool = False,
) -> float:
    """Run a program, stdout to a file as a shell's ``>`` would; how long it took."""
    begin = time.monotonic()
    with open(out or os.devnull, "wb") as target:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=target,
            stderr=subprocess.PIPE,
            env=None if env is None else dict(env),
            cwd=cwd or "/",
            timeout=LONGEST,
            check=False,
        )
    seconds = time.monotonic() - begin
    if done.returncode != 0 and not fails:
        said = done.stderr.decode("utf-8", "replace").strip()[-400:]
        raise Failed(f"{shlex.join(argv)[:120]} ended with {done.returncode}: {said}")
    return seconds
