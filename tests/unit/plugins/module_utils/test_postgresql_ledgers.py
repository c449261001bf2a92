# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of ledgers, sizes and days before anything is done."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _estimate, _ledgers, _usage
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._ledger import Ledger


@pytest.mark.parametrize(
    ("newer", "gone", "ledger", "counted", "carried", "stays"),
    [
        (5, 0, False, True, "0", "5"),
        (5, 0, True, True, "5", "0"),
        (5, 2, True, True, "3-5", "0-2"),  # two of the point were changed, or deleted
        (2, 9, True, True, "0-2", "0-2"),
        (5, 0, True, False, "5 or more", "?"),  # only numbers of rows could be compared
        (5, 0, False, False, "0", "5 or more"),
    ],
)
def test_only_what_is_surely_new_is_promised(newer: int, gone: int, ledger: bool, counted: bool, carried: str, stays: str) -> None:
    seen = _ledgers.foresee(newer, gone, ledger, counted)
    assert (_ledgers.span(seen.carried), _ledgers.span(seen.stays)) == (carried, stays)


@pytest.mark.parametrize(
    ("definition", "key"),
    [
        ("PRIMARY KEY (id)", ["id"]),
        ('PRIMARY KEY (id, "the key")', ["id", "the key"]),
        ('PRIMARY KEY ("a ""b"", (c)", d) INCLUDE (e)', ['a "b", (c)', "d"]),
        ("UNIQUE (id)", []),
    ],
)
def test_the_recorded_key_is_read(definition: str, key: list[str]) -> None:
    catalogue = {"constraint": {"public.p.p_pkey": {"definition": definition}, "public.pp.x": {"definition": "PRIMARY KEY (other)"}}}
    assert _ledgers.point_key(catalogue, Ledger("public", "p")) == key


@pytest.mark.parametrize(
    ("definition", "columns"),
    [
        ("CREATE UNIQUE INDEX x ON public.p USING btree (a)", [{"a"}]),
        ('CREATE UNIQUE INDEX "x WHERE " ON public.p USING btree (a DESC, "the ""b""", c COLLATE "C") INCLUDE (d) NULLS NOT DISTINCT',
         [{"a", 'the "b"', "c"}]),
        ("CREATE UNIQUE INDEX x ON public.p USING btree (a) WHERE (b > 0)", []),
        ("CREATE UNIQUE INDEX x ON public.p USING btree (lower(a))", []),
        ("CREATE INDEX x ON public.p USING btree (a)", []),
    ],
)  # fmt: skip
def test_recorded_unique_indexes_are_read(definition: str, columns: list[set[str]]) -> None:
    catalogue = {"index": {"public.x": {"table": "public.p", "definition": definition, "valid": True}}}
    assert [found for found in _ledgers.point_unique(catalogue, Ledger("public", "p")) if found - {""}] == columns


@pytest.mark.parametrize(
    ("manifest", "codec", "plain", "size"),
    [
        ({"properties": {"size": 900}, "dump_bytes": 10, "table_bytes": 400}, "zstd", 0, (900, True)),
        ({"properties": {}, "dump_bytes": 10, "table_bytes": 400}, "zstd", 0, (400, False)),
        ({"properties": {}, "dump_bytes": 200}, "zstd", 0, (800, False)),
        ({"properties": {}, "dump_bytes": 200}, "unknown", 0, (200, False)),
        ({}, "none", 77, (77, False)),
    ],
)
def test_the_size_is_the_points(manifest: dict[str, t.Any], codec: str, plain: int, size: tuple[int, bool]) -> None:
    assert _estimate.size_of(manifest, codec, plain) == size


def test_a_time_that_cannot_be_read_is_no_time() -> None:
    assert _usage.age(None) == 0.0 and _usage.age("yesterday") == 0.0
    assert _usage.age("2020-01-01T00:00:00.000000Z") > 86400
