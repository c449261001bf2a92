# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits that others set: on the login role, at a session pooler, on what one value may hold."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _manifest
from tests.lab import ports, processes
from tests.lab.fixtures import unavailable
from tests.lab.postgres import Cluster, ident
from tests.lab.roles import Roles

from .restore_helpers import Shop


@pytest.fixture
def shop(cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path) -> Shop:
    return Shop(cluster, roles, database, tmp_path / "store", roles.operator).fill()


@contextlib.contextmanager
def role_settings(shop: Shop, settings: dict[str, str]) -> t.Iterator[None]:
    """Settings of the login role itself, which a session has from its first statement on."""
    operator = ident(shop.roles.operator.name)
    try:
        for name, value in settings.items():
            shop.cluster.sql(f"ALTER ROLE {operator} SET {name} = '{value}'")
        yield
    finally:
        shop.cluster.sql(f"ALTER ROLE {operator} RESET ALL")


@pytest.mark.parametrize("name", ["statement_timeout", "lock_timeout", "idle_session_timeout", "transaction_timeout"])
def test_limits_of_the_login_role(shop: Shop, name: str) -> None:
    if shop.cluster.major < {"idle_session_timeout": 14, "transaction_timeout": 17}.get(name, 0):
        pytest.skip(f"not in this version: PostgreSQL {shop.cluster.major} has no {name}")
    with role_settings(shop, {name: "1ms", "default_transaction_read_only": "on", "default_transaction_isolation": "serializable"}):
        shop.snapshot()
        shop.pay()
        assert shop.restore("live")["changed"]
        assert shop.ok("pg_carry_back", ledgers=[{"table": "payments"}])["changed"]
        assert shop.restore("previous")["changed"]
        assert shop.restore("complete")["changed"]


@contextlib.contextmanager
def pooler(shop: Shop, folder: pathlib.Path, mode: str) -> t.Iterator[int]:
    """pgbouncer as it comes: it refuses startup options. Its port."""
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    if not pathlib.Path(program).exists():
        unavailable("pgbouncer is not installed")
    user = processes.unprivileged_user()
    folder.mkdir()
    folder.chmod(0o755)
    for parent in folder.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o111)
    port = ports.free_port()
    operator = shop.roles.operator
    quoted = ['"' + text.replace('"', '""') + '"' for text in (operator.name, operator.password)]
    (folder / "users").write_text(f"{quoted[0]} {quoted[1]}\n", encoding="utf-8")
    (folder / "ini").write_text(
        f"[databases]\n* = host={shop.cluster.host} port={shop.cluster.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        f"auth_type = scram-sha-256\nauth_file = {folder / 'users'}\npool_mode = {mode}\nunix_socket_dir =\n",
        encoding="utf-8",
    )
    if user is not None:
        for name in ("users", "ini"):
            shutil.chown(folder / name, user)
    server = processes.start([program, str(folder / "ini")], log=folder.parent / "pgbouncer.log", user=user, cwd="/")
    try:
        ports.wait_for(port)
        yield port
    finally:
        server.terminate()
        server.wait(20)


def test_a_session_pooler_that_refuses_options(shop: Shop, tmp_path: pathlib.Path) -> None:
    with pooler(shop, tmp_path / "pooler", "session") as port:
        made = shop.ok("pg_snapshot", version=shop.version, login_port=port)
        assert made["point"]["databases"][shop.name]["rows"] > 1000
    assert shop.restore("staged")["changed"]


def test_a_transaction_pooler_is_refused(shop: Shop, tmp_path: pathlib.Path) -> None:
    with pooler(shop, tmp_path / "pooler", "transaction") as port:
        said = shop.refused("pg_snapshot", version=shop.version, login_port=port)
        assert "is a transaction pooler" in said["msg"] and "Use the direct port" in said["msg"].replace("use", "Use"), said["msg"]
    assert not (shop.store / "shop" / shop.version).exists()


def test_a_large_object_of_more_than_a_gigabyte(cluster: Cluster, database: str) -> None:
    """One value of the server cannot hold it. Sparse, so that the server need not store what it hashes."""
    cluster.sql("SELECT lo_create(4711)", dbname=database)
    cluster.sql("SELECT lo_put(4711, 1200000000, 'x')", dbname=database)
    with contextlib.closing(cluster.connect(database)) as conn:
        found = _manifest.read_large_objects(conn, "full")
        assert found["count"] == 1 and found["bytes"] == 1_200_000_001
        cluster.sql("SELECT lo_put(4711, 1100000000, 'y')", dbname=database)
        assert _manifest.read_large_objects(conn, "full")["hash"] != found["hash"]


def test_parts_of_large_objects(cluster: Cluster, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of the parts: no byte is left out and none may change its place."""
    contents = {101: b"", 102: b"abcd", 103: b"abcdabcd", 104: b"abcdefghi", 105: b"x" * 5000}
    for oid, data in contents.items():
        cluster.sql("SELECT lo_from_bytea(%s, %s)", (oid, data), dbname=database)
    with contextlib.closing(cluster.connect(database)) as conn:
        whole = _manifest.read_large_objects(conn, "full")
        monkeypatch.setattr(_manifest, "LARGE_OBJECT_CHUNK", 4)
        found = _manifest.read_large_objects(conn, "full")
        assert whole["bytes"] == found["bytes"] == sum(len(data) for data in contents.values())
        for number, change in enumerate(
            ("lo_put(104, 8, 'j')", "lo_put(104, 0, 'efghabcd')", "lo_put(103, 8, 'a')", "lo_put(101, 0, 'a')")
        ):
            cluster.sql(f"SELECT {change}", dbname=database)
            after = _manifest.read_large_objects(conn, "full")
            assert after["hash"] != found["hash"], number
            found = after
