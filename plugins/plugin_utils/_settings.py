# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this plugin util is PRIVATE to the collection: it may change without notice.
"""The inventory's settings of gates and recoveries, refused before anything is touched: a typo must not switch a guard off. Pure."""

from __future__ import annotations

import math
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.plugin_utils._batches import sizes

READ_ONLY = "read_only"
# name -> (whether 0 is allowed, an example)
SECONDS = {
    "rollback_gate_seconds": (True, "60"),
    "rollback_gate_interval": (False, "5"),
    "rollback_gate_patience": (True, "60"),
}


def check_watch(intent: str, hostvars: t.Mapping[str, t.Mapping[str, t.Any]]) -> None:
    """Of each host, for the intents that read them: gradual and recover."""
    if intent not in ("gradual", "recover"):
        return
    for host, own in hostvars.items():
        for name, (zero, example) in SECONDS.items():
            if own.get(name) is not None:
                _seconds(host, name, own[name], zero, example)
        if own.get("rollback_gate_probes") is not None and not isinstance(own["rollback_gate_probes"], list):
            raise RollbackError(
                f"rollback_gate_probes of {host} is {own['rollback_gate_probes']!r}; expected a list of probes, as health_probe takes them."
            )
        if intent == "gradual" and own.get("rollback_batches") is not None:
            sizes(own["rollback_batches"], len(hostvars))
        if intent == "recover" and own.get("rollback_recover_steps") is not None:
            check_steps(own["rollback_recover_steps"], host)


def _seconds(host: str, name: str, value: t.Any, zero: bool, example: str) -> None:
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        least = "0 or more" if zero else "more than 0"
        raise RollbackError(
            f"{name} of {host} is {value!r}; expected seconds as a number, {least}, for example {example}. Nothing was touched."
        )


def check_steps(steps: t.Any, host: str) -> None:
    """``read_only`` at the most once and first, then percentages that rise up to 100."""
    expected = f"expected for example [{READ_ONLY}, 10, 50, 100]. Nothing was touched."
    if not isinstance(steps, list) or not steps:
        raise RollbackError(f"rollback_recover_steps of {host} is {steps!r}; {expected}")
    numbers = []
    for place, step in enumerate(steps):
        if step == READ_ONLY and place == 0:
            continue
        if isinstance(step, bool) or not str(step).isdigit() or not 1 <= int(step) <= 100:
            raise RollbackError(f"rollback_recover_steps of {host} has {step!r}, which is no percentage from 1 to 100; {expected}")
        numbers.append(int(step))
    if numbers != sorted(set(numbers)):
        raise RollbackError(f"rollback_recover_steps of {host} is {steps!r}, which does not rise; {expected}")
