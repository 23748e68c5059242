# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""How much data would have been lost: recovery points, from when on they were usable, and the worst gap. Pure."""

from __future__ import annotations

import datetime as dt
import typing as t
from dataclasses import dataclass, field

from ansible_collections.mazevault.backup.plugins.module_utils._clock import exact_span
from ansible_collections.mazevault.backup.plugins.module_utils._scenarios import HOST, REACHES, Need, meets
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, UNPROVEN

# Clocks may differ by so much before a recovery point counts as one of the future.
SKEW = dt.timedelta(minutes=1)
Moment = dt.datetime


@dataclass(frozen=True)
class Copy:
    """Where the data of a recovery point are.

    Attributes:
        proven_at: when it was proven there that they are whole; None: never.
        by_another: that proof was signed by somebody else than the host itself.
        gone: it isn't there any more.
    """

    place: str
    reach: str
    present_at: Moment
    proven_at: Moment | None = None
    immutable: bool = False
    by_another: bool = False
    gone: bool = False

    def outlives(self, need: Need) -> bool:
        return REACHES.index(self.reach) >= REACHES.index(need.reach) and (self.immutable or not need.immutable)


@dataclass(frozen=True)
class Point:
    """A recovery point.

    Attributes:
        proven_at: when its content was first proven well enough to count; None: never.
        failed: it failed a proof; it never counts.
        copies: the host's own one among them.
        why: why it doesn't count, where it doesn't.
    """

    name: str
    at: Moment
    published_at: Moment
    proven_at: Moment | None = None
    failed: bool = False
    copies: tuple[Copy, ...] = ()
    why: str = ""

    def usable(self, need: Need, *, proven: bool = True, now_there: bool = False) -> Moment | None:
        """From when on it could have been restored in spite of the scenario.

        Args:
            proven: proofs are asked for; else what is said to be there counts.
            now_there: only copies that are still there count.
        """
        if self.failed or (proven and self.proven_at is None):
            return None
        moments = []
        for copy in self.copies:
            if not copy.outlives(need) or (now_there and copy.gone):
                continue
            if proven and (copy.proven_at is None or (need.immutable and not copy.by_another)):
                continue
            known = [self.at, self.published_at, copy.present_at]
            known += [moment for moment in (self.proven_at, copy.proven_at) if proven and moment is not None]
            moments.append(max(known))
        return min(moments) if moments else None


@dataclass(frozen=True)
class Gap:
    """A time in which the newest usable point was that of `since`, up to `until`."""

    since: Moment
    until: Moment
    running: bool = False

    @property
    def seconds(self) -> float:
        return (self.until - self.since).total_seconds()


@dataclass(frozen=True)
class Exposure:
    """What would have been lost at worst.

    Attributes:
        gaps: from each usable point to the moment in which the next newer one was usable, oldest first; the running one
            is the last.
        seen_from: begin of what is known of the period.
    """

    gaps: tuple[Gap, ...] = ()
    seen_from: Moment | None = None
    newest: str = ""

    @property
    def worst(self) -> Gap | None:
        return max(self.gaps, key=lambda gap: gap.seconds, default=None)

    @property
    def running(self) -> Gap | None:
        return self.gaps[-1] if self.gaps and self.gaps[-1].running else None


def expose(points: t.Iterable[Point], need: Need, *, start: Moment, now: Moment, proven: bool = True) -> Exposure:
    """The gaps that reach into the time from `start` to `now`.

    Points need no order; one that became usable after a newer one closes no gap.
    """
    usable: dict[Moment, Moment] = {}
    best_there: Point | None = None
    for point in points:
        if point.at > now + SKEW:
            continue
        moment = point.usable(need, proven=proven)
        if moment is not None and moment <= now:
            # Of several that became usable at one moment only the newest matters.
            usable[moment] = max(usable.get(moment, point.at), point.at)
        there = point.usable(need, proven=proven, now_there=True)
        if there is not None and there <= now and (best_there is None or point.at > best_there.at):
            best_there = point
    gaps: list[Gap] = []
    held: Moment | None = None
    for moment, at in sorted(usable.items()):
        if held is not None and at > held and moment >= start:
            gaps.append(Gap(held, moment))
        held = at if held is None else max(held, at)
    if best_there is not None:
        gaps.append(Gap(min(best_there.at, now), now, running=True))
    first = min(usable, default=None)
    return Exposure(tuple(gaps), max(start, first) if first else None, best_there.name if best_there else "")


@dataclass(frozen=True)
class Judgement:
    """A verdict on one objective, with the reason in words; seconds are None where there is no number."""

    verdict: str
    reason: str
    target: float
    worst: float | None = None
    now: float | None = None
    facts: dict[str, t.Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, t.Any]:
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "target_seconds": self.target,
            "worst_seconds": self.worst,
            "now_seconds": self.now,
            **self.facts,
        }


def judge_rpo(points: t.Sequence[Point], need: Need, target: float, *, start: Moment, now: Moment) -> Judgement:
    """`pass` where proven points alone meet the target, `fail` where not even unproven ones would."""
    known = [copy for point in points for copy in point.copies if copy.outlives(need)]
    if not known and (need.reach != HOST or need.immutable):
        return Judgement(UNPROVEN, f"no {need.words} is known", target)
    proven = expose(points, need, start=start, now=now)
    said = expose(points, need, start=start, now=now, proven=False)
    worst, running = _seconds(proven.worst), _seconds(proven.running)
    lasted = 0.0 if proven.seen_from is None else (now - proven.seen_from).total_seconds()
    facts: dict[str, t.Any] = {"newest": proven.newest or None, "seen_seconds": lasted}
    if proven.running and worst is not None and meets(worst, target):
        seen = "" if proven.seen_from == start else f", seen for {exact_span(lasted)} so far"
        return Judgement(PASS, f"never more than {exact_span(worst)}{seen}", target, worst, running, facts)
    if not said.running:
        if any(point.failed for point in points) or not points:
            reason = "there is no recovery set" if not points else "no set is left that passed its proof"
            return Judgement(FAIL, reason, target, worst, running, facts)
        return Judgement(UNPROVEN, f"no {need.words} is there now", target, worst, running, facts)
    least = said.worst
    if least is not None and not meets(least.seconds, target):
        facts["until"] = None if least.running else _text(least.until)
        when = "now" if least.running else f"until {_text(least.until)}"
        words = f"{exact_span(least.seconds)} {when}, from the data of {_text(least.since)}"
        return Judgement(
            FAIL, words, target, least.seconds if worst is None else max(worst, least.seconds), running, facts
        )
    newest = max((point for point in points if point.why and not point.failed), key=_age_of, default=None)
    reason = f"{newest.name} doesn't count: {newest.why}" if newest else f"no {need.words} is proven"
    if proven.running and worst is not None:
        reason = f"proven ones alone leave {exact_span(worst)}; {reason}"
    return Judgement(UNPROVEN, reason, target, worst, running, facts)


def _age_of(point: Point) -> Moment:
    return point.at


def _seconds(gap: Gap | None) -> float | None:
    return None if gap is None else gap.seconds


def _text(moment: Moment) -> str:
    return moment.astimezone(dt.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
