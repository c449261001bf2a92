#!/usr/bin/env bash
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# python.sh [2.19|2.21]: print the pair "<python> <ansible-core>" to use: the newest that this machine has, or the given one.
# PYTHON=<path> takes that interpreter. Looks on PATH and at what pyenv and uv have installed.
set -euo pipefail

core=${1:-${CORE:-}}
home=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
refused=()

candidates() { # minor version of Python 3
  command -v "python3.$1" || true
  find "${PYENV_ROOT:-$home/.pyenv}/versions" "$home/.local/share/uv/python" -maxdepth 3 -path "*3.$1.*/bin/python3" 2>/dev/null | sort -rV
  if [ "$(python3 -c 'import sys; print(sys.version_info[1])' 2>/dev/null)" = "$1" ]; then command -v python3; fi
}

usable() { # path, minor version: runs, is that version, can make virtual environments
  [ "$("$1" -c 'import sys; print(sys.version_info[1])' 2>/dev/null)" = "$2" ] || return 1
  "$1" -c 'import ensurepip, venv, ssl' 2>/dev/null && return 0
  refused+=("$1 cannot make virtual environments; as root: apt-get install python3.$2-venv")
  return 1
}

newest() { # core, minor versions in order of preference
  local minor path
  for minor in "${@:2}"; do
    while read -r path; do
      if usable "$path" "$minor"; then
        # The interpreter itself, not a wrapper that depends on the current folder.
        echo "$("$path" -c 'import os, sys; print(os.path.abspath(sys.executable))') $1"
        exit 0
      fi
    done < <(candidates "$minor")
  done
}

if [ -n "${PYTHON:-}" ]; then
  path=$(command -v "$PYTHON") || { echo "PYTHON=$PYTHON is not a program" >&2; exit 1; }
  minor=$("$path" -c 'import sys; print(sys.version_info[1])')
  usable "$path" "$minor" || { printf '%s\n' "${refused[@]}" >&2; exit 1; }
  [ "$minor" -ge 12 ] && pair=2.21 || pair=2.19
  echo "$path ${core:-$pair}"
  exit 0
fi
case $core in
  2.19) newest 2.19 11 12 13 ;;
  2.20 | 2.21) newest "$core" 13 12 14 ;;
  "")
    newest 2.21 13 12 14
    newest 2.19 11
    ;;
  *) echo "ansible-core $core is not supported, expected 2.19 to 2.21" >&2; exit 1 ;;
esac
{
  echo "No usable Python found${core:+ for ansible-core $core}. Expected Python 3.12 or newer (ansible-core 2.21) or 3.11 (ansible-core 2.19)."
  [ ${#refused[@]} -eq 0 ] || printf '%s\n' "${refused[@]}"
  echo "As root: apt-get install python3 python3-venv. Or name one: make PYTHON=/path/to/python3"
} >&2
exit 1
