# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HAProxy and one nginx for all tests of this folder; each test leaves it as it found it."""

from __future__ import annotations

import pathlib
import shutil
import tempfile
import typing as t

import pytest

from tests.lab import nginx, traffic
from tests.lab.fixtures import unavailable
from tests.real.traffic.nginx_rig import NginxRig
from tests.real.traffic.rig import Rig


@pytest.fixture(scope="session")
def place() -> t.Iterator[pathlib.Path]:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="payops-proxy-"))  # short, for the socket
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def the_rig(place: pathlib.Path) -> t.Iterator[Rig]:
    missing = traffic.missing(traffic.HAPROXY)
    if missing:
        unavailable(missing)
    servers = {name: traffic.Echo(name).start() for name in ("app1", "app2", "app3")}
    proxy = traffic.Proxy(place / "haproxy", {name: each.port for name, each in servers.items()}).start()
    yield Rig(proxy, servers, place / "store")
    proxy.stop()
    for each in servers.values():
        each.stop()


@pytest.fixture
def rig(the_rig: Rig) -> t.Iterator[Rig]:
    yield the_rig
    the_rig.clear()


@pytest.fixture(scope="session")
def the_nginx(place: pathlib.Path) -> t.Iterator[NginxRig]:
    missing = traffic.missing(nginx.NGINX)
    if missing:
        unavailable(missing)
    servers = {name: traffic.Echo(name).start() for name in ("app1", "app2", "app3")}
    proxy = nginx.Nginx(place / "nginx", {name: each.port for name, each in servers.items()}).start()
    yield NginxRig(proxy, servers, place / "nginx-store")
    proxy.stop()
    for each in servers.values():
        each.stop()


@pytest.fixture
def nginx_rig(the_nginx: NginxRig) -> t.Iterator[NginxRig]:
    yield the_nginx
    the_nginx.clear()
