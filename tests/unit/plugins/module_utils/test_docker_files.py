# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._docker._files import Files, named_compose_files, named_env_files


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("services:\n  api:\n    env_file: api.env\n    image: x\n", ["api.env"]),
        ("services:\n  api:\n    env_file: './api.env' # secrets\n", ["api.env"]),
        ("services:\n  api:\n    env_file: [.env, conf/b.env]\n", [".env", "conf/b.env"]),
        ("    env_file:\n      - a.env\n      - b.env\n    image: x\n    ports:\n      - 5000\n", ["a.env", "b.env"]),
        ("    env_file:\n    - a.env\n    image: x\n    volumes:\n    - data:/data\n", ["a.env"]),
        ("    env_file:\n      - path: a.env\n        required: false\n      - path: b.env\n", ["a.env", "b.env"]),
        ("    env_file: ${WHICH}.env\n", []),
        ("    environment:\n      A: env_file\n", []),
    ],
)
def test_environment_files_as_people_write_them(text: str, names: list[str]) -> None:
    assert named_env_files(text) == names


def test_what_no_point_would_hold(tmp_path: pathlib.Path) -> None:
    (tmp_path / "compose.yml").write_text("services:\n  api:\n    env_file: [.env, api.env, listed.env]\n", encoding="utf-8")
    (tmp_path / "listed.env").write_text("A=1\n", encoding="utf-8")
    files = Files(str(tmp_path), [], ["listed.env"], [], str(tmp_path / "sets"))
    for name in ("nginx.conf", "app.json"):
        (tmp_path / name).touch()
    mounts = [{"type": "bind", "source": str(tmp_path / "nginx.conf")}, {"type": "bind", "source": str(tmp_path)}]
    mounts += [{"type": "bind", "source": "/etc/hosts"}, {"type": "volume", "source": "data"}]
    spec = {"services": {"api": {"volumes": mounts}}, "configs": {"app": {"file": str(tmp_path / "app.json")}, "other": {"external": True}}}
    assert files.unlisted(files.read()) == ["api.env"]
    assert files.mounted(spec) == ["app.json", "nginx.conf"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("services:\n  api:\n    extends: {file: common.yml, service: base}\n", ["common.yml"]),
        ("services:\n  api:\n    extends: {service: base}\n    image: x\n", []),
        ("services:\n  api:\n    extends:\n      service: base\n      file: './common.yml'\n", ["common.yml"]),
        ("services:\n  api:\n    extends:\n      file: common.yml\n      service: base\n    image: x\n", ["common.yml"]),
        ("include: [db.yml, 'cache.yml']\nservices: {}\n", ["db.yml", "cache.yml"]),
        ("include:\n  - db.yml\n  - path: cache.yml\n    env_file: c.env\nservices:\n  api: {}\n", ["db.yml", "cache.yml"]),
        ("include:\n- path:\n    - a.yml\n    - b.yml\n- c.yml\nservices:\n- x\n", ["a.yml", "b.yml", "c.yml"]),
        ("services:\n  api:\n    labels: {include: x}\n    secrets:\n      - file: y\n", []),
    ],
)
def test_other_compose_files_as_people_write_them(text: str, names: list[str]) -> None:
    assert named_compose_files(text) == names
