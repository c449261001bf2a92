# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that the demo starts, in one folder; another process can find and end all of it again."""

from __future__ import annotations

import os
import pathlib
import tempfile
import typing as t

from tests.lab.pm2home import Pm2Home
from tests.lab.system import DATABASE, System, ansible_playbook

__all__ = ["DATABASE", "Stage", "ansible_playbook", "default_folder"]


def default_folder() -> pathlib.Path:
    """One folder per user, outside the checkout: the database server's user must be able to enter it."""
    return pathlib.Path(tempfile.gettempdir()) / f"payops-demo-{os.geteuid()}"


class Stage(System):
    """A system with one application host."""

    @property
    def port(self) -> int:
        return self.hosts[0].port

    @property
    def pm2(self) -> Pm2Home:
        return self.hosts[0].pm2

    def health(self, path: str = "/health") -> tuple[int, dict[str, t.Any]]:
        return self.hosts[0].health(path)
