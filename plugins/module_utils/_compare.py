# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Does a restored database hold exactly what its set's manifest says? Pure functions."""

from __future__ import annotations

import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._database import differences
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, UNPROVEN, Check

_SHOWN = 3


def _sample(names: t.Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:_SHOWN]) + (f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else "")


def _units(entries: t.Iterable[t.Mapping[str, t.Any]]) -> dict[tuple[str, str], tuple[int, tuple[int, int]]]:
    """(schema, name) to (rows, digest lanes); partitions that only compare as a whole are summed under their parent."""
    units: dict[tuple[str, str], tuple[int, tuple[int, int]]] = {}
    for entry in entries:
        schema, name = entry.get("group") or (entry["schema"], entry["name"])
        high, low = (int(lane) for lane in entry["digest"].split(":"))
        rows, (high_sum, low_sum) = units.get((schema, name), (0, (0, 0)))
        units[(schema, name)] = (rows + int(entry["rows"]), (high_sum + high, low_sum + low))
    return units


def compare_tables(expected: t.Sequence[t.Mapping[str, t.Any]], observed: t.Sequence[t.Mapping[str, t.Any]]) -> Check:
    """Every table's count and digest, exactly; no table at all proves nothing."""
    left, right = _units(expected), _units(observed)
    problems = []
    for key in sorted(left.keys() | right.keys()):
        name = ".".join(key)
        if key not in right:
            problems.append(f"{name}: missing")
        elif key not in left:
            problems.append(f"{name}: not in the manifest")
        elif left[key][0] != right[key][0]:
            problems.append(f"{name}: {right[key][0]} rows instead of {left[key][0]}")
        elif left[key][1] != right[key][1]:
            problems.append(f"{name}: other content in {left[key][0]} rows")
    total = sum(rows for rows, _digest in left.values())
    shown = f"{len(left)} tables, {total} rows"
    if problems:
        return Check("tables", "restore", FAIL, _sample(problems), shown, f"{len(problems)} tables differ")
    if not left:
        return Check("tables", "restore", UNPROVEN, "the manifest names no table", shown, shown)
    return Check("tables", "restore", PASS, expected=shown, observed=shown)


def compare_row_counts(expected: t.Sequence[t.Mapping[str, t.Any]], observed: t.Mapping[tuple[str, str], int]) -> Check:
    """The COPY rows of a full read against the manifest."""
    problems = []
    grouped = {(entry["schema"], entry["name"]): tuple(entry["group"]) for entry in expected if "group" in entry}
    found: dict[tuple[str, str], int] = {}
    for key, rows in observed.items():
        unit = t.cast("tuple[str, str]", grouped.get(key, key))
        found[unit] = found.get(unit, 0) + rows
    wanted = _units(expected)
    for unit, (rows, _lanes) in wanted.items():
        if found.get(unit) != rows:
            problems.append(f"{'.'.join(unit)}: {found.get(unit, 'no')} rows instead of {rows}")
    problems += [f"{'.'.join(unit)}: not in the manifest" for unit in found.keys() - wanted.keys()]
    shown = f"{sum(entry['rows'] for entry in expected)} rows in {len(expected)} tables"
    if problems:
        return Check("rows", "read", FAIL, _sample(problems), shown)
    if not expected:
        return Check("rows", "read", UNPROVEN, "the manifest names no table", shown)
    return Check("rows", "read", PASS, expected=shown, observed=f"{sum(observed.values())} rows")


def _order(position: t.Mapping[str, t.Any]) -> tuple[int, bool]:
    return int(position["last_value"]), bool(position["is_called"])


def _mirrored(order: tuple[int, bool]) -> tuple[int, bool]:
    """Makes a sequence that runs downwards one that runs upwards."""
    value, called = order
    return -value, called


def compare_sequences(
    expected: t.Sequence[t.Mapping[str, t.Any]], observed: t.Sequence[t.Mapping[str, t.Any]]
) -> Check:
    """Each sequence lies between its positions before and after the dump (sequences belong to no snapshot)."""
    right = {(entry["schema"], entry["name"]): entry for entry in observed}
    problems, unclear = [], []
    for entry in expected:
        name = f"{entry['schema']}.{entry['name']}"
        found = right.get((entry["schema"], entry["name"]))
        after = entry["after"]
        if found is None:
            problems.append(f"{name}: missing")
            continue
        if after is None:
            unclear.append(name)
            continue
        low, high, here = _order(entry), _order(after), _order(found)
        if entry["increment"] < 0:
            low, high, here = _mirrored(low), _mirrored(high), _mirrored(here)
        if high < low or entry["cycle"]:
            if here not in (low, high):
                unclear.append(name)
        elif not low <= here <= high:
            problems.append(
                f"{name}: at {found['last_value']},"
                f" the source was between {entry['last_value']} and {after['last_value']}"
            )
    shown = f"{len(expected)} sequences"
    if problems:
        return Check("sequences", "restore", FAIL, _sample(problems), shown)
    if unclear:
        return Check(
            "sequences", "restore", UNPROVEN, f"set back or dropped while the dump ran: {_sample(unclear)}", shown
        )
    return Check("sequences", "restore", PASS, expected=shown, observed=shown)


def compare_large_objects(expected: t.Mapping[str, t.Any], observed: t.Mapping[str, t.Any]) -> Check:
    for side in (expected, observed):
        if "unproven" in side:
            return Check("large objects", "restore", UNPROVEN, str(side["unproven"]))
    shown = f"{expected['count']} large objects"
    if dict(expected) != dict(observed):
        return Check(
            "large objects", "restore", FAIL, "other number or content", shown, f"{observed['count']} large objects"
        )
    return Check("large objects", "restore", PASS, expected=shown, observed=shown)


def compare_views(expected: t.Sequence[t.Mapping[str, t.Any]], observed: t.Sequence[t.Mapping[str, t.Any]]) -> Check:
    left = {(entry["schema"], entry["name"], entry["populated"]) for entry in expected}
    right = {(entry["schema"], entry["name"], entry["populated"]) for entry in observed}
    shown = f"{len(left)} materialized views"
    if left != right:
        return Check("materialized views", "restore", FAIL, _sample(f"{s}.{n}" for s, n, _full in left ^ right), shown)
    return Check("materialized views", "restore", PASS, expected=shown, observed=shown)


def compare_catalogue(
    expected: t.Mapping[str, t.Sequence[str]],
    observed: t.Mapping[str, t.Sequence[str]],
    *,
    same_major: bool,
) -> list[Check]:
    """Objects with owners, privileges and states. Major versions add privileges, so differences are unproven then."""
    checks = []
    for category, lines in expected.items():
        left, right = set(lines), set(observed.get(category, ()))
        shown = f"{len(left)} {category}"
        if left == right:
            checks.append(Check(category, "restore", PASS, expected=shown, observed=shown))
        else:
            odd = [f"missing or different: {line}" for line in left - right] or [
                f"not in the source: {line}" for line in right - left
            ]
            reason = _sample(line[:200] for line in odd)
            checks.append(
                Check(
                    category, "restore", FAIL if same_major else UNPROVEN, reason, shown, f"{len(left ^ right)} differ"
                )
            )
    return checks


def compare_properties(expected: t.Mapping[str, t.Any], observed: t.Mapping[str, t.Any] | None) -> Check:
    """Owner, privileges, settings, comment and limit of the database itself."""
    if observed is None:
        return Check("database properties", "restore", FAIL, "the database is missing")
    odd = differences(expected, observed)
    if odd:
        return Check("database properties", "restore", FAIL, f"differ: {', '.join(odd)}")
    return Check("database properties", "restore", PASS)


def left_out_check(what: str) -> Check:
    """What wasn't restored can't be proven; but an extension brings its own comment along."""
    return Check("left out", "restore", PASS if what.startswith("COMMENT EXTENSION") else UNPROVEN, what)


def compare_all(
    expected: t.Mapping[str, t.Any], observed: t.Mapping[str, t.Any], *, same_major: bool = True
) -> list[Check]:
    """All comparisons of the level `restore`.

    Args:
        expected, observed: with the keys that a dump's private facts have (`tables`, `sequences`, `large_objects`,
            `materialized_views`, `catalogue`, `database`).
    """
    return [
        compare_tables(expected["tables"], observed["tables"]),
        compare_sequences(expected["sequences"], observed["sequences"]),
        compare_large_objects(expected["large_objects"], observed["large_objects"]),
        compare_views(expected["materialized_views"], observed["materialized_views"]),
        *compare_catalogue(expected["catalogue"], observed["catalogue"], same_major=same_major),
        compare_properties(expected["database"], observed["database"]),
    ]
