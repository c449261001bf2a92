# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two users of the operating system and one store: what one of them writes the other can go on with."""

from __future__ import annotations

import codecs
import grp
import json
import os
import pathlib
import pwd
import shutil
import stat
import subprocess
import tempfile
import time
import traceback
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import read_json, write_json
from ansible_collections.payops.rollback.plugins.module_utils._lock import close_run, open_run
from ansible_collections.payops.rollback.plugins.module_utils._overview import overview
from ansible_collections.payops.rollback.plugins.module_utils._pointset import (
    delete_point,
    list_points,
    pin_point,
    seal_point,
    sweep_trash,
    unpin_point,
)
from ansible_collections.payops.rollback.plugins.module_utils._pointwriter import new_component, sweep_own
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths, Run
from ansible_collections.payops.rollback.plugins.module_utils._store import refusal
from tests.lab.fixtures import unavailable

for _codec in ("ascii", "utf-8", "idna"):
    codecs.lookup(_codec)  # a process of another user may not be able to read this Python's files any more
time.strptime("0", "%S")  # loads a module of its own

SYSTEM = "kejayangu"
DEPLOY, APP = "games", "nobody"  # users that every Linux has: who connects, and who runs the application


@pytest.fixture(autouse=True)
def _both_users() -> None:
    if os.geteuid() != 0:
        unavailable("two users of one store are only played by root")
    for name in (DEPLOY, APP):
        try:
            pwd.getpwnam(name)
        except KeyError:
            unavailable(f"there is no user {name} on this machine")


@pytest.fixture
def store() -> t.Iterator[str]:
    # not below pytest's own folders, which other users cannot enter
    folder = pathlib.Path(tempfile.mkdtemp(prefix="payops-store-"))
    folder.chmod(0o777)
    yield str(folder / "store")
    shutil.rmtree(folder)


def acting_as(user: str, do: t.Callable[[], t.Any], group: str | None = None, umask: int = 0o022) -> t.Any:
    """What ``do`` returns in a process of that user, who is also in ``group``; its RollbackError is raised here."""
    entry = pwd.getpwnam(user)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([grp.getgrnam(group).gr_gid] if group else [])
            os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
            os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
            os.umask(umask)
            try:
                said: dict[str, t.Any] = {"value": do()}
            except RollbackError as exc:
                said = {"refused": str(exc)}
            except PermissionError as exc:
                said = {"denied": [str(exc.filename), str(exc)]}
        except BaseException:
            said = {"broken": traceback.format_exc()}
        os.write(writing, json.dumps(said).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as handle:
        said = json.loads(handle.read())
    os.waitpid(pid, 0)
    assert "broken" not in said, said.get("broken")
    if "refused" in said:
        raise RollbackError(said["refused"])
    if "denied" in said:
        raise PermissionError(13, said["denied"][1], said["denied"][0])
    return said["value"]


def modes(folder: str) -> dict[str, str]:
    return {
        os.path.relpath(os.path.join(at, name), folder): f"{stat.S_IMODE(os.lstat(os.path.join(at, name)).st_mode):o}"
        for at, names, files in os.walk(folder)
        for name in [*names, *files]
    }


def wanted(run_id: str = "run1") -> dict[str, t.Any]:
    return {"run": run_id, "intent": "backup", "version": "v1", "who": "amina", "hosts": ["one"], "components": ["postgresql", "pm2"]}


def write_component(paths: Paths, name: str, version: str = "v1", run_id: str = "run1") -> None:
    with Run(paths, name, ("archive",), run_id=run_id) as run, run.step("archive"):
        with new_component(paths, version, name, run_id) as writer:
            tree = pathlib.Path(writer.path, "tree", "deep")
            tree.mkdir(parents=True, mode=0o755)
            (tree / "file").write_text("content")
            (tree / "file").chmod(0o600)
            writer.seal({"release": "r1"}, trees=["tree"])
        write_json(paths.state(name), {"live": name}, paths.file_mode)


def seal(paths: Paths, version: str = "v1") -> None:
    seal_point(paths, version, {"expected": {"one": ["pm2", "postgresql"]}, "who": "amina", "run": "run1"}, "one")


def a_backup(store: str, group: str | None) -> None:
    """As backup.yml does it: the connecting user opens, each component writes as its own user, the connecting user seals and closes."""

    def paths() -> Paths:
        return Paths(store, SYSTEM, group)

    acting_as(DEPLOY, lambda: open_run(paths(), wanted())["run_id"], APP_GROUP)
    acting_as(DEPLOY, lambda: write_component(paths(), "postgresql"), APP_GROUP)
    acting_as(APP, lambda: write_component(paths(), "pm2"))
    acting_as(DEPLOY, lambda: seal(paths()), APP_GROUP)
    acting_as(DEPLOY, lambda: close_run(paths(), "run1", "done")["changed"], APP_GROUP)


APP_GROUP = "nogroup" if any(entry.gr_name == "nogroup" for entry in grp.getgrall()) else "nobody"


def test_a_shared_store_carries_a_whole_backup_by_two_users(store: str) -> None:
    a_backup(store, APP_GROUP)
    for user, group in ((DEPLOY, APP_GROUP), (APP, None)):
        seen = acting_as(user, lambda: overview(Paths(store, SYSTEM), None), group)
        (point,) = seen["points"]
        assert (point["problems"], sorted(point["components"])) == ([], ["pm2", "postgresql"])
        assert seen["problems"] == [] and sorted(seen["states"]) == ["pm2", "postgresql"]
    found = modes(store)
    top = stat.S_IMODE(os.stat(store).st_mode)
    assert top == 0o2770
    assert not [path for path, mode in found.items() if int(mode, 8) & 0o007 and "/tree" not in path], "others get in"
    assert found["kejayangu/.run/act.lock"] == "660"


def test_a_store_made_by_an_administrator_is_shared_without_any_variable(store: str) -> None:
    os.mkdir(store)
    os.chown(store, 0, grp.getgrnam(APP_GROUP).gr_gid)
    os.chmod(store, 0o2770)
    a_backup(store, None)


def test_either_user_pins_unpins_and_deletes(store: str) -> None:
    a_backup(store, APP_GROUP)
    acting_as(APP, lambda: pin_point(Paths(store, SYSTEM), "v1", "app", "audit")["changed"])
    assert acting_as(DEPLOY, lambda: unpin_point(Paths(store, SYSTEM), "v1")["changed"], APP_GROUP) is True
    assert acting_as(DEPLOY, lambda: delete_point(Paths(store, SYSTEM), "v1"), APP_GROUP) is True
    assert acting_as(DEPLOY, lambda: list_points(Paths(store, SYSTEM)), APP_GROUP) == []
    left = [name for name in os.listdir(f"{store}/{SYSTEM}") if name.startswith(".trash-")]
    assert left, "the files of the other user cannot be removed by this one"
    acting_as(DEPLOY, lambda: open_run(Paths(store, SYSTEM), wanted("run2"))["run_id"], APP_GROUP)
    acting_as(APP, lambda: write_component(Paths(store, SYSTEM), "pm2", "v2", "run2"))
    assert [name for name in os.listdir(f"{store}/{SYSTEM}") if name.startswith(".trash-")] == []


def test_without_a_group_the_second_user_is_told_what_to_do(store: str) -> None:
    acting_as(DEPLOY, lambda: open_run(Paths(store, SYSTEM), wanted())["run_id"])
    with pytest.raises(PermissionError) as denied:
        acting_as(APP, lambda: write_component(Paths(store, SYSTEM), "pm2"))
    said = acting_as(APP, lambda: refusal(store, denied.value.filename, None))
    assert f"belongs to {DEPLOY}:" in said and "mode 0700" in said and f"{APP}, the user of this task" in said
    assert "rollback_store_group" in said and "ansible_become_user" in said


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_group_that_is_named_later_shares_what_is_there(store: str, by_hand: bool) -> None:
    """The owner's next run does it; where another user comes first, the command of the refusal does."""

    def paths() -> Paths:
        return Paths(store, SYSTEM, APP_GROUP)

    acting_as(DEPLOY, lambda: open_run(Paths(store, SYSTEM), wanted())["run_id"], APP_GROUP)
    acting_as(DEPLOY, lambda: write_component(Paths(store, SYSTEM), "postgresql"), APP_GROUP)
    secrets = (".run/pm2.definitions.json", ".run/pm2-start-1.json", "v1/postgresql/process.json", "v1/postgresql/1.dat")
    for secret in secrets:
        path = f"{store}/{SYSTEM}/{secret}"
        acting_as(DEPLOY, lambda path=path: write_json(path, {"env": "secret"}), APP_GROUP)
    with pytest.raises(PermissionError) as denied:
        acting_as(APP, lambda: overview(paths(), None))
    said = acting_as(APP, lambda: refusal(store, denied.value.filename, APP_GROUP))
    if by_hand:
        subprocess.run(["sh", "-c", said.partition("as root: ")[2]], check=True)
    else:
        acting_as(DEPLOY, lambda: open_run(paths(), wanted())["run_id"], APP_GROUP)
    acting_as(APP, lambda: write_component(paths(), "pm2"))
    acting_as(DEPLOY, lambda: seal(paths()), APP_GROUP)
    found = modes(store)
    for secret in (*secrets, "v1/postgresql/tree/deep/file"):
        assert found[f"{SYSTEM}/{secret}"] == "600", secret
    # what is shared, the same in both ways
    assert (found[f"{SYSTEM}/v1"], found[f"{SYSTEM}/v1/postgresql"], found[f"{SYSTEM}/v1/postgresql/tree"]) == ("2770", "2770", "755")
    assert (found[f"{SYSTEM}/.run/act.lock"], found[f"{SYSTEM}/v1/postgresql/manifest.json"]) == ("660", "640")


def test_a_folder_that_nobody_but_root_can_make_is_named_with_the_command(store: str) -> None:
    os.chmod(os.path.dirname(store), 0o755)
    with pytest.raises(PermissionError) as denied:
        acting_as(APP, lambda: open_run(Paths(store, SYSTEM), wanted()))
    said = acting_as(APP, lambda: refusal(store, denied.value.filename, APP_GROUP))
    assert said.endswith(f"Make the store once, as root: install -d -m 2770 -g {APP_GROUP} {store}")
    said = acting_as(APP, lambda: refusal(store, denied.value.filename, None))
    assert said.endswith(f"Make the store once, as root: install -d -m 0700 -o {APP} {store}")


def test_the_way_to_the_store_is_open_and_one_that_is_not_is_named(store: str) -> None:
    below = f"{store}/of/systems"
    a_backup(below, APP_GROUP)
    assert [stat.S_IMODE(os.stat(path).st_mode) for path in (store, f"{store}/of", below)] == [0o755, 0o755, 0o2770]
    os.chmod(f"{store}/of", 0o700)
    with pytest.raises(PermissionError) as denied:
        acting_as(APP, lambda: write_component(Paths(below, SYSTEM), "pm2", "v2"))
    said = acting_as(APP, lambda: refusal(below, denied.value.filename, APP_GROUP))
    assert said.endswith(f"Let every user of the store pass through it, as {DEPLOY} or root: chmod o+x {store}/of")


def test_a_group_that_does_not_exist_or_that_one_is_not_in(store: str) -> None:
    with pytest.raises(RollbackError, match=r"'no-such-group' does not exist on this host.*rollback_store_group"):
        acting_as(APP, lambda: open_run(Paths(store, SYSTEM, "no-such-group"), wanted()))
    with pytest.raises(RollbackError, match=rf"{APP}, the user of this task, is not in it.*usermod -aG daemon {APP}"):
        acting_as(APP, lambda: open_run(Paths(store, SYSTEM, "daemon"), wanted()))


def test_root_writes_through_no_link_that_a_user_of_the_store_laid(store: str) -> None:
    a_backup(store, APP_GROUP)
    victim = f"{os.path.dirname(store)}/victim"
    pathlib.Path(victim).write_text("precious")
    lock = f"{store}/{SYSTEM}/.run/lock.json"
    acting_as(APP, lambda: os.symlink(victim, f"{lock}.tmp-{os.getppid()}"))
    write_json(lock, {"run": "x"}, 0o660)
    assert pathlib.Path(victim).read_text() == "precious" and read_json(lock) == {"run": "x"}
    journal = Paths(store, SYSTEM).journal("run1", "pm2")
    acting_as(APP, lambda: (os.unlink(journal), os.symlink(victim, journal)))
    os.unlink(lock)
    open_run(Paths(store, SYSTEM), wanted("run3"))
    os.unlink(f"{store}/{SYSTEM}/.run/act.lock")
    acting_as(APP, lambda: os.symlink(victim, f"{store}/{SYSTEM}/.run/act.lock"))
    with pytest.raises(OSError):
        with Run(Paths(store, SYSTEM), "pm2", ("x",), run_id="run3"):
            pass
    assert pathlib.Path(victim).read_text() == "precious"


@pytest.mark.parametrize("swapped", [".run", "", "v1"])
def test_root_makes_and_removes_nothing_behind_a_folder_that_became_a_link(store: str, swapped: str) -> None:
    os.mkdir(store)
    os.chown(store, 0, grp.getgrnam(APP_GROUP).gr_gid)
    os.chmod(store, 0o2770)
    a_backup(store, None)
    victim = pathlib.Path(os.path.dirname(store), "victim")
    (victim / ".partial-pm2-0").mkdir(parents=True, mode=0o755)
    (victim / ".partial-pm2-0" / "precious").write_text("x")
    place = os.path.join(store, SYSTEM, swapped).rstrip("/")
    acting_as(APP, lambda: (os.rename(place, f"{place}.away"), os.symlink(victim, place))[1])
    before = {path: (path.lstat().st_mode, path.lstat().st_gid) for path in [victim, *victim.rglob("*")]}
    paths = Paths(store, SYSTEM)
    with pytest.raises(RollbackError, match=rf"{place} is a symbolic link; expected a folder .*ls -ld"):
        if swapped == "v1":
            write_component(paths, "docker", run_id=open_run(paths, wanted("run2"))["run_id"])
        else:
            open_run(paths, wanted("run2"))
    assert {path: (path.lstat().st_mode, path.lstat().st_gid) for path in [victim, *victim.rglob("*")]} == before


SWAPPER = """
import ctypes, os, sys
system, victim = sys.argv[1:]
libc = ctypes.CDLL(None)
one, other = os.fsencode(f"{system}/.trash-x"), os.fsencode(f"{system}/.y")
os.makedirs(f"{system}/.trash-x/keep")
os.symlink(victim, f"{system}/.y")
print("ready", flush=True)
while True:
    libc.renameat2(-100, one, -100, other, 2)
"""


@pytest.mark.parametrize("act", ["sweep_own", "sweep_trash"])
def test_root_removes_nothing_elsewhere_while_a_user_swaps_a_folder_with_a_link(store: str, act: str) -> None:
    os.mkdir(store)
    gid = grp.getgrnam(APP_GROUP).gr_gid
    os.chown(store, 0, gid)
    os.chmod(store, 0o2770)
    paths = Paths(store, SYSTEM)
    paths.make()
    precious = pathlib.Path(os.path.dirname(store), "var", "postgresql", "PG_VERSION")
    precious.parent.mkdir(parents=True)
    precious.write_text("18")
    drop = ["setpriv", f"--reuid={APP}", f"--regid={gid}", "--clear-groups"]
    with subprocess.Popen([*drop, "/usr/bin/python3", "-c", SWAPPER, paths.system, precious.parents[1]], stdout=subprocess.PIPE) as swapper:
        try:
            assert swapper.stdout is not None and swapper.stdout.readline() == b"ready\n"
            until = time.monotonic() + 1.5
            while time.monotonic() < until and precious.exists():
                if act == "sweep_own":
                    sweep_own(paths, "postgresql")
                else:
                    sweep_trash(paths)
        finally:
            swapper.kill()
    assert precious.exists()
