# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters over rollback points and results. Each is documented in the YAML file of its name beside this one."""

from __future__ import annotations

import datetime
import typing as t
from collections.abc import Callable, Mapping

from ansible.errors import AnsibleFilterError

from ansible_collections.payops.rollback.plugins.module_utils import _merge, _releases, _resolve, _retention
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.plugin_utils import _tables


def plain(value: t.Any) -> t.Any:
    """A deep copy in plain Python types: what Ansible hands over may be lazy or tagged, and is never changed here."""
    if isinstance(value, str):
        return "".join(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return str(value)


def _checked(name: str, function: Callable[..., t.Any]) -> Callable[..., t.Any]:
    """``function`` over plain values; its refusals and wrong shapes become filter errors that name the filter."""

    def call(*args: t.Any, **kwargs: t.Any) -> t.Any:
        try:
            return function(*plain(args), **plain(kwargs))
        except RollbackError as exc:
            raise AnsibleFilterError(str(exc)) from exc
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise AnsibleFilterError(f"payops.rollback.{name} got values of another shape than its documentation says: {exc!r}") from exc

    return call


def merge_points(
    listings: dict[str, list[dict[str, t.Any]]],
    releases: dict[str, dict[str, t.Any]] | list[dict[str, t.Any]] | None = None,
    inventory: dict[str, list[str]] | None = None,
) -> list[dict[str, t.Any]]:
    registry = _releases.merge_releases(releases) if isinstance(releases, list) else releases
    return _merge.merge_points(listings, registry, inventory)


def resolve_point(
    points: list[dict[str, t.Any]], version: t.Any, intent: str = "full", live: dict[str, t.Any] | None = None
) -> dict[str, t.Any]:
    return _resolve.resolve(version, intent, points, live)


def points_to_drop(
    infos: dict[str, dict[str, t.Any]],
    members: dict[str, list[str]],
    keep_count: int | None = None,
    keep_days: int | None = None,
    live: list[str] | None = None,
    protect: list[str] | None = None,
    inventory: list[str] | None = None,
    run: str | None = None,
) -> dict[str, list[dict[str, str]]]:
    moment = _moment(None)
    return _retention.plan_together(
        infos, members, keep_count or None, keep_days or None, moment, live or [], protect or [], inventory or [], run
    )


def points_table(
    points: list[dict[str, t.Any]],
    live: list[str] | None = None,
    now: str | None = None,
    width: int = _tables.WIDTH,
    notices: list[str] | None = None,
) -> str:
    return _tables.points_table(points, live or [], _moment(now), width, notices or [])


def points_rows(points: list[dict[str, t.Any]], live: list[str] | None = None, now: str | None = None) -> list[dict[str, t.Any]]:
    return _tables.points_rows(points, live or [], _moment(now))


def _moment(now: str | None) -> datetime.datetime:
    if now is None:
        return datetime.datetime.now(datetime.timezone.utc)
    return datetime.datetime.strptime(now, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc)


class FilterModule:
    """The filters of the collection."""

    def filters(self) -> dict[str, Callable[..., t.Any]]:
        functions: dict[str, Callable[..., t.Any]] = {
            "merge_points": merge_points,
            "resolve_point": resolve_point,
            "points_to_drop": points_to_drop,
            "points_table": points_table,
            "points_rows": points_rows,
            "run_table": _tables.run_table,
            "plan_table": _tables.plan_table,
        }
        return {name: _checked(name, function) for name, function in functions.items()}
