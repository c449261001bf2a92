# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Whether going back still means what it meant when the switch was made: nobody has deployed since, and the kept tree is the one it was."""

from __future__ import annotations

import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._release.tree import compare, list_tree, release_of, stamp

# What an application writes into its own tree while it runs (a log, a small database) is no deployment; programs and their parts are.
PROGRAMS = (
    ".js",
    ".cjs",
    ".mjs",
    ".jsx",
    ".ts",
    ".tsx",
    ".json",
    ".node",
    ".wasm",
    ".sql",
    ".html",
    ".css",
    ".ejs",
    ".hbs",
    ".pug",
    ".sh",
    ".py",
)

if t.TYPE_CHECKING:
    from ansible_collections.payops.rollback.plugins.module_utils._release.backend import Record, Releases


def _differs(releases: Releases, record: Record, path: str) -> str | None:
    """How the programs in the tree at ``path`` differ from the release that it was; what was only added since does not count."""
    if stamp(path, releases.persistent) in (record.get("stamp"), record.get("left")):
        return None
    listing = list_tree(path, releases.persistent)
    release = release_of(listing)
    if release == record.get("release"):
        return None
    try:
        known = releases.target(record["version"], hashes=False) if record.get("version") else None
    except RollbackError:
        known = None
    if known is None or known.listing is None or known.release != record.get("release"):
        return f"release {release[:12]}"
    difference = compare(known.listing, listing)
    missing, changed = ([name for name in names if name.endswith(PROGRAMS)] for names in (difference.missing, difference.changed))
    return f"release {release[:12]} with {difference._replace(missing=missing, changed=changed).sentence()}" if missing or changed else None


def require_unchanged(releases: Releases, state: dict[str, t.Any], run_id: str | None) -> None:
    """Refuse to go back over what somebody deployed after the switch, or to a tree that is another one by now.

    A run that takes its own switch back does not mind what the application has written into its files meanwhile.
    """
    live, kept = state.get("live") or {}, state["kept"]
    own = run_id is not None and live.get("run") == run_id
    choose = "Choose what is to be live instead: state=live and version=..., or rollback_full.yml -e version=<point>."
    if live:
        differs: str | None = releases.layout.live()
        if releases.live_tree() == live["tree"]:
            differs = None if own else _differs(releases, live, releases.layout.live())
        if differs:
            raise RollbackError(
                f"{releases.layout.home} was deployed or changed after the switch: found {differs}, expected {_named(live)} as the switch "
                f"of {live.get('at')} brought it. Going back would replace that, so nothing was touched. {choose}"
            )
    path = releases.layout.find(kept["tree"])
    differs = _differs(releases, kept, path) if path and not (own and path == kept.get("path")) else None
    if differs:
        raise RollbackError(
            f"The previous release was replaced or changed since: found {differs} in {path}, expected {_named(kept)} as it was left "
            f"in {kept.get('path')}. Nothing was touched. {choose}"
        )


def _named(record: Record) -> str:
    return f"{record.get('version') or 'the release'} ({str(record.get('release'))[:12]})"
