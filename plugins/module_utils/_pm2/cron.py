# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""What PM2 starts by itself at the times of ``cron_restart``: it does so even after ``pm2 stop``, which leaves the timer running.

So an entry that must stay stopped is exchanged for one without a timer, in which the times are noted. PM2 itself keeps it,
so that it needs neither the state file nor the disk, and a job that only waits for its time is not run when it is armed again.
"""

from __future__ import annotations

import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._pm2.client import NOTED, Pm2, Proc
from ansible_collections.payops.rollback.plugins.module_utils._pm2.rpc import Refused, Unavailable

LEFT_OUT = ("pm_id", "instances", "prev_restart_delay", "cron_restart", NOTED)


def armed(process: Proc) -> bool:
    """Whether PM2 will start it at its time, whatever its status is."""
    return NOTED not in process.env and str(process.env.get("cron_restart") or "0") != "0"


def disarmed(process: Proc) -> bool:
    return NOTED in process.env


def disarm(pm2: Pm2, names: t.Collection[str]) -> None:
    """Take the timers of these stopped applications away."""
    _exchange(pm2, [process for process in pm2.named(*names) if armed(process)], disarmed, lambda process: (NOTED, "stopped"))


def arm(pm2: Pm2, names: t.Collection[str], launched: t.Collection[str]) -> None:
    """Give the timers back. Those of ``launched`` start at once, the others at their time."""
    waiting = [process for process in pm2.named(*names) if disarmed(process)]
    _exchange(pm2, waiting, armed, lambda process: ("cron_restart", "online" if process.alive or process.name in launched else "stopped"))


def _exchange(pm2: Pm2, old: t.Sequence[Proc], done: t.Callable[[Proc], bool], new: t.Callable[[Proc], tuple[str, str]]) -> None:
    """The new entry first: a module that is killed between leaves two, of which the next one takes the old one away."""
    for process in old:
        key, status = new(process)
        there = any(done(other) and other.instance == process.instance for other in pm2.named(process.name))
        entry = {name: value for name, value in process.env.items() if name not in LEFT_OUT}
        times = process.env.get("cron_restart")
        try:
            if not there:
                pm2.add({**entry, key: times, "status": status})
            pm2.delete(process.pm_id)
        except (Unavailable, Refused) as exc:
            raise RollbackError(
                f"PM2 starts {process.name} by itself at its cron_restart ({times}), and that could not be changed: {exc}. "
                f"Until this runs again without an error keep it from starting by hand: pm2 delete {process.pm_id}"
            ) from exc
