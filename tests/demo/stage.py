# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that the demo starts, in one folder; another process can find and end all of it again."""

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
import tempfile
import typing as t
import urllib.request

from tests.lab import app, ports, processes
from tests.lab.node import ROOT
from tests.lab.pm2home import Pm2Home
from tests.lab.postgres import Cluster
from tests.lab.roles import Roles, create_database, create_roles

DATABASE = "kejayangu"
HISTORY = 20_000


def default_folder() -> pathlib.Path:
    """One folder per user, outside the checkout: the database server's user must be able to enter it."""
    return pathlib.Path(tempfile.gettempdir()) / f"payops-demo-{os.geteuid()}"


def ansible_playbook() -> str:
    """The program beside the running interpreter, as a person with this virtual environment would call it."""
    beside = pathlib.Path(sys.executable).parent / "ansible-playbook"
    found = str(beside) if beside.exists() else shutil.which("ansible-playbook")
    if not found:
        raise RuntimeError("ansible-playbook was not found beside this Python; run `make demo`, which makes a virtual environment")
    return found


class Stage:
    """PostgreSQL 18, PM2, the application and its inventory."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.api = folder / "api"
        self.clients = folder / "clients"
        self.inventory = folder / "inventory"
        self.store = folder / "store"
        self.log = folder / "ansible.log"
        self.port = 0
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
        cluster, roles = self._ready()
        app.build_release(self.api, 1)
        for name in ("uploads", "logs"):
            (self.api / name).mkdir()
        self.port = ports.free_port()
        app.write_env(
            self.api,
            {
                "PORT": self.port,
                "DATABASE_URL": cluster.url(DATABASE, **roles.app.login()),
                "MIGRATION_DATABASE_URL": cluster.url(DATABASE, **roles.migrator.login()),
            },
        )
        app.migrate(self.api)
        self._write_history()
        self.pm2.start(self.api / "ecosystem.config.js")
        ports.wait_until(lambda: self.health()[0] == 200, "a healthy release 1", 30)
        self.pm2.run("save")

    def _write_history(self) -> None:
        cluster, roles = self._ready()
        login = {"dbname": DATABASE, **roles.migrator.login()}
        cluster.sql("INSERT INTO customers (phone) SELECT '+2547' || lpad(n::text, 8, '0') FROM generate_series(0, 299) n", **login)
        cluster.sql(
            """
            INSERT INTO payments (customer_id, reference, amount, provider, status, provider_ref, created_at)
            SELECT c.id, 'history-' || n, (n % 50000 + 1) / 100.0, (ARRAY['mpesa', 'stripe', 'flutterwave'])[n % 3 + 1],
                   CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'paid' END, 'R' || n, now() - (%s - n) * interval '2 minutes'
            FROM generate_series(1, %s) n JOIN customers c ON c.phone = '+2547' || lpad((n %% 300)::text, 8, '0')
            """.replace("n % 5", "n %% 5").replace("n % 3 ", "n %% 3 "),
            (HISTORY + 60, HISTORY),
            **login,
        )

    def write_inventory(self) -> pathlib.Path:
        """A copy of inventories/demo with the ports and paths of this run."""
        cluster, roles = self._ready()
        shutil.copytree(ROOT / "inventories" / "demo", self.inventory)
        values: dict[str, t.Any] = {
            "demo_dir": str(self.folder),
            "demo_python": sys.executable,
            "demo_database_port": cluster.port,
            "demo_database_password": roles.operator.password,
            "demo_database_bin": str(cluster.bin_dir),
            "demo_app_port": self.port,
            "demo_pm2_bin": self.pm2.bin,
            "demo_node_bin": self.pm2.node_bin,
        }
        path = self.inventory / "group_vars" / "all" / "generated.yml"
        path.touch(mode=0o600)
        path.write_text("---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items()), encoding="utf-8")
        return self.inventory

    # --- playing ------------------------------------------------------------------------------------------------

    @property
    def pm2(self) -> Pm2Home:
        if not hasattr(self, "_pm2"):
            self._pm2 = Pm2Home(self.folder / "pm2")
        return self._pm2

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

    def start_clients(self, rate: float) -> None:
        argv = [sys.executable, "-m", "tests.client", "--port", str(self.port), "--folder", str(self.clients), "--rate", str(rate)]
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

    def deploy_second(self) -> None:
        """As the team's deployment does it: migrate, replace the code in api/, reload. Nothing is stopped."""
        fresh = app.build_release(self.folder / "release-2", 2)
        shutil.copy2(self.api / ".env", fresh / ".env")
        app.migrate(fresh)
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
        shutil.rmtree(fresh)
        self.pm2.run("reload", app.APP_NAME)

    def points(self) -> list[str]:
        """The versions that have a sealed point on the database host."""
        return sorted(found.parent.name for found in (self.store / "db1" / "demo").glob("*/point.json"))

    def _ready(self) -> tuple[Cluster, Roles]:
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
        if (self.folder / "pm2").exists():
            with contextlib.suppress(Exception):
                self.pm2.stop_daemon()
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
