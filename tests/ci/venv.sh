#!/usr/bin/env bash
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# venv.sh <folder> <core|-> <requirements file>...: make a virtual environment, once; done again when interpreter or requirements
# change. "-" means the newest pair of this machine; "controller" among the files stands for that pair's ansible-core.
set -euo pipefail

folder=$1 core=${2#-}
shift 2
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

# A finished environment is kept: nothing is looked for and no registry is asked.
pair=$("$here/python.sh" "$core")
python=${pair% *} core=${pair##* }
files=()
for name in "$@"; do
  [ "$name" = controller ] && name=controller-$core
  files+=("$root/requirements/$name.txt")
done
stamp=$({ echo "$python"; "$python" -VV; cat "${files[@]}"; } | sha256sum | cut -d' ' -f1)
mkdir -p "$root/.cache"
exec 9>"$root/.cache/venv.lock"
command -v flock >/dev/null && flock 9
[ "$(cat "$folder/.stamp" 2>/dev/null)" = "$stamp" ] && [ -x "$folder/bin/python" ] && exit 0

echo "Making $folder with $("$python" -V) and ansible-core $core (once)" >&2
"$python" -m venv --clear "$folder"
arguments=()
for file in "${files[@]}"; do arguments+=(-r "$file"); done
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check "${arguments[@]}" </dev/null 2> >(grep -v "neither a file nor a directory" >&2)
echo "$stamp" >"$folder/.stamp"
