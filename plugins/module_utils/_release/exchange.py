# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""``renameat2(RENAME_EXCHANGE)``: two names swap what they mean in one atomic step of the kernel."""

from __future__ import annotations

import ctypes
import os
import platform

from ansible_collections.payops.rollback.plugins.module_utils._io import fsync_dir

AT_FDCWD = -100
RENAME_EXCHANGE = 2
_NUMBERS = {"x86_64": 316, "aarch64": 276, "riscv64": 276, "ppc64le": 357, "s390x": 347}


def exchange(one: str, other: str) -> None:
    """Swap the two names. Raises OSError: EXDEV, EBUSY (a mount point), EINVAL or ENOSYS (not supported here)."""
    libc = ctypes.CDLL(None, use_errno=True)
    first, second = ctypes.c_char_p(os.fsencode(one)), ctypes.c_char_p(os.fsencode(other))
    call = getattr(libc, "renameat2", None)
    if call is not None:
        answer = call(AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE)
    else:
        number = _NUMBERS.get(platform.machine(), 316)
        answer = libc.syscall(ctypes.c_long(number), AT_FDCWD, first, AT_FDCWD, second, ctypes.c_uint(RENAME_EXCHANGE))
    if answer != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), one, None, other)
    for folder in sorted({os.path.dirname(one) or ".", os.path.dirname(other) or "."}):
        fsync_dir(folder)
