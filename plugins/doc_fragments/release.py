# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the options in ``_release.options.release_argument_spec``."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  app_dir:
    description:
      - The path that the application lives at, as an absolute path.
      - A symlink, or a folder that holds a symlink C(current), means releases behind that symlink.
      - A plain folder is exchanged as a whole with the release that takes its place.
    type: path
    required: true
  layout:
    description:
      - V(symlink) replaces the symlink by C(rename(2)).
      - V(exchange) swaps two folders by C(renameat2(RENAME_EXCHANGE)). Staged and kept releases lie in C(<app_dir>.rollback) on the same filesystem.
      - V(auto) looks at O(app_dir).
    type: str
    choices: [auto, symlink, exchange]
    default: auto
  version:
    description:
      - The name of the rollback point. Required for O(state=archived), O(state=staged) and O(state=live).
    type: str
  persistent:
    description:
      - Paths below O(app_dir) that belong to no release, such as uploads and secrets. Those that exist are never archived or replaced.
      - With O(state=staged), and before every switch, each that is new moves once into a shared folder beside the application, exchanged
        in one step with a symlink to it.
        The shared folder is C(<app_dir>.shared), or C(shared) beside the symlink C(current).
    type: list
    elements: str
    default: [.env, uploads, logs, rollback-versions]
  legacy_path:
    description:
      - A backup that the team's old script wrote, with C(src), C(package.json) and C(package-lock.json), or the folder that holds it as O(version).
      - Used for an O(version) that is not in the store. All other files come from the live release.
      - The live C(node_modules) are reused only if both C(package-lock.json) are identical in every byte.
    type: path
  allow_npm_ci:
    description:
      - Run C(npm ci) beside the live release for a legacy backup with another C(package-lock.json). This needs the network, and happens before any switch.
    type: bool
    default: false
"""
