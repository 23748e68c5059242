# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Verdicts with three values, and the levels of verification they are about."""

from __future__ import annotations

import typing as t
from dataclasses import asdict, dataclass

PASS, FAIL, UNPROVEN = "pass", "fail", "unproven"
LEVELS = ("toc", "checksum", "read", "restore")
# Without a result for each of these a level of the database's proof isn't reached.
REQUIRED_OF_POSTGRES = {
    "toc": ("contents",),
    "checksum": ("checksums",),
    "read": ("full read", "rows"),
    "restore": (
        "tables",
        "sequences",
        "large objects",
        "materialized views",
        "relations",
        "columns",
        "constraints",
        "indexes",
        "functions",
        "extensions",
        "database properties",
        "amcheck",
    ),
}

# Likewise of an archive of files.
REQUIRED_OF_ARCHIVE = {
    "toc": ("contents",),
    "checksum": ("checksums",),
    "read": ("full read", "files"),
    "restore": ("restore",),
}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        level: the verification level that needs it.
        expected, observed: short texts, never a secret.
        reason: why it isn't `pass`.
    """

    name: str
    level: str
    verdict: str
    reason: str = ""
    expected: str = ""
    observed: str = ""

    def as_dict(self) -> dict[str, str]:
        return {key: value for key, value in asdict(self).items() if value}


def combine(verdicts: t.Iterable[str]) -> str:
    """fail beats unproven beats pass; nothing checked is unproven."""
    seen = set(verdicts)
    if FAIL in seen:
        return FAIL
    if UNPROVEN in seen or not seen:
        return UNPROVEN
    return PASS


def complete(checks: t.Sequence[Check], required: t.Mapping[str, t.Iterable[str]]) -> list[Check]:
    """The checks, and `unproven` for each required one that has no result: what nobody did proves nothing.

    Args:
        required: names of checks by level.
    """
    done = {(check.level, check.name) for check in checks}
    missing = [(level, name) for level, names in required.items() for name in names if (level, name) not in done]
    return [*checks, *(Check(name, level, UNPROVEN, "there is no result") for level, name in missing)]


def require(checks: t.Sequence[Check], wanted: str, required: t.Mapping[str, t.Iterable[str]]) -> list[Check]:
    """`complete` for every level up to `wanted` that would pass; one that doesn't has said why."""
    needed = LEVELS[: LEVELS.index(wanted) + 1]
    passed = [level for level in needed if combine(check.verdict for check in checks if check.level == level) == PASS]
    return complete(checks, {level: required.get(level, ()) for level in passed})


def level_reached(checks: t.Sequence[Check]) -> str:
    """The highest level that passed with every level below it; empty when not even the first one did."""
    reached = ""
    for level in LEVELS:
        if combine(check.verdict for check in checks if check.level == level) != PASS:
            break
        reached = level
    return reached


def conclude(checks: t.Sequence[Check], wanted: str) -> tuple[str, str]:
    """(verdict on `wanted`, level reached): every level up to the wanted one has to pass."""
    needed = LEVELS[: LEVELS.index(wanted) + 1]
    parts = [combine(check.verdict for check in checks if check.level == level) for level in needed]
    # a failure found at any level is a failure
    if any(check.verdict == FAIL for check in checks):
        return FAIL, level_reached(checks)
    return combine(parts), level_reached(checks)


def conclusion_text(verdict: str, level: str, checks: t.Sequence[Check]) -> str:
    """One line for people."""
    if verdict == PASS:
        return f"pass: proven to level {level}"
    reasons = [f"{check.name}: {check.reason}" for check in checks if check.verdict == verdict and check.reason]
    return f"{verdict}: {'; '.join(reasons[:2]) or 'nothing was checked'}"
