# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images for tests without a registry: a small Debian by debootstrap, and the sample payment API on top of it."""

from __future__ import annotations

import hashlib
import io
import os
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile
import typing as t

from tests.lab import app, debian
from tests.lab.docker import Engine
from tests.lab.node import cache_dir, find_node

BASE = "payops-test/debian"
NODE = "payops-test/node"
# Nothing of a container needs these, and each container of an engine without overlayfs is a whole copy.
LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/cache/apt", "var/lib/apt/lists", "var/log", "dev")


def unusable() -> str:
    """Why no image can be made here, or nothing."""
    if os.geteuid() != 0:
        return "images are made by root only (debootstrap)"
    if shutil.which("debootstrap", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin") is None:
        return "no debootstrap found; install the operating system's package debootstrap"
    if not debian.mirror():
        return "apt of this machine has no mirror of its own release to take a small Debian from"
    return ""


def base_tar(include: t.Sequence[str] = ()) -> pathlib.Path:
    """A small system of this machine's own release as a tar file, from the cache after the first time (a minute).

    ``include`` are further packages in it.
    """
    release = debian.distribution()[1]
    key = hashlib.sha256(" ".join(sorted(include)).encode()).hexdigest()[:8] if include else "minimal"
    cached = cache_dir() / f"{release}-{key}.tar"
    if cached.exists():
        return cached
    with tempfile.TemporaryDirectory(prefix="debootstrap-", dir=cache_dir()) as name:
        root = pathlib.Path(name) / "root"
        argv = ["debootstrap", "--variant=minbase", *([f"--include={','.join(include)}"] if include else [])]
        argv += [*([f"--keyring={debian.keyring()}"] if debian.keyring() else []), release, str(root), debian.mirror()]
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LANG": "C.UTF-8"}
        done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"debootstrap failed ({done.returncode}):\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        left_out = [f"--exclude=./{path}/*" for path in LEFT_OUT]
        packed = pathlib.Path(name) / "packed.tar"
        subprocess.run(["tar", "--numeric-owner", *left_out, "-C", str(root), "-cf", str(packed), "."], check=True, timeout=300)
        packed.rename(cached)
    return cached


def base(engine: Engine, include: t.Sequence[str] = ()) -> str:
    """The small system as an image of this engine; its name."""
    packed = base_tar(include)
    name = f"{BASE}:{packed.stem}"
    if engine.names(name) is None:
        repository, unused, tag = name.rpartition(":")
        engine.client().import_image_from_file(str(packed), repository=repository, tag=tag)
    return name


def build(engine: Engine, name: str, context: pathlib.Path, instructions: t.Sequence[str]) -> str:
    """``docker build`` with these lines, from a folder; the image's ID."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(context, arcname=".", filter=_plain)
        text = ("\n".join(instructions) + "\n").encode()
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    packed.seek(0)
    for told in engine.client().build(fileobj=packed, custom_context=True, tag=name, rm=True, forcerm=True, decode=True):
        if "error" in told:
            raise RuntimeError(f"building {name} failed: {told['error']}")
    found = engine.names(name)
    assert found is not None
    return found


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same bytes for the same content, so that equal layers are made once."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry


def libraries(program: pathlib.Path, root: pathlib.Path, there: t.Container[str]) -> None:
    """Copy what a program of this machine is linked with to ``root``, but for what is ``there`` already."""
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, timeout=20, check=False).stdout
    for library in re.findall(r"=> (/\S+)", listed):
        if library not in there and f"/usr{library}" not in there:
            target = root / ("usr" + library if library.startswith("/lib") else library[1:])
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(os.path.realpath(library), target)


def node(engine: Engine) -> str:
    """The small system with this machine's Node in it; the image's name."""
    found = find_node()
    name = f"{NODE}:{found.version}"
    if engine.names(name) is not None:
        return name
    base_name = base(engine)
    with tarfile.open(base_tar()) as archive:
        there = {f"/{os.path.normpath(member)}" for member in archive.getnames()}
    with tempfile.TemporaryDirectory(prefix="node-image-", dir=cache_dir()) as folder:
        root = pathlib.Path(folder)
        (root / "usr/local/bin").mkdir(parents=True)
        shutil.copyfile(found.bin.resolve(), root / "usr/local/bin/node")
        (root / "usr/local/bin/node").chmod(0o755)
        libraries(found.bin, root, there)
        build(engine, name, root, [f"FROM {base_name}", "COPY usr /usr"])
    return name


def payments_api(engine: Engine, name: str, number: int = 1, version: str | None = None, migration: str | None = None) -> str:
    """A release of the sample payment API as an image under ``repository:tag``; the image's ID.

    ``migration`` is SQL that this release brings in addition. The container listens on port 5000 of all its addresses.
    """
    node_name = node(engine)
    with tempfile.TemporaryDirectory(prefix="api-image-", dir=cache_dir()) as folder:
        tree = pathlib.Path(folder) / "app"
        app.build_release(tree, number, version)
        (tree / "node_modules").rename(pathlib.Path(folder) / "node_modules")
        if migration:
            (tree / "migrations" / f"{100 + number:03d}_more.sql").write_text(migration, encoding="utf-8")
        for entry in [pathlib.Path(folder), *pathlib.Path(folder).rglob("*")]:
            if not entry.is_symlink():
                entry.chmod(0o755 if entry.is_dir() else 0o644)
        lines = [f"FROM {node_name}", "COPY node_modules /app/node_modules", "COPY app /app", "WORKDIR /app"]
        lines += ["ENV HOST=0.0.0.0 PORT=5000 NODE_ENV=production", "EXPOSE 5000", "USER nobody", 'CMD ["node", "src/server.js"]']
        return build(engine, name, pathlib.Path(folder), lines)
