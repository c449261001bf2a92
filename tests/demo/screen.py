# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the demo prints: headings, commands as a person would type them, and a sign of life while long things run."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import threading
import time
import typing as t

STARTED = time.monotonic()
COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def _paint(text: str, code: str) -> str:
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


def say(text: str = "") -> None:
    print(text, flush=True)


def heading(text: str) -> None:
    say()
    say(_paint(f"[{time.monotonic() - STARTED:5.1f} s] {text}", "1"))


def note(text: str) -> None:
    say(f"    {text}")


def typed(argv: t.Sequence[str] | str) -> None:
    """A command, as a person would type it."""
    say(_paint(f"  $ {argv if isinstance(argv, str) else shlex.join(argv)}", "36"))


def verdict(ok: bool, text: str) -> None:
    say(f"    {_paint('ok  ', '32') if ok else _paint('FAIL', '31;1')} {text}")


@contextlib.contextmanager
def busy(text: str, every: float = 5.0) -> t.Iterator[None]:
    """Say what is done, again every few seconds, and how long it took."""
    done = threading.Event()
    begin = time.monotonic()

    def tick() -> None:
        while not done.wait(every):
            note(f"... {text}: {time.monotonic() - begin:.0f} s")

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()
    note(f"{text}: {time.monotonic() - begin:.1f} s")


def stream(argv: t.Sequence[str], cwd: str | os.PathLike[str], env: t.Mapping[str, str], log: str | os.PathLike[str]) -> int:
    """Run a command, show its output as it comes and keep it in ``log``; its exit code."""
    with open(log, "a", encoding="utf-8") as kept:
        kept.write(f"$ {shlex.join(argv)}\n")
        process = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            for line in process.stdout or ():
                kept.write(line)
                if line.strip():
                    say(f"    | {line.rstrip()}")
            return process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(30)
