# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One payment system in one folder: PostgreSQL, application hosts under PM2 (all of them this machine), its inventory.

Another process can find and end all of it again by the folder alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import sys
import typing as t
import urllib.error
import urllib.request

from tests.lab import app, ports, processes
from tests.lab.node import ROOT
from tests.lab.pm2home import Pm2Home
from tests.lab.postgres import Cluster
from tests.lab.roles import Roles, create_database, create_roles

DATABASE = "kejayangu"


def ansible_playbook() -> str:
    """The program beside the running interpreter, as a person with this virtual environment would call it."""
    beside = pathlib.Path(sys.executable).parent / "ansible-playbook"
    found = str(beside) if beside.exists() else shutil.which("ansible-playbook")
    if not found:
        raise RuntimeError("ansible-playbook was not found beside this Python; run `make demo`, which makes a virtual environment")
    return found


class AppHost:
    """What an application host has: a plain directory with code, a PM2 daemon and a port of its own."""

    def __init__(self, folder: pathlib.Path, name: str, number: int) -> None:
        suffix = "" if number == 1 else str(number)
        self.name = name
        self.api = folder / f"api{suffix}"
        self.port = 0
        self._home = folder / f"pm2{suffix}"
        self._pm2: Pm2Home | None = None

    @property
    def pm2(self) -> Pm2Home:
        if self._pm2 is None:
            self._pm2 = Pm2Home(self._home)
        return self._pm2

    @property
    def has_pm2(self) -> bool:
        return self._home.exists()

    def health(self, path: str = "/health") -> tuple[int, dict[str, t.Any]]:
        """Status and JSON of a health address; (0, {}) when nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as exc:
            with exc, contextlib.suppress(ValueError):
                return exc.code, json.load(exc)
            return exc.code, {}
        except (OSError, ValueError):
            return 0, {}

    def replace_code(self, fresh: pathlib.Path) -> None:
        """As the team's deployment does it: the new code over the old, .env stays, then a reload."""
        for entry in fresh.iterdir():
            target = self.api / entry.name
            if entry.name == ".env":
                continue
            if entry.is_dir():
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(entry, target, symlinks=True)
            else:
                target.unlink(missing_ok=True)
                shutil.copyfile(entry, target)
        self.pm2.run("reload", app.APP_NAME)


class System:
    """PostgreSQL 18, one or more application hosts, and a copy of inventories/demo with their ports and paths."""

    def __init__(self, folder: pathlib.Path, app_hosts: t.Sequence[str] = ("app1",), history: int = 20_000) -> None:
        self.folder = folder
        self.history = history
        self.hosts = [AppHost(folder, name, number) for number, name in enumerate(app_hosts, 1)]
        self.clients = folder / "clients"
        self.inventory = folder / "inventory"
        self.store = folder / "store"
        self.log = folder / "ansible.log"
        self.cluster: Cluster | None = None
        self.roles: Roles | None = None
        self._client: subprocess.Popen[bytes] | None = None

    # --- setting up ---------------------------------------------------------------------------------------------

    def make_folder(self) -> None:
        self.folder.mkdir(mode=0o755)
        self.folder.chmod(0o755)

    def start_database(self) -> Cluster:
        # A password with the characters that break tools, new in each run.
        password = f"{secrets.token_urlsafe(9)} '\"\\$@:/%#"
        self.cluster = Cluster(18, self.folder / "postgresql", password=password, outlive=True).start()
        self.roles = create_roles(self.cluster, "kejayangu", password=password)
        create_database(self.cluster, DATABASE, self.roles, role_settings=False)
        return self.cluster

    def deploy_first(self) -> None:
        """Release 1 in KejaYangu's plain directory, its schema, some history, two workers under PM2."""
        cluster, roles = self.ready()
        for host in self.hosts:
            app.build_release(host.api, 1)
            for name in ("uploads", "logs"):
                (host.api / name).mkdir()
            host.port = host.port or ports.free_port()
            app.write_env(
                host.api,
                {
                    "PORT": host.port,
                    "DATABASE_URL": cluster.url(DATABASE, **roles.app.login()),
                    "MIGRATION_DATABASE_URL": cluster.url(DATABASE, **roles.migrator.login()),
                },
            )
        app.migrate(self.hosts[0].api)
        self._write_history()
        self.start_apps()

    def start_apps(self) -> None:
        for host in self.hosts:
            host.pm2.start_daemon()
            host.pm2.start(host.api / "ecosystem.config.js")
        for host in self.hosts:
            ports.wait_until(lambda host=host: host.health()[0] == 200, f"a healthy release on {host.name}", 60)  # type: ignore[misc]
            host.pm2.run("save")

    def _write_history(self) -> None:
        cluster, roles = self.ready()
        login = {"dbname": DATABASE, **roles.migrator.login()}
        cluster.sql("INSERT INTO customers (phone) SELECT '+2547' || lpad(n::text, 8, '0') FROM generate_series(0, 299) n", **login)
        cluster.sql(
            """
            INSERT INTO payments (customer_id, reference, amount, provider, status, provider_ref, created_at)
            SELECT c.id, 'history-' || n, (n % 50000 + 1) / 100.0, (ARRAY['mpesa', 'stripe', 'flutterwave'])[n % 3 + 1],
                   CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'paid' END, 'R' || n, now() - (%s - n) * interval '2 minutes'
            FROM generate_series(1, %s) n JOIN customers c ON c.phone = '+2547' || lpad((n %% 300)::text, 8, '0')
            """.replace("n % 5", "n %% 5").replace("n % 3 ", "n %% 3 "),
            (self.history + 60, self.history),
            **login,
        )

    def write_inventory(self, **more: t.Any) -> pathlib.Path:
        """A copy of inventories/demo with the ports and paths of this run; ``more`` are variables of all hosts."""
        cluster, roles = self.ready()
        shutil.copytree(ROOT / "inventories" / "demo", self.inventory)
        values: dict[str, t.Any] = {
            "demo_dir": str(self.folder),
            "demo_python": sys.executable,
            "demo_database_port": cluster.port,
            "demo_database_password": roles.operator.password,
            "demo_database_bin": str(cluster.bin_dir),
            "demo_app_port": self.hosts[0].port,
            "demo_pm2_bin": self.hosts[0].pm2.bin,
            "demo_node_bin": self.hosts[0].pm2.node_bin,
        }
        self._write_vars("group_vars/all/generated.yml", values)
        if more:
            self.set_variables(**more)
        if len(self.hosts) > 1:
            names: dict[str, t.Any] = {host.name: {} for host in self.hosts}
            tree = {"all": {"children": {"database": {"hosts": {"db1": {}}}, "api": {"hosts": names}}}}
            (self.inventory / "hosts.yml").write_text(f"---\n{json.dumps(tree)}\n", encoding="utf-8")
            for host in self.hosts[1:]:
                own = {"rollback_pm2_app_dir": str(host.api), "rollback_pm2_home": str(host.pm2.home), "rollback_pm2_port": host.port}
                self._write_vars(f"host_vars/{host.name}.yml", own)
        return self.inventory

    def set_variables(self, **values: t.Any) -> None:
        """Variables of all hosts that win over those of the demo; without any, none are left."""
        for name in ("all", "api", "database"):  # a variable of a child group would win over one of all
            self._write_vars(f"group_vars/{name}/zz_test.yml", values)

    def _write_vars(self, name: str, values: t.Mapping[str, t.Any]) -> None:
        path = self.inventory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        lines = "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items()) or "{}\n"
        path.write_text("---\n" + lines, encoding="utf-8")

    # --- playing ------------------------------------------------------------------------------------------------

    def start_clients(self, rate: float, port: int = 0) -> None:
        port = port or self.hosts[0].port
        (self.clients / "report.json").unlink(missing_ok=True)  # of the customers before
        argv = [sys.executable, "-m", "tests.client", "--port", str(port), "--folder", str(self.clients), "--rate", str(rate)]
        self._client = processes.start(argv, log=self.folder / "clients.log", cwd=ROOT)

    def clients_report(self) -> dict[str, t.Any]:
        try:
            return dict(json.loads((self.clients / "report.json").read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return {}

    def stop_clients(self) -> None:
        """Stop paying; outstanding retries are finished."""
        if self._client is not None:
            processes.stop(self._client, signum=signal.SIGTERM, timeout=60)
            self._client = None

    def deploy(self, number: int, version: str | None = None, migration: str | None = None) -> None:
        """As the team's deployment does it: migrate, replace the code in api/, reload. Nothing is stopped.

        ``migration`` is SQL that this release brings in addition.
        """
        fresh = self.folder / "fresh-release"
        shutil.rmtree(fresh, ignore_errors=True)
        app.build_release(fresh, number, version)
        if migration:
            (fresh / "migrations" / f"{100 + number:03d}_more.sql").write_text(migration, encoding="utf-8")
        shutil.copy2(self.hosts[0].api / ".env", fresh / ".env")
        app.migrate(fresh)
        for host in self.hosts:
            host.replace_code(fresh)
        shutil.rmtree(fresh)

    def deploy_second(self) -> None:
        self.deploy(2)

    def points(self) -> list[str]:
        """The versions that have a sealed point on the database host."""
        return sorted(found.parent.name for found in (self.store / "db1" / "demo").glob("*/point.json"))

    def ready(self) -> tuple[Cluster, Roles]:
        if self.cluster is None or self.roles is None:
            raise RuntimeError("the database is not running")
        return self.cluster, self.roles

    # --- clearing away ------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """End everything that runs from this folder, whoever started it, and remove the folder."""
        if not self.folder.exists():
            return
        if self.folder.stat().st_uid != os.geteuid() or self.folder.is_symlink():
            raise RuntimeError(f"{self.folder} does not belong to you")
        with contextlib.suppress(Exception):
            self.stop_clients()
        for host in self.hosts:
            if host.has_pm2:
                with contextlib.suppress(Exception):
                    host.pm2.stop_daemon()
        if (self.folder / "postgresql" / "cluster.json").exists():
            with contextlib.suppress(Exception):
                Cluster.attach(self.folder / "postgresql").destroy()
        left = self._left_over()
        for pid in left:
            processes.signal_pid(pid, signal.SIGTERM)
        for pid in processes.wait_gone(left, 5):
            processes.signal_pid(pid, signal.SIGKILL)
        shutil.rmtree(self.folder)

    def _left_over(self) -> list[int]:
        """Processes that work in this folder or were started with it on their command line."""
        found = []
        mark = os.fsencode(str(self.folder))
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) in (os.getpid(), os.getppid()):
                continue
            with contextlib.suppress(OSError):
                cwd = os.fsencode(os.readlink(entry / "cwd"))
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if cwd == mark or cwd.startswith(mark + b"/") or any(word.startswith(mark + b"/") for word in words):
                    found.append(int(entry.name))
        return found
