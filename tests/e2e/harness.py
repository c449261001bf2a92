# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A payment system under test: play real playbooks on it, look at it from outside, and break it on purpose."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
import typing as t

from tests.client import check
from tests.e2e.played import COLOURS, TIMEOUT, Played, Stopped
from tests.e2e.watch import Watcher
from tests.lab import app, ports
from tests.lab.faults import with_fault
from tests.lab.fixtures import unavailable
from tests.lab.node import ROOT, NodeMissing
from tests.lab.postgres import Missing
from tests.lab.roles import create_database
from tests.lab.system import DATABASE, System, ansible_playbook

GOOD, NEXT, BAD = "1.0.0", "1.1.0", "2.0.0"
NOTE = "ALTER TABLE payments ADD COLUMN note text;"


class World(System):
    """A system that tests play on again and again."""

    def __init__(self, folder: pathlib.Path, app_hosts: t.Sequence[str] = ("app1",)) -> None:
        super().__init__(folder, app_hosts, history=300)
        self.last: Played | None = None
        self.quick = QUICK
        self.root = ROOT
        self.texts = folder / "played.log"

    # --- a known state ------------------------------------------------------------------------------------------

    def build(self) -> None:
        self.make_folder()
        self.start_database()
        for host in self.hosts:
            host.pm2.start_daemon()
        self.deploy_first()
        self.write_inventory(**QUICK)

    def reset(self) -> None:
        """Release 1.0.0 on a new database, an empty store; nothing remembered, whatever the test before has done."""
        cluster, roles = self.ready()
        with contextlib.suppress(Exception):
            self.stop_clients()
        for host in self.hosts:
            host.pm2.start_daemon()
            host.pm2.run("delete", "all", check=False)
            for suffix in ("", ".rollback", ".shared"):
                shutil.rmtree(f"{host.api}{suffix}", ignore_errors=True)
        for folder in (self.store, self.clients, self.folder / "legacy"):
            shutil.rmtree(folder, ignore_errors=True)
        cluster.drop_databases(DATABASE)
        create_database(cluster, DATABASE, roles, role_settings=False)
        self.set_variables(**QUICK)
        self.deploy_first()  # on the ports that the inventory knows

    def point_then_next(self) -> str:
        """The state before most rollbacks: a point of 1.0.0, then 1.1.0 with a migration of its own. The point's name."""
        self.reset()
        self.play("backup").ok()
        self.deploy(1, NEXT, NOTE)
        return self.points()[-1]

    # --- playing ------------------------------------------------------------------------------------------------

    def argv(self, playbook: str, *more: str, **words: t.Any) -> list[str]:
        given = ["-e", json.dumps(words)] if words else []
        return [ansible_playbook(), f"playbooks/{playbook}.yml", "-i", str(self.inventory), *given, *more]

    def env(self, fault: str | None = None) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        more = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOWS": "1", "ANSIBLE_NOCOLOR": "1"}
        return with_fault(fault, {**kept, **more})

    def forget_if_needed(self, step: str) -> None:
        """A release that was staged and tried before is not staged and tried again, so those steps need a system without memory."""
        if step in ("stage", "preflight"):
            self.play("complete").ok()

    def play(
        self, playbook: str, *more: str, fault: str | None = None, more_env: t.Mapping[str, str] | None = None, **words: t.Any
    ) -> Played:
        """Run a playbook to its end; ``words`` are extra variables, of their own type."""
        return self._run(self.argv(playbook, *more, **words), {**self.env(fault), **(more_env or {})})

    def paste(self, played: Played, sentence: str) -> Played:
        """Type a command just as a table has printed it after ``sentence``."""
        found = re.search(rf"{re.escape(sentence)}:\s+(ansible-playbook .+)$", played.text, re.MULTILINE)
        assert found, f"no command after {sentence!r}\n{played.text}"
        return self._run([ansible_playbook(), *shlex.split(found.group(1))[1:]], self.env())

    def _run(self, argv: t.Sequence[str], env: t.Mapping[str, str]) -> Played:
        done = subprocess.run(
            argv,
            cwd=self.root,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
            start_new_session=True,
        )
        return self._played(done.returncode, done.stdout)

    def _played(self, rc: int, text: str) -> Played:
        self.last = Played(rc, COLOURS.sub("", text))
        with self.texts.open("a", encoding="utf-8") as handle:
            handle.write(self.last.text)
        assert self.secret not in text, "the database password is in the output"
        return self.last

    def once(self, component: str, step: str, phase: str, what: str) -> str:
        """A fault that happens once: whatever goes the same way back is not hit again."""
        mark = self.folder / "fault"
        mark.touch()
        return f"{component}/{step}/{phase}={what}:{mark}"

    @contextlib.contextmanager
    def stopped_at(self, place: str, playbook: str, *more: str, **words: t.Any) -> t.Iterator[Stopped]:
        """A playbook that stands still at ``component/step/phase`` while the block runs; what is left of it is killed after."""
        mark = self.folder / "stopped"
        mark.unlink(missing_ok=True)
        log = (self.folder / "stopped.log").open("w+b")
        process = subprocess.Popen(
            self.argv(playbook, *more, **words),
            cwd=ROOT,
            env=self.env(f"{place}=wait:{mark}"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        stopped = Stopped(self, process, log, mark)
        try:
            ports.wait_until(lambda: mark.exists() or process.poll() is not None, f"{playbook} to reach {place}", TIMEOUT)
            assert mark.exists(), f"{playbook} ended before {place}:\n{stopped.text()}"
            yield stopped
        finally:
            stopped.kill()
            mark.unlink(missing_ok=True)
            log.close()

    # --- what is true, seen from outside ------------------------------------------------------------------------

    @property
    def secret(self) -> str:
        """The part of the password that no quoting changes."""
        return self.ready()[0].password.split(" ")[0]

    def sql(self, query: str, values: t.Any = None, dbname: str = DATABASE) -> list[tuple[t.Any, ...]]:
        return self.ready()[0].sql(query, values, dbname=dbname)

    def data_version(self) -> str:
        """Which release's schema the live database has."""
        fees, note = self.sql(
            "SELECT to_regclass('fee_rules') IS NOT NULL, EXISTS (SELECT FROM information_schema.columns"
            " WHERE table_name = 'payments' AND column_name = 'note')"
        )[0]
        return BAD if fees else NEXT if note else GOOD

    def versions(self) -> dict[str, str]:
        """What each host runs, as its answers, PM2's list and the folders of the processes say."""
        found = {"db1": self.data_version()}
        for host in self.hosts:
            status, answer = host.health()
            found[host.name] = str(answer.get("version") or f"HTTP {status}")
            on_disk = json.loads((host.api / "package.json").read_text(encoding="utf-8"))["version"]
            assert on_disk == found[host.name], f"{host.name} answers {found[host.name]}, its folder holds {on_disk}"
            processes = host.pm2.jlist()
            listed = sorted((each["name"], each["pm2_env"].get("NODE_APP_INSTANCE"), each["pm2_env"]["status"]) for each in processes)
            assert listed == [(app.APP_NAME, number, "online") for number in (0, 1)], f"{host.name}: {listed}"
            here = host.api.stat()
            for each in processes:
                there = os.stat(f"/proc/{each['pid']}/cwd")
                assert (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino), f"{each['name']} runs in another folder"
            saved = host.pm2.home / "dump.pm2"
            names = sorted(each["name"] for each in json.loads(saved.read_text(encoding="utf-8")))
            assert names == [app.APP_NAME] * 2, f"a reboot would bring up {names}"
        return found

    def await_healthy(self) -> None:
        for host in self.hosts:
            ports.wait_until(lambda host=host: host.health()[0] == 200, f"a healthy release on {host.name}", 60)  # type: ignore[misc]

    def kept(self) -> list[str]:
        """Databases beside the live one."""
        return check.other_databases(self.ready()[0].params(), DATABASE)

    def locks(self) -> list[str]:
        """Whatever says that a run is under way."""
        found = [str(path) for path in self.store.glob("*/*/.run/lock.json")]
        for path in self.store.glob("*/*/.run/*/run.json"):
            if json.loads(path.read_text(encoding="utf-8")).get("state") != "closed":
                found.append(str(path))
        return found

    def holder(self) -> dict[str, t.Any]:
        """Who has the lock, as the database host knows it."""
        return dict(json.loads((self.store / "db1" / "demo" / ".run" / "lock.json").read_text(encoding="utf-8")))

    def holds(self) -> list[str]:
        return [str(path) for path in self.store.glob("*/*/.run/*.state.json") if json.loads(path.read_text(encoding="utf-8")).get("hold")]

    def all_at(self, version: str, locks: bool = False) -> None:
        """What must hold after every run."""
        wanted = dict.fromkeys(["db1", *(host.name for host in self.hosts)], version)
        found = self.versions()
        assert found == wanted, f"{found}, expected {wanted}"
        rows = self.sql("SELECT count(*), bool_and(datallowconn) FROM pg_database WHERE datname = %s", (DATABASE,), "postgres")
        assert rows == [(1, True)], rows
        extra = [name for name in self.kept() if "__kept_" not in name]
        assert not extra or locks, f"left beside the live database: {extra}"
        if not locks:
            assert not self.locks(), self.locks()
            assert not self.holds(), self.holds()
        self.no_secret_in_files()
        self.payments_are_safe()

    def payments_are_safe(self) -> None:
        acks = self.clients / "acks.jsonl"
        if acks.exists():
            found = check.check(acks, self.ready()[0].params(), DATABASE)
            assert found.ok, found.sentence()

    def no_secret_in_files(self) -> None:
        """The password lies in no file that others could read."""
        secret = self.secret.encode()
        for folder, names, files in os.walk(self.folder):
            names[:] = [name for name in names if name not in ("postgresql", "node_modules")]
            for name in files:
                path = os.path.join(folder, name)
                found = os.lstat(path)
                if stat.S_ISREG(found.st_mode) and found.st_mode & 0o077 and found.st_size < 5_000_000:
                    with open(path, "rb") as handle:
                        assert secret not in handle.read(), f"the password is in {path}, mode {stat.filemode(found.st_mode)}"

    def picture(self, runs: bool = True) -> dict[str, t.Any]:
        """All that a run without consequences must leave as it is; without ``runs`` it may have written down that it tried."""
        told: dict[str, t.Any] = {
            "databases": self.sql(
                "SELECT oid::bigint, datname, datallowconn, shobj_description(oid, 'pg_database') FROM pg_database ORDER BY 1",
                dbname="postgres",
            ),
            "rows": self.sql("SELECT count(*), max(id) FROM payments"),
        }
        for host in self.hosts:
            told[f"pm2 of {host.name}"] = [
                (each["name"], each["pm_id"], each["pid"], each["pm2_env"]["status"], each["pm2_env"]["restart_time"])
                for each in host.pm2.jlist()
            ]
            told[f"files of {host.name}"] = _files(host.api.parent, host.api.name)
        told["store"] = _files(self.store.parent, self.store.name)
        if not runs:
            told["store"] = {path: what for path, what in told["store"].items() if "/.run" not in path and not what.startswith("d")}
        return told

    def watching(self, closed_is_fine: bool = False) -> Watcher:
        return Watcher(self.ready()[0], self.ready()[0].password, closed_is_fine)

    @contextlib.contextmanager
    def paying(self, rate: float = 10) -> t.Iterator[None]:
        """Customers pay all the time; at the end every acknowledged payment is looked up."""
        self.start_clients(rate)
        try:
            ports.wait_until(lambda: self.clients_report().get("acknowledged"), "the first payment", 60)
            yield
        finally:
            self.stop_clients()
        self.payments_are_safe()

    def await_payments(self, number: int = 10) -> None:
        """Until customers have paid so often again."""
        before = self.clients_report().get("acknowledged", 0)
        ports.wait_until(lambda: self.clients_report().get("acknowledged", 0) >= before + number, f"{number} more payments", 90, 0.2)


def _files(parent: pathlib.Path, prefix: str) -> dict[str, str]:
    """What lies in the folders whose names begin so: kind, mode and content of everything but node_modules and logs."""
    found: dict[str, str] = {}
    for top in sorted(path for path in parent.iterdir() if path.name == prefix or path.name.startswith(f"{prefix}.")):
        for folder, names, files in os.walk(top):
            names[:] = sorted(name for name in names if name not in ("node_modules", "logs"))
            for name in [*names, *files]:
                path = os.path.join(folder, name)
                state = os.lstat(path)
                what = f"{stat.filemode(state.st_mode)} {state.st_ino}"
                if stat.S_ISREG(state.st_mode):
                    what += " " + hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()[:16]
                elif stat.S_ISLNK(state.st_mode):
                    what += " " + os.readlink(path)
                found[path] = what
    return found


def differences(one: t.Mapping[str, t.Any], two: t.Mapping[str, t.Any]) -> list[str]:
    """Where two pictures differ, for people."""
    said = []
    for key in one:
        if one[key] != two[key]:
            if isinstance(one[key], dict):
                changed = [name for name in {*one[key], *two[key]} if one[key].get(name) != two[key].get(name)]
                said += [f"{key}: {name}: {one[key].get(name)} -> {two[key].get(name)}" for name in sorted(changed)]
            else:
                said.append(f"{key}: {one[key]} -> {two[key]}")
    return said


def settle_clock() -> None:
    """Names of points are seconds: the next one gets another name."""
    time.sleep(1.1)


# Shorter waits than people want; the paths through the code are the same.
QUICK: dict[str, t.Any] = {
    "rollback_pm2_probe_successes": 2,
    "rollback_pm2_stable_seconds": 0.5,
    "rollback_pm2_wait_seconds": 25,
}


AnyWorld = t.TypeVar("AnyWorld", bound=World)


def make_world(*app_hosts: str) -> t.Iterator[World]:
    yield from play_in(lambda folder: World(folder, app_hosts))


def play_in(make: t.Callable[[pathlib.Path], AnyWorld]) -> t.Iterator[AnyWorld]:
    """Build the world that ``make`` gives for a new folder; clear it away after."""
    # Short, for PM2's sockets, and not below pytest's own folders, which the database server's user cannot enter.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="payops-e2e-"))
    folder.rmdir()
    world = make(folder)
    try:
        try:
            world.build()
        except (Missing, NodeMissing) as exc:
            unavailable(str(exc))
        yield world
    finally:
        if os.environ.get("KEEP", "") in ("", "0"):
            world.clear()
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"kept: {folder}")
