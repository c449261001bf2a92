#!/usr/bin/env bash
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# lint.sh [step...]: all static checks on a copy of the tracked files, offline. LINT_FULL=1 runs every sanity test.
# All steps run even if one fails; the names of those that failed come last.
set -uo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
bin=$root/.venv-lint/bin
export PATH=$bin:$PATH
wanted=" ${*:-} "
failed=()

work=$(mktemp -d -t payops-lint-XXXXXX)
trap 'rm -rf "$work"' EXIT
copy=$("$root/tests/ci/copy.sh" "$work") || exit 1
cd "$copy" || exit 1
export ANSIBLE_HOME=$work/home ANSIBLE_COLLECTIONS_PATH=$work ANSIBLE_NOCOLOR=1 NO_COLOR=1 ANSIBLE_LOCALHOST_WARNING=false
# A configuration of the user's must not decide here; the collection's own is only for work in a clone.
: >"$work/ansible.cfg"
export ANSIBLE_CONFIG=$work/ansible.cfg

step() { # name, command...
  local name=$1 begin=$SECONDS
  shift
  case $wanted in "  " | *" $name "*) ;; *) return 0 ;; esac
  if "$@" >"$work/output" 2>&1 </dev/null; then
    printf 'ok      %-22s %4d s\n' "$name" $((SECONDS - begin))
    [ -z "${VERBOSE:-}" ] || cat "$work/output"
  else
    printf 'FAILED  %-22s %4d s\n' "$name" $((SECONDS - begin))
    cat "$work/output"
    failed+=("$name")
  fi
}

sanity() { # ansible-test reaches no download host here: its bootstrap script is replaced by Python's own ensurepip
  local home=$root/.cache/sanity user=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)} version part
  mkdir -p "$home/.ansible/test/cache"
  for part in .config/pip .pip; do # where pip finds its mirror and certificates
    [ -e "$user/$part" ] && mkdir -p "$(dirname "$home/$part")" && ln -sfn "$user/$part" "$home/$part"
  done
  for version in $(python -c '
import pathlib, re, ansible_test._internal.python_requirements as r
print(*sorted(set(re.findall("pip=[\"\x27]([0-9.]+)", pathlib.Path(r.__file__).read_text()))))'); do
    cp "$root/tests/ci/get_pip.py" "$home/.ansible/test/cache/get_pip_${version//./_}.py"
  done
  env -u ANSIBLE_HOME -u ANSIBLE_CONFIG -u ANSIBLE_COLLECTIONS_PATH HOME="$home" ansible-test sanity --color no \
    --python "$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')" "$@"
}

sanity_now() {
  if [ -n "${LINT_FULL:-}" ]; then
    sanity
  else
    sanity --test validate-modules --test no-assert --test action-plugin-docs --test runtime-metadata --test ignores
  fi
}

no_ignores() { # the ignore files exist for every supported ansible-core, and are empty
  local version
  for version in 2.19 2.20 2.21; do
    [ -f "tests/sanity/ignore-$version.txt" ] || { echo "tests/sanity/ignore-$version.txt is missing"; return 1; }
    [ ! -s "tests/sanity/ignore-$version.txt" ] || { echo "tests/sanity/ignore-$version.txt is not empty"; return 1; }
  done
}

build_and_import() {
  ansible-galaxy collection build --output-path "$work/built" &&
    cd "$work/built" &&
    printf '[galaxy-importer]\nCHECK_REQUIRED_TAGS=true\nRUN_ANSIBLE_LINT=false\n' >importer.cfg &&
    # It prints everything it finds; only ERROR lines stop it by themselves.
    GALAXY_IMPORTER_CONFIG=$work/built/importer.cfg python -m galaxy_importer.main payops-rollback-*.tar.gz 2>&1 | tee importer.log
  local rc=$?
  [ $rc -eq 0 ] && ! grep -E '^(WARNING|ERROR)' importer.log | grep -v -E 'No changelog found|with 0 statement' | grep .
}

changelog_lint() { antsibull-changelog lint; }

step ruff ruff check --no-cache .
step ruff-format ruff format --no-cache --check --diff .
step yamllint yamllint --strict .
step mypy bash -c "cd '$work' && mypy --config-file '$copy/pyproject.toml' --cache-dir '$root/.cache/mypy' -p ansible_collections.payops.rollback.plugins"
step changelog changelog_lint
step licences reuse lint --quiet
step sanity-ignores no_ignores
step docs antsibull-docs lint-collection-docs --plugin-docs --skip-rstcheck --validate-collection-refs=all --disallow-unknown-collection-refs .
step ansible-lint ansible-lint --offline --profile production --strict -q
step importer bash -c "$(declare -f build_and_import); work='$work'; set -o pipefail; build_and_import"
step sanity sanity_now

if [ ${#failed[@]} -gt 0 ]; then
  echo "lint: failed: ${failed[*]} (one alone: tests/ci/lint.sh ${failed[0]})"
  exit 1
fi
echo "lint: all passed"
