# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What image_retag refuses before it asks any engine or registry, and what it decides on engines that no test can make."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.payops.rollback.plugins.module_utils._docker import _engine, _http, _options
from ansible_collections.payops.rollback.plugins.module_utils._docker._references import Tag, parse_image
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.modules import image_retag
from tests.lab.certificates import Authority

DIGEST = "sha256:" + "5a" * 32
Run = t.Callable[..., "dict[str, t.Any]"]


@pytest.fixture
def run(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in ("DOCKER_HOST", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)

    def call(**args: t.Any) -> dict[str, t.Any]:
        given = {"store": str(tmp_path / "store"), "system": "shop", "tags": [{"tag": "api:latest", "image": DIGEST}], **args}
        with patch_module_args(given), pytest.raises(SystemExit):
            image_retag.main()
        result: dict[str, t.Any] = json.loads(capsys.readouterr().out)
        assert not (tmp_path / "store/shop/docker.state.json").exists()
        return result

    return call


NOBODY = {"docker_host": "unix:///nowhere.sock"}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"tags": []}, "tags is empty. Name at least one tag and the image that it shall name."),
        ({"tags": [{"tag": f"api@{DIGEST}", "image": DIGEST}]}, "is a digest, which names the same image for ever"),
        ({"tags": [{"tag": "api:latest", "image": "api"}]}, "does not say which image"),
        ({"tags": [{"tag": "api:latest"}]}, "missing required arguments: image found in tags"),
        ({"tags": [{"tag": "api:latest", "image": DIGEST, "force": True}]}, "tags.force"),
        ({"kept_prefix": "a/b"}, "kept_prefix 'a/b' cannot begin a tag"),
        ({"timeout": 0}, "timeout is 0; expected at least 1 second."),
        ({"system": "../etc"}, "The system name '../etc' is not a safe name"),
        ({"ca_path": "/nowhere.pem"}, "ca_path /nowhere.pem is not a file on this host."),
        ({"registry": {"url": "registry.example"}}, "is not the address of a registry"),
        ({"registry": {"url": "https://u:s3cret@registry.example"}}, "registry.url has a login in it"),
        ({"registry": {"url": "https://registry.example", "username": "u"}}, "parameters are required together: username, password"),
        ({"registry": {}}, "missing required arguments: url found in registry"),
        ({"registry": {"url": "https://registry.example", "client_cert": "/nowhere"}}, "registry.client_cert /nowhere is not a file"),
        (
            {"registry": {"url": "https://registry.example"}, "tags": [{"tag": "r.example/api", "image": DIGEST}]},
            "in the registry r.example",
        ),
    ],
)
def test_bad_input(run: Run, args: dict[str, t.Any], words: str) -> None:
    result = run(**{**NOBODY, **args})
    assert result["failed"] and words in result["msg"] and "s3cret" not in result["msg"], result
    assert not result.get("changed")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"ca_path": "damaged"}, "ca_path {damaged} holds no certificates that can be read (PEM)"),
        ({"client_cert": "damaged"}, "client_cert {damaged} and its key in the same file cannot be used"),
        ({"client_cert": "mine", "client_key": "damaged"}, "client_cert {mine} and its key {damaged} cannot be used"),
        ({"client_cert": "mine", "client_key": "theirs"}, "client_cert {mine} and its key {theirs} cannot be used: key values mismatch"),
        ({"client_cert": "mine"}, "in the same file cannot be used"),
        ({"client_key": "theirs"}, "client_key is given without"),
    ],
)
@pytest.mark.parametrize("kind", ["engine", "registry"])
def test_files_that_hold_no_certificate(run: Run, tmp_path: pathlib.Path, kind: str, files: dict[str, str], words: str) -> None:
    authority = Authority(tmp_path)
    paths = {"mine": authority.issue("mine")[0], "theirs": authority.issue("theirs")[1], "damaged": tmp_path / "damaged"}
    paths["damaged"].write_text("no certificate\n")
    given = {option: str(paths[name]) for option, name in files.items()}
    result = run(**({**NOBODY, **given} if kind == "engine" else {"registry": {"url": "https://127.0.0.1:1", **given}}))
    assert result["failed"] and words.format(**paths) in result["msg"], result


@pytest.mark.parametrize(("library", "args"), [("docker", NOBODY), ("requests", {"registry": {"url": "https://registry.example"}})])
def test_a_missing_library(run: Run, monkeypatch: pytest.MonkeyPatch, library: str, args: dict[str, t.Any]) -> None:
    monkeypatch.setattr(_engine if library == "docker" else _http, f"{'DOCKER' if library == 'docker' else 'REQUESTS'}_ERROR", "Traceback")
    assert f"Failed to import the required Python library ({library})" in run(**args)["msg"]


def test_the_options_are_those_of_the_ecosystem() -> None:
    """Names, aliases and environment variables; a play's module_defaults for Docker modules fit."""
    spec = _options.docker_argument_spec()
    assert spec["docker_host"]["default"] == "unix:///var/run/docker.sock" and spec["docker_host"]["fallback"][1] == ["DOCKER_HOST"]
    assert {"docker_url", "docker_api_version", "tls_verify", "tls_ca_cert", "cert_path", "key_path"} <= {
        alias for option in spec.values() for alias in option.get("aliases", [])
    }
    assert spec["registry"]["options"]["password"]["no_log"] is True


def test_the_beginning_of_two_ids() -> None:
    engine = _engine.Engine(_engine.Connection("unix:///nowhere.sock"))
    ids = [f"sha256:{'5a' * 6}{number * 52}" for number in "01"]
    engine.images = lambda: [{"image": each, "tags": [], "digests": [], "created": 0} for each in ids]  # type: ignore[method-assign]
    tag = Tag("", "api", "latest")
    with pytest.raises(RollbackError, match="is the beginning of 2 image IDs"):
        engine.resolve(parse_image("image", "5a" * 6), tag)
    assert engine.resolve(parse_image("image", f"{'5a' * 6}1"), tag) == ids[1]
    assert engine.resolve(parse_image("image", f"{'5a' * 6}2"), tag) is None
