# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""A dead man's switch: a process that acts when this one dies before it said that all is well.

While a pooler is paused every customer waits. ``finally`` does not run after SIGKILL, and nobody may start the next run
for an hour; the watch notices at once, because its end of a pipe is closed with the process that held the other.
"""

from __future__ import annotations

import os
import select
import typing as t

WELL = b"."


class Watch:
    """``act`` is called in a process of its own if this one dies, or after ``limit`` seconds, unless :meth:`stop` came first.

    To be started while this process has one thread. The child keeps none of its open files: a database session whose
    client was killed must end with it.
    """

    def __init__(self, act: t.Callable[[], None], limit: float) -> None:
        reading, self._writing = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.setsid()  # whoever ends our process group does not end the watch
                os.close(self._writing)
                self._keep_only(reading)
                if not self._said(reading, limit):
                    act()
            finally:
                os._exit(0)
        os.close(reading)

    @staticmethod
    def _keep_only(fd: int) -> None:
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        try:
            opened = [int(entry) for entry in os.listdir("/proc/self/fd")]
        except OSError:
            opened = list(range(3, 4096))
        for each in opened:
            if each > 2 and each != fd:
                try:
                    os.close(each)
                except OSError:
                    continue  # the one that listed the folder

    @staticmethod
    def _said(fd: int, limit: float) -> bool:
        ready = select.select([fd], [], [], limit)[0]
        return bool(ready) and os.read(fd, 1) == WELL

    def stop(self) -> None:
        """All is well: the watch ends without acting."""
        if self._pid:
            try:
                os.write(self._writing, WELL)
            except BrokenPipeError:
                pass  # it has acted already
            os.close(self._writing)
            os.waitpid(self._pid, 0)
            self._pid = 0
