# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bad release is what customers meet before anybody rolls back."""

from __future__ import annotations

import typing as t

from tests.lab import ports
from tests.lab.scenario import current

testinfra_hosts = ["ansible://app1"]


def test_the_release_is_ill(host: t.Any) -> None:
    assert '"version": "2.0.0"' in host.file("/srv/payments/api/package.json").content_string
    ports.wait_until(lambda: current().fleet.hosts["app1"].answers()[0] == 503, "the bug that only traffic shows", 60, 0.5)
