# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``docker compose`` for tests: the machine's own, else the one of a newer Debian in the cache. Nothing is installed."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from tests.lab import debian, docker, images
from tests.lab.node import cache_dir

NEWER = "trixie"  # the first Debian whose package docker-compose is version 2
HOW_TO_GET = (
    "no docker compose of version 2 found, and it could not be had from Debian's package docker-compose; "
    "install it as /usr/local/lib/docker/cli-plugins/docker-compose (Ubuntu: the package docker-compose-v2)"
)


class ComposeMissing(RuntimeError):
    """No ``docker compose`` here, and none could be had."""


def _version(env: dict[str, str]) -> tuple[int, ...]:
    docker = shutil.which("docker")
    if docker is None:
        raise ComposeMissing("no docker client found; install the operating system's package docker.io (or docker-cli)")
    done = subprocess.run([docker, "compose", "version", "--short"], env=env, capture_output=True, text=True, timeout=20, check=False)
    found = re.match(r"v?(\d+)\.(\d+)", done.stdout)
    return tuple(int(part) for part in found.groups()) if found and done.returncode == 0 else ()


def config_dir() -> pathlib.Path | None:
    """The folder for DOCKER_CONFIG with which ``docker compose`` works; None where it works without."""
    if _version(dict(os.environ)) >= (2, 17):
        return None
    folder = cache_dir() / "docker-config"
    if not (folder / "cli-plugins" / "docker-compose").exists():
        _take_from_debian(folder)
    if _version({**os.environ, "DOCKER_CONFIG": str(folder)}) < (2, 17):
        raise ComposeMissing(HOW_TO_GET)
    return folder


def unusable() -> str:
    """Why no engine can run a compose project here, or nothing."""
    reason = docker.unusable() or images.unusable()
    if reason:
        return reason
    try:
        config_dir()
    except ComposeMissing as exc:
        return str(exc)
    return ""


def env() -> dict[str, str]:
    """What a process must have in its environment, so that ``docker compose`` works."""
    folder = config_dir()
    return {} if folder is None else {"DOCKER_CONFIG": str(folder)}


def plugin() -> pathlib.Path:
    """The program itself, for a machine or a container that gets a copy (folder cli-plugins, name docker-compose)."""
    folder = config_dir()
    places = [folder] if folder else [pathlib.Path.home() / ".docker"]
    places += [pathlib.Path(base) / "docker" for base in ("/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec")]
    for place in places:
        found = place / "cli-plugins" / "docker-compose"
        if found.exists():
            return found
    raise ComposeMissing(HOW_TO_GET)


def _take_from_debian(folder: pathlib.Path) -> None:
    """Unpack Debian's package of a newer release into ``folder``.

    apt takes it from this machine's own mirror, with lists of its own, so the system's are not touched. apt itself verifies
    it: the signature of the release file by Debian's keyring, its list by the release file, the package by the list.
    """
    keyring, mirror = debian.keyring(), debian.mirror()
    if debian.distribution()[0] != "debian" or keyring is None or not mirror:
        raise ComposeMissing(HOW_TO_GET)
    with tempfile.TemporaryDirectory(prefix="compose-building-", dir=cache_dir()) as name:
        work = pathlib.Path(name)
        for part in ("lists/partial", "archives/partial", "sources"):
            (work / part).mkdir(parents=True)
        lines = ["Types: deb", f"URIs: {mirror}", f"Suites: {NEWER}", "Components: main", f"Signed-By: {keyring}"]
        (work / "sources" / "newer.sources").write_text("\n".join(lines) + "\n", encoding="utf-8")
        settings = {
            "Dir::Etc::SourceList": "/dev/null",
            "Dir::Etc::SourceParts": str(work / "sources"),
            "Dir::State": str(work),
            "Dir::State::Lists": str(work / "lists"),
            "Dir::State::status": "/dev/null",
            "Dir::Cache": str(work),
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",
        }
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        for words in (["update", "-qq"], ["download", "-qq", "docker-compose"]):
            done = subprocess.run(["apt-get", *options, *words], cwd=work, capture_output=True, text=True, timeout=300, check=False)
            if done.returncode != 0:
                raise ComposeMissing(f"{HOW_TO_GET} (apt-get {words[0]}: {done.stderr.strip()[-500:]})")
        (package,) = work.glob("docker-compose_*.deb")
        subprocess.run(["dpkg-deb", "--extract", str(package), str(work / "unpacked")], check=True, timeout=60)
        plugins = folder / "cli-plugins"
        plugins.mkdir(parents=True, exist_ok=True)
        unpacked = work / "unpacked/usr/libexec/docker/cli-plugins/docker-compose"
        os.replace(unpacked, plugins / "docker-compose")  # the same filesystem: whole or not at all
