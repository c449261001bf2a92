# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._postgresql._watch import Watch

ROOT = pathlib.Path(__file__).resolve().parents[4]
# A process with an open file and a watch; what the watch does is to tell which files it has open.
WATCHED = """
import os, sys, time
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._watch import Watch
kept = open(sys.argv[1] + ".kept", "w")
def act():
    found = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
    with open(sys.argv[1] + ".new", "w") as handle:
        handle.write("\\n".join(found))
    os.rename(sys.argv[1] + ".new", sys.argv[1])
watch = Watch(act, 60)
print("ready", flush=True)
time.sleep(60)
"""


def appears(path: pathlib.Path, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_it_acts_when_the_process_dies_and_holds_nothing_of_it(tmp_path: pathlib.Path, signum: int) -> None:
    told = tmp_path / "told"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "playbooks" / "collections")}
    with subprocess.Popen([sys.executable, "-c", WATCHED, str(told)], stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        assert not told.exists()
        process.send_signal(signum)
        assert process.stdout.read() == "", "who waits for the output of the dead would wait for the watch"
    assert appears(told)
    files = told.read_text(encoding="utf-8")
    assert ".kept" not in files and "/dev/null" in files


def test_it_does_not_act_when_all_is_well(tmp_path: pathlib.Path) -> None:
    told = tmp_path / "told"
    watch = Watch(told.touch, 60)
    watch.stop()
    watch.stop()
    assert not appears(told, 0.2)


def test_it_acts_when_nothing_is_heard_for_too_long(tmp_path: pathlib.Path) -> None:
    told = tmp_path / "told"
    watch = Watch(told.touch, 0.1)
    assert appears(told)
    time.sleep(0.2)  # it has ended
    watch.stop()
