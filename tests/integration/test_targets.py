# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each folder in targets/ as a role, by a real ansible-playbook, against real services.

What a target can count on (it gets a service only if its files name one of that service's variables):

lab_tmp                                 an empty folder for this run alone
lab_port                                a port where nothing listens
lab_pg_host, _port, _user, _password    the superuser of a running PostgreSQL; the target runs once per supported major version
lab_pg_bin_dir                          the client programs of that version
lab_pg_major                            15 or 18
lab_pm2_bin, lab_pm2_home, lab_node_bin a PM2 with a daemon of its own
lab_docker_host                         an engine of its own with kejayangu/api:previous and kejayangu/api:latest
lab_docker_previous, _latest            their IDs
lab_registry_url, _user, _password      a registry that asks for this login, with the same two tags
lab_registry_previous, _latest          their digests
lab_compose_docker_host, _environment   an engine with containers, and what docker compose needs in its environment there
lab_compose_dir, _url                   a project that runs release 1.0.0 of its service api, and where that answers;
                                        its image name names release 2.0.0 already
lab_haproxy_socket, _url, _share_map, _receivers_map   a proxy with the servers app1 and app2 behind it, and a receiver
lab_nginx_folder, _config, _pid_file, _url              the same with nginx; _other is the address of app2
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import typing as t

import pytest

from tests.lab import compose, ports
from tests.lab import docker as lab_docker
from tests.lab import nginx as lab_nginx
from tests.lab import registry as lab_registry
from tests.lab import traffic as lab_traffic
from tests.lab.fixtures import engine_with_compose, unavailable
from tests.lab.node import NodeMissing
from tests.lab.pm2home import Pm2Home
from tests.lab.postgres import Cluster
from tests.real.docker.compose_rig import ComposeRig

TARGETS = pathlib.Path(__file__).resolve().parent / "targets"
ROOT = TARGETS.parents[2]


def uses(target: pathlib.Path, word: str) -> bool:
    """Whether the files of a target name a variable."""
    return any(word in path.read_text(encoding="utf-8") for path in target.rglob("*.yml"))


ALL = sorted(path for path in TARGETS.iterdir() if (path / "tasks/main.yml").is_file() and not path.name.startswith("setup_"))
WITH_DATABASE = [target for target in ALL if uses(target, "lab_pg_")]
WITHOUT_DATABASE = [target for target in ALL if target not in WITH_DATABASE]


def play(target: pathlib.Path, tmp_path: pathlib.Path, variables: dict[str, t.Any]) -> None:
    """Run one target as the only role of a play on this machine; no secret may be shown, not even verbosely."""
    lab_tmp = tmp_path / "lab"
    lab_tmp.mkdir()
    lab_tmp.chmod(0o755)
    given = {"lab_tmp": str(lab_tmp), "lab_port": ports.free_port(), **variables}
    if uses(target, "lab_pm2_") or uses(target, "lab_node_"):
        try:
            home = Pm2Home()
        except NodeMissing as exc:
            unavailable(str(exc))
        with home:
            given.update(lab_pm2_bin=home.bin, lab_pm2_home=str(home.home), lab_node_bin=home.node_bin)
            _run(target, tmp_path, given)
    elif uses(target, "lab_compose_"):
        with contextlib.ExitStack() as services:
            given.update(_project(services, tmp_path))
            _run(target, tmp_path, given)
    elif uses(target, "lab_docker_") or uses(target, "lab_registry_"):
        with contextlib.ExitStack() as services:
            given.update(_images(services, tmp_path))
            _run(target, tmp_path, given)
    elif uses(target, "lab_nginx_"):
        with contextlib.ExitStack() as services:
            given.update(_nginx(services))
            _run(target, tmp_path, given)
    elif uses(target, "lab_haproxy_"):
        with contextlib.ExitStack() as services:
            given.update(_proxy(services, lab_tmp))
            _run(target, tmp_path, given)
    else:
        _run(target, tmp_path, given)


def _proxy(services: contextlib.ExitStack, folder: pathlib.Path) -> dict[str, t.Any]:
    missing = lab_traffic.missing(lab_traffic.HAPROXY)
    if missing:
        unavailable(missing)
    servers = {name: lab_traffic.Echo(name).start() for name in ("app1", "app2")}
    short = pathlib.Path(services.enter_context(tempfile.TemporaryDirectory(prefix="payops-proxy-")))  # for the socket
    proxy = lab_traffic.Proxy(short, {name: each.port for name, each in servers.items()}).start()
    for each in (*servers.values(), proxy):
        services.callback(each.stop)
    return {
        "lab_haproxy_socket": str(proxy.socket),
        "lab_haproxy_url": proxy.url,
        "lab_haproxy_share_map": proxy.places.share_map,
        "lab_haproxy_receivers_map": proxy.places.receivers_map,
    }


def _nginx(services: contextlib.ExitStack) -> dict[str, t.Any]:
    missing = lab_traffic.missing(lab_nginx.NGINX)
    if missing:
        unavailable(missing)
    servers = {name: lab_traffic.Echo(name).start() for name in ("app1", "app2")}
    folder = pathlib.Path(services.enter_context(tempfile.TemporaryDirectory(prefix="payops-nginx-")))
    proxy = lab_nginx.Nginx(folder, {name: each.port for name, each in servers.items()}).start()
    for each in (*servers.values(), proxy):
        services.callback(each.stop)
    return {
        "lab_nginx_folder": str(proxy.files),
        "lab_nginx_config": str(proxy.config),
        "lab_nginx_pid_file": str(proxy.pid_file),
        "lab_nginx_url": proxy.url,
        "lab_nginx_other": f"127.0.0.1:{servers['app2'].port}",
    }


def _project(services: contextlib.ExitStack, tmp_path: pathlib.Path) -> dict[str, t.Any]:
    """A compose project whose first release runs; the second is built."""
    engine = services.enter_context(engine_with_compose())
    rig = ComposeRig(engine, tmp_path, "kejayangu")
    services.callback(rig.clear)
    rig.deploy("1.0.0")
    rig.build("2.0.0")
    return {
        "lab_compose_docker_host": engine.url,
        "lab_compose_environment": compose.env(),
        "lab_compose_dir": str(rig.dir),
        "lab_compose_url": f"http://127.0.0.1:{rig.port}/health",
    }


def _images(services: contextlib.ExitStack, tmp_path: pathlib.Path) -> dict[str, t.Any]:
    """An engine and a registry with the same two tags."""
    missing = lab_docker.unusable() or ("" if lab_registry.installed() else lab_registry.HOW_TO_GET)
    if missing:
        unavailable(missing)
    engine = services.enter_context(lab_docker.Engine())
    registry = services.enter_context(lab_registry.Registry(lab_registry.htpasswd(tmp_path)))
    registry.session.auth = (lab_registry.USER.encode(), lab_registry.PASSWORD.encode())
    given = {"lab_docker_host": engine.url, "lab_registry_url": registry.url}
    given.update(lab_registry_user=lab_registry.USER, lab_registry_password=lab_registry.PASSWORD)
    for tag in ("previous", "latest"):
        given[f"lab_docker_{tag}"] = engine.make(f"kejayangu/api:{tag}", tag)
        given[f"lab_registry_{tag}"] = registry.push_index("kejayangu/api", tag, tag).digest
    return given


def _run(target: pathlib.Path, tmp_path: pathlib.Path, given: dict[str, t.Any]) -> None:
    (tmp_path / "vars.json").write_text(json.dumps(given))
    host = {"ansible_connection": "local", "ansible_remote_tmp": f"{tmp_path}/remote", "ansible_python_interpreter": sys.executable}
    (tmp_path / "hosts").write_text("testhost " + " ".join(f"{name}={value}" for name, value in host.items()) + "\n")
    (tmp_path / "play.yml").write_text(f"- hosts: testhost\n  gather_facts: false\n  roles: [{target.name}]\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment.update(ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"), ANSIBLE_ROLES_PATH=str(TARGETS), ANSIBLE_NOCOLOR="1")
    done = subprocess.run(
        [str(pathlib.Path(sys.executable).with_name("ansible-playbook")), "-v", "-i", str(tmp_path / "hosts")]
        + ["-e", f"@{tmp_path}/vars.json", str(tmp_path / "play.yml")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=600,
        check=False,
    )
    output = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, output[-12000:]
    assert "DEPRECATION WARNING" not in output, output[-12000:]
    for name, password in given.items():
        # as it is, and as JSON writes it
        if name.endswith("_password") and (password in output or json.dumps(password)[1:-1] in output):
            pytest.fail(f"{name} was shown")


def test_every_module_has_a_target() -> None:
    """Those that run on the controller (plugins/action), too."""
    modules = {path.stem for path in (ROOT / "plugins/modules").glob("*.py")}
    assert modules == {target.name for target in ALL}


@pytest.mark.parametrize("target", WITHOUT_DATABASE, ids=lambda target: target.name)
def test_target(target: pathlib.Path, tmp_path: pathlib.Path) -> None:
    play(target, tmp_path, {})


@pytest.mark.parametrize("target", WITH_DATABASE, ids=lambda target: target.name)
def test_target_with_database(target: pathlib.Path, tmp_path: pathlib.Path, cluster: Cluster) -> None:
    database = {
        "lab_pg_major": cluster.major,
        "lab_pg_host": cluster.host,
        "lab_pg_port": cluster.port,
        "lab_pg_user": cluster.superuser,
        "lab_pg_password": cluster.password,
        "lab_pg_bin_dir": str(cluster.bin_dir),
    }
    play(target, tmp_path, database)
