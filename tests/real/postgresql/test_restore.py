# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""staged, live, previous and complete on real servers, as superuser and as owner with rights."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from tests.lab.postgres import Cluster, ident
from tests.lab.roles import Roles

from .restore_helpers import Shop


@pytest.fixture(params=["superuser", "owner"])
def shop(request: pytest.FixtureRequest, cluster: Cluster, roles: Roles, database: str, tmp_path: pathlib.Path) -> Shop:
    return Shop(cluster, roles, database, tmp_path, roles.operator if request.param == "owner" else None).fill()


@pytest.fixture
def snapped(shop: Shop) -> Shop:
    """A shop with a point and two payments after it."""
    shop.snapshot()
    shop.pay()
    shop.pay()
    return shop


def settings(shop: Shop) -> list[tuple[t.Any, ...]]:
    return shop.cluster.sql(
        "SELECT pg_get_userbyid(datdba), datconnlimit, datacl::text, shobj_description(d.oid, 'pg_database'),"
        " (SELECT array_agg(coalesce(setrole::regrole::text, '') || s.setconfig::text ORDER BY 1) FROM pg_db_role_setting s"
        " WHERE s.setdatabase = d.oid) FROM pg_database d WHERE datname = %s",
        (shop.name,),
    )


def test_the_whole_way_there_and_back(snapped: Shop) -> None:
    shop = snapped
    before, oid, properties = shop.payments(shop.name), shop.oid(), settings(shop)
    assert len(before) == 1002

    result = shop.restore("staged")
    assert result["changed"]
    assert shop.oid() == oid
    staged = result["databases"][shop.name]["staged"]
    assert not shop.family()[staged]["open"]
    assert result["databases"][shop.name]["rows_since"] == {"public.payments": 2, "public.audit": 2}
    assert not shop.restore("staged")["failed"] if "failed" in result else True

    result = shop.restore("live")
    assert result["changed"] and result["outage_ms"] < 2000, result
    assert shop.oid() != oid
    assert len(shop.payments(shop.name)) == 1000
    assert settings(shop)[0][:2] == properties[0][:2]
    assert settings(shop)[0][3:] == properties[0][3:]
    kept = result["kept"][shop.name]
    assert shop.payments(kept) == before
    new = shop.pay()
    assert new > max(before) + 9_000, "a payment number was given out twice"
    shop.invariant(before | {new})

    again = shop.restore("live")
    assert not again["changed"]
    assert again["databases"][shop.name]["rows_since"] == {"public.payments": 1, "public.audit": 1}

    result = shop.restore("previous")
    assert result["changed"]
    assert shop.oid() == oid
    assert settings(shop) == properties
    assert shop.payments(shop.name) == before
    assert shop.pay() > new, "numbers given out between flip and undo are used again"
    shop.invariant(before | {new})
    assert not shop.restore("previous")["changed"]

    result = shop.restore("complete")
    assert result["changed"] and list(shop.family()) == [shop.name]
    assert not shop.restore("complete")["changed"]
