# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The report as people read it in a terminal: lines of at most 100 columns, in plain text. Pure."""

from __future__ import annotations

import datetime as dt
import textwrap
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils import _clock
from ansible_collections.mazevault.backup.plugins.module_utils._files import human_size
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS

WIDTH = 100
# Which playbook for which trouble; at 03:00 nobody looks that up.
PLAYBOOKS = (("database wrong, host fine", "restore_database.yml"), ("that restore was wrong", "rollback_database.yml"))
_COLUMNS = (
    ("Scenario", 23),
    ("RPO", 7),
    ("worst", 12),
    ("now", 12),
    ("verdict", 8),
    ("RTO", 7),
    ("worst", 12),
    ("verdict", 8),
)


def span_text(seconds: float | None) -> str:
    return "-" if seconds is None else _clock.exact_span(seconds)


def target_text(seconds: float) -> str:
    """`< 24 h`, as the specification has it."""
    if seconds == 0:
        return "0"
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds % size == 0:
            return f"< {seconds / size:.0f} {unit}"
    return f"< {seconds:g} s"


def moment_text(text: str | None) -> str:
    if not text:
        return "-"
    return _clock.parse(text).astimezone(dt.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def plain(text: t.Any) -> str:
    """On one line, without anything that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(str(text).split()))


def table_lines(report: t.Mapping[str, t.Any]) -> list[str]:
    verdict = str(report["verdict"]).upper()
    title = f"MazeVault recovery status, {moment_text(report['at'])}"
    lines = [f"{title}{verdict:>{WIDTH - len(title)}}", "=" * WIDTH]
    for one in report["installations"]:
        lines += ["", *_installation(one)]
    due = _due(report)
    if due:
        lines += ["", "Due", *due]
    lines += ["", *(line for note in report["notes"] for line in _item(note))] if report["notes"] else []
    lines += [
        "",
        f"RPO: what would be lost at worst, over {report['review_days']:g} days. RTO: the slowest drill, to service.",
        *_wrap("To restore: " + "; ".join(f"{trouble}: {name}" for trouble, name in PLAYBOOKS) + ".", "", ""),
    ]
    return lines


def _installation(one: t.Mapping[str, t.Any]) -> list[str]:
    name = plain(one["name"])[: WIDTH - 12]
    verdict = str(one["verdict"]).upper()
    lines = [f"{name}{verdict:>{WIDTH - len(name)}}", "-" * WIDTH]
    lines += [line for check in one["checks"] if check["verdict"] != PASS for line in _item(_said(check))]
    if one["checks"][0]["verdict"] == FAIL:
        # Nobody could look; five rows that all say so would say no more.
        return lines
    lines += _wrap(state_text(one), "  ")
    lines += ["", "  " + _row([head for head, _width in _COLUMNS])]
    for row in one["objectives"]:
        lines.append("  " + _row(_cells(row)))
    reasons = reasons_of(one)
    lines += ["", *(line for reason in reasons for line in _item(reason))] if reasons else []
    return lines + [line for note in one["notes"] for line in _item(note)]


def _said(check: t.Mapping[str, str]) -> str:
    return f"{check['name']}: {check['verdict']}: {check['reason']}"


def state_text(one: t.Mapping[str, t.Any]) -> str:
    """How many sets there are, how old the newest is, and what room is left."""
    sets, space = one["sets"], one["space"] or {}
    parts = ["no recovery set"]
    if sets:
        count = "1 set" if len(sets) == 1 else f"{len(sets)} sets"
        parts = [f"{count}, {human_size(sum(entry['bytes'] for entry in sets))}"]
        newest = sets[-1]
        proof = f"{newest['verdict']} {newest['level']}".strip()
        parts.append(f"newest {newest['set_id']} of {moment_text(newest['recovery_point'])} ({proof})")
    if one["pinned"]:
        parts.append(f"pinned: {', '.join(str(entry['set_id']) for entry in one['pinned'])}")
    if space.get("total_bytes"):
        share = 100 * space["free_bytes"] / space["total_bytes"]
        parts.append(f"{human_size(space['free_bytes'])} free ({share:.0f} %)")
    return "; ".join(parts)


def _cells(row: t.Mapping[str, t.Any]) -> list[str]:
    rpo, rto = row["rpo"], row["rto"]
    first = [target_text(rpo["target_seconds"]), span_text(rpo["worst_seconds"]), span_text(rpo["now_seconds"])]
    return [
        row["title"],
        *first,
        rpo["verdict"],
        target_text(rto["target_seconds"]),
        span_text(rto["worst_seconds"]),
        rto["verdict"],
    ]


def _row(cells: t.Sequence[str]) -> str:
    return " ".join(f"{cell:<{width}.{width}}" for cell, (_head, width) in zip(cells, _COLUMNS)).rstrip()


def reasons_of(one: t.Mapping[str, t.Any]) -> list[str]:
    """Why something isn't `pass`; what several scenarios have in common is said once, failures first."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in one["objectives"]:
        for kind in ("rpo", "rto", "schedule"):
            judged = row[kind]
            if judged and judged["verdict"] != PASS:
                key = (judged["verdict"], kind, judged["reason"])
                found.setdefault(key, []).append(row["title"])
    lines = []
    every = len(one["objectives"])
    for (verdict, kind, reason), titles in sorted(found.items(), key=lambda entry: entry[0][0] != FAIL):
        if kind == "schedule" and verdict != FAIL:
            continue
        about = "all scenarios" if len(titles) == every else ", ".join(titles)
        lines.append(f"{verdict}: {kind if kind == 'schedule' else kind.upper()} of {about}: {reason}")
    return lines


def _due(report: t.Mapping[str, t.Any]) -> list[str]:
    lines = []
    for one in report["installations"]:
        for due in one["due"]:
            when = "now" if due["at"] is None else moment_text(due["at"]) + (" (overdue)" if due["overdue"] else "")
            lines += _item(f"{one['name']}: {due['what']}: {when}")
    return lines


def _item(text: t.Any) -> list[str]:
    return _wrap(text, "  - ", "    ")


def _wrap(text: t.Any, first: str, rest: str = "  ") -> list[str]:
    return textwrap.wrap(plain(text), WIDTH, initial_indent=first, subsequent_indent=rest) or [first.rstrip()]
