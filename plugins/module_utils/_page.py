# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The report's pictures: where lines and bars of the page go. Pure; the page itself is a template."""

from __future__ import annotations

import datetime as dt
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils import _clock
from ansible_collections.mazevault.backup.plugins.module_utils._files import human_size
from ansible_collections.mazevault.backup.plugins.module_utils._table import (
    moment_text,
    plain,
    reasons_of,
    span_text,
    state_text,
    target_text,
)

# In the units of the pictures' own coordinates; the browser scales them.
WIDE, HIGH = 1000.0, 180.0
# More marks than this could not be told apart.
MOST = 400
Said = t.Mapping[str, t.Any]


def shown(value: t.Any) -> t.Any:
    """Text without what a page must not hold, such as control characters; anything else as it is."""
    return plain(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def page_context(report: Said) -> dict[str, t.Any]:
    """What the template is given: texts as they are, coordinates as numbers."""
    return {
        "report": report,
        "at": moment_text(report["at"]),
        "installations": [_installation(one, report) for one in report["installations"]],
        "target_text": target_text,
        "span_text": span_text,
        "moment_text": moment_text,
        "human_size": human_size,
    }


def _installation(one: Said, report: Said) -> dict[str, t.Any]:
    now = _clock.parse(report["at"])
    seen = one["checks"][0]["verdict"] == "pass"
    return {
        **one,
        "seen": seen,
        "state": state_text(one) if seen else "",
        "reasons": reasons_of(one) if seen else [],
        "exposure": exposure_picture(one, now, report["review_days"]),
        "sizes": bars([entry["bytes"] for entry in one["sets"]], human_size, one["sets"]),
        "durations": bars([entry["seconds"] for entry in one["sets"]], span_text, one["sets"]),
        "drill_bars": drill_bars(one),
    }


def exposure_picture(one: Said, now: dt.datetime, review_days: float) -> dict[str, t.Any] | None:
    """What would have been lost, over time, as a line that rises until the next set and falls then; and the targets."""
    gaps = one["gaps"]
    if not gaps:
        return None
    spans = [(_clock.parse(gap["since"]), _clock.parse(gap["until"])) for gap in gaps]
    begin = max(now - dt.timedelta(days=review_days), spans[0][0])
    length = max((now - begin).total_seconds(), 60.0)
    targets = _targets(one)
    top: float = 1.15 * max([max(gap["seconds"] for gap in gaps), *(seconds for seconds, _titles in targets)])

    def x(moment: dt.datetime) -> float:
        return round(min(max((moment - begin).total_seconds() / length, 0.0), 1.0) * WIDE, 1)

    def y(seconds: float) -> float:
        return round(HIGH - max(seconds, 0.0) / top * HIGH, 1)

    line: list[tuple[float, float]] = []
    former = begin
    for since, until in spans:
        shown = max(former, since, begin)
        line += [(x(shown), y((shown - since).total_seconds())), (x(until), y((until - since).total_seconds()))]
        former = until
    # These are the host's own copies, so theirs is the target that they can miss.
    own = one["objectives"][0]["rpo"]["target_seconds"]
    return {
        "width": WIDE,
        "height": HIGH,
        "line": " ".join(f"{left},{down}" for left, down in line),
        "area": " ".join(f"{left},{down}" for left, down in [(line[0][0], HIGH), *line, (line[-1][0], HIGH)]),
        "missed": [
            {"x1": x(max(begin, since)), "x2": x(until), "text": span_text((until - since).total_seconds())}
            for since, until in spans
            if (until - since).total_seconds() >= own
        ],
        "targets": [
            {"y": y(seconds), "text": f"{target_text(seconds)}: {', '.join(titles)}"} for seconds, titles in targets
        ],
        "marks": _marks(one, begin, x),
        "begin": moment_text(_clock.rfc3339(begin)),
        "end": moment_text(_clock.rfc3339(now)),
        "top": span_text(top / 1.15),
    }


def _targets(one: Said) -> list[tuple[float, list[str]]]:
    """(seconds, scenarios) of each target above 0, the longest first."""
    found: dict[float, list[str]] = {}
    for row in one["objectives"]:
        if row["rpo"]["target_seconds"] > 0:
            found.setdefault(row["rpo"]["target_seconds"], []).append(row["title"])
    return sorted(found.items(), reverse=True)


def _marks(one: Said, begin: dt.datetime, x: t.Callable[[dt.datetime], float]) -> list[dict[str, t.Any]]:
    return [
        {
            "x": x(_clock.parse(entry["recovery_point"])),
            "kind": "fail" if entry["verdict"] == "fail" else "pass" if entry["counts"] else "unproven",
            "pinned": entry["pinned"],
            "text": f"{entry['set_id']}: {entry['verdict']} {entry['level']}",
        }
        for entry in one["sets"][-MOST:]
        if _clock.parse(entry["recovery_point"]) >= begin
    ]


def bars(values: t.Sequence[float], words: t.Callable[[float], str], sets: t.Sequence[Said]) -> dict[str, t.Any] | None:
    """One bar a set, the newest on the right."""
    shown, named = list(values)[-MOST:], list(sets)[-MOST:]
    if not shown:
        return None
    top = max(*shown, 1e-9) if len(shown) > 1 else max(shown[0], 1e-9)
    step = WIDE / max(len(shown), 20)
    height = 100.0
    return {
        "width": WIDE,
        "height": height,
        "bars": [
            {
                "x": round(WIDE - (len(shown) - place) * step + step * 0.15, 1),
                "y": round(height - max(value, 0.0) / top * height, 1),
                "w": round(step * 0.7, 2),
                "h": round(max(value, 0.0) / top * height, 1),
                "text": f"{entry['set_id']}: {words(value)}",
            }
            for place, (value, entry) in enumerate(zip(shown, named))
        ],
        "newest": words(shown[-1]),
        "top": words(max(shown)),
    }


def drill_bars(one: Said) -> list[dict[str, t.Any]]:
    """The newest drill of each scenario against its target, as shares of the longer of both."""
    found = []
    for row in one["objectives"]:
        own = [drill for drill in one["drills"] if drill["scenario"] == row["scenario"]]
        target = row["rto"]["target_seconds"]
        last = own[-1] if own else None
        took = last["seconds"] if last else None
        longest = max(target, took or 0.0, 1.0) * 1.1
        found.append(
            {
                "title": row["title"],
                "verdict": row["rto"]["verdict"],
                "target": target_text(target),
                "target_x": round(target / longest * WIDE, 1),
                "took_x": round((took or 0.0) / longest * WIDE, 1),
                "took": span_text(took) if took is not None or not last else "never ended, begun",
                "when": moment_text(last["started_at"]) if last else "no drill yet",
                "name": last["name"] if last else "",
            }
        )
    return found
