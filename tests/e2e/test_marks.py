# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person says of a point: pinned, good, bad, with a name and a reason. Needs no server: points are files."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._pointset import read_pin, seal_point
from ansible_collections.payops.rollback.plugins.module_utils._pointwriter import new_component
from ansible_collections.payops.rollback.plugins.module_utils._releases import load_releases
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths
from tests.lab.node import ROOT
from tests.lab.system import ansible_playbook

HOSTS = ("app1", "app2")


@pytest.fixture
def stores(tmp_path: pathlib.Path) -> dict[str, Paths]:
    """Both hosts have v1; only app1 was there when v0 was taken."""
    found = {host: Paths(str(tmp_path / host), "t") for host in HOSTS}
    for version, hosts in (("v0", HOSTS[:1]), ("v1", HOSTS)):
        record = {"who": "amina", "run": "r1", "expected": {host: ["pm2"] for host in hosts}, "created": "2026-01-01T00:00:00.000000Z"}
        for host in hosts:
            with new_component(found[host], version, "pm2", "run-1") as writer:
                pathlib.Path(writer.path, "file").write_text("content")
                writer.seal({"release": f"release-of-{version}"})
            seal_point(found[host], version, record, host)
    return found


@pytest.fixture
def points(tmp_path: pathlib.Path, stores: dict[str, Paths]) -> t.Callable[..., tuple[int, str]]:
    """Play rollback_points with these words: exit code and text."""

    def call(**words: str) -> tuple[int, str]:
        everywhere = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "rollback_system": "t",
            "rollback_components": ["pm2"],
            "rollback_pm2_app": "api",
            "rollback_pm2_app_dir": str(tmp_path / "api"),
            "rollback_pm2_bin": "/nonexistent/pm2",
        }
        hosts = {host: {"rollback_store": stores[host].store} for host in HOSTS}
        inventory = tmp_path / "hosts.json"
        inventory.write_text(json.dumps({"all": {"vars": everywhere, "hosts": hosts}}), encoding="utf-8")
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        done = subprocess.run(
            [ansible_playbook(), "playbooks/rollback_points.yml", "-i", str(inventory), "-e", json.dumps(words)],
            cwd=ROOT,
            env={**kept, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=240,
        )
        return done.returncode, done.stdout

    return call


def test_a_pin_names_the_person_and_touches_only_hosts_that_have_the_point(
    points: t.Callable[..., tuple[int, str]], stores: dict[str, Paths]
) -> None:
    rc, text = points(pin="v0", reason="audit")
    assert rc == 0, text
    pin = read_pin(stores["app1"], "v0") or {}
    assert pin["who"] not in (None, "", "?") and pin["why"] == "audit"
    assert f"pinned by {pin['who']}: audit" in text
    rc, text = points(unpin="v0")
    assert rc == 0 and read_pin(stores["app1"], "v0") is None, text
    rc, text = points(pin="v9")
    assert rc != 0 and "There is no rollback point named v9" in " ".join(text.split())
    rc, text = points(good="v9", reason="it was the network")
    assert rc != 0 and "There is no rollback point named v9" in " ".join(text.split())
    assert "no application part" not in text, "two reasons, and the second is not true"


def test_a_person_calls_a_release_bad_and_good_again(points: t.Callable[..., tuple[int, str]], stores: dict[str, Paths]) -> None:
    rc, text = points(bad="v0")
    assert rc != 0 and "must know why" in text
    assert all(load_releases(paths) == {} for paths in stores.values())
    rc, text = points(bad="v0", reason="slow", who="wanjiku")
    assert rc == 0 and "bad by wanjiku: slow" in text, text
    for paths in stores.values():  # also where the point has no part: a mark is looked up everywhere
        assert load_releases(paths)["release-of-v0"]["status"] == "bad"
    rc, text = points(good="v0", reason="it was the network", output="json")
    row = next(row for row in json.JSONDecoder().raw_decode(text[text.index("\n[\n") + 1 :])[0] if row["version"] == "v0")
    assert rc == 0 and (row["release"], row["release_why"]) == ("good", "it was the network")
    assert row["release_by"] not in (None, "", "wanjiku")
