# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why somebody types it: the bad release has damaged payments."""

from __future__ import annotations

from tests.lab.scenario import current


def test_payments_are_damaged() -> None:
    columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'payments' AND column_name = 'provider_ref'"
    assert current().fleet.server.sql(columns, dbname="payments") == [(0,)]
    assert {each.version() for each in current().fleet.apps} == {"2.0.0"}
