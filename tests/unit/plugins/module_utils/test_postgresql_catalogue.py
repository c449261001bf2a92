# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ACLs, expressions and differences as plain values."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _catalogue


@pytest.mark.parametrize(
    "items, expected",
    [
        (None, {}),
        (["app=ar/owner", "=r/owner"], {"app": ["INSERT", "SELECT"], "": ["SELECT"]}),
        (["app=r*w/owner"], {"app": ["SELECT*", "UPDATE"]}),
        (["app=r/a", "app=w/b"], {"app": ["SELECT", "UPDATE"]}),
        (['"odd ""r"" =/*"=X/owner'], {'odd "r" =/*': ["EXECUTE"]}),
        (["app=/owner"], {}),
        (["o=arwdDxtm/o"], {"o": ["DELETE", "INSERT", "MAINTAIN", "REFERENCES", "SELECT", "TRIGGER", "TRUNCATE", "UPDATE"]}),
    ],
)
def test_acl(items: t.Any, expected: dict[str, list[str]]) -> None:
    assert _catalogue.acl(items) == expected


@pytest.mark.parametrize(
    "written, read_again",
    [
        (
            "((kind)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying])::text[]))",
            "((kind)::text = ANY (ARRAY[('a'::character varying)::text, ('b'::character varying)::text]))",
        ),
        ("(ARRAY['it''s, (x]'::varchar])::text[]", "ARRAY[('it''s, (x]'::varchar)::text]"),
        ('(ARRAY[f(a, \'x\'), "q,"])::"My T"[]', 'ARRAY[(f(a, \'x\'))::"My T", ("q,")::"My T"]'),
        ("(ARRAY['a'])::character varying(10)[] || (ARRAY[1])::text[]", "ARRAY[('a')::character varying(10)] || ARRAY[(1)::text]"),
        ("(ARRAY['a']) || x", "(ARRAY['a']) || x"),
        ("(ARRAY['open", "(ARRAY['open"),
        (7, 7),
    ],
)
def test_an_expression_as_it_looks_after_a_restore(written: t.Any, read_again: t.Any) -> None:
    assert _catalogue.expression(written) == read_again
    assert _catalogue.expression(read_again) == read_again


@pytest.mark.parametrize("parts, name", [(("public", "a_1"), "public.a_1"), (("S", 'x"y'), '"S"."x""y"'), (("a.b", "ü"), '"a.b"."ü"')])
def test_qualified(parts: tuple[str, ...], name: str) -> None:
    assert _catalogue.qualified(*parts) == name


def cat(**index: t.Any) -> _catalogue.Catalogue:
    return {"index": {"public.i": {"table": "public.t", **index}}, "relation": {"public.t": {"grants": {"app": ["SELECT"]}}}}


def test_differences() -> None:
    assert _catalogue.differences(cat(), cat()) == []
    other = cat(valid=True)
    other["relation"]["public.t"] = {"grants": {"app": ["INSERT"], "": ["SELECT"]}, "owner": "x" * 300}
    other["relation"]["public.u"] = {}
    assert _catalogue.differences(cat(valid=True), other) == [
        "relation public.t: PUBLIC has SELECT too many; app lacks SELECT; app has INSERT too many.",
        f"relation public.t: owner is {'x' * 197}..., expected none.",
        "relation public.u is here but was not expected.",
    ]
    assert _catalogue.differences(cat(), {}) == ["index public.i is missing.", "relation public.t is missing."]
    assert _catalogue.differences(cat(), {}, ["index *", "relation public.t"]) == []
    assert (
        _catalogue.differences(cat(valid=True), other, ["relation public.t owner", "relation public.t grants", "relation public.u"]) == []
    )


def test_an_invalid_index_is_not_expected_after_a_restore_but_a_new_one_is_seen() -> None:
    broken = cat(valid=False)
    assert _catalogue.differences(broken, {"relation": broken["relation"]}) == []
    assert _catalogue.fingerprint(broken) == _catalogue.fingerprint({"relation": broken["relation"]})
    assert _catalogue.differences(cat(valid=True), broken) == ["index public.i: valid is False, expected True."]
    assert _catalogue.fingerprint(cat(valid=False, partitioned=True)) != _catalogue.fingerprint({"relation": broken["relation"]})


def test_the_fingerprint_knows_no_order() -> None:
    one = {"a": {"x": {"p": 1, "q": 2}}, "b": {"y": {}}}
    other = {"b": {"y": {}}, "a": {"x": {"q": 2, "p": 1}}}
    assert _catalogue.fingerprint(one) == _catalogue.fingerprint(other)
    assert _catalogue.fingerprint(one) != _catalogue.fingerprint({**one, "c": {"z": {}}})


def test_property_differences_name_settings_without_values() -> None:
    before = {"owner": "a", "oid": 1, "settings": {"": ["app.key=secret"], "r": ["x=1"]}, "collation_version": "1"}
    after = {"owner": "a", "oid": 2, "settings": {"": ["app.key=other"]}, "collation_version": "2"}
    assert _catalogue.property_differences(before, after) == [
        "the settings of the database differ: app.key.",
        "the settings of role r in the database differ: x.",
    ]
