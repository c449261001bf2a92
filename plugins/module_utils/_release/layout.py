# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Where the trees of an application lie, and how one takes the place of another in one atomic step."""

from __future__ import annotations

import os
import stat
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import fsync_dir
from ansible_collections.payops.rollback.plugins.module_utils._release.exchange import exchange


def identity(path: str) -> int:
    """Which tree it is, wherever it is moved: the inode of its top folder. 0 where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return 0
    return found.st_ino if stat.S_ISDIR(found.st_mode) else 0


class Layout:
    """``home`` is the path that the process manager uses; ``workshop`` holds staged and kept trees beside it."""

    kind = ""

    def __init__(self, home: str, workshop: str, shared: str) -> None:
        self.home = home
        self.workshop = workshop
        self.shared = shared

    def live(self) -> str:
        """The real path of the tree that is live now."""
        return os.path.realpath(self.home)

    def trees(self) -> dict[int, str]:
        """Every tree that could be live, by identity."""
        found = {}
        if os.path.isdir(self.workshop):
            for name in sorted(os.listdir(self.workshop)):
                path = os.path.join(self.workshop, name)
                if not name.startswith(".") and not os.path.islink(path) and os.path.isdir(path):
                    found[identity(path)] = path
        found[identity(self.home)] = self.live()
        return found

    def find(self, tree: int) -> str | None:
        return self.trees().get(tree) if tree else None

    def prepare(self) -> None:
        """Create the workshop, and try there what the flip will need."""
        parent = os.path.dirname(self.home)
        if not os.access(parent, os.W_OK | os.X_OK):
            raise RollbackError(
                f"{parent} is not writable for uid {os.geteuid()}, so {os.path.basename(self.home)} cannot be replaced there. "
                f"Run as the owner of {parent}, or move the application into a folder of its own."
            )
        for folder in (self.workshop, self.shared):
            if not os.path.isdir(folder):
                os.mkdir(folder, 0o755)
                if os.geteuid() == 0:
                    owner = os.stat(self.home)
                    os.chown(folder, owner.st_uid, owner.st_gid)
        if os.stat(self.workshop).st_dev != os.stat(self.live()).st_dev:
            raise RollbackError(
                f"{self.workshop} lies on another filesystem than {self.live()}, so trees cannot be moved between them (EXDEV). "
                "Put both on one filesystem, or use layout=symlink with releases beside the application."
            )

    def flip(self, tree: str) -> str:
        """Make ``tree`` live; the path where the replaced one lies now."""
        raise NotImplementedError


class SymlinkLayout(Layout):
    """``releases/<version>`` and a symlink ``current``, replaced by rename(2)."""

    kind = "symlink"

    def flip(self, tree: str) -> str:
        replaced = self.live()
        temporary = os.path.join(os.path.dirname(self.home), f".{os.path.basename(self.home)}.next")
        if os.path.lexists(temporary):
            os.unlink(temporary)
        os.symlink(tree, temporary)
        os.rename(temporary, self.home)
        fsync_dir(os.path.dirname(self.home))
        return replaced


class ExchangeLayout(Layout):
    """One plain folder, exchanged with the staged one by renameat2(2)."""

    kind = "exchange"

    def prepare(self) -> None:
        parent = os.path.dirname(self.home)
        if os.path.ismount(self.home) or os.stat(parent).st_dev != os.stat(self.home).st_dev:
            raise RollbackError(
                f"{self.home} is a mount point, and a mount point cannot be exchanged (EBUSY). Mount the volume one level higher, "
                f"or keep releases inside it: {self.home}/releases/<version> with a symlink {self.home}/current, and layout=symlink."
            )
        super().prepare()
        one, other = (os.path.join(self.workshop, f".probe-{name}-{os.getpid()}") for name in ("a", "b"))
        try:
            os.mkdir(one)
            os.mkdir(other)
            exchange(one, other)
        except OSError as exc:
            raise RollbackError(
                f"The filesystem of {self.workshop} cannot exchange two folders ({os.strerror(exc.errno or 0)}). "
                f"Use releases/<version> with a symlink 'current', and layout=symlink."
            ) from exc
        finally:
            for path in (one, other):
                if os.path.isdir(path):
                    os.rmdir(path)

    def flip(self, tree: str) -> str:
        try:
            exchange(tree, self.home)
        except OSError as exc:
            raise RollbackError(
                f"{self.home} could not be exchanged with {tree}: {os.strerror(exc.errno or 0)}. Nothing was replaced. "
                "A folder from a container image's lower layer (EXDEV) or a mount point (EBUSY) cannot be exchanged: "
                "use releases/<version> with a symlink 'current', and layout=symlink."
            ) from exc
        return tree


def detect(app_dir: str, layout: str = "auto", there: bool = True) -> Layout:
    """The layout of ``app_dir``: a symlink, or a folder with a symlink ``current``, or a plain folder.

    Without ``there`` nothing on the disk is needed: whoever only stops an application does so whatever became of its files.
    """
    app_dir = os.path.normpath(app_dir)
    if not os.path.isabs(app_dir):
        raise RollbackError(f"app_dir {app_dir!r} is not an absolute path.")
    links = [path for path in (app_dir, os.path.join(app_dir, "current")) if os.path.islink(path)]
    if layout in ("auto", "symlink") and links:
        link = os.path.join(os.path.realpath(os.path.dirname(links[0])), os.path.basename(links[0]))
        target = os.path.realpath(link)
        if there and not os.path.isdir(target):
            raise RollbackError(f"{link} points to {target}, which is no folder. Point it to the release that should run first.")
        return SymlinkLayout(link, os.path.dirname(target), os.path.join(os.path.dirname(link), "shared"))
    if layout == "symlink" and not there:
        return SymlinkLayout(*(os.path.join(app_dir, name) for name in ("current", "releases", "shared")))
    if layout == "symlink":
        raise RollbackError(
            f"layout=symlink needs a symlink, but neither {app_dir} nor {app_dir}/current is one. "
            "Move the application to releases/<version> and point 'current' there, or use layout=exchange."
        )
    if layout == "exchange" and os.path.islink(app_dir):
        raise RollbackError(f"layout=exchange needs a plain folder, but {app_dir} is a symlink. Use layout=symlink or auto.")
    if there and not os.path.isdir(app_dir):
        raise RollbackError(
            f"{app_dir} does not exist or is no folder. Set app_dir (rollback_pm2_app_dir) to the folder in which the application lives."
        )
    real = os.path.realpath(app_dir)
    return ExchangeLayout(real, f"{real}.rollback", f"{real}.shared")


def processes_inside(tree: int, proc: str = "/proc") -> list[int]:
    """Process ids whose working directory is the top of ``tree`` or below it."""
    found: list[int] = []
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        link = os.path.join(proc, name, "cwd")
        try:
            path = os.readlink(link)
            here = identity(link) == tree
        except OSError:
            continue
        while not here and path not in ("", "/"):
            path = os.path.dirname(path)
            here = identity(path) == tree
        if here:
            found.append(int(name))
    return found


def describe(layout: Layout) -> dict[str, t.Any]:
    return {"layout": layout.kind, "home": layout.home, "workshop": layout.workshop, "shared": layout.shared, "live": layout.live()}
