#!/usr/bin/env bash
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# copy.sh <folder>: copy the tracked files to <folder>/ansible_collections/payops/rollback and print that path.
# Without the clone's link to itself: ansible-test and importers must not meet the collection twice.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
target=$1/ansible_collections/payops/rollback
mkdir -p "$target"
cd "$root"
# A tracked file that somebody has just deleted is left out; another user's clone is still readable.
git -c safe.directory='*' ls-files -z -- . ':!playbooks/collections' |
  while IFS= read -r -d '' file; do [ -e "$file" ] && printf '%s\0' "$file"; done |
  tar --null --files-from=- -cf - | tar -xf - -C "$target"
echo "$target"
