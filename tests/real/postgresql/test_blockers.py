# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that stands in the way is listed at once, before anything is created."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import time
import typing as t

import pytest

from tests.lab import ports
from tests.lab.postgres import Cluster, ident
from tests.lab.roles import Role, Roles

from .restore_helpers import Shop, forge


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


def test_a_membership_that_does_not_let_the_operator_become_the_role(shop: Shop) -> None:
    if shop.cluster.major < 16:
        pytest.skip(f"not in this version: PostgreSQL {shop.cluster.major} knows no membership without it")
    operator, roles = ident(shop.roles.operator.name), (shop.roles.owner, shop.roles.migrator, shop.roles.readonly)
    grant = f"GRANT {', '.join(ident(role.name) for role in roles)} TO {operator} WITH SET"
    with sql_undone(shop, f"{grant} FALSE", f"{grant} TRUE"):
        assert set(codes(shop)) == {"membership", "role_setting"}
        said = shop.refused("pg_snapshot", version="other")["blockers"]
        assert len(said) == 2 and f"GRANT {shop.roles.owner.name} TO {shop.roles.operator.name}." in said[0], said
    with sql_undone(
        shop, f"GRANT pg_signal_backend TO {operator} WITH INHERIT FALSE", f"GRANT pg_signal_backend TO {operator} WITH INHERIT TRUE"
    ):
        (said,) = shop.refused("pg_snapshot", version="other")["blockers"]
        assert "may not end other sessions" in said


def test_what_the_operator_may_not_read(shop: Shop) -> None:
    """As a migration by hand leaves it: the rows of such a table could not be counted, nor its sequence be set past."""
    shop.sql("CREATE TABLE by_hand (id bigserial, n int); CREATE TABLE also (n int); INSERT INTO by_hand (n) VALUES (1)")
    for state in ("staged", "live"):
        result = shop.refused("pg_restore", state=state, version=shop.version)
        assert [each["code"] for each in result["blockers"]] == ["unreadable"] * 3, result
        assert f"GRANT SELECT ON public.by_hand_id_seq TO {shop.roles.operator.name}" in result["msg"], result["msg"]
    assert codes(shop) == ["unreadable"] * 3
    for grant in [each["do"] for each in result["blockers"]]:
        shop.sql(grant.removeprefix("As superuser: ").rstrip("."))
    assert shop.restore("live")["databases"][shop.name]["rows_since"] == {"public.by_hand": 1}


def test_a_sequence_that_the_operator_may_not_read_stops_the_undo(shop: Shop) -> None:
    old = shop.oid()
    shop.restore("live")
    shop.sql("CREATE TABLE by_hand (id bigserial)")
    for check in (True, False):
        (blocker,) = shop.run("pg_restore", state="previous", check=check)["blockers"]
        assert blocker["code"] == "unreadable" and "by_hand_id_seq" in blocker["what"]
    shop.sql(blocker["do"].removeprefix("As superuser: ").rstrip("."))
    shop.restore("previous")
    assert shop.oid() == old


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
    forge(shop, lambda facts: facts.update(system_identifier="1"))
    assert codes(shop) == ["foreign"]
    assert shop.restore("live", allow_foreign=True)["changed"]


def test_a_point_of_a_newer_server(shop: Shop) -> None:
    forge(shop, lambda facts: facts.update(server_major=99))
    assert codes(shop) == ["major"]
    said = shop.refused("pg_restore", state="live", version=shop.version)["msg"]
    assert f"Point {shop.version} is of PostgreSQL 99; this server is {shop.cluster.major}." in said


def test_a_point_of_an_older_server_is_restored(shop: Shop) -> None:
    forge(shop, lambda facts: facts.update(server_major=13, server_version="13.1", server_version_num=130001))
    assert shop.run("pg_restore", check=True, state="live", version=shop.version)["blockers"] == []
    assert shop.restore("live")["changed"]


def test_extensions_and_tablespaces_that_the_server_lacks(shop: Shop) -> None:
    def change(facts: dict[str, t.Any]) -> None:
        entry = facts["databases"][shop.name]
        entry["catalogue"]["extension"] = {
            "absent_ext": {"version": "1.0", "schema": "public"},
            "plpgsql": {"version": "99.0", "schema": "pg_catalog"},
        }
        entry["catalogue"]["relation"]["public.payments"]["tablespace"] = "absent_space"

    forge(shop, change)
    assert codes(shop) == ["extension", "extension", "tablespace"]
    said = shop.refused("pg_restore", state="staged", version=shop.version)["msg"]
    assert "needs the extension absent_ext 1.0; this server offers none of it" in said
    assert "needs the extension plpgsql 99.0; this server offers 1.0" in said


def test_what_only_a_superuser_may_restore(shop: Shop) -> None:
    untrusted = shop.cluster.sql(
        "SELECT name, version FROM pg_available_extension_versions WHERE superuser AND NOT trusted AND requires IS NULL ORDER BY 1 LIMIT 1"
    )

    def change(facts: dict[str, t.Any]) -> None:
        catalogue = facts["databases"][shop.name]["catalogue"]
        catalogue["event trigger"] = {"watch": {"event": "ddl_command_end"}}
        for name, version in untrusted:
            catalogue["extension"][name] = {"version": version, "schema": "public"}

    forge(shop, change)
    assert codes(shop) == ["event_trigger", *(["extension_right"] if untrusted else [])]


def test_an_extension_that_was_removed_from_the_server(cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path) -> None:
    if cluster.major < 18:
        pytest.skip(f"not in this version: PostgreSQL {cluster.major} has no extension_control_path, and its own folder is not ours")
    folder = cluster.root / "extensions" / "extension"
    folder.mkdir(parents=True)
    (folder / "ours.control").write_text("default_version = '1.0'\nrelocatable = true\ntrusted = true\n", encoding="utf-8")
    (folder / "ours--1.0.sql").write_text("CREATE TABLE ours_settings (k text PRIMARY KEY);\n", encoding="utf-8")
    shop = Shop(cluster, roles, database, tmp_path, roles.operator).fill()
    try:
        cluster.sql(f"ALTER SYSTEM SET extension_control_path = '$system:{folder.parent}'")
        cluster.sql("SELECT pg_reload_conf()")
        ports.wait_until(lambda: cluster.sql("SELECT name FROM pg_available_extensions WHERE name = 'ours'"), "the extension to be known")
        shop.sql("CREATE EXTENSION ours", roles.owner)
        shop.snapshot()
        assert shop.restore("staged")["changed"]
        shop.restore("previous")
        shutil.rmtree(folder)
        assert codes(shop) == ["extension"]
    finally:
        cluster.sql("ALTER SYSTEM RESET extension_control_path")
        cluster.sql("SELECT pg_reload_conf()")


@contextlib.contextmanager
def host_rules(cluster: Cluster, *rules: str) -> t.Iterator[None]:
    """Rules before all others in pg_hba.conf."""
    path = cluster.data / "pg_hba.conf"
    before = path.read_bytes()

    def load(text: bytes) -> None:
        path.write_bytes(text)
        cluster.sql("SELECT pg_reload_conf()")
        time.sleep(0.2)  # sessions that begin now are judged by the new rules once the postmaster has read them

    load("".join(f"{rule}\n" for rule in rules).encode() + before)
    try:
        yield
    finally:
        load(before)


def test_host_rules_by_database_name_that_shut_us_out(shop: Shop) -> None:
    """Whoever may read the rules is told before anything is created, the others by the login: nothing is left either way."""
    superuser, operator = shop.cluster.superuser, shop.roles.operator.name
    names = f'"{shop.name}",postgres,template1'
    with host_rules(shop.cluster, f"host {names} {operator} 127.0.0.1/32 scram-sha-256", f"host all {operator} all reject"):
        result = shop.refused("pg_restore", state="live", version=shop.version)
        assert "Cannot log in to database" in result["msg"] and "pg_hba.conf" in result["msg"], result["msg"]
        assert list(shop.family()) == [shop.name]
    shop.operator = None
    text = f"host {names} {superuser} 127.0.0.1/32 scram-sha-256"
    others = f'host all "{operator}","{shop.roles.app.name}","{shop.roles.owner.name}" 127.0.0.1/32 scram-sha-256'
    path = shop.cluster.data / "pg_hba.conf"
    before = path.read_bytes()
    path.write_text(f"{text}\n{others}\n", encoding="utf-8")
    shop.cluster.sql("SELECT pg_reload_conf()")
    time.sleep(0.2)
    try:
        for check in (False, True):
            result = shop.run("pg_restore", check=check, state="live", version=shop.version)
            assert {each["code"] for each in result["blockers"]} == {"pg_hba"}
            assert f"admits {superuser} to no database named {shop.name}__r_" in result["blockers"][0]["what"]
        assert list(shop.family()) == [shop.name]
    finally:
        path.write_bytes(before)
        shop.cluster.sql("SELECT pg_reload_conf()")
        time.sleep(0.2)
    assert shop.restore("live")["changed"]


def test_host_rules_that_know_the_application_by_the_production_name(shop: Shop) -> None:
    """The name stays, so what the rules say of it holds for the restored database and for the one that comes back."""
    app = shop.roles.app.name
    with host_rules(shop.cluster, f'host "{shop.name}" {app} 127.0.0.1/32 scram-sha-256', f"host all {app} all reject"):
        first = shop.pay()
        shop.restore("live")
        second = shop.pay()
        shop.restore("previous")
        shop.invariant({first, second, shop.pay()})


def test_what_came_after_the_flip_stops_the_undo(shop: Shop) -> None:
    shop.restore("live")
    flipped = shop.oid()
    prepared = shop.cluster.connect(shop.name, autocommit=False)
    with prepared.cursor() as cursor:
        cursor.execute("INSERT INTO customers (email) VALUES ('p')")
        cursor.execute(f"PREPARE TRANSACTION 'late {shop.name}'")
    prepared.close()
    shop.sql("CREATE SUBSCRIPTION late CONNECTION 'host=127.0.0.1 dbname=nowhere' PUBLICATION p WITH (connect = false)")
    try:
        result = shop.refused("pg_restore", state="previous")
        assert sorted(each["code"] for each in result["blockers"]) == ["prepared", "subscription"]
        assert shop.oid() == flipped
        shop.sql(f"ROLLBACK PREPARED 'late {shop.name}'")
        kept = shop.restore("previous", accept_replication=True)["kept"][shop.name]
        result = shop.refused("pg_restore", state="complete")
        assert [each["code"] for each in result["blockers"]] == ["subscription"], "what replicates into it would end without a word"
        assert kept in shop.family()
    finally:
        for name in shop.family():
            shop.cluster.sql(f"ALTER DATABASE {ident(name)} ALLOW_CONNECTIONS true")
            query = "SELECT subname FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
            if shop.sql(query, name=name):
                shop.sql("ALTER SUBSCRIPTION late DISABLE", name=name)
                shop.sql("ALTER SUBSCRIPTION late SET (slot_name = NONE)", name=name)
                shop.sql("DROP SUBSCRIPTION late", name=name)
            with contextlib.suppress(Exception):
                shop.sql(f"ROLLBACK PREPARED 'late {shop.name}'", name=name)


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
