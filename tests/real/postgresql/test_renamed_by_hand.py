# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody renames databases by hand, and their comments go with them. What has the production name is never taken for one of ours."""

from __future__ import annotations

import json
import pathlib
import re
import typing as t

import pytest

from tests.lab.postgres import Cluster, ident
from tests.lab.roles import Roles

from .restore_helpers import Shop

COMMENT = "what people wrote"


@pytest.fixture
def shop(cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path, profile: str) -> Shop:
    operator = None if profile == "superuser" else roles.operator
    shop = Shop(cluster, roles, database, tmp_path, operator).fill()
    shop.sql(f"COMMENT ON DATABASE {ident(shop.name)} IS '{COMMENT}'", roles.owner)
    shop.snapshot()
    return shop


@pytest.fixture(params=["superuser", "owner"])
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def back(shop: Shop) -> Shop:
    """The kept database has its old name again, by hand; what the flip brought stands aside."""
    shop.pay()
    kept = shop.restore("live")["kept"][shop.name]
    shop.cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (shop.name,))
    shop.cluster.sql(f"ALTER DATABASE {ident(shop.name)} RENAME TO {ident(shop.name + '_wrong')}")
    shop.cluster.sql(f"ALTER DATABASE {ident(kept)} RENAME TO {ident(shop.name)}")
    shop.cluster.sql(f"ALTER DATABASE {ident(shop.name)} ALLOW_CONNECTIONS true")
    assert shop.family()[shop.name]["marker"], "the kept database took its marker along"
    return shop


def stands(shop: Shop, oid: int, payments: set[int]) -> None:
    family = shop.family()
    assert family[shop.name]["oid"] == oid
    assert family[shop.name]["open"]
    assert payments <= shop.payments(shop.name)


@pytest.mark.parametrize("state", ["staged", "previous", "complete"])
def test_no_state_closes_or_drops_it(back: Shop, state: str) -> None:
    back.pay()
    oid, payments = back.oid(), back.payments(back.name)
    for unused in range(2):  # the first takes the marker off, the second finds none
        back.run("pg_restore", state=state, **({"version": back.version} if state == "staged" else {}))
        stands(back, oid, payments)


def test_a_restore_takes_the_marker_off_and_says_so(back: Shop) -> None:
    looked = back.run("pg_restore", check=True, state="staged", version=back.version)
    assert any("renamed by hand" in line for line in looked["actions"])
    assert back.family()[back.name]["marker"], "check mode changes nothing"
    done = back.ok("pg_restore", state="staged", version=back.version)
    assert any("renamed by hand" in line for line in done["actions"])
    assert back.cluster.sql("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (back.name,)) == [
        (COMMENT,)
    ]


def test_a_point_of_it_holds_no_marker_and_a_rollback_to_that_is_open(back: Shop) -> None:
    back.snapshot("v2")
    manifest = (back.store / "shop" / "v2" / "postgresql" / "manifest.json").read_text(encoding="utf-8")
    assert json.loads(manifest)["facts"]["databases"][back.name]["properties"]["comment"] == COMMENT
    paid = back.payments(back.name) | {back.pay()}
    back.restore("live", version="v2")
    family = back.family()
    assert family[back.name]["open"]
    assert not family[back.name]["marker"]
    assert paid <= back.reachable()


def test_the_advice_for_a_missing_database_works_as_printed(shop: Shop) -> None:
    shop.pay()
    shop.restore("live")
    shop.cluster.sql(f"DROP DATABASE {ident(shop.name)} WITH (FORCE)")
    said = shop.refused("pg_restore", state="previous")["msg"]
    commands = re.findall(r"ALTER DATABASE [^;]+;", said)
    assert len(commands) == 2, said
    for each in commands:
        shop.cluster.sql(each)
    acknowledged = {shop.pay()}
    shop.snapshot("v2")
    shop.run("pg_restore", state="complete")
    shop.invariant(acknowledged)


@pytest.mark.parametrize("kind", ["staged", "kept", "undone"])
def test_a_comment_that_looks_like_a_marker_is_a_comment(shop: Shop, kind: str) -> None:
    """An owner may write any comment on his database."""
    marker: dict[str, t.Any] = {"payops_rollback": 1, "kind": kind, "database": shop.name, "state": "loading", "run": "x", "version": "v"}
    shop.sql(f"COMMENT ON DATABASE {ident(shop.name)} IS '{json.dumps(marker)}'", shop.roles.owner)
    oid, payments = shop.oid(), shop.payments(shop.name)
    for state in ("previous", "complete"):
        shop.run("pg_restore", state=state)
        stands(shop, oid, payments)
