# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that stands in the way is listed at once, before anything is created."""

from __future__ import annotations

import contextlib
import pathlib
import typing as t

import pytest

from tests.lab.postgres import Cluster, ident
from tests.lab.roles import Role, Roles

from .restore_helpers import Shop


@pytest.fixture
def shop(cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path) -> Shop:
    """Operated by the role with rights; the superuser is a parameter away."""
    shop = Shop(cluster, roles, database, tmp_path, roles.operator).fill()
    shop.snapshot()
    return shop


@contextlib.contextmanager
def sql_undone(shop: Shop, do: str, undo: str, name: str = "postgres") -> t.Iterator[None]:
    shop.cluster.sql(do, dbname=name)
    try:
        yield
    finally:
        shop.cluster.sql(undo, dbname=name)


def codes(shop: Shop, **options: t.Any) -> list[str]:
    """Codes of the blockers; the same in check mode; and nothing was created."""
    before = shop.family()
    given = {"state": "staged", "version": shop.version, **options}
    result = shop.refused("pg_restore", **given)
    assert "blockers" in result, result
    for each in result["blockers"]:
        assert each["what"] in result["msg"] and each["what"].endswith(".")
    assert shop.run("pg_restore", check=True, **given)["blockers"] == result["blockers"]
    assert shop.family() == before
    return sorted(each["code"] for each in result["blockers"])


def test_all_are_listed_together(shop: Shop) -> None:
    session = shop.cluster.connect(shop.name)
    prepared = shop.cluster.connect(shop.name, autocommit=False)
    try:
        with sql_undone(
            shop,
            "SELECT pg_create_logical_replication_slot('blocking_slot', 'test_decoding')",
            "SELECT pg_drop_replication_slot('blocking_slot')",
            shop.name,
        ):
            with prepared.cursor() as cursor:
                cursor.execute("INSERT INTO customers (email) VALUES ('p')")
                cursor.execute(f"PREPARE TRANSACTION 'gid {shop.name}'")
            assert codes(shop) == ["prepared", "slot", "superuser_session", "superuser_session"]
            assert codes(shop, accept_replication=True) == ["prepared", "superuser_session", "superuser_session"]
    finally:
        session.close()
        prepared.close()
        with contextlib.suppress(Exception):
            shop.sql(f"ROLLBACK PREPARED 'gid {shop.name}'")
    assert shop.restore("live")["changed"]


def test_a_slot_goes_with_the_kept_database_and_keeps_it_from_being_dropped(shop: Shop) -> None:
    shop.sql("SELECT pg_create_logical_replication_slot('kept_slot', 'test_decoding')")
    try:
        kept = shop.restore("live", accept_replication=True)["kept"][shop.name]
        result = shop.refused("pg_restore", state="complete")
        assert [each["code"] for each in result["blockers"]] == ["slot"]
        assert kept in shop.family()
    finally:
        with shop.opened(next(name for name in shop.family() if name != shop.name)) as name:
            shop.sql("SELECT pg_drop_replication_slot('kept_slot')", name=name)
    assert shop.restore("complete")["changed"]


def test_a_subscription(shop: Shop) -> None:
    shop.sql("CREATE SUBSCRIPTION sub CONNECTION 'host=127.0.0.1 dbname=nowhere' PUBLICATION p WITH (connect = false)")
    try:
        assert codes(shop) == ["subscription"]
    finally:
        shop.sql("ALTER SUBSCRIPTION sub SET (slot_name = NONE)")
        shop.sql("DROP SUBSCRIPTION sub")


def test_rights_that_the_operator_lacks(shop: Shop) -> None:
    operator, owner, readonly = (ident(role.name) for role in (shop.roles.operator, shop.roles.owner, shop.roles.readonly))
    app = shop.cluster.connect(shop.name, **shop.roles.app.login())
    try:
        with sql_undone(shop, f"ALTER ROLE {operator} NOCREATEDB", f"ALTER ROLE {operator} CREATEDB"):
            assert codes(shop) == ["createdb"]
        with sql_undone(shop, f"REVOKE pg_signal_backend FROM {operator}", f"GRANT pg_signal_backend TO {operator}"):
            assert codes(shop) == ["signal"]
        with sql_undone(shop, f"REVOKE {readonly} FROM {operator}", f"GRANT {readonly} TO {operator}"):
            assert codes(shop) == ["role_setting"]
    finally:
        app.close()
    assert owner


def test_an_operator_who_owns_nothing(shop: Shop) -> None:
    stranger = Role("shop_stranger", "secret")
    if not shop.cluster.sql("SELECT FROM pg_roles WHERE rolname = 'shop_stranger'"):
        shop.cluster.sql("CREATE ROLE shop_stranger LOGIN CREATEDB PASSWORD 'secret'")
    shop.cluster.sql(f"GRANT CONNECT ON DATABASE {ident(shop.name)} TO shop_stranger")
    shop.operator = stranger
    result = shop.refused("pg_restore", state="staged", version=shop.version)
    assert {each["code"] for each in result["blockers"]} >= {"owner", "membership"}
    shop.cluster.sql(f"REVOKE CONNECT ON DATABASE {ident(shop.name)} FROM shop_stranger")


def test_a_role_that_is_gone(shop: Shop) -> None:
    shop.cluster.sql("CREATE ROLE shop_gone")
    shop.sql("GRANT SELECT ON payments TO shop_gone")
    shop.snapshot("with_role")
    shop.sql("REVOKE ALL ON payments FROM shop_gone")
    shop.cluster.sql("DROP ROLE shop_gone")
    assert codes(shop, version="with_role") == ["role"]


def test_a_point_of_another_server(shop: Shop) -> None:
    import hashlib
    import json

    folder = shop.store / "shop" / shop.version / "postgresql"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["facts"]["system_identifier"] = "1"
    data = (json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
    sums = (folder / "MANIFEST.sha256").read_text(encoding="utf-8")
    old = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    (folder / "manifest.json").write_bytes(data)
    (folder / "MANIFEST.sha256").write_text(sums.replace(old, hashlib.sha256(data).hexdigest()), encoding="utf-8")
    assert codes(shop) == ["foreign"]
    assert shop.restore("live", allow_foreign=True)["changed"]


def test_the_database_as_login_db(shop: Shop) -> None:
    """Not an obstacle: another maintenance database is taken."""
    assert shop.restore("live", login_db=shop.name)["changed"]


def test_limits_on_role_and_database_do_not_stop_it(shop: Shop) -> None:
    operator = ident(shop.roles.operator.name)
    with sql_undone(shop, f"ALTER ROLE {operator} SET statement_timeout = '250ms'", f"ALTER ROLE {operator} RESET statement_timeout"):
        shop.cluster.sql(f"ALTER DATABASE {ident(shop.name)} SET statement_timeout = '250ms'")
        assert shop.restore("live")["changed"]
        assert shop.restore("previous")["changed"]


def test_half_dropped_and_unmarked_leftovers(shop: Shop) -> None:
    kept = shop.restore("live")["kept"][shop.name]
    shop.cluster.sql("UPDATE pg_database SET datconnlimit = -2 WHERE datname = %s", (kept,))
    shop.cluster.create_database(f"{shop.name}_mine")
    shop.cluster.sql("UPDATE pg_database SET datconnlimit = -2 WHERE datname = %s", (f"{shop.name}_mine",))
    result = shop.restore("live")
    assert result["changed"] and kept not in shop.family()
    assert f"{shop.name}_mine" in shop.family(), "somebody else's half dropped database was touched"
    shop.cluster.sql("UPDATE pg_database SET datconnlimit = -1 WHERE datname = %s", (f"{shop.name}_mine",))
