# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Files that tell PostgreSQL's client programs where the server is and with what password to log in.

They live in memory (``memfd``) and die with this process, even with SIGKILL; where the system has no memfd they are
0600 files, removed on exit. The password is never in argv and never in the environment.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import typing as t

SERVICE = "payops_rollback"


class ClientFiles:
    """A service file and, with a password, a passfile. ``environment`` names them to programs until :meth:`close`."""

    def __init__(self, tmpdir: str | None, parameters: t.Mapping[str, str], password: str | None, passfile: str | None) -> None:
        self._tmpdir = tmpdir
        self._folder: str | None = None
        self._fds: list[int] = []
        lines = [f"[{SERVICE}]"]
        lines += [f"{name}={given}" for name, given in parameters.items() if name not in ("options", "passfile")]
        self.environment = {"PGSERVICE": SERVICE, "PGSERVICEFILE": self._write("pg_service.conf", "\n".join(lines) + "\n")}
        if password:
            escaped = password.replace("\\", "\\\\").replace(":", "\\:")
            self.environment["PGPASSFILE"] = self._write("pgpass", f"*:*:*:*:{escaped}\n")
            self.environment["PGPASSWORD"] = ""  # somebody else's, in the environment of the host, would go before the file
        elif passfile:
            self.environment["PGPASSFILE"] = passfile

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _write(self, name: str, text: str) -> str:
        data = text.encode("utf-8")
        if hasattr(os, "memfd_create"):
            try:
                fd = os.memfd_create(name, os.MFD_CLOEXEC)
                os.write(fd, data)
                os.fchmod(fd, 0o600)
                path = f"/proc/{os.getpid()}/fd/{fd}"
                with open(path, "rb") as handle:
                    readable = handle.read() == data
                if readable:
                    self._fds.append(fd)
                    return path
                os.close(fd)
            except OSError:
                pass
        if self._folder is None:
            self._folder = tempfile.mkdtemp(prefix="payops-rollback-", dir=self._tmpdir)
        path = os.path.join(self._folder, name)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as handle:
            handle.write(data)
        return path
