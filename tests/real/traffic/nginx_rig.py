# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx_servers in a process of its own, on a real nginx."""

from __future__ import annotations

import json
import pathlib
import shutil
import typing as t

from tests.lab import modules
from tests.lab.nginx import Nginx
from tests.lab.traffic import Echo


class NginxRig:
    def __init__(self, proxy: Nginx, servers: dict[str, Echo], store: pathlib.Path) -> None:
        self.proxy = proxy
        self.echoes = servers
        self.store = store
        self.first = self.files()

    def files(self) -> dict[str, str]:
        return {path.name: path.read_text(encoding="utf-8") for path in sorted(self.proxy.files.iterdir())}

    def start(self, state: str, *servers: str, check: bool = False, fault: str = "", **options: t.Any) -> modules.Started:
        given = {
            "store": str(self.store),
            "system": "shop",
            "state": state,
            "servers": [{"backend": "payments", "server": name} for name in servers],
            "drain_seconds": 5,
            "wait_seconds": 10,
            "_ansible_diff": True,
            **self.proxy.options(),
            **options,
            **({"_ansible_check_mode": True} if check else {}),
        }
        return modules.start("nginx_servers", given, fault or None)

    def run(self, state: str, *servers: str, **options: t.Any) -> dict[str, t.Any]:
        return modules.result_of(self.start(state, *servers, **options))

    def ok(self, state: str, *servers: str, **options: t.Any) -> dict[str, t.Any]:
        result = self.run(state, *servers, **options)
        assert not result.get("failed") and not result.get("killed"), result
        return result

    def refused(self, state: str, *servers: str, **options: t.Any) -> str:
        result = self.run(state, *servers, **options)
        assert result.get("failed"), result
        assert "Traceback" not in result["msg"], result
        return str(result["msg"])

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

    def share(self) -> str:
        return self.proxy.get("/.payops-rollback").text.replace("payops-share ", "")

    def remembered(self) -> dict[str, t.Any]:
        path = self.store / "shop" / ".run" / "nginx.state.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

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
