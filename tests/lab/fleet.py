# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts for tests that a controller reaches by ssh alone: containers of a private engine, each with the services of its role.

What a team would do by hand is done here: the application is deployed, the database filled, the proxy configured. Nothing here
knows the collection, but for the lines that it asks for in haproxy.cfg.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import json
import pathlib
import random
import secrets
import shlex
import shutil
import subprocess
import tarfile
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._haproxy.doors import Places, snippet
from tests.lab import app, host_image, ports
from tests.lab.docker import Engine
from tests.lab.faults import FOLDER, VARIABLE
from tests.lab.node import ROOT
from tests.lab.postgres import Cluster
from tests.lab.roles import Roles, create_database, create_roles
from tests.lab.traffic import fetch

RESOURCES = ROOT / "molecule" / "resources"
DATABASE = "payments"
APP_PORT = 5000
API = "/srv/payments/api"
STORE = "/var/lib/payops-rollback"
PLACES = Places("/etc/haproxy/payops-share.map", "/etc/haproxy/payops-receivers.map", 30)
FAULTS = FOLDER / "sitecustomize.py"
# As a pipeline connects: no question is ever asked, and a connection is kept for the next task.
SSH = (
    "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    " -o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=5 -o ServerAliveCountMax=2"
)
FIVE = {"proxy1": ["proxies"], "app1": ["apps"], "app2": ["apps"], "app3": ["apps"], "db1": ["database"]}


class Server(Cluster):
    """A PostgreSQL on a host of the fleet, as somebody sees it who may log in."""

    def __init__(self, host: str, password: str) -> None:
        self.host, self.port, self.superuser, self.password = host, 5432, "postgres", password


class Host:
    """One container. ``groups`` are those of the inventory, and say what is on it."""

    def __init__(self, engine: Engine, name: str, groups: t.Sequence[str], address: str) -> None:
        self.engine = engine
        self.name = name
        self.groups = list(groups)
        self.address = address
        self.id = ""
        self.code = 0

    def run(self, *argv: str, user: str = "root", check: bool = True, env: t.Mapping[str, str] | None = None) -> str:
        """A command in the container, not by ssh; what it printed."""
        client = self.engine.client()
        made = client.exec_create(self.id, list(argv), user=user, environment=dict(env or {}))
        told = client.exec_start(made["Id"]).decode(errors="replace")
        self.code = client.exec_inspect(made["Id"])["ExitCode"]
        if check and self.code != 0:
            raise RuntimeError(f"{self.name}: {shlex.join(argv)} failed ({self.code}):\n{told}")
        return str(told)

    def succeeds(self, *argv: str) -> bool:
        """For questions with a yes or no: what a command prints may get lost when the engine is busy, its exit code does not."""
        self.run(*argv, check=False)
        return self.code == 0

    def put(self, source: pathlib.Path, target: str, owner: tuple[int, int] = (0, 0)) -> None:
        """Copy a file or a folder there, at run time: what lies in an image cannot be exchanged by a rename."""
        packed = io.BytesIO()

        def own(entry: tarfile.TarInfo) -> tarfile.TarInfo:
            entry.uid, entry.gid = owner
            entry.uname = entry.gname = ""
            return entry

        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(source, arcname=pathlib.PurePath(target).name, filter=own)
        self.engine.client().put_archive(self.id, str(pathlib.PurePath(target).parent), packed.getvalue())

    def write(self, target: str, text: str) -> None:
        data = text.encode()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            entry = tarfile.TarInfo(pathlib.PurePath(target).name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
        self.engine.client().put_archive(self.id, str(pathlib.PurePath(target).parent), packed.getvalue())

    def as_payments(self, *argv: str, check: bool = True) -> str:
        env = {"PM2_HOME": "/home/payments/.pm2", "HOME": "/home/payments", "PM2_NO_INTERACTION": "true"}
        return self.run(*argv, user="payments", check=check, env=env)

    def pm2(self, *argv: str, check: bool = True) -> str:
        return self.as_payments("/opt/pm2/bin/pm2", *argv, check=check)

    def kill(self) -> None:
        """Power off: every process is gone at once."""
        self.engine.client().kill(self.id)

    def boot(self) -> None:
        self.engine.client().start(self.id)
        ports.wait_for(22, self.address)

    def stop_sshd(self) -> None:
        """No new connection, and the end of those that are open; everything else on the host goes on."""
        self.run("pkill", "-x", "sshd", check=False)
        ports.wait_closed(22, self.address)

    def start_sshd(self) -> None:
        self.run("/usr/sbin/sshd")
        ports.wait_for(22, self.address)

    def break_at(self, fault: str | None) -> None:
        """Arm every Python of this host with a fault (tests/faults/sitecustomize.py), or with none."""
        place = "$(python3 -c 'import sysconfig; print(sysconfig.get_path(\"stdlib\"))')/sitecustomize.py"
        self.run("sh", "-c", f"rm -f {place} /tmp/fault")
        if fault:
            armed = FAULTS.read_text(encoding="utf-8").replace("import os\n", f"import os\n\nos.environ['{VARIABLE}'] = {fault!r}\n", 1)
            self.write("/etc/fault.py", armed)
            self.run("sh", "-c", f"cp /etc/fault.py {place}")

    # -- seen from outside ---------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        return 80 if "proxies" in self.groups else APP_PORT

    def answers(self, path: str = "/health") -> tuple[int, dict[str, t.Any]]:
        """Status and JSON of an address on this host; (0, {}) where nothing answers."""
        try:
            told = fetch(f"http://{self.address}:{self.port}{path}")
            return told.status, json.loads(told.text)
        except ValueError:
            return told.status, {}
        except OSError:
            return 0, {}

    def version(self) -> str:
        """What an application host runs, as its own answer says."""
        status, told = self.answers()
        return str(told.get("version") or f"HTTP {status}")


class Fleet:
    """The hosts of one system, in a network of their own. ``folder`` takes keys and inventory.

    The store of a ``small`` host has a filesystem of its own of so many bytes, in memory: gone when the host is powered off.
    """

    def __init__(
        self, engine: Engine, folder: pathlib.Path, hosts: t.Mapping[str, t.Sequence[str]], small: t.Mapping[str, int] | None = None
    ) -> None:
        self.small = dict(small or {})
        self.engine = engine
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.key = folder / "id_ed25519"
        self.network = ""
        self.hosts = {name: Host(engine, name, groups, "") for name, groups in hosts.items()}
        self.password = secrets.token_urlsafe(12)
        self.roles: Roles | None = None

    def of(self, group: str) -> list[Host]:
        return [host for host in self.hosts.values() if group in host.groups]

    @property
    def apps(self) -> list[Host]:
        return self.of("apps")

    @property
    def entrance(self) -> Host:
        """Where customers come in."""
        return (self.of("proxies") or self.apps)[0]

    @property
    def server(self) -> Server:
        return Server(self.of("database")[0].address, self.password)

    # -- life ------------------------------------------------------------------------------------------------------------

    def start(self) -> Fleet:
        """The hosts with sshd, nothing deployed yet."""
        image = host_image.make(self.engine)
        if not self.key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True, timeout=20)
        public = self.key.with_suffix(".pub").read_text(encoding="utf-8")
        self._make_network()
        client = self.engine.client()
        for host in self.hosts.values():
            # what a reboot of the host must keep is in the container; shared memory is PostgreSQL's
            names = {each.name: each.address for each in self.hosts.values()}
            own = {STORE: f"size={self.small[host.name]},mode=0755"} if host.name in self.small else None
            config = client.create_host_config(extra_hosts=names, shm_size="256m", tmpfs=own)
            place = client.create_networking_config({self.network: client.create_endpoint_config(ipv4_address=host.address)})
            made = client.create_container(image, hostname=host.name, host_config=config, networking_config=place, stop_signal="SIGTERM")
            host.id = made["Id"]
            client.start(host.id)
            host.run("install", "-d", "-m", "700", "-o", "deploy", "-g", "deploy", "/home/deploy/.ssh")
            host.write("/home/deploy/.ssh/authorized_keys", public)
            host.run("rm", "-f", "/run/nologin")
        for host in self.hosts.values():
            ports.wait_for(22, host.address)
        return self

    def _make_network(self) -> None:
        import docker.errors

        client = self.engine.client()
        for unused in range(30):
            net = f"10.{random.randint(150, 199)}.{random.randint(0, 254)}"
            pool = {"Config": [{"Subnet": f"{net}.0/24", "Gateway": f"{net}.1"}]}
            try:
                self.network = str(client.create_network(f"fleet-{secrets.token_hex(4)}", driver="bridge", ipam=pool)["Id"])
            except docker.errors.APIError:  # somebody has that one
                continue
            for number, host in enumerate(self.hosts.values(), 2):
                host.address = f"{net}.{number}"
            return
        raise RuntimeError("no free network found for the fleet")

    def clear(self) -> None:
        for host in self.hosts.values():
            if host.id:
                with contextlib.suppress(Exception):  # of an engine that is gone nothing is left, either
                    self.engine.client().remove_container(host.id, force=True, v=True)
        if self.network:
            with contextlib.suppress(Exception):
                self.engine.client().remove_network(self.network)

    # -- what a team has done before ------------------------------------------------------------------------------------

    def set_up(self, version: str = "1.0.0") -> Fleet:
        """Database, application and proxy, as far as the fleet has them; customers may pay after."""
        for host in self.of("database"):
            self._set_up_database(host)
        self.deploy(1, version)
        for host in self.of("proxies"):
            self._set_up_proxy(host)
        return self

    def _set_up_database(self, host: Host) -> None:
        host.write("/etc/fleet.conf", "listen_addresses = '*'\nfsync = off\nmax_connections = 300\nshared_buffers = 32MB\n")
        lines = (
            "cd /etc/postgresql/*/main && cp /etc/fleet.conf conf.d/ && echo 'host all all 0.0.0.0/0 scram-sha-256' >> pg_hba.conf",
            'touch /var/lib/postgresql/fleet && pg_ctlcluster "$(ls /etc/postgresql)" main start',
        )
        host.run("sh", "-ec", "\n".join(lines))
        host.run("psql", "-qc", f"ALTER ROLE postgres PASSWORD '{self.password}'", user="postgres")
        ports.wait_for(5432, host.address)
        self.roles = create_roles(self.server, "payments", password=self.password)
        create_database(self.server, DATABASE, self.roles, role_settings=False)

    def _set_up_proxy(self, host: Host) -> None:
        # all customers come from one machine here, so they are told apart by their key
        lines = snippet(PLACES, "api").replace("src,xxh32", "req.hdr(Idempotency-Key),xxh32").splitlines()[1:]
        servers = [f"    server {each.name} {each.address}:{APP_PORT} weight 100" for each in self.apps]
        text = (host_image.HERE / "haproxy.cfg").read_text(encoding="utf-8")
        text = text.replace("@frontend@", "\n".join(lines)).replace("@servers@", "\n".join(servers))
        host.run("touch", PLACES.share_map, PLACES.receivers_map)
        host.write("/etc/haproxy/fleet.cfg", text)
        host.run("haproxy", "-W", "-D", "-f", "/etc/haproxy/fleet.cfg")
        ports.wait_until(lambda: host.answers()[0] == 200, "an application behind the proxy", 30)

    def deploy(
        self,
        number: int,
        version: str | None = None,
        migration: str | None = None,
        only: t.Container[str] | None = None,
        migrate: bool = True,
    ) -> None:
        """As the team's deployment does it: migrate, copy the new code over the old, restart. .env stays.

        ``migration`` is SQL that this release brings in addition. Somebody may also forget to ``migrate``.
        """
        fresh = self.folder / "fresh-release"
        shutil.rmtree(fresh, ignore_errors=True)
        app.build_release(fresh, number, version)
        if migration:
            (fresh / "migrations" / f"{100 + number:03d}_more.sql").write_text(migration, encoding="utf-8")
        if migrate:
            app.write_env(fresh, self.environment())
            app.migrate(fresh)
            (fresh / ".env").unlink()
        wanted = json.loads((fresh / "package.json").read_text(encoding="utf-8"))["version"]

        def replace(host: Host) -> None:
            self._replace(host, fresh)
            ports.wait_until(lambda: host.version() == wanted, f"{wanted} on {host.name}", 60, 0.2)

        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(replace, [host for host in self.apps if only is None or host.name in only]))
        shutil.rmtree(fresh)

    def _replace(self, host: Host, fresh: pathlib.Path) -> None:
        host.put(fresh, "/srv/payments/fresh", host_image.PAYMENTS)
        if not host.succeeds("test", "-e", API):
            host.as_payments("mv", "/srv/payments/fresh", API)
            host.as_payments("mkdir", f"{API}/uploads", f"{API}/logs")
            env = "".join(f"{key}={value}\n" for key, value in self.environment().items())
            host.as_payments("sh", "-c", f"umask 077; printf %s {shlex.quote(env)} > {API}/.env")
            host.pm2("start", f"{API}/ecosystem.config.js")
            host.pm2("save")
            return
        host.as_payments(
            "sh", "-c", f"cd /srv/payments/fresh && for f in * ; do rm -rf {API}/$f && cp -a $f {API}/ ; done && rm -rf /srv/payments/fresh"
        )
        host.pm2("reload", app.APP_NAME)

    def environment(self) -> dict[str, str | int]:
        roles, server = self.roles or create_roles(self.server, "payments", password=self.password), self.server
        return {
            "HOST": "0.0.0.0",
            "PORT": APP_PORT,
            "DATABASE_URL": server.url(DATABASE, **roles.app.login()),
            "MIGRATION_DATABASE_URL": server.url(DATABASE, **roles.migrator.login()),
        }

    def state(self) -> dict[str, t.Any]:
        """What another process needs to go on with this fleet."""
        hosts = {host.name: {"id": host.id, "address": host.address, "groups": host.groups} for host in self.hosts.values()}
        return {"network": self.network, "password": self.password, "hosts": hosts}

    @classmethod
    def attach(cls, engine: Engine, folder: pathlib.Path, state: t.Mapping[str, t.Any]) -> Fleet:
        made = cls(engine, folder, {name: host["groups"] for name, host in state["hosts"].items()})
        made.network, made.password = state["network"], state["password"]
        for name, host in state["hosts"].items():
            made.hosts[name].id, made.hosts[name].address = host["id"], host["address"]
        return made

    # -- for the controller ----------------------------------------------------------------------------------------------

    def tree(self, only: t.Container[str] | None = None) -> dict[str, t.Any]:
        """The inventory's hosts, or ``only`` those of these names."""
        groups: dict[str, t.Any] = {}
        for host in (each for name, each in self.hosts.items() if only is None or name in only):
            for group in host.groups:
                told = {"ansible_host": host.address, "ansible_ssh_private_key_file": str(self.key)}
                groups.setdefault(group, {"hosts": {}})["hosts"][host.name] = told
        return {"all": {"children": groups, "vars": {"ansible_ssh_args": SSH}}}

    def inventory(self, only: t.Container[str] | None = None, **more: t.Any) -> pathlib.Path:
        """The inventory of the scenarios with the addresses of this fleet; ``more`` are variables of all its hosts."""
        folder = self.folder / "inventory"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(RESOURCES / "group_vars", folder / "group_vars")
        (folder / "hosts.yml").write_text(f"---\n{json.dumps(self.tree(only), indent=1)}\n", encoding="utf-8")
        for group in ("all", "proxies", "apps", "database"):  # a variable of a child group would win over one of all
            (folder / "group_vars" / group / "zz_test.yml").write_text(f"---\n{json.dumps(more)}\n", encoding="utf-8")
        return folder

    def data_version(self) -> str:
        """Which release's schema the live database has: 1.1.0 brought a note with it."""
        query = "SELECT EXISTS (SELECT FROM information_schema.columns WHERE table_name = 'payments' AND column_name = 'note')"
        return "1.1.0" if self.server.sql(query, dbname=DATABASE)[0][0] else "1.0.0"

    def versions(self) -> dict[str, str]:
        """Every host's state: the version that it has, or for a proxy what customers get from it."""
        found = {host.name: f"answers {host.answers()[0]}" for host in self.of("proxies")}
        found.update({host.name: host.version() for host in self.apps})
        for host in self.of("database"):
            try:
                found[host.name] = self.data_version()
            except Exception as exc:
                found[host.name] = f"closed ({str(exc).strip().splitlines()[-1]})"
        return found
