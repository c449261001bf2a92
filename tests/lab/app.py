# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build and lay out releases of the sample payment API (tests/apps/payments-api)."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import typing as t

from tests.lab.node import ROOT, find_node, npm_ci

SOURCE = ROOT / "tests" / "apps" / "payments-api"
APP_NAME = "kejayangu-api"
RELEASES = {1: "1.0.0", 2: "2.0.0"}
LEDGERS: tuple[dict[str, t.Any], ...] = tuple(
    {"table": name} for name in ("customers", "payments", "idempotency_keys", "mpesa_callbacks", "webhook_log", "audit_log")
)


def build_release(dest: pathlib.Path, number: int, version: str | None = None) -> pathlib.Path:
    """Write the whole tree of release 1 or 2, node_modules included, to ``dest`` (created; must be empty).

    ``version`` makes further releases of the same code, so that a test can have a 1.0.1.
    """
    if dest.exists() and any(dest.iterdir()):
        raise FileExistsError(f"{dest} is not empty")
    shutil.copytree(SOURCE / "release-1", dest, dirs_exist_ok=True)
    if number != 1:
        shutil.copytree(SOURCE / f"release-{number}", dest, dirs_exist_ok=True)
    wanted = version or RELEASES[number]
    manifest = json.loads((dest / "package.json").read_text(encoding="utf-8"))
    lock = json.loads((dest / "package-lock.json").read_text(encoding="utf-8"))
    manifest["version"] = lock["version"] = lock["packages"][""]["version"] = wanted
    for name, content in (("package.json", manifest), ("package-lock.json", lock)):
        (dest / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    modules = npm_ci(SOURCE / "release-1", "payments-api") / "node_modules"
    shutil.copytree(modules, dest / "node_modules", symlinks=True)
    return dest


def write_env(folder: pathlib.Path, values: t.Mapping[str, str | int]) -> pathlib.Path:
    """The application's .env (mode 0600: it holds the database password)."""
    path = folder / ".env"
    path.touch(mode=0o600)
    path.write_text("".join(f"{key}={value}\n" for key, value in values.items()), encoding="utf-8")
    return path


def migrate(folder: pathlib.Path) -> str:
    """Run the release's own migrations against the database of its .env; what it printed."""
    node = find_node()
    done = subprocess.run([str(node.bin), "migrate.js"], cwd=folder, env=node.env(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"migrations of {folder} failed ({done.returncode}):\n{done.stdout}{done.stderr}")
    return done.stdout
