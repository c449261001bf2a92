# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQL probes against a real PostgreSQL."""

from __future__ import annotations

import json
import time
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._probe import failure_message, run_probes
from tests.lab.postgres import Cluster
from tests.lab.roles import Roles


@pytest.fixture
def login(cluster: Cluster, database: str, roles: Roles) -> dict[str, t.Any]:
    given = cluster.params(database)
    return {
        "type": "sql",
        "database": database,
        "login_host": given["host"],
        "login_port": given["port"],
        "login_user": roles.owner.name,
        "login_password": roles.owner.password,
    }


def once(probe: dict[str, t.Any]) -> dict[str, t.Any]:
    result = run_probes([probe], successes=1, deadline=5, interval=5)
    return {**result["probes"][0], "message": "" if result["ok"] else failure_message(result)}


@pytest.mark.parametrize(
    ("query", "expect", "value"),
    [
        ("SELECT version()", {"matches": "^PostgreSQL"}, None),
        ("SELECT count(*) FROM generate_series(1, 5)", {"min": 1, "max": 5}, 5),
        ("SELECT 12.50::numeric", {"equals": 12.5}, 12.5),
        ("SELECT true", {"equals": True}, True),
        ("SELECT NULL", {"in": [None]}, None),
        ("SELECT 1 WHERE false", {"exists": False}, None),
        ("SELECT '2026-01-02'::date", {"equals": "2026-01-02"}, "2026-01-02"),
    ],
)
def test_the_answer_is_judged(login: dict[str, t.Any], query: str, expect: dict[str, t.Any], value: t.Any) -> None:
    seen = once({**login, "query": query, "expect": expect})
    assert seen["ok"], seen["message"]
    assert value is None or seen["observed"]["value"] == value
    json.dumps(seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query": "SELECT 0", "expect": {"min": 1}}, "the first column of the first row is 0, expected a number of at least 1"),
        ({"query": "SELECT 1 WHERE false"}, "the answer (no row came back) is absent"),
        ({"query": "SELECT count(*) FROM payments"}, 'relation "payments" does not exist'),
        ({"query": "CREATE TABLE probe_was_here ()"}, "read-only transaction"),
        ({"query": "SELECT pg_sleep(9)", "timeout": 0.3}, "statement timeout"),
        ({"query": "SELECT pg_sleep(0.2)", "max_ms": 100}, "expected at most 100 ms"),
        ({"login_password": "wrong pässword"}, "password authentication failed"),
        ({"database": "no_such_database"}, 'database "no_such_database" does not exist'),
        ({"login_port": 1}, "onnection refused"),
    ],
)
def test_what_is_wrong_is_named(login: dict[str, t.Any], options: dict[str, t.Any], message: str) -> None:
    seen = once({**login, **options})
    assert not seen["ok"]
    assert message in seen["message"]
    assert "wrong pässword" not in json.dumps(seen, ensure_ascii=False)


def test_no_session_stays_behind(cluster: Cluster, login: dict[str, t.Any]) -> None:
    assert run_probes([login], successes=3, deadline=10, interval=0)["ok"]
    query = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'payops.rollback%'"
    until = time.monotonic() + 5  # the server notices the end of a connection a moment later
    while cluster.sql(query) and time.monotonic() < until:
        time.sleep(0.05)
    assert not cluster.sql(query)
