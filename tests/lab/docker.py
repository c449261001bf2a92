# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Docker engine of the tests' own: its own data, its own socket, ended by its process id."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
import time
import typing as t

from tests.lab import ports, processes

PROGRAM = shutil.which("dockerd", path=os.pathsep.join(["/usr/local/sbin", "/usr/sbin", "/sbin", os.environ.get("PATH", os.defpath)]))


def unusable() -> str:
    """Why no engine can be started here, or nothing."""
    if PROGRAM is None:
        return "no dockerd found; install the operating system's package docker.io"
    if os.geteuid() != 0:
        return "dockerd is only started by root: run the same command as root"
    try:
        import docker  # noqa: F401
    except ImportError:
        return "the Docker SDK for Python is missing; install the Python package docker (requirements/test.txt)"
    return ""


class Engine:
    """``more`` are further words for dockerd, for example to listen on a port with TLS.

    With ``outlive`` it goes on after this process has ended; whoever says its ``root`` has it again, and may end it.
    Only with ``containers`` it is made to run them: networks of its own, ports that are published by docker-proxy alone, and
    the storage driver that it likes best. It changes no rule of the machine's packet filter, so several do not disturb each other.
    """

    def __init__(self, *more: str, containers: bool = False, outlive: bool = False, root: pathlib.Path | None = None) -> None:
        # short: a socket's path has at most 107 characters
        self.root = root or pathlib.Path(tempfile.mkdtemp(prefix="payops-engine-", dir="/tmp"))
        self.outlive = outlive
        self.socket = self.root / "docker.sock"
        self.url = f"unix://{self.socket}"
        self.log = self.root / "log"
        self.more = more
        self.containers = containers
        self._process: t.Any = None
        self._client: t.Any = None

    def __enter__(self) -> Engine:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self) -> None:
        argv = [str(PROGRAM), "--data-root", str(self.root / "data"), "--exec-root", str(self.root / "exec"), "-H", self.url]
        argv += ["--pidfile", str(self.root / "pid"), "--config-file", str(self.root / "daemon.json")]
        argv += ["--bridge=none", "--iptables=false", "--ip6tables=false", *self.more]
        if self.containers:
            argv += ["--default-address-pool", f"base=10.{200 + os.getpid() // 250 % 50}.{os.getpid() % 250}.0/24,size=28"]
        else:
            argv += ["--storage-driver=vfs"]  # needs nothing of the kernel and of the filesystem below, and the images are tiny
        (self.root / "daemon.json").write_text("{}\n", encoding="utf-8")
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.root)}
        self._process = processes.start(argv, log=self.log, env=env, cwd=self.root, outlive=self.outlive)
        try:
            ports.wait_until(self._answers, "dockerd", 60)
        except TimeoutError:
            raise RuntimeError(f"dockerd did not start: {self.log.read_text(errors='replace')[-3000:]}") from None

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"dockerd ended: {self.log.read_text(errors='replace')[-3000:]}")
        try:
            return bool(self.client().ping())
        except Exception:
            return False

    def _lives(self) -> bool:
        return processes.alive(self._process) if isinstance(self._process, int) else self._process.poll() is None

    def client(self) -> t.Any:
        """The SDK's low-level client, for looking from outside."""
        if self._client is None:
            import docker

            self._client = docker.APIClient(base_url=self.url, version="auto", timeout=30)
        return self._client

    def clear(self) -> None:
        """Remove every container and network."""
        for each in self.client().containers(all=True):
            self.client().remove_container(each["Id"], force=True, v=True)
        for each in self.client().networks():
            if each["Name"] not in ("bridge", "host", "none"):
                self.client().remove_network(each["Id"])

    def stop(self) -> None:
        if self._process is None and (self.root / "pid").exists():  # another process has started it
            self._process = int((self.root / "pid").read_text(encoding="ascii"))
        if self.containers and self._process is not None and self._lives():
            with contextlib.suppress(Exception):
                self.clear()
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._process is not None:
            own = processes.descendants(getattr(self._process, "pid", self._process))  # its containerd
            processes.stop(self._process, timeout=30)
            for pid in processes.wait_gone(own, 10):
                processes.stop(pid)

    def __exit__(self, *exc: object) -> None:
        self.stop()
        for line in pathlib.Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
            mounted = line.split()[1]
            if mounted.startswith(f"{self.root}/"):
                subprocess.run(["umount", "-l", mounted], check=False, capture_output=True, timeout=20)
        shutil.rmtree(self.root, ignore_errors=True)

    # -- by hand, without the collection -------------------------------------------------------------------------------

    def make(self, name: str, content: str) -> str:
        """An image with one file, as ``docker import`` makes it, under ``repository:tag``; its ID."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            data = content.encode()
            entry = tarfile.TarInfo("content")
            entry.size, entry.mtime = len(data), int(time.time())
            archive.addfile(entry, io.BytesIO(data))
        repository, unused, tag = name.rpartition(":")
        self.client().import_image_from_data(packed.getvalue(), repository=repository, tag=tag)
        return str(self.client().inspect_image(name)["Id"])

    def names(self, name: str) -> str | None:
        """The ID of the image that a name names."""
        import docker.errors

        try:
            return str(self.client().inspect_image(name)["Id"])
        except docker.errors.ImageNotFound:
            return None

    def all_names(self, repository: str) -> list[str]:
        found = self.client().images(repository)
        return sorted(name for image in found for name in image["RepoTags"] or [])
