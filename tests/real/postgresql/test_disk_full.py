# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk that fills up in the middle: said, nothing half remains, and the same command again works once there is room."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import typing as t

import pytest

from tests.lab import ports
from tests.lab.modules import result_of
from tests.lab.postgres import Cluster, ident, literal
from tests.lab.roles import Roles

from .restore_helpers import Shop


class SmallDisk:
    """A filesystem of its own that a test can fill to the last byte."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.filler = folder / "filler"

    def fill(self, leave: int = 0) -> None:
        found = os.statvfs(self.folder)
        with self.filler.open("wb") as handle, contextlib.suppress(OSError):
            for unused in range((found.f_bavail * found.f_frsize - leave) // 65536 + (leave == 0)):
                handle.write(b"x" * 65536)
                handle.flush()

    def empty(self) -> None:
        self.filler.unlink()


@contextlib.contextmanager
def small_disk(folder: pathlib.Path, size: str) -> t.Iterator[SmallDisk]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder.mkdir()
    if (
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=False, capture_output=True).returncode
        != 0
    ):
        pytest.skip("cannot mount a small filesystem here")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def shop(cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path) -> Shop:
    return Shop(cluster, roles, database, tmp_path / "store", None).fill()


@pytest.fixture
def spaced(shop: Shop) -> t.Iterator[tuple[Shop, SmallDisk]]:
    """A shop whose database lies in a tablespace on a small disk; the data directory has room."""
    cluster, space = shop.cluster, f"space_{shop.name}"
    with small_disk(cluster.root / space, "80m") as disk:
        inside = disk.folder / "pg"
        inside.mkdir()
        if cluster.user is not None:
            shutil.chown(inside, cluster.user)
        cluster.sql(f"CREATE TABLESPACE {ident(space)} LOCATION {literal(str(inside))}")
        try:
            cluster.sql(f"ALTER DATABASE {ident(shop.name)} SET TABLESPACE {ident(space)}")
            yield shop, disk
        finally:
            cluster.drop_databases(shop.name)
            cluster.sql(f"DROP TABLESPACE {ident(space)}")


def test_too_little_room_is_seen_before(spaced: tuple[Shop, SmallDisk]) -> None:
    """Also where the live database has lost what the point still has."""
    shop, disk = spaced
    shop.sql("CREATE TABLE big AS SELECT repeat(md5(n::text), 30) AS filler FROM generate_series(1, 20000) n", shop.roles.owner)
    shop.snapshot()
    shop.sql("DROP TABLE big", shop.roles.owner)
    disk.fill(leave=16 << 20)
    result = shop.refused("pg_restore", state="staged", version=shop.version)
    assert [each["code"] for each in result["blockers"]] == ["disk"]
    assert f"{disk.folder}/pg has 1" in result["msg"] and "MiB free; expected at least 3" in result["msg"], result["msg"]
    assert list(shop.family()) == [shop.name]
    disk.empty()
    assert shop.restore("staged")["changed"]


@pytest.mark.parametrize("step", ["create", "load"])
def test_full_while_restoring(spaced: tuple[Shop, SmallDisk], tmp_path: pathlib.Path, step: str) -> None:
    shop, disk = spaced
    shop.snapshot()
    old, paid, mark = shop.oid(), {shop.pay()}, tmp_path / "waiting"
    process = shop.start("pg_restore", f"postgresql/{step}/before=wait:{mark}", state="live", version=shop.version)
    ports.wait_until(lambda: mark.exists() or process.poll() is not None, "the step to begin")
    disk.fill()
    mark.unlink()
    result = result_of(process)
    assert result.get("failed"), result
    assert "No space left on device" in result["msg"] and "Make room" in result["msg"], result["msg"]
    assert "The live database was not touched" in result["msg"]
    assert list(shop.family()) == [shop.name] and shop.oid() == old
    disk.empty()
    shop.invariant(paid)
    assert shop.restore("live")["changed"]
    shop.invariant(paid)


def left_over(store: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(store)) for path in store.rglob("*") if ".run" not in path.parts and path.name != "filler")


@pytest.mark.parametrize("step", ["dump", "seal"])
def test_full_while_taking_a_snapshot(shop: Shop, tmp_path: pathlib.Path, step: str) -> None:
    with small_disk(tmp_path / "small", "16m") as disk:
        shop.store, mark = disk.folder, tmp_path / "waiting"
        shop.snapshot("v0")
        before = left_over(shop.store)
        process = shop.start("pg_snapshot", f"postgresql/{step}/before=wait:{mark}", version=shop.version)
        ports.wait_until(lambda: mark.exists() or process.poll() is not None, "the step to begin")
        disk.fill()
        mark.unlink()
        result = result_of(process)
        assert result.get("failed"), result
        assert "No space left on device" in result["msg"], result["msg"]
        assert "Make room" in result["msg"] or "Check free space" in result["msg"], result["msg"]
        assert "run the same command again" in result["msg"], result["msg"]
        assert [name for name in left_over(shop.store) if name not in before] == []
        disk.empty()
        assert shop.ok("pg_snapshot", version=shop.version)["changed"]
        assert not shop.ok("pg_snapshot", version="v0")["changed"]


def test_a_full_store_stops_a_restore_before_it_begins(shop: Shop, tmp_path: pathlib.Path) -> None:
    """What is going to be created is written down first; where that is not possible nothing is created."""
    with small_disk(tmp_path / "small", "16m") as disk:
        shop.store = disk.folder
        shop.snapshot()
        old = shop.oid()
        disk.fill()
        result = shop.refused("pg_restore", state="live", version=shop.version)
        assert "No space left on device" in result["msg"] and "Check free space" in result["msg"], result["msg"]
        assert list(shop.family()) == [shop.name] and shop.oid() == old
        disk.empty()
        assert shop.restore("live")["changed"]
