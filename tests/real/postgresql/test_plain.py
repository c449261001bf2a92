# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps of the team's old script: only on request, without superuser rights, through the same flip."""

from __future__ import annotations

import hashlib
import pathlib
import subprocess
import typing as t

import pytest

from tests.lab import ports
from tests.lab.postgres import Cluster
from tests.lab.roles import Roles

from .restore_helpers import Shop


@pytest.fixture(params=["superuser", "owner"])
def shop(request: pytest.FixtureRequest, cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path) -> Shop:
    return Shop(cluster, roles, database, tmp_path, roles.operator if request.param == "owner" else None).fill()


@pytest.fixture
def legacy(shop: Shop, tmp_path: pathlib.Path) -> dict[str, t.Any]:
    folder = tmp_path / "rollback-versions" / "backup_20231101_090000"
    folder.mkdir(parents=True)
    with (folder / "database_backup.sql").open("wb") as out:
        subprocess.run([shop.cluster.program("pg_dump")], env=shop.cluster.env(shop.name), stdout=out, check=True)
    return {"version": "20231101_090000", "legacy_path": str(folder.parent)}


def file_of(legacy: dict[str, t.Any]) -> pathlib.Path:
    return pathlib.Path(legacy["legacy_path"]) / "backup_20231101_090000" / "database_backup.sql"


def roles_of(shop: Shop) -> list[str]:
    return [row[0] for row in shop.cluster.sql("SELECT rolname FROM pg_roles ORDER BY 1")]


def test_a_legacy_dump_there_and_back(shop: Shop, legacy: dict[str, t.Any]) -> None:
    old, new, before = shop.oid(), shop.pay(), roles_of(shop)
    assert "set allow_plain_sql=true" in shop.refused("pg_restore", state="staged", **legacy)["msg"]
    digest = hashlib.sha256(file_of(legacy).read_bytes()).hexdigest()
    options = {**legacy, "allow_plain_sql": True, "plain_sql_sha256": digest}
    assert shop.run("pg_restore", check=True, state="staged", **options)["changed"]
    staged = shop.restore("staged", **options)
    assert staged["plain_sql"]["sha256"] == digest
    result = shop.restore("live", **options)
    assert result["changed"] and shop.count() == 1000
    assert roles_of(shop) == before, "the login for the import is still there"
    assert shop.sql("SELECT tableowner FROM pg_tables WHERE tablename = 'payments'") == [(shop.roles.owner.name,)]
    assert not shop.restore("live", **options)["changed"]
    paid = shop.pay()
    assert paid > new + 9000
    shop.restore("previous")
    assert shop.oid() == old
    shop.invariant({new, paid})


def test_what_the_dump_does_not_have_is_told_the_first_time(shop: Shop, legacy: dict[str, t.Any]) -> None:
    """Before it was loaded nobody knows what it makes; what then stays in the kept database must not go unsaid."""
    shop.pay()
    shop.sql("CREATE TABLE since (id int PRIMARY KEY)", shop.roles.owner)
    shop.sql("INSERT INTO since VALUES (1), (2)", shop.roles.owner)
    options = {**legacy, "allow_plain_sql": True, "state": "staged"}
    planned = " ".join(shop.run("pg_restore", check=True, **options)["plan"])
    assert "(0 tables)" not in planned and "is known once it was loaded" in planned, planned
    staged = shop.run("pg_restore", **options)
    told = staged["databases"][shop.name]
    assert told["rows_since"]["public.payments"] == 1 and told["rows_planned"]["public.since"]["stays"] == "2 or more", told
    plan = " ".join(staged["plan"])
    assert "public.since has 2 row(s) newer than the point; they stay in the kept database" in plan, plan
    assert "relation public.since is here but was not expected" in plan and "is known once it was loaded" not in plan


def test_a_program_in_the_dump_gets_no_rights(shop: Shop, legacy: dict[str, t.Any], tmp_path: pathlib.Path) -> None:
    path, witness = file_of(legacy), tmp_path / "witness"
    text = path.read_text(encoding="utf-8")
    options = {**legacy, "allow_plain_sql": True, "state": "staged"}
    denied = "permission denied" if shop.cluster.major > 15 else "must be superuser"
    for hostile, why in (
        (f"COPY audit TO PROGRAM 'touch {witness}';", denied),
        ("RESET ROLE; ALTER ROLE CURRENT_USER SUPERUSER;", denied),
        ("RESET SESSION AUTHORIZATION; CREATE ROLE hacked SUPERUSER;", denied),
        ("SELECT nonsense;", "nonsense"),
        (f"\\! touch {witness}", "backslash command"),
    ):
        path.write_text(
            text.replace("\n--\n-- PostgreSQL database dump complete", f"\n{hostile}\n--\n-- PostgreSQL database dump complete"), "utf-8"
        )
        result = shop.refused("pg_restore", **options)
        assert why in result["msg"], result["msg"]
        assert list(shop.family()) == [shop.name]
        assert not [name for name in roles_of(shop) if name.startswith("payops_plain_")]
        assert not witness.exists()
        assert "hacked" not in roles_of(shop)
    path.write_text(text[: len(text) // 2], encoding="utf-8")
    assert "cut off" in shop.refused("pg_restore", **options)["msg"]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1 AS \u2013E'\\' \\! touch {witness}\n';\n--'\n",
        "SELECT 1 AS \u2013$a$ \\! touch {witness}\n$a$;\n",
        "SELECT pg_catalog.set_config('standard_conforming' || '_strings', 'off', false);\nSELECT '\\'' \\! touch {witness}\n';\n--'\n",
        "DO $$ BEGIN PERFORM set_config('client_encoding', 'SJIS', false); END $$;\nSELECT '\u8868\\' \\! touch {witness}\n';\n",
    ],
    ids=["a dash before a string", "a dash before a dollar quote", "strings that escape", "letters that end in a backslash"],
)
def test_what_psql_would_read_otherwise_runs_nothing_on_this_host(
    shop: Shop, legacy: dict[str, t.Any], tmp_path: pathlib.Path, text: str
) -> None:
    """SQL can change where psql sees its commands; whatever the server makes of these, no client reads them."""
    path, witness = file_of(legacy), tmp_path / "witness"
    dump, end = path.read_text(encoding="utf-8"), "\n--\n-- PostgreSQL database dump complete"
    path.write_text(dump.replace(end, "\n" + text.format(witness=witness) + end), encoding="utf-8")
    shop.run("pg_restore", state="staged", allow_plain_sql=True, **legacy)
    assert not witness.exists()
    shop.invariant(set())


def test_a_dump_of_inserts_and_large_objects(shop: Shop, tmp_path: pathlib.Path) -> None:
    shop.sql("SELECT lo_from_bytea(4711, 'receipt')", shop.roles.owner)
    path = tmp_path / "database_backup.sql"
    with path.open("wb") as out:
        argv = [shop.cluster.program("pg_dump"), "--column-inserts", "--rows-per-insert=50", "--blobs"]
        subprocess.run(argv, env=shop.cluster.env(shop.name), stdout=out, check=True)
    shop.pay()
    shop.restore("live", version="old", legacy_path=str(path), allow_plain_sql=True)
    assert shop.count() == 1000
    assert bytes(shop.sql("SELECT lo_get(4711)")[0][0]) == b"receipt"


def test_a_server_that_logs_statements_does_not_log_the_password_of_the_login(
    cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path
) -> None:
    shop = Shop(cluster, roles, database, tmp_path, None).fill()
    path = tmp_path / "database_backup.sql"
    with path.open("wb") as out:
        subprocess.run([cluster.program("pg_dump")], env=cluster.env(database), stdout=out, check=True)
    superuser = f'"{cluster.superuser}"'
    begun = cluster.log.stat().st_size
    cluster.sql(f"ALTER ROLE {superuser} SET log_statement = 'ddl'")
    try:
        shop.restore("staged", version="old", legacy_path=str(path), allow_plain_sql=True)
    finally:
        cluster.sql(f"ALTER ROLE {superuser} RESET log_statement")
    logged = cluster.log.read_bytes()[begun:].decode("utf-8", "replace")
    given = [line.partition(" PASSWORD ")[2] for line in logged.splitlines() if "ALTER ROLE" in line and " PASSWORD " in line]
    assert given and all(each.startswith(("'SCRAM-SHA-256$", "'md5")) for each in given), given


def test_semicolons_inside_of_statements(shop: Shop, tmp_path: pathlib.Path) -> None:
    """Rules with several actions, and bodies of functions in SQL, which the server has since version 14."""
    shop.sql(
        "CREATE RULE twice AS ON DELETE TO payments DO ALSO (INSERT INTO audit (what) VALUES ('a;('); INSERT INTO audit (what) VALUES ('b'))",
        shop.roles.owner,
    )
    if shop.cluster.major >= 14:
        shop.sql(
            'CREATE FUNCTION fee(begin int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1 AS "case";'
            ' SELECT CASE WHEN begin > 9 THEN CASE begin WHEN 10 THEN 1 ELSE 2 END ELSE 3 END AS "end"; END;'
            " CREATE PROCEDURE clear() LANGUAGE sql BEGIN ATOMIC DELETE FROM audit; DELETE FROM audit; END",
            shop.roles.owner,
        )
    path = tmp_path / "database_backup.sql"
    with path.open("wb") as out:
        subprocess.run([shop.cluster.program("pg_dump")], env=shop.cluster.env(shop.name), stdout=out, check=True)
    shop.restore("live", version="old", legacy_path=str(path), allow_plain_sql=True)
    assert shop.count() == 1000
    assert shop.sql("SELECT count(*) FROM pg_rules WHERE rulename = 'twice'") == [(1,)]
    if shop.cluster.major >= 14:
        assert shop.sql("SELECT fee(10), fee(11), fee(1)") == [(1, 2, 3)]


def test_what_does_not_become_what_it_says(shop: Shop, legacy: dict[str, t.Any]) -> None:
    path = file_of(legacy)
    text, end = path.read_text(encoding="utf-8"), "\n--\n-- PostgreSQL database dump complete"
    options = {**legacy, "allow_plain_sql": True, "state": "staged"}
    path.write_text(text.replace("OWNER TO shop_owner", f"OWNER TO {shop.cluster.superuser}", 1), encoding="utf-8")
    result = shop.refused("pg_restore", **options)
    assert {each["code"] for each in result["blockers"]} == {"plain_superuser", *(["membership"] if shop.operator else [])}
    path.write_text(text.replace(end, f"\nCREATE TABLE public.gone (n int);\nDROP TABLE public.gone;\n{end}"), encoding="utf-8")
    assert "creates 5 tables, but 4 are there" in shop.refused("pg_restore", **options)["msg"]
    assert "holds one database, but 2 are given" in shop.refused("pg_restore", **options, databases=[shop.name, "postgres"])["msg"]
    assert list(shop.family()) == [shop.name]


def test_roles_of_another_server_are_mapped(shop: Shop, legacy: dict[str, t.Any]) -> None:
    path = file_of(legacy)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("OWNER TO shop_owner", "OWNER TO kejayangu").replace("TO shop_app", "TO node_api"), encoding="utf-8")
    options = {**legacy, "allow_plain_sql": True}
    result = shop.refused("pg_restore", state="staged", **options)
    assert sorted(each["code"] for each in result["blockers"]) == ["role", "role"]
    shop.restore("live", **options, plain_sql_roles={"kejayangu": shop.roles.owner.name, "node_api": shop.roles.app.name})
    assert shop.pay()


@pytest.fixture
def interrupted(cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path) -> t.Iterator[tuple[Shop, dict[str, t.Any], str]]:
    """A superuser's import that was killed while the dump was running, and the login that it had made for it."""
    shop = Shop(cluster, roles, database, tmp_path, None).fill()
    path = tmp_path / "database_backup.sql"
    with path.open("wb") as out:
        subprocess.run([cluster.program("pg_dump")], env=cluster.env(database), stdout=out, check=True)
    text, end = path.read_text(encoding="utf-8"), "\n--\n-- PostgreSQL database dump complete"
    path.write_text(text.replace(end, f"\nSELECT pg_sleep(60);\n{end}"), encoding="utf-8")
    options = {"version": "old", "legacy_path": str(path), "allow_plain_sql": True}
    process = shop.start("pg_restore", state="staged", **options)
    query = "SELECT usename FROM pg_stat_activity WHERE query LIKE '%%pg_sleep(60)%%' AND usename LIKE 'payops_plain_%%'"
    login = ports.wait_until(lambda: process.poll() is None and cluster.sql(query), "the import to be at work")[0][0]
    process.kill()
    process.communicate()
    assert login in roles_of(shop)
    path.write_text(text, encoding="utf-8")
    yield shop, options, login
    for (left,) in cluster.sql("SELECT rolname FROM pg_roles WHERE rolname LIKE 'payops_plain_%%'"):
        cluster.sql(f"DROP ROLE {left}")


@pytest.mark.parametrize("state", ["staged", "previous", "complete"])
def test_a_killed_import_leaves_no_login(interrupted: tuple[Shop, dict[str, t.Any], str], state: str) -> None:
    shop, options, login = interrupted
    result = shop.restore(state, **(options if state == "staged" else {}))
    assert f"dropped the login {login}, which an interrupted import left" in result["actions"]
    assert not [name for name in roles_of(shop) if name.startswith("payops_plain_")]
    assert len(shop.family()) == (2 if state == "staged" else 1)


def test_who_may_not_drop_the_login_is_told(interrupted: tuple[Shop, dict[str, t.Any], str]) -> None:
    shop, unused, login = interrupted
    shop.operator = shop.roles.operator
    assert f'As superuser: DROP ROLE "{login}".' in " ".join(shop.restore("complete")["notes"])
    shop.operator = None
    assert login in roles_of(shop)
    # an import into another database may be another run's, at this moment
    shop.cluster.sql(f'COMMENT ON ROLE {login} IS \'{{"payops_rollback": 1, "database": "another"}}\'')
    shop.restore("complete")
    assert login in roles_of(shop)
