# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The schema public: before PostgreSQL 15 it is the first superuser's in every new database, since then that of whoever owns the database.

The answers of the server are scripted: the servers of the other tests are of 15 and newer.
"""

from __future__ import annotations

import types
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _blockers, _rights, _stage

BOTH = ["CREATE", "USAGE"]
FIRST = {"postgres": BOTH, "": BOTH}
MEMBER_OF = {"postgres": False, "shop_owner": True, "shop_app": False, "operator": True}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> t.Any:
    def rows(connection: t.Any, query: str, values: t.Any = None) -> list[tuple[t.Any, ...]]:
        if "FROM pg_catalog.pg_roles" in query:
            return list(MEMBER_OF.items())
        return [("pg_default",)] if "pg_tablespace" in query else []

    me = {"name": "operator", "superuser": False, "createdb": True, "signal": True}
    monkeypatch.setattr(_blockers, "rows", rows)
    monkeypatch.setattr(_blockers, "one", lambda connection, query: "postgres")
    monkeypatch.setattr(_blockers, "who_am_i", lambda connection: me)
    return types.SimpleNamespace(server_version=0, me=me)


@pytest.mark.parametrize(
    ("version", "owner", "grants", "codes"),
    [
        (130023, "postgres", FIRST, []),
        (140023, "shop_owner", FIRST, ["public"]),
        (140023, "postgres", {"postgres": BOTH, "": ["USAGE"]}, ["public"]),
        (140023, "postgres", {**FIRST, "shop_app": ["USAGE"]}, ["public"]),
        (150018, "pg_database_owner", {"pg_database_owner": BOTH, "": ["USAGE"]}, []),
        (150018, "shop_owner", {"shop_owner": BOTH}, []),
        (180006, "postgres", {"postgres": BOTH, "": ["USAGE"]}, ["membership"]),
    ],
)
def test_who_may_restore_it(server: t.Any, version: int, owner: str, grants: dict[str, list[str]], codes: list[str]) -> None:
    server.server_version = version
    catalogue = {"schema": {"public": {"owner": owner, "grants": grants}}}
    needs = _stage.needs_of({"catalogue": catalogue, "properties": {"owner": "shop_owner"}})
    found = _blockers.Report()
    _blockers.incoming(server, found, "shop", needs)
    assert [each["code"] for each in found.blockers] == codes
    server.me["superuser"] = True
    found = _blockers.Report()
    _blockers.incoming(server, found, "shop", needs)
    assert found.blockers == []


@pytest.mark.parametrize(("version", "asked"), [(140023, True), (150018, False)])
def test_a_backup_before_15_says_when_only_a_superuser_can_restore_it(monkeypatch: pytest.MonkeyPatch, version: int, asked: bool) -> None:
    def rows(connection: t.Any, query: str) -> list[tuple[str]]:
        return [("public with grants of its own",)] if query == _rights.CHANGED_PUBLIC else []

    monkeypatch.setattr(_rights, "rows", rows)
    found = _rights.only_superuser(types.SimpleNamespace(server_version=version))
    assert found == (["schema public with grants of its own"] if asked else [])
