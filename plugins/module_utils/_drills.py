# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""How long a restore really took: drills, the worst of them, and what of the way to service none of them went. Pure."""

from __future__ import annotations

import datetime as dt
import math
import typing as t
from dataclasses import dataclass, field

from ansible_collections.mazevault.backup.plugins.module_utils import _clock
from ansible_collections.mazevault.backup.plugins.module_utils._clock import exact_span
from ansible_collections.mazevault.backup.plugins.module_utils._exposure import Judgement, Moment
from ansible_collections.mazevault.backup.plugins.module_utils._scenarios import SEGMENTS, meets
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, UNPROVEN


@dataclass(frozen=True)
class Drill:
    """A restore into isolation, or a real one, measured from the declaration to service.

    Attributes:
        ended_at: None while it runs, and for ever where it never ended.
        seconds: by the clock that never jumps; None: from start to end.
        segments: seconds of each part of the way that was gone.
        verdict: what came of it.
    """

    name: str
    scenario: str
    started_at: Moment
    ended_at: Moment | None = None
    seconds: float | None = None
    segments: t.Mapping[str, float] = field(default_factory=dict)
    verdict: str = UNPROVEN

    @property
    def took(self) -> float:
        """The longer of two clocks; the parts together where both are shorter, as no part takes no time."""
        if self.ended_at is None:
            return 0.0
        known = [(self.ended_at - self.started_at).total_seconds(), self.seconds or 0.0]
        return max(*known, *self.segments.values())

    def missing(self) -> list[str]:
        return [name for name in SEGMENTS if name not in self.segments]


def parse_drill(said: t.Mapping[str, t.Any]) -> Drill:
    """A drill from what a list of evidence says of it.

    Raises:
        ValueError: it lacks what makes it one.
    """
    try:
        started = _clock.parse(str(said["started_at"]))
        ended = _clock.parse(str(said["ended_at"])) if said.get("ended_at") else None
        if ended is not None and ended < started:
            raise ValueError("it ended before it began")
        return Drill(
            str(said["name"]),
            str(said["scenario"]),
            started,
            ended,
            None if said.get("seconds") is None else _seconds(said["seconds"]),
            {str(name): _seconds(span) for name, span in (said.get("segments") or {}).items()},
            str(said.get("verdict") or UNPROVEN),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise ValueError(f"{said.get('name', 'a drill')}: not readable: {exc}") from exc


def _seconds(said: t.Any) -> float:
    found = float(said)
    if not (math.isfinite(found) and found >= 0):
        raise ValueError(f"{said}: no duration")
    return found


def judge_rto(
    drills: t.Iterable[Drill],
    target: float,
    *,
    start: Moment,
    now: Moment,
    allowances: t.Mapping[str, float] | None = None,
) -> Judgement:
    """The worst drill since `start` counts; a good one beside a bad one changes nothing.

    Args:
        allowances: seconds that the policy grants for parts that a drill didn't go through.
    """
    granted = dict(allowances or {})
    every = sorted(drills, key=lambda drill: drill.started_at)
    recent = [drill for drill in every if start <= drill.started_at <= now]
    ended = [drill for drill in recent if drill.ended_at is not None]
    facts: dict[str, t.Any] = {"drills": len(recent), "newest": recent[-1].name if recent else None}
    under_way = [d for d in recent if d.ended_at is None and (now - d.started_at).total_seconds() < target]
    broken = [drill for drill in recent if drill.ended_at is None and drill not in under_way]
    totals = {drill.name: drill.took + sum(granted.get(name, 0.0) for name in drill.missing()) for drill in ended}
    slowest = max(ended, key=lambda drill: totals[drill.name], default=None)
    worst = totals[slowest.name] if slowest else None
    if slowest:
        facts["worst_drill"] = slowest.name
    for drill in broken:
        reason = f"drill {drill.name} began on {_day(drill.started_at)} and never ended"
        return Judgement(FAIL, reason, target, worst, facts=facts)
    for drill in ended:
        if drill.verdict == FAIL:
            return Judgement(FAIL, f"drill {drill.name} of {_day(drill.started_at)} failed", target, worst, facts=facts)
    if slowest is None or worst is None:
        return Judgement(UNPROVEN, _none_yet(every, under_way, start, now), target, facts=facts)
    if not meets(worst, target):
        reason = f"drill {slowest.name} of {_day(slowest.started_at)} took {exact_span(worst)}"
        return Judgement(FAIL, reason, target, worst, facts=facts)
    missing = sorted({n for d in ended for n in d.missing() if n not in granted}, key=SEGMENTS.index)
    if missing:
        facts["missing_segments"] = missing
        words = ", ".join(missing).replace("_", " ")
        return Judgement(UNPROVEN, f"drill {ended[-1].name} left out: {words}", target, worst, facts=facts)
    unproven = [drill for drill in ended if drill.verdict != PASS]
    if unproven:
        reason = f"drill {unproven[-1].name} of {_day(unproven[-1].started_at)} proved nothing"
        return Judgement(UNPROVEN, reason, target, worst, facts=facts)
    count = "one drill" if len(ended) == 1 else f"{len(ended)} drills"
    return Judgement(PASS, f"worst of {count}: {exact_span(worst)}", target, worst, facts=facts)


def _none_yet(every: t.Sequence[Drill], under_way: t.Sequence[Drill], start: Moment, now: Moment) -> str:
    if under_way:
        return f"drill {under_way[-1].name} is under way"
    old = [drill for drill in every if drill.started_at < start]
    if old:
        ago = exact_span((now - old[-1].started_at).total_seconds())
        return f"the last drill was {ago} ago, longer than the period of review"
    return "no drill yet"


def _day(moment: Moment) -> str:
    return moment.astimezone(dt.timezone.utc).strftime("%Y-%m-%d")
