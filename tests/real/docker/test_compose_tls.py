# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""compose_rollback through an engine's port with TLS: the SDK and docker compose are told the same in different words."""

from __future__ import annotations

import pathlib
import shutil
import typing as t

import pytest

from tests.lab import compose
from tests.lab.certificates import Authority
from tests.lab.docker import Engine
from tests.lab.fixtures import unavailable
from tests.lab.ports import free_port
from tests.real.docker.compose_rig import ComposeRig


class Guarded(t.NamedTuple):
    rig: ComposeRig
    url: str
    ca: pathlib.Path
    pair: dict[str, str]


@pytest.fixture
def guarded(tmp_path: pathlib.Path) -> t.Iterator[Guarded]:
    """An engine on a port that lets nobody in without a certificate; what people do by hand goes over its socket."""
    reason = compose.unusable()
    if reason:
        unavailable(reason)
    authority = Authority(tmp_path)
    certificate, key = authority.issue("engine")
    own, own_key = authority.issue("host")
    port = free_port()
    listen = ["-H", f"tcp://127.0.0.1:{port}", "--tlsverify", f"--tlscacert={authority.ca}", f"--tlscert={certificate}", f"--tlskey={key}"]
    with Engine(*listen, containers=True) as engine:
        rig = ComposeRig(engine, tmp_path, "guarded")
        try:
            yield Guarded(rig, f"tcp://127.0.0.1:{port}", authority.ca, {"client_cert": str(own), "client_key": str(own_key)})
        finally:
            rig.clear()


def test_there_and_back_over_tls(guarded: Guarded, tmp_path: pathlib.Path) -> None:
    rig = guarded.rig
    rig.first_and_second()
    verified = {"docker_host": guarded.url, "validate_certs": True, "ca_path": str(guarded.ca), **guarded.pair}
    rig.module("live", version="v1", **verified)
    rig.check_complete("1.0.0")
    rig.module("previous", **{**verified, "validate_certs": False, "ca_path": None, "tls": True})
    rig.check_complete("2.0.0")
    folder = tmp_path / "certificates"
    folder.mkdir()
    for name, path in (("ca.pem", guarded.ca), ("cert.pem", guarded.pair["client_cert"]), ("key.pem", guarded.pair["client_key"])):
        shutil.copy(path, folder / name)
    by_environment = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(folder)}
    rig.module("held", docker_host=guarded.url, env=by_environment)
    assert rig.ask()[0] == 503
    rig.module("started", **verified)
    rig.check_complete("2.0.0")
    assert "certificate" in rig.refused("live", version="v1", **{**verified, "ca_path": str(Authority(tmp_path, "stranger").ca)})
    assert "does not answer" in rig.refused("live", version="v1", docker_host=guarded.url)
    rig.check_complete("2.0.0", again=False)
