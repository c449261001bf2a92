# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx_servers in a process of its own, on a real nginx."""

from __future__ import annotations

import pathlib
import shutil
import typing as t

from tests.lab.nginx import Nginx
from tests.lab.traffic import Echo
from tests.real.traffic.rig import AnyRig


class NginxRig(AnyRig[Nginx]):
    kind = "nginx"

    def __init__(self, proxy: Nginx, servers: dict[str, Echo], store: pathlib.Path) -> None:
        super().__init__(proxy, servers, store)
        self.first = self.files()

    def files(self) -> dict[str, str]:
        return {path.name: path.read_text(encoding="utf-8") for path in sorted(self.proxy.files.iterdir())}

    def options(self) -> dict[str, t.Any]:
        return self.proxy.options()

    def quartet(self, state: str, *servers: str, **options: t.Any) -> dict[str, t.Any]:
        """Check changes nothing and says what the real call then does; again does nothing."""
        before, workers = self.files(), self.proxy.workers()
        check = self.ok(state, *servers, check=True, **options)
        assert check["changed"] and (self.files(), self.proxy.workers()) == (before, workers)
        real = self.ok(state, *servers, **options)
        assert real["changed"] and real["actions"] == check["actions"] and real["diff"]["before"] != real["diff"]["after"]
        workers = self.proxy.workers()
        assert not self.ok(state, *servers, **options)["changed"] and self.proxy.workers() == workers
        return real

    # -- what is true, seen from outside -----------------------------------------------------------------------------------

    def as_before(self) -> None:
        """Every byte of the team's file, and what customers get."""
        assert self.proxy.upstream.read_text(encoding="utf-8") == self.first["upstream-payments.conf"]
        assert self.proxy.answering() == set(self.echoes)
        assert self.share() == "100" and self.remembered() == {}

    def clear(self) -> None:
        """By hand, whatever the test left."""
        for name, text in self.first.items():
            (self.proxy.files / name).write_text(text, encoding="utf-8")
        for path in self.proxy.files.iterdir():
            if path.name not in self.first:
                path.unlink()
        shutil.rmtree(self.store, ignore_errors=True)
        self.proxy.write()
        self.proxy.reload()
