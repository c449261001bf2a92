# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for the bootstrap script that ansible-test would download: the same arguments, but Python's own ensurepip."""

from __future__ import annotations

import os
import subprocess
import sys

given = os.environ.copy()  # ensurepip sets PIP_CONFIG_FILE to nothing; the second call needs the machine's own configuration
subprocess.check_call([sys.executable, "-m", "ensurepip", "--upgrade"], env=dict(given))
wanted = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", *wanted], env=given))
