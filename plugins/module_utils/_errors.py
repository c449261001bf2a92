# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The one error family of the collection.

Logic raises :class:`RollbackError`; ``_module.run`` catches it once and turns it into ``fail_json``.
"""

from __future__ import annotations

import typing as t


class RollbackError(Exception):
    """A refusal or a failure that a person must read.

    The message is one or two clear sentences: what was found, what was expected, what to do next.
    ``details`` are plain JSON values that go into the module's result beside ``msg``
    (for example ``blockers=[...]``), so that playbooks and tests need not parse the sentence.
    """

    def __init__(self, message: str, **details: t.Any) -> None:
        super().__init__(message)
        self.details = details


class Fenced(RollbackError):
    """This run no longer holds the lock: another run took over, so nothing more may be touched."""
