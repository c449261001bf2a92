# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Words that nobody typed: of a playbook they are refused, of an inventory they are named."""

from __future__ import annotations

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
