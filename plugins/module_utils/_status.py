# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The whole report: every installation that there is or should be, judged by the same terms. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils import _clock
from ansible_collections.mazevault.backup.plugins.module_utils._objectives import Terms, judge_installation
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, combine

VERSION = 1
Report = dict[str, t.Any]


def expected_of(installations: t.Sequence[t.Mapping[str, t.Any]], named: t.Iterable[str]) -> list[str]:
    """Every installation that a pinned policy or the operator names."""
    found = set(map(str, named))
    for one in installations:
        found |= set(map(str, (one.get("policy") or {}).get("installations") or ()))
    return sorted(found)


def report_of(
    installations: t.Sequence[t.Mapping[str, t.Any]], terms: Terms, expected: t.Iterable[str] | None = ()
) -> Report:
    """The report; an installation that is expected and isn't given is one that vanished.

    Args:
        expected: besides those that policies name; None: only some were looked at, so none is missed.
    """
    present = {str(one["name"]): one for one in installations}
    due = [] if expected is None else expected_of(installations, expected)
    vanished = [{"name": name, "problem": "expected, and in no inventory"} for name in due if name not in present]
    every = sorted([*present.values(), *vanished], key=lambda one: str(one["name"]))
    judged = [judge_installation(one, terms) for one in every]
    notes = []
    if expected is None:
        notes.append("only some of the installations were looked at")
    elif not due:
        notes.append(
            "nobody says which installations there should be: one that vanishes from the inventory isn't missed"
        )
    if not judged:
        notes.append("there is no installation")
    return {
        "schema_version": VERSION,
        "at": _clock.rfc3339(terms.now),
        "review_days": terms.review_days,
        "verdict": combine(one["verdict"] for one in judged),
        "installations": judged,
        "expected": due,
        "vanished": [one["name"] for one in vanished],
        "notes": notes,
    }


def missed(report: t.Mapping[str, t.Any]) -> list[str]:
    """What is red, one line each."""
    lines = []
    for one in report["installations"]:
        lines += [f"{one['name']}: {c['name']}: {c['reason']}" for c in one["checks"] if c["verdict"] == FAIL]
        for row in one["objectives"]:
            for kind in ("rpo", "rto", "schedule"):
                judged = row[kind]
                if judged and judged["verdict"] == FAIL:
                    lines.append(f"{one['name']}: {row['title']}: {kind.upper()}: {judged['reason']}")
    return lines
