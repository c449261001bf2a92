# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arms the modules of the collection with faults. Python imports this file itself when its folder is on PYTHONPATH.

The collection holds only a function that does nothing where something may break, ``_run.fault``. This file puts one in its
place that reads PAYOPS_ROLLBACK_FAULT, in every Python that inherits the two variables: ansible-playbook, its workers, and
the modules it starts on this machine. Written for Python 3.9, as hosts have it.

``PAYOPS_ROLLBACK_FAULT=<component>/<step>/<phase>=kill|fail|wait:<file>``: ``kill`` is SIGKILL of the module, ``fail`` an
error, ``wait:<file>`` creates the file and stands still until it is removed (at most 120 s), so that a test can kill the
controller or the server meanwhile. ``kill:<file>`` and ``fail:<file>`` happen once: only while the file exists, and they
remove it.

Phases: ``before`` (nothing is journalled, nothing is done), ``during`` (all of it is done, its end is not journalled yet),
``after`` (its end is journalled). A step is not broken in its middle here: tests that need that stop the server or hold
locks.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import types
import typing as t
from importlib import abc, machinery, util

VARIABLE = "PAYOPS_ROLLBACK_FAULT"
MODULE = "ansible_collections.payops.rollback.plugins.module_utils._run"


def fault(component: str, step: str, phase: str) -> None:
    """Do what the variable says if this is the place that it names."""
    wanted, unused, what = os.environ.get(VARIABLE, "").partition("=")
    if wanted != f"{component}/{step}/{phase}":
        return
    if what.startswith(("kill:", "fail:")):
        what, unused, path = what.partition(":")
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "fail":
        raise sys.modules[MODULE].RollbackError(f"Broken on purpose at {wanted} ({VARIABLE}).")
    if what.startswith("wait:"):
        path = what[len("wait:") :]
        with open(path, "w", encoding="utf-8") as handle:
            handle.write(f"{os.getpid()}\n")
        deadline = time.monotonic() + 120
        while os.path.exists(path) and time.monotonic() < deadline:
            time.sleep(0.02)


class Armed(abc.Loader):
    """Loads the module as its own loader does, then exchanges the function."""

    def __init__(self, loader: t.Any) -> None:
        self.loader = loader

    def create_module(self, spec: machinery.ModuleSpec) -> types.ModuleType | None:
        return t.cast("types.ModuleType | None", self.loader.create_module(spec))

    def exec_module(self, module: types.ModuleType) -> None:
        self.loader.exec_module(module)
        if not callable(module.fault):
            raise RuntimeError(f"{MODULE} has no function fault() any more")
        module.fault = fault


class Finder(abc.MetaPathFinder):
    """Waits for the one module; in a module that Ansible has sent it comes out of a zip file."""

    def find_spec(self, fullname: str, path: t.Any = None, target: t.Any = None) -> machinery.ModuleSpec | None:
        if fullname != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = Armed(spec.loader)
        return spec


if os.environ.get(VARIABLE):
    sys.meta_path.insert(0, Finder())
