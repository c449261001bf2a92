# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Imported once by the fork server of tests/lab/modules.py, which every module is forked from."""

from __future__ import annotations

from tests.lab import modules

modules.import_all()
