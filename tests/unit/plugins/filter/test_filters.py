# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters as Ansible calls them: inputs unchanged, results plain, refusals as filter errors."""

from __future__ import annotations

import copy
import json
import pathlib
import typing as t

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from ansible_collections.payops.rollback.plugins.filter.points import FilterModule, plain

FILTERS = FilterModule().filters()
FOLDER = pathlib.Path(__file__).resolve().parents[4] / "plugins" / "filter"

ENTRY: dict[str, t.Any] = {
    "version": "p1",
    "legacy": False,
    "path": "/store/p1",
    "created": "2023-12-01T12:00:00.000000Z",
    "sealed": True,
    "record": {"created": "2023-12-01T12:00:00.000000Z", "healthy": True, "expected": {"app1": ["pm2"]}},
    "components": {"pm2": {"size": 1, "created": "c", "run": "r", "release": "r1", "damaged": None}},
    "unfinished": [],
    "size": 1,
    "pinned": None,
    "problems": [],
}


def types(value: t.Any) -> set[type]:
    found = {type(value)}
    for item in [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []:
        found |= types(item)
    return found


def test_every_filter_is_documented() -> None:
    for name in FILTERS:
        document = yaml.safe_load((FOLDER / f"{name}.yml").read_text())
        assert document["DOCUMENTATION"]["name"] == name
        assert {"DOCUMENTATION", "EXAMPLES", "RETURN"} <= set(document)
        yaml.safe_load(document["EXAMPLES"])


def test_merge_resolve_show() -> None:
    listings = {"app1": [ENTRY]}
    before = copy.deepcopy(listings)
    points = FILTERS["merge_points"](listings, [{"r1": {"status": "good", "who": "amina"}}], {"app1": ["pm2"]})
    assert listings == before
    assert points[0]["complete"] is True
    assert FILTERS["resolve_point"](points, "latest", "application", {})["version"] == "p1"
    assert FILTERS["points_rows"](points, ["p1"], "2023-12-02T12:00:00.000000Z")[0]["age"] == "24 h"
    assert "* live now" in FILTERS["points_table"](points, ["p1"])
    assert json.loads(json.dumps(points)) == points


def test_refusals_are_filter_errors() -> None:
    with pytest.raises(AnsibleFilterError, match="There is no rollback point 'p9'"):
        FILTERS["resolve_point"](FILTERS["merge_points"]({"app1": [ENTRY]}), "p9")
    with pytest.raises(AnsibleFilterError, match="version must be text, found the float 2.1"):
        FILTERS["resolve_point"]([], 2.1)


@pytest.mark.parametrize(
    ("name", "value"), [("merge_points", []), ("merge_points", {"a": [{}]}), ("points_table", [1]), ("run_table", "x")]
)
def test_wrong_shapes_name_the_filter(name: str, value: t.Any) -> None:
    with pytest.raises(AnsibleFilterError, match=f"payops.rollback.{name} got values of another shape"):
        FILTERS[name](value)


def test_inside_ansible_the_results_are_plain() -> None:
    variables = {"listings": {"app1": [{**ENTRY, "label": trust_as_template("{{ 1 + 1 }}")}]}, "word": trust_as_template("{{ 'p1' }}")}
    seen: list[t.Any] = []

    def catch(value: t.Any) -> str:
        seen.append(plain(value))
        return "caught"

    templar = Templar(DataLoader(), variables=variables)
    templar.available_variables = variables
    assert templar.template(trust_as_template("{{ word }}")) == "p1"
    merged = FILTERS["merge_points"](templar.template(trust_as_template("{{ listings }}")))
    assert types(merged) <= {dict, list, str, int, bool, type(None)}
    catch(merged)
    assert seen[0] == merged
