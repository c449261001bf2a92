# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases that sort by ICU or by PostgreSQL's own rules come back sorting the same way."""

from __future__ import annotations

import contextlib
import pathlib

import psycopg2
import pytest

from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _catalogue
from tests.lab.postgres import Cluster, ident
from tests.lab.roles import Roles

from .restore_helpers import Shop

LOCALES = {
    "icu": (15, "LOCALE_PROVIDER icu ICU_LOCALE 'de-u-co-phonebk'"),
    "icu with rules": (16, "LOCALE_PROVIDER icu ICU_LOCALE 'en' ICU_RULES '&z < a'"),
    "builtin": (17, "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'"),
}
WORDS = ["Zebra", "apfel", "\u00c4pfel", "Affe", "z\u00fcrich", "Arfe", "a1", "a-2", "B"]


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("profile", ["superuser", "owner"])
def test_there_and_back(cluster: Cluster, roles: Roles, dbname: str, tmp_path: pathlib.Path, locale: str, profile: str) -> None:
    since, clause = LOCALES[locale]
    if cluster.major < since:
        pytest.skip(f"not in this version: PostgreSQL {cluster.major} has no such locale")
    owner, app = ident(roles.owner.name), ident(roles.app.name)
    try:
        cluster.sql(f"CREATE DATABASE {ident(dbname)} TEMPLATE template0 OWNER {owner} ENCODING 'UTF8' {clause}")
    except psycopg2.errors.FeatureNotSupported as exc:
        pytest.skip(f"not in this version: {exc}")
    shop = Shop(cluster, roles, dbname, tmp_path, roles.operator if profile == "owner" else None)
    try:
        shop.sql(f"ALTER SCHEMA public OWNER TO {owner}; GRANT USAGE ON SCHEMA public TO {app}")
        if "icu" in locale:
            shop.sql("CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false)", roles.owner)
        collation = "COLLATE caseless" if "icu" in locale else ""
        shop.sql(f"CREATE TABLE payments (id bigserial PRIMARY KEY, payer text, code text {collation} UNIQUE)", roles.owner)
        shop.sql(f"CREATE INDEX ON payments (payer); GRANT SELECT, INSERT ON payments TO {app}", roles.owner)
        shop.sql(f"GRANT USAGE ON SEQUENCE payments_id_seq TO {app}", roles.owner)
        for word in WORDS:
            shop.sql("INSERT INTO payments (payer, code) VALUES (%s, %s)", roles.app, values=(word, f"Code {word}"))
        in_order = "SELECT payer FROM payments ORDER BY payer"
        before = shop.sql(in_order)
        with contextlib.closing(cluster.connect()) as conn:
            properties = {key: value for key, value in _catalogue.properties(conn, dbname).items() if key != "oid"}
        shop.snapshot()
        shop.sql("INSERT INTO payments (payer, code) VALUES ('late', 'CODE LATE')", roles.app)
        shop.restore("live")
        assert shop.sql(in_order) == before
        with contextlib.closing(cluster.connect()) as conn:
            assert {key: value for key, value in _catalogue.properties(conn, dbname).items() if key != "oid"} == properties
        assert shop.ok("pg_carry_back", ledgers=[{"table": "payments", "key": ["code"]}])["carried"] == {f"{dbname}.public.payments": 1}
        if "icu" in locale:
            assert shop.sql("SELECT payer FROM payments WHERE code = 'code late'") == [("late",)]
        assert not shop.restore("live")["changed"]
        shop.restore("previous")
        assert shop.count() == len(WORDS) + 1
    finally:
        cluster.drop_databases(dbname)
