# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules of the collection as processes of their own, as Ansible starts them on a host, that tests can watch and kill.

Python and Ansible need half a second of a processor to start, and the tests call modules some thousands of times. So each is forked
(``multiprocessing``'s fork server) from one process that has imported them all and done nothing else. ``cold=True`` starts an
interpreter for one call, for tests that put code of their own before the module.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import multiprocessing
import os
import pathlib
import pkgutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import typing as t

from tests.lab.faults import VARIABLE, with_fault

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = "ansible_collections.payops.rollback.plugins.modules"
COLLECTIONS = str(ROOT / "playbooks" / "collections")
# Options as JSON on stdin, the result as JSON on stdout.
RUNNER = f"""
import json, sys
from importlib import import_module
from ansible.module_utils.testing import patch_module_args
given = json.load(sys.stdin)
module = import_module("{PACKAGE}." + given.pop("module"))
with patch_module_args(given):
    module.main()
"""


class Started(t.Protocol):
    """What tests need of a module that runs: the part of ``subprocess.Popen`` that they use."""

    returncode: t.Any

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def communicate(self, input: t.Any = None, timeout: float | None = None) -> tuple[str, str]: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...


def start(name: str, options: t.Mapping[str, t.Any], fault: str | None = None, env: t.Mapping[str, str] | None = None) -> Started:
    """A module that runs with these options, and breaks where ``fault`` says. ``env`` is by default this process's own."""
    return Forked(name, options, with_fault(fault, env))


def start_cold(name: str, options: t.Mapping[str, t.Any], before: str = "", arguments: t.Sequence[str] = ()) -> Started:
    """The same in an interpreter of its own, after the code ``before``, which finds ``arguments`` in ``sys.argv``."""
    env = {**with_fault(None), "PYTHONPATH": COLLECTIONS}
    argv = [sys.executable, "-c", before + RUNNER, *arguments]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    assert process.stdin is not None
    process.stdin.write(json.dumps({"module": name, **options}))
    process.stdin.close()
    process.stdin = None
    return process


def result_of(process: Started, timeout: float = 180) -> dict[str, t.Any]:
    """The module's result; ``{"killed": True}`` if it was."""
    out, err = process.communicate(timeout=timeout)
    if process.returncode == -signal.SIGKILL:
        return {"killed": True}
    try:
        return t.cast("dict[str, t.Any]", json.loads(out))
    except ValueError:
        raise AssertionError(f"the module ended with {process.returncode}:\n{out}\n{err}") from None


class Forked:
    """A module in a process that was forked for it."""

    def __init__(self, name: str, options: t.Mapping[str, t.Any], env: t.Mapping[str, str]) -> None:
        self.returncode: int | None = None
        self._files = (tempfile.TemporaryFile(), tempfile.TemporaryFile())
        paths = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in self._files]
        self._process = _server().Process(target=_play, args=(name, json.dumps(options), dict(env), paths), daemon=False)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        self._process.join(timeout)
        if self.poll() is None:
            assert deadline is not None
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return t.cast(int, self.returncode)

    def communicate(self, input: t.Any = None, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        said = []
        for file in self._files:
            file.seek(0)
            said.append(file.read().decode("utf-8", "replace"))
        return said[0], said[1]

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self._process.kill()


_lock = threading.Lock()  # tests start modules from threads, too
_servers: list[t.Any] = []


def _server() -> t.Any:
    """The fork server, started once and warm: the children find every module imported."""
    with _lock:
        if not _servers:
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["tests.lab.modules", "tests.lab.warm"])
            kept = os.environ.get("PYTHONPATH")
            # The server gets its search path only this way (before Python 3.13 it forgets sys.path).
            os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), COLLECTIONS, *filter(None, [kept])])
            try:
                from multiprocessing import forkserver

                forkserver.ensure_running()
            finally:
                if kept is None:
                    del os.environ["PYTHONPATH"]
                else:
                    os.environ["PYTHONPATH"] = kept
            _servers.append(context)
    return _servers[0]


def import_all() -> None:
    """What the fork server does before the first module: everything that modules import, and nothing else."""
    importlib.import_module("ansible.module_utils.testing")
    for name in ("psycopg2", "docker", "requests"):
        try:
            importlib.import_module(name)
        except ImportError:  # the modules say so themselves
            continue
    package = importlib.import_module(PACKAGE)
    for found in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{PACKAGE}.{found.name}")
    gc.freeze()  # the children share these pages as long as no collection touches them


def _play(name: str, options: str, env: dict[str, str], paths: t.Sequence[str]) -> None:
    """In the forked process: the environment, the outputs and the fault of this call, then the module."""
    for number, path in enumerate(paths, start=1):
        os.dup2(os.open(path, os.O_WRONLY), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir("/")
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
    if VARIABLE in env:
        from tests.faults import sitecustomize

        sys.modules[sitecustomize.MODULE].fault = sitecustomize.fault  # type: ignore[attr-defined]
    from ansible.module_utils.testing import patch_module_args

    module = importlib.import_module(f"{PACKAGE}.{name}")
    try:
        with patch_module_args(json.loads(options)):
            module.main()
    finally:  # a forked process leaves out what an interpreter does at its end; modules remove their temporary folder there
        atexit._run_exitfuncs()  # no public name does this
