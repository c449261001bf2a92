# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds, which rights are used, how a database is opened and closed, where a snapshot fits: without a server."""

from __future__ import annotations

import decimal
import os
import pathlib
import typing as t

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._pointwriter import new_component
from ansible_collections.payops.rollback.plugins.module_utils._postgresql import _access, _check, _manifest, _preflight
from ansible_collections.payops.rollback.plugins.module_utils._run import Paths


@pytest.mark.parametrize(
    "found, expect, holds",
    [
        (5, "5", True),
        (decimal.Decimal("5.0"), "5.0", True),
        (decimal.Decimal("5.0"), 5, False),
        (True, "True", True),
        (False, "false", True),
        (None, "null", True),
        (None, True, False),
        (["a", None], ["a", None], True),
        (3, {"min": 3}, True),
        (3, {"max": 2}, False),
        ("many", {"min": 1}, False),
        (None, {"min": 1}, False),
    ],
)
def test_holds(found: t.Any, expect: t.Any, holds: bool) -> None:
    assert _check.holds(found, expect) is holds


@pytest.mark.parametrize("expect", [{}, {"minimum": 1}])
def test_an_expectation_that_means_nothing(expect: dict[str, t.Any]) -> None:
    with pytest.raises(RollbackError, match="expected a value, a list, or min and max"):
        _check.holds(1, expect)


def found(is_open: bool = True, setting: str | None = None) -> _access.Found:
    return _access.Found('we"ird', 7, is_open, True, setting)


ALTER = 'ALTER DATABASE "we""ird" '
OFF, ON = ALTER + "ALLOW_CONNECTIONS false", ALTER + "ALLOW_CONNECTIONS true"
SET, RESET = ALTER + "SET default_transaction_read_only = 'on'", ALTER + "RESET default_transaction_read_only"


@pytest.mark.parametrize(
    "is_open, setting, access, before, expected",
    [
        (True, None, "nobody", None, [OFF]),
        (False, None, "nobody", None, []),
        (True, None, "read_only", None, [SET]),
        (True, "on", "read_only", None, []),
        (True, "1", "read_only", None, []),
        (False, None, "read_only", None, [SET]),
        (False, None, "read_only", {}, [SET, ON]),
        (False, "on", "read_only", {"oid": 8}, [ON]),
        (False, None, "read_only", {"access": "nobody"}, [SET]),
        (True, None, "read_write", None, []),
        (True, "off", "read_write", None, []),
        (True, "on", "read_write", None, []),
        (True, "on", "read_write", {"setting": None}, [RESET]),
        (True, "on", "read_write", {"setting": "on"}, []),
        (True, "on", "read_write", {"setting": "off"}, [ALTER + "SET default_transaction_read_only = 'off'"]),
        (True, "on", "read_write", {"setting": None, "oid": 8}, []),
        (False, None, "read_write", None, []),
        (False, "on", "read_write", {"setting": None}, [RESET, ON]),
        (False, "on", "read_write", {"setting": None, "oid": 8}, [ON]),
        (False, None, "read_write", {"access": "nobody"}, []),
    ],
)
def test_statements(is_open: bool, setting: str | None, access: str, before: dict[str, t.Any] | None, expected: list[str]) -> None:
    entry = {"oid": 7, "access": "read_write", "setting": None, **before} if before is not None else None
    here = found(is_open, setting)
    assert _access.statements(here, _access.wanted(here, access, entry)) == expected


@pytest.mark.parametrize(
    "is_open, setting, access",
    [
        (True, None, "read_write"),
        (True, "off", "read_write"),
        (True, "TRUE", "read_only"),
        (False, "off", "nobody"),
        (False, "on", "nobody"),
    ],
)
def test_access_as_it_is(is_open: bool, setting: str | None, access: str) -> None:
    assert found(is_open, setting).access == access


def sequence(last: int, called: bool = True, increment: int = 1, cycle: bool = False) -> dict[str, t.Any]:
    return {"last_value": last, "is_called": called, "increment": increment, "cycle": cycle}


@pytest.mark.parametrize(
    "before, after, behind",
    [
        (sequence(5), sequence(5), False),
        (sequence(5), sequence(9), False),
        (sequence(5), sequence(4), True),
        (sequence(1), sequence(1, False), True),
        (sequence(1, False), sequence(1), False),
        (sequence(-5, increment=-1), sequence(-9, increment=-1), False),
        (sequence(-5, increment=-1), sequence(-4, increment=-1), True),
        (sequence(3, cycle=True), sequence(1, cycle=True), False),
    ],
)
def test_sequences_only_go_forward(before: dict[str, t.Any], after: dict[str, t.Any], behind: bool) -> None:
    assert bool(_manifest.compare_sequences({"s": before}, {"s": after})) is behind


def test_sequences_that_came_or_went() -> None:
    assert _manifest.compare_sequences({"a": sequence(1)}, {"b": sequence(1)}) == [
        "sequence a is missing.",
        "sequence b is here but was not expected.",
    ]


def test_tables_that_differ() -> None:
    before = {"a": {"rows": 1, "hash": "1"}, "b": {"rows": 2}, "c": {"rows": 3, "hash": "3"}, "d": {"rows": 4}}
    after = {"a": {"rows": 1, "hash": "2"}, "b": {"rows": 1}, "c": {"rows": 3}, "e": {"rows": 5}}
    assert _manifest.compare_tables(before, after) == [
        "table a has the expected 1 rows, but the content of some differs.",
        "table b has 1 rows, expected 2.",
        "table d is missing, expected with 4 rows.",
        "table e is here with 5 rows but was not expected.",
    ]


def test_space_is_estimated_by_the_last_snapshot(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = Paths(str(tmp_path), "shop")
    mebibyte = 1 << 20
    assert _preflight.check_space(paths, "zstd", {"db": 10 * mebibyte}) == int(10 * mebibyte * 0.4 * 1.3) + mebibyte
    with new_component(paths, "v1", "postgresql", "r1") as writer:
        pathlib.Path(writer.path, "f").write_text("x")
        writer.seal({"codec": "zstd", "databases": {"db": {"dump_bytes": mebibyte, "table_bytes": 10 * mebibyte}}})
    assert _preflight.check_space(paths, "zstd", {"db": 10 * mebibyte}) == int(mebibyte * 1.3) + mebibyte
    assert _preflight.check_space(paths, "none", {"db": 10 * mebibyte}) == 13 * mebibyte + mebibyte

    class Full:
        f_bavail, f_frsize = 1, mebibyte

    monkeypatch.setattr(os, "statvfs", lambda path: Full)
    with pytest.raises(RollbackError, match="has 1 MiB free; the dump needs about 2 MiB. Prune"):
        _preflight.check_space(paths, "zstd", {"db": 10 * mebibyte})
