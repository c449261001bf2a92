# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Words that nobody typed: of a playbook they are refused, of an inventory they are named."""

from __future__ import annotations

import pathlib
import re
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.plugin_utils import _words


def test_a_word_that_a_playbook_sets_is_refused() -> None:
    _words.check_words([])
    with pytest.raises(RollbackError, match="version is set by a playbook .* nothing was touched. .*-e version=.*survey"):
        _words.check_words(["version"])


def test_a_word_of_the_inventory_is_named() -> None:
    assert _words.ignored_words({"app1": [], "db1": []}) == []
    (said,) = _words.ignored_words({"db1": ["version"], "app1": ["version", "label"], "app2": []})
    assert said == "label, version in the inventory (host app1, db1) was not read; such words count only with -e or from a survey."


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ({"corruption": "ture"}, "corruption=ture is not understood: expected true or false."),
        ({"require_healthy": "2"}, "require_healthy=2 is not understood: expected true or false."),
        ({"again": ["yes"]}, "expected true or false."),
        ({"keep_count": "1O"}, "keep_count=1O is not understood: expected a whole number."),
        ({"keep_days": -5}, "keep_days=-5 is not understood: expected a whole number."),
        ({"keep_days": 2.5}, "expected a whole number."),
    ],
)
def test_a_value_that_would_count_as_its_opposite_is_refused(typed: dict[str, t.Any], says: str) -> None:
    with pytest.raises(RollbackError) as caught:
        _words.check_values(typed)
    assert says in str(caught.value)


def test_values_that_are_understood() -> None:
    for flag in (True, False, 1, 0, "Yes", "no", "TRUE", "off", "", None):
        _words.check_values({"again": flag})
    _words.check_values({"keep_count": 3, "keep_days": "30", "reason": "ture", "version": "v2"})
    _words.check_values({"keep_count": ""})


def test_every_word_that_is_read_as_a_flag_or_a_number_is_checked() -> None:
    text = (pathlib.Path(__file__).resolve().parents[4] / "playbooks/vars/words.yml").read_text(encoding="utf-8")
    assert {*re.findall(r"typed\.(\w+) \| default\(.*\) \| bool", text)} == {*_words.FLAGS}
    assert {*re.findall(r"typed\.(\w+) \| default\(.*\) \| int", text)} == {*_words.NUMBERS}
