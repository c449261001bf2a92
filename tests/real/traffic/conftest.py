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


AnyKind = t.TypeVar("AnyKind", Rig, NginxRig)


def started(
    program: str, proxy: t.Callable[[dict[str, int]], t.Any], rig: t.Callable[..., AnyKind], store: pathlib.Path
) -> t.Iterator[AnyKind]:
    """A proxy before three servers."""
    missing = traffic.missing(program)
    if missing:
        unavailable(missing)
    servers = {name: traffic.Echo(name).start() for name in ("app1", "app2", "app3")}
    running = proxy({name: each.port for name, each in servers.items()}).start()
    yield rig(running, servers, store)
    running.stop()
    for each in servers.values():
        each.stop()


@pytest.fixture(scope="session")
def the_rig(place: pathlib.Path) -> t.Iterator[Rig]:
    yield from started(traffic.HAPROXY, lambda servers: traffic.Proxy(place / "haproxy", servers), Rig, place / "store")


@pytest.fixture
def rig(the_rig: Rig) -> t.Iterator[Rig]:
    yield the_rig
    the_rig.clear()


@pytest.fixture(scope="session")
def the_nginx(place: pathlib.Path) -> t.Iterator[NginxRig]:
    yield from started(nginx.NGINX, lambda servers: nginx.Nginx(place / "nginx", servers), NginxRig, place / "nginx-store")


@pytest.fixture
def nginx_rig(the_nginx: NginxRig) -> t.Iterator[NginxRig]:
    yield the_nginx
    the_nginx.clear()
