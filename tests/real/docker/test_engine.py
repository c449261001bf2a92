# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tags on a real Docker engine."""

from __future__ import annotations

import pathlib
import shutil

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._docker._retag import STEPS
from tests.lab.certificates import Authority
from tests.lab.docker import Engine
from tests.lab.modules import result_of, start_cold
from tests.lab.ports import free_port
from tests.lab.registry import Registry
from tests.real.docker.rig import Rig

NOWHERE = "sha256:" + "0" * 64


def test_there_and_back(engine: Engine, engine_rig: Rig, repository: str) -> None:
    tag = f"{repository}:latest"
    old = engine.make(tag, "1")
    new = engine.make(tag, "2")  # a build that replaces: the old image has no name now
    kept = f"{repository}:payops-kept-{new[7:19]}"

    checked = engine_rig.ok({tag: old}, check=True)
    assert checked["changed"] and engine.names(tag) == new and engine.all_names(repository) == [tag]
    result = engine_rig.ok({tag: old})
    assert result["changed"] and result["diff"] == checked["diff"] and result["actions"] == checked["actions"]
    assert result["diff"]["before"] == f"{tag}: {new}\n{kept}: absent\n"
    assert engine.names(tag) == old and engine.names(kept) == new
    assert result["tags"] == [{"tag": tag, "image": old, "was": new, "changed": True, "replaced": new, "kept": kept}]

    engine.client().prune_images({"dangling": True})
    again = engine_rig.ok({tag: old})
    assert not again["changed"] and again["undo"] == result["undo"] == [{"tag": tag, "image": new}]
    engine_rig.ok(result["undo"])
    assert engine.names(tag) == new and engine.names(f"{repository}:payops-kept-{old[7:19]}") == old


def test_what_names_an_image(engine: Engine, engine_rig: Rig, repository: str, registry: Registry) -> None:
    """ID, bare digits, a beginning, another tag, and the digest of what was pushed."""
    tag, pushed = f"{repository}:latest", f"{registry.netloc}/{repository}"
    old, new = engine.make(f"{repository}:previous", "1"), engine.make(tag, "2")
    engine.client().tag(old, pushed, "v1")
    assert "errorDetail" not in engine.client().push(pushed, "v1")
    digest = registry.names(repository, "v1")
    assert digest and digest != old
    for wish in (old, old[7:], old[7:19], f"{repository}:previous", f"{pushed}@{digest}", digest):
        assert engine_rig.ok({tag: wish})["tags"][0]["image"] == old, wish
        assert engine.names(tag) == old
        engine_rig.ok({tag: new})
    assert "no such image" in engine_rig.refused({tag: f"elsewhere/api@{digest}"})


def test_a_host_that_pulls_gets_the_image_of_the_moved_tag(
    engine: Engine, repository: str, registry: Registry, tmp_path: pathlib.Path
) -> None:
    """Retagged in the registry only; the engine, which has forgotten both images, pulls them by their names."""
    name = f"{registry.netloc}/{repository}"
    images = {}
    for tag in ("old", "latest"):
        images[tag] = engine.make(f"{name}:{tag}", tag)
        assert "errorDetail" not in engine.client().push(name, tag)
    for tag in images:
        engine.client().remove_image(f"{name}:{tag}")
    rig = Rig(tmp_path / "store", registry={"url": registry.url})
    kept = rig.ok({f"{name}:latest": images["old"]})["tags"][0]["kept"]
    for reference, image in ((f"{name}:latest", images["old"]), (kept, images["latest"])):
        assert engine.names(image) is None
        engine.client().pull(reference)
        assert engine.names(reference) == image


def test_an_image_of_another_repository(engine: Engine, engine_rig: Rig, repository: str) -> None:
    """An engine's images belong to no repository, unlike a registry's."""
    image = engine.make(f"{repository}-build:7", "1")
    engine.make(f"{repository}:latest", "2")
    engine_rig.ok({f"{repository}:latest": image})
    assert engine.names(f"{repository}:latest") == image


def test_many_tags_and_a_swap(engine: Engine, engine_rig: Rig, repository: str) -> None:
    blue, green = f"{repository}:blue", f"{repository}:green"
    first, second = engine.make(blue, "1"), engine.make(green, "2")
    result = engine_rig.ok({blue: green, green: blue})
    assert (engine.names(blue), engine.names(green)) == (second, first)
    engine_rig.ok(result["undo"])
    assert (engine.names(blue), engine.names(green)) == (first, second)


def test_images_and_tags_that_are_not_there(engine: Engine, engine_rig: Rig, repository: str) -> None:
    tag = f"{repository}:latest"
    old, new = engine.make(tag, "1"), engine.make(tag, "2")
    for wish in (NOWHERE, "0" * 12, f"{repository}@{NOWHERE}", f"{repository}:v0"):
        result = engine_rig.run({tag: wish})
        assert result["failed"] and "no such image" in result["msg"] and "docker_image_pull" in result["msg"]
        assert f"{new} ({tag})" in result["msg"] and f"{old} (no name)" in result["msg"], result["msg"]
        assert {old, new} <= {each["image"] for each in result["available"]}
    engine.client().prune_images({"dangling": True})
    assert "was pruned" in engine_rig.refused({tag: old})
    message = engine_rig.refused({f"{repository}:lastet": new})
    assert "There is no tag" in message and tag in message
    assert engine_rig.ok({f"{repository}:lastet": new}, allow_new=True)["changed"]
    assert "There is no image of" in engine_rig.refused({"nobody/knows:latest": NOWHERE}) or engine.client().images(
        filters={"dangling": True}
    )
    assert "is a digest" in engine_rig.refused({f"{repository}@{new}": new})
    assert engine.names(tag) == new


@pytest.mark.parametrize("step", [step for step in STEPS if step != "put_back"])
def test_killed(engine: Engine, engine_rig: Rig, repository: str, step: str) -> None:
    """Nothing is lost to a prune, the same call finishes the job, and its undo takes it back."""
    tags = [f"{repository}-api:latest", f"{repository}-web:latest"]
    old, new = [engine.make(tag, f"{tag} 1") for tag in tags], [engine.make(tag, f"{tag} 2") for tag in tags]
    keep = [engine.client().tag(image, tag.partition(":")[0], "old") for tag, image in zip(tags, old)]
    assert all(keep)
    assert engine_rig.run(dict(zip(tags, old)), fault=f"docker/{step}/during=kill") == {"killed": True}
    engine.client().prune_images({"dangling": True})
    assert all(engine.names(image) for image in new)
    result = engine_rig.ok(dict(zip(tags, old)))
    assert [engine.names(tag) for tag in tags] == old
    engine.client().prune_images({"dangling": True})
    engine_rig.ok(result["undo"])
    assert [engine.names(tag) for tag in tags] == new


def test_the_verdict_is_read_from_the_engine(engine: Engine, engine_rig: Rig, repository: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that says yes and does nothing: the tag is put back to what it was, and the call fails."""
    from ansible_collections.payops.rollback.plugins.module_utils._docker import _engine, _retag
    from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
    from ansible_collections.payops.rollback.plugins.module_utils._run import Paths, Run

    tag = f"{repository}:latest"
    old, new = engine.make(f"{repository}:old", "1"), engine.make(tag, "2")
    place = _engine.Engine(_engine.Connection(engine.url))
    write = place.write
    monkeypatch.setattr(place, "write", lambda to, identity: None if to.tag == "latest" else write(to, identity))
    with Run(Paths(str(engine_rig.store), "shop"), _retag.COMPONENT, _retag.STEPS) as run:
        work = _retag.Retag(place, run, "payops-kept-", False)
        moves = work.plan(_retag.wishes_of([{"tag": tag, "image": old}], "payops-kept-"))
        with pytest.raises(RollbackError, match="right after it was made to name"):
            work.reach(moves, False)
    place.close()
    assert engine.names(tag) == new


def test_engines_that_do_not_answer(engine_rig: Rig, tmp_path: pathlib.Path) -> None:
    tags = {"api:latest": "api:old"}
    (tmp_path / "file").touch()
    for host, words in (
        (f"unix://{tmp_path}/nowhere.sock", "No such file or directory"),
        (f"unix://{tmp_path}/file", "Connection refused"),
        (f"tcp://127.0.0.1:{free_port()}", "Connection refused"),
        ("gopher://127.0.0.1", "Invalid bind"),
    ):
        message = engine_rig.refused(tags, docker_host=host)
        assert words in message and f"at {host} does not answer" in message and "docker_host" in message, message
    assert "not a file" in engine_rig.refused(tags, ca_path=str(tmp_path / "nowhere.pem"))
    # the environment says it where the option does not
    rig = Rig(tmp_path / "store")
    assert f"unix://{tmp_path}/other.sock" in rig.refused(tags, env={"DOCKER_HOST": f"unix://{tmp_path}/other.sock"})


def test_tls(tmp_path: pathlib.Path, engine: Engine) -> None:
    """An engine on a port that lets nobody in without a certificate."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("engine")
    own, own_key = authority.issue("host")
    port = free_port()
    listen = ["-H", f"tcp://127.0.0.1:{port}", "--tlsverify", f"--tlscacert={authority.ca}", f"--tlscert={certificate}", f"--tlskey={key}"]
    with Engine(*listen) as guarded:
        tag = "kejayangu/api:latest"
        old, new = guarded.make(tag, "1"), guarded.make(tag, "2")
        rig = Rig(tmp_path / "store", docker_host=f"tcp://127.0.0.1:{port}")
        pair = {"client_cert": str(own), "client_key": str(own_key)}
        stranger = Authority(tmp_path, "stranger")
        # an environment that brings another bundle must not win over the option
        bundle = {"REQUESTS_CA_BUNDLE": str(stranger.ca)}
        result = rig.ok({tag: old}, validate_certs=True, ca_path=str(authority.ca), env=bundle, **pair)
        assert guarded.names(tag) == old
        rig.ok(result["undo"], tls=True, **pair)
        assert guarded.names(tag) == new
        folder = tmp_path / "docker"
        folder.mkdir()
        for source, name in ((authority.ca, "ca.pem"), (own, "cert.pem"), (own_key, "key.pem")):
            shutil.copy(source, folder / name)
        rig.ok({tag: old}, env={"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(folder)})
        assert guarded.names(tag) == old
        assert "certificate verify failed" in rig.refused({tag: new}, validate_certs=True, ca_path=str(stranger.ca), **pair)
        assert "does not answer" in rig.refused({tag: new}, tls=True)
        assert "does not answer" in rig.refused({tag: new})
        assert guarded.names(tag) == old


def test_without_the_sdk(tmp_path: pathlib.Path) -> None:
    """In the words that every module of the ecosystem says it in."""
    options = Rig(tmp_path / "store").given({"api:latest": "api:old"})
    result = result_of(start_cold("image_retag", options, before="import sys\nsys.modules['docker'] = None\n"))
    assert result["failed"] and "Failed to import the required Python library (docker)" in result["msg"]
