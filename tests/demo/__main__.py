# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Play the demo: ``python -m tests.demo``; KEEP=1 leaves it running, ``python -m tests.demo stop`` ends that."""

from __future__ import annotations

import os
import signal
import sys
import typing as t

from tests.demo import screen
from tests.demo.stage import Stage, default_folder
from tests.demo.story import Story


def _interrupt(signum: int, frame: t.Any) -> t.NoReturn:
    raise KeyboardInterrupt


def main(argv: t.Sequence[str]) -> int:
    if list(argv) not in ([], ["stop"]):
        screen.say("usage: python -m tests.demo [stop]   (KEEP=1 leaves the demo running)")
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    keep = os.environ.get("KEEP", "") not in ("", "0")
    stage = Stage(default_folder())
    if stage.folder.exists():
        with screen.busy(f"clearing an earlier demo in {stage.folder} away"):
            stage.clear()
    if argv:
        return 0
    stage.make_folder()
    story = Story(stage)
    good = False
    try:
        good = story.tell()
    except KeyboardInterrupt:
        screen.say("interrupted")
        keep = False
    except Exception as exc:
        screen.heading(f"The demo broke off: {type(exc).__name__}: {exc}")
    finally:
        if keep:
            story.look_around()
        else:
            with screen.busy("clearing away"):
                stage.clear()
    screen.heading("Everything held." if good else f"NOT everything held: {'; '.join(story.wrong) or 'see above'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
