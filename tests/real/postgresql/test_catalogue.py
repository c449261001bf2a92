# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A manifest is equal after a restore, and every single change makes it differ."""

from __future__ import annotations

import contextlib
import json
import subprocess
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _catalogue, _manifest
from tests.lab.postgres import Cluster, ident
from tests.lab.roles import Roles
from tests.real.postgresql import rich_schema


def restored_copy(cluster: Cluster, name: str, copy: str, owner: str, folder: str) -> None:
    """Dump and restore with the server's own programs into a new database."""
    cluster.sql(f"CREATE DATABASE {ident(copy)} TEMPLATE template0 OWNER {ident(owner)}")
    subprocess.run([cluster.program("pg_dump"), "-Fd", "-Z0", "-f", folder], env=cluster.env(name), check=True)
    subprocess.run([cluster.program("pg_restore"), "--exit-on-error", "-j2", "-d", copy, folder], env=cluster.env(copy), check=True)


@pytest.fixture(scope="module")
def pair(cluster: Cluster, roles: Roles, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[tuple[str, str]]:
    """A rich database and its restored copy."""
    from tests.lab.roles import create_database

    name = create_database(cluster, "Rich 'n\" %s;ü", roles)
    rich_schema.create(cluster, name, roles)
    copy = "rich_copy"
    restored_copy(cluster, name, copy, roles.owner.name, str(tmp_path_factory.mktemp("dump") / "d"))
    yield name, copy
    for database in (name, copy):
        cluster.sql(f"DROP DATABASE {ident(database)} WITH (FORCE)")


def test_restored_copy_equals_the_manifest(cluster: Cluster, pair: tuple[str, str]) -> None:
    with contextlib.closing(cluster.connect(pair[0])) as source, contextlib.closing(cluster.connect(pair[1])) as target:
        manifest = json.loads(json.dumps(_manifest.build(source)))
        assert _manifest.compare(manifest, target) == []
        assert _catalogue.fingerprint(_catalogue.read(target)) == manifest["fingerprint"]
        assert manifest["large_objects"]["count"] == 2
        assert "secret in a mapping" not in json.dumps(manifest)
        assert source.info.transaction_status == 0


def test_twice_restored_is_still_equal(cluster: Cluster, roles: Roles, pair: tuple[str, str], tmp_path: t.Any) -> None:
    restored_copy(cluster, pair[1], "rich_again", roles.owner.name, str(tmp_path / "d"))
    try:
        with contextlib.closing(cluster.connect(pair[0])) as source, contextlib.closing(cluster.connect("rich_again")) as target:
            assert _manifest.compare(_manifest.build(source), target) == []
    finally:
        cluster.sql("DROP DATABASE rich_again WITH (FORCE)")


def test_reading_changes_no_session_setting(cluster: Cluster, pair: tuple[str, str]) -> None:
    with contextlib.closing(cluster.connect(pair[0])) as conn, conn.cursor() as cursor:
        cursor.execute("SET search_path = nowhere, public; SET DateStyle = 'SQL, DMY'")
        _manifest.build(conn, "counts")
        cursor.execute("SELECT current_setting('search_path'), current_setting('DateStyle')")
        assert cursor.fetchone() == ("nowhere, public", "SQL, DMY")


ROW_CHANGES = {
    "one value": ("UPDATE payments SET amount = amount + 0.01 WHERE id = 3", "content of some differs"),
    "one row less": ("DELETE FROM payments WHERE id = 20", "table public.payments has 19 rows, expected 20"),
    "one row more": ("INSERT INTO nothing DEFAULT VALUES", "table public.nothing has 2 rows, expected 1"),
    "null for empty": ("UPDATE payments SET doc = NULL WHERE id = 1", "content of some differs"),
    "values of two columns exchanged": ("UPDATE ONLY parent SET a = d, d = a", "public.parent"),
    "a large object": ("SELECT lo_put(70001, 0, '\\x00')", "large objects: hash"),
    "a large object gone": ("SELECT lo_unlink(70002)", "large objects: count"),
    "a sequence set back": ("SELECT setval('payments_id_seq', 3)", "sequence public.payments_id_seq stands at 3, behind"),
    "a descending sequence set back": ("SELECT nextval('seq_unused'), setval('seq_unused', 50, false)", None),
}


@pytest.mark.parametrize("what", ROW_CHANGES)
def test_one_changed_row_is_seen(cluster: Cluster, pair: tuple[str, str], what: str) -> None:
    statement, expected = ROW_CHANGES[what]
    with contextlib.closing(cluster.connect(pair[0])) as source:
        manifest = _manifest.build(source)
    conn = cluster.connect(pair[1], autocommit=False)
    with contextlib.closing(conn), conn.cursor() as cursor:
        cursor.execute("SELECT last_value, is_called FROM payments_id_seq")
        before = cursor.fetchone()
        cursor.execute(statement)
        said = _manifest.compare(manifest, conn)
        cursor.execute("SELECT setval('payments_id_seq', %s, %s)", before)
        conn.rollback()
    if expected is None:
        assert said == []
    else:
        assert said
        assert any(expected in sentence for sentence in said), said


CATALOGUE_CHANGES = {
    "DROP INDEX payments_idem": "index public.payments_idem is missing.",
    "CREATE INDEX surplus ON parent (a)": "index public.surplus is here but was not expected.",
    "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'payments_idem'::regclass": "index public.payments_idem: valid is False, expected True.",
    "REVOKE INSERT ON payments FROM shop_app": "relation public.payments: shop_app lacks INSERT.",
    "GRANT TRUNCATE ON payments TO shop_app": "relation public.payments: shop_app has TRUNCATE too many.",
    "GRANT SELECT ON payments TO PUBLIC": "relation public.payments: PUBLIC has SELECT too many.",
    "GRANT SELECT ON payments TO shop_app WITH GRANT OPTION": "shop_app lacks SELECT; shop_app has SELECT* too many",
    "REVOKE UPDATE (amount) ON payments FROM shop_app": "column public.payments.amount: shop_app lacks UPDATE*.",
    "REVOKE USAGE ON SCHEMA public FROM shop_app": "schema public: shop_app lacks USAGE.",
    "GRANT EXECUTE ON FUNCTION total TO PUBLIC": "PUBLIC has EXECUTE too many",
    "REVOKE USAGE ON SEQUENCE payments_id_seq FROM shop_app": "relation public.payments_id_seq: shop_app lacks USAGE.",
    "GRANT USAGE ON TYPE status TO PUBLIC": "type public.status: PUBLIC has USAGE too many.",
    "ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner GRANT EXECUTE ON FUNCTIONS TO PUBLIC": "default privileges of shop_owner on functions",
    "GRANT SELECT ON LARGE OBJECT 70002 TO shop_app": "large object",
    "REVOKE EXECUTE ON FUNCTION pg_read_file(text) FROM shop_app": "system grant function pg_read_file(text) is missing.",
    "ALTER TABLE payments OWNER TO shop_migrator": "relation public.payments: owner is shop_migrator, expected shop_owner.",
    "ALTER TABLE payments ENABLE TRIGGER t_off": "trigger public.payments.t_off: enabled is O, expected D.",
    "DROP TRIGGER later ON payments": "trigger public.payments.later is missing.",
    "ALTER EVENT TRIGGER guard ENABLE": "event trigger guard: enabled is O, expected D.",
    "ALTER TABLE payments DISABLE ROW LEVEL SECURITY": "relation public.payments: row_security is none, expected True.",
    "ALTER TABLE payments FORCE ROW LEVEL SECURITY": "force_row_security is True, expected none",
    "ALTER POLICY mine ON payments USING (true)": "policy public.payments.mine: using_expression is true",
    "ALTER TABLE payments VALIDATE CONSTRAINT not_checked": "constraint public.payments.not_checked",
    "ALTER TABLE payments ALTER CONSTRAINT payments_customer_fkey NOT DEFERRABLE": "constraint public.payments.payments_customer_fkey",
    "ALTER TABLE payments ALTER COLUMN status SET DEFAULT 'paid'": "column public.payments.status: default is 'paid'",
    "ALTER TABLE customers ALTER COLUMN late DROP NOT NULL": "column public.customers.late: not_null is False",
    "ALTER TABLE customers ALTER COLUMN id SET GENERATED BY DEFAULT": "column public.customers.id: identity is d, expected a.",
    "ALTER TABLE parent ALTER COLUMN b TYPE varchar": None,
    "ALTER TYPE status ADD VALUE 'more' BEFORE 'paid'": "type public.status: labels is",
    "ALTER TYPE pair ADD ATTRIBUTE c int": "public.pair",
    "ALTER SEQUENCE seq_cycle NO CYCLE": "relation public.seq_cycle: cycle is False, expected True.",
    "ALTER FUNCTION touch() RESET search_path": "function public.touch(): definition is",
    "CREATE OR REPLACE VIEW paid AS SELECT p.*, c.name, true AS ok, true AS known FROM payments p JOIN customers c ON true": "relation public.paid",
    "DROP VIEW using_join": "relation public.using_join is missing.",
    "ALTER PUBLICATION out_pub DROP TABLE customers": "publication out_pub: tables is",
    "COMMENT ON TABLE payments IS NULL": "relation public.payments: comment is none",
    "CREATE EXTENSION pg_trgm": None,
    "ALTER TABLE scratch SET LOGGED": "relation public.scratch: persistence is none, expected unlogged.",
    "DROP STATISTICS pay_stats": "extended statistics public.pay_stats is missing.",
}


@pytest.mark.parametrize("statement", CATALOGUE_CHANGES)
def test_one_changed_object_is_seen(cluster: Cluster, pair: tuple[str, str], statement: str) -> None:
    with contextlib.closing(cluster.connect(pair[0])) as source:
        expected = _catalogue.read(source)
    conn = cluster.connect(pair[1], autocommit=False)
    with contextlib.closing(conn), conn.cursor() as cursor:
        try:
            cursor.execute(statement)
        except Exception as exc:
            if "extension" in str(exc):
                pytest.skip(str(exc))
            if "cannot alter type" in str(exc):
                return
            raise
        said = _catalogue.differences(expected, _catalogue.read(conn))
        conn.rollback()
    assert said
    wanted = CATALOGUE_CHANGES[statement]
    assert wanted is None or any(wanted in sentence for sentence in said), said


def test_properties_without_values_of_settings(cluster: Cluster, roles: Roles, database: str) -> None:
    cluster.sql(f"ALTER DATABASE {ident(database)} SET app.key = 'very secret'")
    with contextlib.closing(cluster.connect()) as conn:
        before = _catalogue.properties(conn, database)
        assert before["owner"] == roles.owner.name
        assert before["grants"][roles.app.name] == ["CONNECT", "TEMPORARY"]
        assert "" not in before["grants"]
        assert before["settings"] == {
            "": ["app.key=very secret", "statement_timeout=30s"],
            roles.readonly.name: ["default_transaction_read_only=on"],
        }
        cluster.sql(f"ALTER DATABASE {ident(database)} RESET app.key")
        cluster.sql(f"GRANT CONNECT ON DATABASE {ident(database)} TO PUBLIC")
        cluster.sql(f"ALTER DATABASE {ident(database)} CONNECTION LIMIT 7")
        assert _catalogue.property_differences(before, _catalogue.properties(conn, database)) == [
            "the database: connection_limit is 7, expected -1.",
            "the database: PUBLIC has CONNECT too many.",
            "the settings of the database differ: app.key.",
        ]


def test_rows_since(cluster: Cluster, roles: Roles, database: str) -> None:
    rich_schema.create(cluster, database, roles, superuser=False)
    with contextlib.closing(cluster.connect(database)) as conn:
        manifest = _manifest.build(conn, "counts")
        assert _manifest.rows_since(conn, manifest["snapshot"], manifest["tables"]) == {}
        cluster.sql("INSERT INTO payments (customer, amount, f8) VALUES (100, 1, 1), (100, 2, 1)", dbname=database)
        cluster.sql("UPDATE payments SET amount = 9 WHERE id = 5", dbname=database)
        cluster.sql('UPDATE "Sonder ""zeichen"" %s; --" SET "100%" = 1 WHERE "a b" = 1', dbname=database)
        cluster.sql("DELETE FROM ledger_line; DELETE FROM child", dbname=database)
        cluster.sql("INSERT INTO ledger (at, cents) VALUES ('2022-02-02', 1)", dbname=database)
        cluster.sql("VACUUM (FREEZE) payments", dbname=database)
        assert _manifest.rows_since(conn, manifest["snapshot"], manifest["tables"]) == {
            "public.payments": {"written": 3, "gone": 1, "rows": 22},
            'public."Sonder ""zeichen"" %s; --"': {"written": 1, "gone": 1, "rows": 2},
            "public.child": {"written": 0, "gone": 1, "rows": 0},
            "public.ledger_2022": {"written": 1, "gone": 0, "rows": 6},
        }


def test_rows_of_the_very_moment_are_counted(cluster: Cluster, roles: Roles, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Payments that are committed between BEGIN and the snapshot that the first query takes are new, not ancient."""
    cluster.sql("CREATE TABLE payments (id bigserial PRIMARY KEY); INSERT INTO payments SELECT generate_series(1, 20)", dbname=database)
    begin = _manifest.execute

    def paying(conn: t.Any, statement: t.Any, args: t.Any = None) -> None:
        begin(conn, statement, args)
        if str(statement).startswith("BEGIN"):
            for number in (98, 99):
                cluster.sql(f"INSERT INTO payments VALUES ({number})", dbname=database)

    with contextlib.closing(cluster.connect(database)) as conn:
        manifest = _manifest.build(conn, "counts")
        monkeypatch.setattr(_manifest, "execute", paying)
        since = _manifest.rows_since(conn, manifest["snapshot"], manifest["tables"])
        assert since == {"public.payments": {"written": 2, "gone": 0, "rows": 22}}
