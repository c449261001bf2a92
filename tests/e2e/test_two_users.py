# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PM2 runs under another user than the one that connects, and both of them use the store of the application host."""

from __future__ import annotations

import os
import pathlib
import pwd
import re
import shutil
import stat
import subprocess
import typing as t

import pytest

from tests.e2e.harness import GOOD, NEXT, NOTE, World, play_in
from tests.lab.fixtures import unavailable
from tests.lab.pm2home import Pm2Home
from tests.lab.system import AppHost

PYTHON = "/usr/bin/python3"  # the one of the virtual environment may lie where only root can read


class OtherUsersPm2(Pm2Home):
    """What the team's user does: his files, his daemon."""

    def __init__(self, home: pathlib.Path, api: pathlib.Path, user: str) -> None:
        super().__init__(home)
        self._owned = (api, self.home)
        self._user = user
        self.prefix = ("setpriv", "--reuid", user, "--regid", user, "--init-groups", "env", f"HOME={home.parent}")

    def run(self, *args: str, **more: t.Any) -> subprocess.CompletedProcess[str]:
        for folder in self._owned:  # a deployment was copied by root
            if folder.exists():
                subprocess.run(["chown", "-R", f"{self._user}:{self._user}", str(folder)], check=True)
        return super().run(*args, **more)


class OtherUsersHost(AppHost):
    def __init__(self, folder: pathlib.Path, name: str, user: str) -> None:
        super().__init__(folder, name, 1)
        self._user = user

    @property
    def pm2(self) -> Pm2Home:
        if self._pm2 is None:
            self._pm2 = OtherUsersPm2(self._home, self.api, self._user)
        return self._pm2


class TwoUsers(World):
    """As inventories/demo, but the application belongs to a user of its own, below a folder of his."""

    def __init__(self, folder: pathlib.Path, user: str) -> None:
        super().__init__(folder)
        self.user = user
        self.home = folder / "home"
        self.hosts = [OtherUsersHost(self.home, "app1", user)]

    def make_folder(self) -> None:
        super().make_folder()
        self.home.mkdir(mode=0o755)
        shutil.chown(self.home, self.user, self.user)

    def write_inventory(self, **more: t.Any) -> pathlib.Path:
        super().write_inventory(**more)
        self.share("")
        return self.inventory

    def share(self, group: str) -> None:
        (host,) = self.hosts
        values: dict[str, t.Any] = {
            "ansible_python_interpreter": PYTHON,
            "ansible_become_method": "su",
            "rollback_pm2_user": self.user,
            "rollback_pm2_wait_seconds": 90,  # becoming somebody and starting Node take long on a busy machine
            "rollback_pm2_app_dir": str(host.api),
            "rollback_pm2_home": str(host.pm2.home),
        }
        self._write_vars("host_vars/app1.yml", {**values, **({"rollback_store_group": group} if group else {})})


@pytest.fixture(scope="module")
def user() -> t.Iterator[str]:
    """A user of this machine that did not exist before."""
    if os.geteuid() != 0:
        unavailable("a second user is only made by root")
    missing = [name for name in ("useradd", "userdel", "su", "setpriv") if shutil.which(name) is None]
    if missing or not os.path.exists(PYTHON):
        unavailable(f"a second user needs {', '.join(missing) or PYTHON}")
    name = f"payops{os.getpid()}"
    subprocess.run(
        ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/sh", name], check=True
    )
    yield name
    subprocess.run(["userdel", name], check=False)


@pytest.fixture(scope="module")
def two(user: str) -> t.Iterator[TwoUsers]:
    yield from play_in(lambda folder: TwoUsers(folder, user))


@pytest.mark.full
def test_pm2_under_another_user(two: TwoUsers, user: str) -> None:
    (host,) = two.hosts
    refused = two.play("backup")
    refused.refused(f"{user}, the user of this task, may not use", "belongs to root:root, mode 0700", "rollback_store_group")
    two.all_at(GOOD)
    assert two.points() == []

    two.share(user)  # the store is there already, root's alone: only root can change that, and the refusal says how
    refused = two.play("backup").refused("The store was made before it was shared", "Share it once, as root: find ")
    command = re.search(r"as root: (find .*? -exec chmod 640 {} \+)", refused.flat)
    assert command
    subprocess.run(["sh", "-c", command.group(1).replace("''", "'")], check=True)
    two.play("backup").ok()
    (point,) = two.points()
    uid = pwd.getpwnam(user).pw_uid
    store = two.store / "app1"
    assert stat.S_IMODE(store.stat().st_mode) == 0o2770
    assert (store / "demo" / point / "pm2").stat().st_uid == uid

    two.deploy(1, NEXT, NOTE)
    with two.paying():
        two.await_payments(5)
        assert two.play("rollback_full", version=point).ok().outcome == "DONE"
    two.all_at(GOOD)
    owners = {os.stat(f"/proc/{each['pid']}").st_uid for each in host.pm2.jlist()}
    assert owners == {uid}, "the application runs as somebody else"
    assert host.api.stat().st_uid == uid
    two.play("undo").ok()
    two.all_at(NEXT)
    two.play("complete").ok()
    two.play("backup", keep_count=1).ok()
    for path in store.rglob("*"):
        assert not path.lstat().st_mode & 0o002 or path.is_symlink(), f"everybody may write {path}"
