# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where this machine's own apt takes its packages from."""

from __future__ import annotations

import functools
import pathlib
import platform
import shutil
import subprocess

KEYRINGS = {
    "debian": pathlib.Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    "ubuntu": pathlib.Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg"),
}


def distribution() -> tuple[str, str]:
    """Its name and the name of its release, such as ("debian", "bookworm"); empty where the machine does not say."""
    try:
        told = platform.freedesktop_os_release()
    except OSError:
        return "", ""
    return told.get("ID", ""), told.get("VERSION_CODENAME", "")


@functools.cache
def mirror() -> str:
    """The address that apt of this machine takes its release from; nothing where there is none."""
    if shutil.which("apt-get") is None:
        return ""
    argv = ["apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    for line in done.stdout.splitlines():
        release, component, address = line.split(" ", 2)
        if (release, component) == (distribution()[1], "main"):
            return address
    return ""


def keyring() -> pathlib.Path | None:
    found = KEYRINGS.get(distribution()[0])
    return found if found is not None and found.exists() else None
