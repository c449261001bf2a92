# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logins and TLS of a real registry: basic, bearer with a token server, a private authority, a certificate of the client."""

from __future__ import annotations

import pathlib
import re
import typing as t

import pytest

from tests.lab import registry as lab_registry
from tests.lab.certificates import Authority
from tests.lab.gate import Gate
from tests.lab.ports import free_port
from tests.lab.registry import PASSWORD, USER, Registry, Stored
from tests.lab.tokens import TokenServer
from tests.real.docker.conftest import need_registry
from tests.real.docker.rig import Rig

LOGIN = {"username": USER, "password": PASSWORD}
REPOSITORY = "kejayangu/api"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    need_registry()
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(folder: pathlib.Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def basic(folder: pathlib.Path, authority: Authority) -> t.Iterator[Registry]:
    """https and a basic login."""
    certificate, key = authority.issue("basic")
    tls = {"certificate": str(certificate), "key": str(key)}
    with Registry(lab_registry.htpasswd(folder), tls, str(authority.ca)) as started:
        started.session.auth = (USER.encode(), PASSWORD.encode())
        yield started


def two(registry: Registry) -> tuple[Stored, Stored]:
    return registry.push(REPOSITORY, "old", "1"), registry.push(REPOSITORY, "latest", "2")


@pytest.fixture
def rig(tmp_path: pathlib.Path) -> Rig:
    return Rig(tmp_path / "store")


def test_basic_login_over_tls(basic: Registry, authority: Authority, rig: Rig) -> None:
    old, new = two(basic)
    options = {"url": basic.url, "ca_path": str(authority.ca), **LOGIN}
    result = rig.ok({f"{REPOSITORY}:latest": old.digest}, registry=options)
    assert basic.names(REPOSITORY, "latest") == old.digest
    assert PASSWORD not in str(result)
    rig.ok(result["undo"], registry={**options, "ca_path": None, "validate_certs": False})
    assert basic.names(REPOSITORY, "latest") == new.digest


def test_wrong_logins(basic: Registry, authority: Authority, rig: Rig) -> None:
    old, new = two(basic)
    trusted = {"url": basic.url, "ca_path": str(authority.ca)}
    tags = {f"{REPOSITORY}:latest": old.digest}
    assert "Give registry.username and registry.password" in rig.refused(tags, registry=trusted)
    before = len(basic.requests_seen())
    result = rig.run(tags, registry={**trusted, "username": USER, "password": "wrong s3cret"})
    assert len(basic.requests_seen()) - before == 2, "a wrong password is tried once: users are locked out for more"
    assert "does not let user 'deploy' read kejayangu/api (status 401" in result["msg"]
    assert "wrong s3cret" not in str(result).replace("VALUE_SPECIFIED_IN_NO_LOG_PARAMETER", "")
    assert basic.names(REPOSITORY, "latest") == new.digest


def test_certificates_that_are_not_trusted(basic: Registry, authority: Authority, folder: pathlib.Path, rig: Rig) -> None:
    tags = {f"{REPOSITORY}:latest": "sha256:" + "0" * 64}
    message = rig.refused(tags, registry={"url": basic.url, **LOGIN})
    assert "certificates" in message and "registry.ca_path" in message
    stranger = Authority(folder, "stranger")
    assert "do not agree" in rig.refused(tags, registry={"url": basic.url, "ca_path": str(stranger.ca), **LOGIN})
    # an environment that brings another bundle must not win over the option
    message = rig.refused(tags, registry={"url": basic.url, "ca_path": str(stranger.ca)}, env={"REQUESTS_CA_BUNDLE": str(authority.ca)})
    assert "do not agree" in message
    assert "not a file" in rig.refused(tags, registry={"url": basic.url, "ca_path": str(folder / "nowhere.pem")})


def test_a_certificate_for_another_host(authority: Authority, folder: pathlib.Path, rig: Rig) -> None:
    certificate, key = authority.issue("elsewhere", "DNS:registry.example")
    with Registry(None, {"certificate": str(certificate), "key": str(key)}, str(authority.ca)) as registry:
        assert "do not agree" in rig.refused({"api:latest": "api:old"}, registry={"url": registry.url, "ca_path": str(authority.ca)})


def test_a_certificate_of_the_client(authority: Authority, folder: pathlib.Path, rig: Rig) -> None:
    certificate, key = authority.issue("mutual")
    own, own_key = authority.issue("host")
    tls = {"certificate": str(certificate), "key": str(key), "clientcas": [str(authority.ca)]}
    with Registry(None, tls, str(authority.ca)) as registry:
        registry.session.cert = (str(own), str(own_key))
        old, unused = two(registry)
        given = {"url": registry.url, "ca_path": str(authority.ca)}
        rig.ok({f"{REPOSITORY}:latest": old.digest}, registry={**given, "client_cert": str(own), "client_key": str(own_key)})
        assert registry.names(REPOSITORY, "latest") == old.digest
        both = folder / "both.pem"
        both.write_text(own.read_text() + own_key.read_text())
        assert not rig.ok({f"{REPOSITORY}:latest": old.digest}, registry={**given, "client_cert": str(both)})["changed"]
        message = rig.refused({f"{REPOSITORY}:latest": old.digest}, registry=given)
        assert "registry.client_cert" in message and ("certificate required" in message or "bad certificate" in message), message


def token_registry(authority: Authority, server: TokenServer, name: str) -> Registry:
    certificate, key = authority.issue(name)
    return Registry(server.section(authority.ca), {"certificate": str(certificate), "key": str(key)}, str(authority.ca))


def fill(registry: Registry, server: TokenServer) -> tuple[Stored, Stored]:
    token = server.token("filler", [{"type": "repository", "name": REPOSITORY, "actions": ["pull", "push"]}])
    registry.session.headers["Authorization"] = f"Bearer {token}"
    return two(registry)


@pytest.mark.parametrize("answer_key", ["token", "access_token"])
def test_bearer_tokens(authority: Authority, rig: Rig, answer_key: str) -> None:
    """A token for reading first; one for writing only when something is written."""
    with TokenServer(authority, {USER: ["pull", "push"], "": ["pull"]}, answer_key=answer_key) as server:
        with token_registry(authority, server, f"bearer-{answer_key}") as registry:
            old, new = fill(registry, server)
            given = {"url": registry.url, "ca_path": str(authority.ca)}
            tags = {f"{REPOSITORY}:latest": old.digest}
            assert rig.ok(tags, check=True, registry={**given, **LOGIN})["changed"]
            assert server.seen == [(USER, f"repository:{REPOSITORY}:pull")]
            server.seen.clear()
            result = rig.ok(tags, registry={**given, **LOGIN})
            scopes = [set(scope.rpartition(":")[2].split(",")) for unused, scope in server.seen]
            assert scopes == [{"pull"}, {"pull", "push"}]
            assert registry.names(REPOSITORY, "latest") == old.digest
            assert PASSWORD not in str(result) and "Bearer" not in str(result)
            # anybody may read here, so an anonymous token is enough for that, and not for more
            assert not rig.ok(tags, registry=given)["changed"]
            message = rig.refused(result["undo"], registry=given)
            assert "anybody without a login write to kejayangu/api" in message, message
            assert registry.names(REPOSITORY, "latest") == old.digest
            message = rig.refused(tags, registry={**given, "username": USER, "password": "wrong"})
            assert f"The token server {server.realm} does not let user 'deploy' read" in message


def test_a_reader_cannot_write(authority: Authority, rig: Rig) -> None:
    """The first write is that of the kept tag, so the tag in use is untouched when writing is not allowed."""
    with TokenServer(authority, {USER: ["pull"]}) as server, token_registry(authority, server, "reader") as registry:
        old, new = fill(registry, server)
        tags = {f"{REPOSITORY}:latest": old.digest}
        message = rig.refused(tags, registry={"url": registry.url, "ca_path": str(authority.ca), **LOGIN})
        assert "does not let user 'deploy' write to kejayangu/api" in message
        assert registry.names(REPOSITORY, "latest") == new.digest


def test_a_token_that_has_expired_is_fetched_anew(authority: Authority, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.payops.rollback.plugins.module_utils._docker._http import Connection
    from ansible_collections.payops.rollback.plugins.module_utils._docker._references import Tag
    from ansible_collections.payops.rollback.plugins.module_utils._docker._registry import Registry as Place

    with TokenServer(authority, {USER: ["pull"]}) as server, token_registry(authority, server, "expired") as registry:
        old, new = fill(registry, server)
        place = Place(Connection(registry.url, USER, PASSWORD, ca_path=str(authority.ca)))
        assert place.names(Tag("", REPOSITORY, "latest")) == new.digest
        place.http._good = dict.fromkeys(place.http._good, "Bearer old")
        assert place.names(Tag("", REPOSITORY, "latest")) == new.digest
        place.close()


def test_a_password_goes_nowhere_in_clear(authority: Authority, rig: Rig) -> None:
    with TokenServer(authority, {USER: ["pull"]}, plain=True) as server, token_registry(authority, server, "downgrade") as registry:
        message = rig.refused({"api:latest": "api:old"}, registry={"url": registry.url, "ca_path": str(authority.ca), **LOGIN})
        assert "which is not https" in message and server.seen == []


def test_a_password_does_not_cross_a_network_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """On loopback it may; anywhere else it is a decision."""
    from ansible_collections.payops.rollback.plugins.module_utils._docker._http import Connection, Http
    from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError

    for url in ("http://registry.example:5000", "http://192.0.2.1", "http://localhost.example"):
        http = Http(Connection(url, USER, PASSWORD))
        with pytest.raises(RollbackError, match="in clear"):
            http._basic(http.url, None, "read", REPOSITORY)
        assert Http(Connection(url, USER, PASSWORD, validate_certs=False))._basic(http.url, None, "read", REPOSITORY)
    for url in ("http://127.0.0.1:5000", "http://localhost", "http://[::1]:5000", "https://registry.example"):
        http = Http(Connection(url, USER, PASSWORD))
        assert http._basic(http.url, None, "read", REPOSITORY).startswith("Basic ")


def test_servers_that_are_no_registry(rig: Rig, tmp_path: pathlib.Path) -> None:
    """Each in one sentence."""
    tags = {"api:latest": "api:old"}
    nobody = free_port()
    assert "cannot be reached: Connection refused" in rig.refused(tags, registry={"url": f"http://127.0.0.1:{nobody}"})
    assert "cannot be reached" in rig.refused(tags, registry={"url": "https://registry.invalid"})
    with Gate("http://127.0.0.1:1", lambda method, path: 418) as gate:
        assert "did not hand out api:old (status 418: DENIED by the gate)" in rig.refused(tags, registry={"url": gate.url})
        gate.rule = lambda method, path: 401
        assert "in a way that is not known: it does not say how" in rig.refused(tags, registry={"url": gate.url})
        gate.headers = {"WWW-Authenticate": "Negotiate"}
        assert "in a way that is not known: Negotiate" in rig.refused(tags, registry={"url": gate.url})
        gate.rule = lambda method, path: 200
        assert "manifest of type 'unknown'" in rig.refused(tags, registry={"url": gate.url})
        gate.rule = lambda method, path: 302
        assert "status 302" in rig.refused(tags, registry={"url": gate.url})
        assert "certificates" in rig.refused(tags, registry={"url": gate.url.replace("http:", "https:")})


def test_a_busy_registry_is_asked_again(rig: Rig, registry: Registry, repository: str) -> None:
    old = registry.push(repository, "old", "1")
    registry.push(repository, "latest", "2")
    tired = {"GET": 2, "PUT": 1}

    def rule(method: str, path: str) -> int | None:
        if tired.get(method):
            tired[method] -= 1
            return 503
        return None

    with Gate(registry.url, rule) as gate:
        gate.headers = {"Retry-After": "0.1"}
        rig.ok({f"{repository}:latest": old.digest}, registry={"url": gate.url})
    assert registry.names(repository, "latest") == old.digest


def test_no_secret_in_the_journal(basic: Registry, authority: Authority, rig: Rig) -> None:
    old, unused = two(basic)
    rig.ok({f"{REPOSITORY}:latest": old.digest}, registry={"url": basic.url, "ca_path": str(authority.ca), **LOGIN})
    for path in rig.store.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert "k3pt" not in text and not re.search(r"Basic |Bearer ", text), path
