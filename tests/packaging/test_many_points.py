# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of a thousand points, as a person waits for it: the module, what Ansible makes of its answer, merging, the table."""

from __future__ import annotations

import hashlib
import json
import pathlib
import resource

from ansible_collections.payops.rollback.plugins.module_utils._pointset import seal_point
from ansible_collections.payops.rollback.plugins.module_utils._pointwriter import new_component
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths
from tests.packaging.conftest import ROOT, Run

NUMBER = 1000
LIMIT = 15.0  # seconds of processor time of all processes together; 4 to 6 were measured, 1 to 2 of them without any point


def make_points(paths: Paths) -> None:
    """One point, copied under other names: sealing each would wait for the disk."""
    with new_component(paths, "v0", "postgresql", "run-1") as writer:
        (pathlib.Path(writer.path) / "file").write_text("content")
        writer.seal({"release": "r1"})
    seal_point(paths, "v0", {"expected": {"one": ["postgresql"]}, "healthy": True, "who": "amina", "label": "x", "run": "r1"}, "one")
    point = pathlib.Path(paths.version("v0"))
    for number in range(1, NUMBER):
        folder = pathlib.Path(paths.version(f"v{number}"))
        (folder / "postgresql").mkdir(parents=True)
        sums = []
        for path in sorted((point / "postgresql").iterdir()):
            text = path.read_text().replace('"v0"', f'"v{number}"')
            if path.name == "summary.json":
                size = (folder / "postgresql" / "manifest.json").stat().st_size
                text = json.dumps({**json.loads(text), "manifest_size": size})
            if path.name != "MANIFEST.sha256":
                sums.append(f"{hashlib.sha256(text.encode()).hexdigest()}  {path.name}\n")
                (folder / "postgresql" / path.name).write_text(text)
        (folder / "postgresql" / "MANIFEST.sha256").write_text("".join(sums))
        (folder / "point.json").write_text((point / "point.json").read_text().replace('"v0"', f'"v{number}"'))


def test_a_thousand_points(run: Run, inventory: pathlib.Path, tmp_path: pathlib.Path) -> None:
    make_points(Paths(str(tmp_path / "store"), "packaged"))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run("ansible-playbook", "playbooks/rollback_points.yml", "-i", str(inventory), "-e", "output=json", cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    rows = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("\n[\n") + 1 :])[0]
    assert len(rows) == NUMBER
    assert {row["complete"] for row in rows} == {True}, [row["problems"] for row in rows if not row["complete"]][:3]
    took = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    assert took < LIMIT, f"{took:.1f} s of processor time"
