# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each codec that this server's pg_dump can write: there and back, and no file that was cut off is ever restored."""

from __future__ import annotations

import hashlib
import json
import pathlib

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._postgresql._programs import CODECS, SUFFIXES
from tests.lab.postgres import Cluster
from tests.lab.roles import Role, Roles

from .restore_helpers import Shop


@pytest.mark.parametrize("codec", CODECS)
def test_there_and_back_and_cut_off(
    cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path, operator: Role | None, codec: str
) -> None:
    shop = Shop(cluster, roles, database, tmp_path, operator).fill()
    made = shop.run("pg_snapshot", version=shop.version, compress=codec)
    if "cannot compress" in made.get("msg", ""):
        pytest.skip(f"not in this version: {made['msg']}")
    assert made["point"]["codec"] == codec, made
    shop.pay()
    shop.restore("live")
    assert shop.count() == 1000
    shop.restore("previous")
    shop.restore("complete")

    folder = shop.store / "shop" / shop.version / "postgresql"
    victim = max(folder.glob(f"1/*.dat{SUFFIXES[codec]}"), key=lambda path: path.stat().st_size)
    name, whole = str(victim.relative_to(folder)), victim.read_bytes()
    for length in (len(whole) - 1, len(whole) * 9 // 10, len(whole) // 2, 0):
        victim.write_bytes(whole[:length])
        assert "is damaged" in shop.refused("pg_restore", state="live", version=shop.version)["msg"]
        if length == len(whole) - 1:
            continue  # the end mark of a frame may be cut off without a row being lost
        # Checksums that were made of the cut file: then what was restored is compared with the rows.
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        digest = hashlib.sha256(whole[:length]).hexdigest()
        before = manifest["files"][name]["sha256"]
        manifest["files"][name] = {"sha256": digest, "size": length}
        data = (json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
        sums = (folder / "MANIFEST.sha256").read_text(encoding="utf-8").replace(before, digest)
        old = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
        (folder / "manifest.json").write_bytes(data)
        (folder / "MANIFEST.sha256").write_text(sums.replace(old, hashlib.sha256(data).hexdigest()), encoding="utf-8")
        said = shop.refused("pg_restore", state="live", version=shop.version)["msg"]
        assert "The live database was not touched" in said, said
        print(f"{codec}, {length} of {len(whole)} bytes: {said[:160]}")
        assert list(shop.family()) == [shop.name]
