# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rigs for the tests on a real PM2."""

from __future__ import annotations

import pathlib
import tempfile
import typing as t

import pytest

from tests.real.pm2.rig import Rig

MakeRig = t.Callable[..., Rig]


@pytest.fixture
def make_rig() -> t.Iterator[MakeRig]:
    rigs: list[Rig] = []

    def make(layout: str = "exchange", mode: str = "cluster", **options: t.Any) -> Rig:
        rigs.append(Rig(pathlib.Path(tempfile.mkdtemp(prefix="pm2h-")), layout, mode, **options))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()
