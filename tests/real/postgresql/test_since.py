# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers of transactions have 32 bits and go round. A busy payment system uses half of them in a month, and vacuum leaves the old number
on a row that it freezes."""

from __future__ import annotations

import contextlib
import subprocess
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _manifest
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._since import Since, rows_since
from tests.lab import processes
from tests.lab.binaries import Missing
from tests.lab.fixtures import unavailable
from tests.lab.postgres import Cluster

SEGMENT = 1 << 20  # transactions in one file of pg_xact
HOP = 1_500_000_000  # less than half of 2^32: what is further away must be frozen first


@pytest.fixture(params=[15, 18], ids=["pg15", "pg18"])
def old_server(request: pytest.FixtureRequest) -> t.Iterator[Cluster]:
    """A server whose first rows, 20 in ``payments``, are 3,000 million transactions old."""
    try:
        cluster = Cluster(request.param)
    except Missing as exc:
        unavailable(str(exc))
    with cluster:
        cluster.sql("ALTER DATABASE template0 ALLOW_CONNECTIONS true")  # what cannot be frozen keeps the whole server from moving on
        cluster.create_database("shop")
        cluster.sql("CREATE TABLE payments (id int PRIMARY KEY); INSERT INTO payments SELECT generate_series(1, 20)", dbname="shop")
        for hop in (1, 2):
            for name in (*cluster.databases(), "template0", "template1"):
                cluster.sql("VACUUM (FREEZE)", dbname=name)
            cluster.stop()
            _move_on(cluster, hop * HOP)
            cluster.start()
        yield cluster


def _move_on(cluster: Cluster, xid: int) -> None:
    """Let the next transaction of a stopped server have this number."""
    segment = cluster.data / "pg_xact" / f"{xid // SEGMENT:04X}"
    argv = [str(cluster.bin_dir / "pg_resetwal"), "-D", str(cluster.data), "-x", str(xid)]
    as_user: dict[str, t.Any] = processes.as_user(cluster.user)
    subprocess.run(["dd", "if=/dev/zero", f"of={segment}", "bs=8192", "count=32"], capture_output=True, check=True, cwd="/", **as_user)
    subprocess.run(argv, capture_output=True, check=True, cwd="/", **as_user)


def test_ancient_rows_are_not_taken_for_new_ones(old_server: Cluster) -> None:
    with contextlib.closing(old_server.connect("shop")) as conn:
        manifest = _manifest.build(conn, "counts")
        old_server.sql("INSERT INTO payments VALUES (98), (99)", dbname="shop")
        found = _manifest.rows_since(conn, manifest["snapshot"], manifest["tables"])
        assert found == {"public.payments": {"written": 2, "gone": 0, "rows": 22}}
        for exact in (True, False):
            assert rows_since(conn, [("public", "payments")], Since(manifest["snapshot"], exact)) == {("public", "payments"): 2}
