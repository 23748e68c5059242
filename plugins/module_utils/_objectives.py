# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What is promised for one installation against what was measured: every scenario, with verdicts and reasons. Pure."""

from __future__ import annotations

import datetime as dt
import typing as t
from dataclasses import dataclass, field

from ansible_collections.mazevault.backup.plugins.module_utils import _clock
from ansible_collections.mazevault.backup.plugins.module_utils._clock import exact_span
from ansible_collections.mazevault.backup.plugins.module_utils._drills import Drill, judge_rto, parse_drill
from ansible_collections.mazevault.backup.plugins.module_utils._exposure import (
    SKEW,
    Judgement,
    Moment,
    Point,
    expose,
    judge_rpo,
)
from ansible_collections.mazevault.backup.plugins.module_utils._points import points_of
from ansible_collections.mazevault.backup.plugins.module_utils._scenarios import (
    HOST,
    SPECIFICATION,
    Scenario,
    meets,
    parse_objectives,
    targets_of,
)
from ansible_collections.mazevault.backup.plugins.module_utils._timetable import Timetable, judge_timetable
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, UNPROVEN, combine

REVIEW_DAYS = 100
Said = t.Mapping[str, t.Any]


@dataclass(frozen=True)
class Terms:
    """By what installations are judged.

    Attributes:
        wanted: the operator's objectives, in seconds.
        allowances: seconds granted for parts of a restore that drills leave out.
        backups, copies: when runs are due; None: not known.
    """

    now: Moment
    review_days: float = REVIEW_DAYS
    wanted: t.Mapping[str, t.Mapping[str, float]] = field(default_factory=dict)
    allowances: t.Mapping[str, float] = field(default_factory=dict)
    backups: Timetable | None = None
    copies: Timetable | None = None

    @property
    def start(self) -> Moment:
        return self.now - dt.timedelta(days=self.review_days)


def judge_generations(generations: t.Iterable[Said], target: float, *, start: Moment, now: Moment) -> Judgement:
    """Key loss: the longest time in which a generation was in use and not yet in both halves of the escrow."""
    worst, seen, open_one = 0.0, 0, ""
    for said in generations:
        used_from = _clock.parse(said["in_use_from"])
        used_until = _clock.parse(said["in_use_until"]) if said.get("in_use_until") else now
        if used_until < start:
            continue
        seen += 1
        halves = [said.get("escrow_vault_at"), said.get("escrow_key_at")]
        kept = None if None in halves or "" in halves else max(_clock.parse(str(half)) for half in halves)
        bare = (min(kept or now, now) - used_from).total_seconds()
        if kept is None or kept > now:
            open_one = str(said["id"])
            bare = max(bare, 1.0)
        worst = max(worst, bare)
    if not seen:
        return Judgement(UNPROVEN, "which keys are in use and in escrow isn't known", target)
    facts = {"generations": seen}
    if open_one:
        return Judgement(
            FAIL, f"generation {open_one} is in use and not in both halves of the escrow", target, worst, worst, facts
        )
    if not meets(worst, target):
        reason = f"a generation was in use for {exact_span(worst)} before it was in both halves of the escrow"
        return Judgement(FAIL, reason, target, worst, 0.0, facts)
    return Judgement(
        PASS, "each generation was in both halves of the escrow before it was used", target, worst, 0.0, facts
    )


def judge_installation(said: Said, terms: Terms) -> dict[str, t.Any]:
    """Everything about one installation that was looked at, or that nobody could look at."""
    name = str(said["name"])
    pinned = parse_objectives((said.get("policy") or {}).get("objectives"), parameter=f"policy of {name}")
    targets, overridden = targets_of(terms.wanted, pinned, kubernetes=said.get("runtime") == "kubernetes")
    if said.get("problem"):
        return _unseen(name, str(said["problem"]), targets)
    sets = list(said.get("sets") or ())
    points, problems = points_of(sets, list(said.get("gone") or ()))
    future = [point.name for point in points if point.at > terms.now + SKEW]
    drills, unreadable = _drills(said.get("drills") or ())
    checks = _checks(said, sets, future)
    if unreadable:
        # One that nobody can read may be the one that failed.
        checks.append({"name": "drills", "verdict": UNPROVEN, "reason": "; ".join(unreadable)})
    trust = next((check for check in checks if check["name"] == "ledger"), None)
    lasts = max((_duration(one) for one in sets), default=None)
    objectives: list[dict[str, t.Any]] = []
    for scenario in SPECIFICATION:
        target = targets[scenario.name]
        if scenario.name == "key_loss":
            rpo = judge_generations(said.get("generations") or (), target.rpo, start=terms.start, now=terms.now)
            schedule = None
        else:
            rpo = judge_rpo(points, scenario.need, target.rpo, start=terms.start, now=terms.now)
            schedule = _schedule(scenario, lasts, target.rpo, terms)
        if trust and trust["verdict"] == FAIL and rpo.verdict == PASS:
            rpo = Judgement(
                UNPROVEN, "what the host says of itself isn't to be believed", target.rpo, rpo.worst, rpo.now, rpo.facts
            )
        own = [drill for drill in drills if drill.scenario == scenario.name]
        rto = judge_rto(own, target.rto, start=terms.start, now=terms.now, allowances=terms.allowances)
        objectives.append(
            {
                "scenario": scenario.name,
                "title": scenario.title,
                "rpo": rpo.as_dict(),
                "rto": rto.as_dict(),
                "schedule": schedule.as_dict() if schedule else None,
            }
        )
    verdicts = [check["verdict"] for check in checks] + [
        row[kind]["verdict"] for row in objectives for kind in ("rpo", "rto")
    ]
    # What can't be met however well every run goes is missed, if not yet then soon.
    verdicts += [row["schedule"]["verdict"] for row in objectives if (row["schedule"] or {}).get("verdict") == FAIL]
    return {
        "name": name,
        "verdict": combine(verdicts),
        "checks": checks,
        "objectives": objectives,
        "sets": [_short(one, point) for one, point in _paired(sets, points)],
        "gaps": _gaps(points, terms),
        "drills": [_drill(drill) for drill in drills],
        "restores": list(said.get("restores") or ()),
        "pinned": [{"set_id": one["set_id"], "why": _why_pinned(one)} for one in sets if one.get("pinned")],
        "due": _due(sets, drills, terms),
        "space": said.get("space"),
        "notes": _notes(said, overridden, problems),
    }


def _unseen(name: str, problem: str, targets: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Nobody could look: red, and nothing about it is known."""
    reason = "nobody could look"
    rows = [
        {
            "scenario": scenario.name,
            "title": scenario.title,
            "rpo": Judgement(UNPROVEN, reason, targets[scenario.name].rpo).as_dict(),
            "rto": Judgement(UNPROVEN, reason, targets[scenario.name].rto).as_dict(),
            "schedule": None,
        }
        for scenario in SPECIFICATION
    ]
    check = {"name": "reachable", "verdict": FAIL, "reason": problem}
    empty: dict[str, t.Any] = {
        "sets": [],
        "gaps": [],
        "drills": [],
        "restores": [],
        "pinned": [],
        "due": [],
        "notes": [],
    }
    return {"name": name, "verdict": FAIL, "checks": [check], "objectives": rows, "space": None, **empty}


def _checks(said: Said, sets: t.Sequence[Said], future: t.Sequence[str]) -> list[dict[str, str]]:
    found = [{"name": "reachable", "verdict": PASS, "reason": ""}]
    trust = dict(said.get("trust") or {})
    if trust.get("verdict"):
        reason = "" if trust["verdict"] == PASS else str(trust.get("summary") or "")
        found.append({"name": "ledger", "verdict": str(trust["verdict"]), "reason": reason})
    unreadable = list(said.get("unreadable") or ())
    if unreadable:
        reason = f"{', '.join(unreadable[-3:])}: the manifest is not readable"
        found.append({"name": "manifests", "verdict": FAIL, "reason": reason})
    if sets:
        newest = sets[-1]
        reason = "" if newest["verdict"] != FAIL else f"{newest['set_id']} failed its proof and counts for nothing"
        found.append({"name": "newest set", "verdict": FAIL if reason else PASS, "reason": reason})
    if future:
        reason = f"{', '.join(future[-3:])}: dated in the future, counts for nothing"
        found.append({"name": "clock", "verdict": FAIL, "reason": reason})
    return found


def _drills(said: t.Iterable[Said]) -> tuple[list[Drill], list[str]]:
    drills, problems = [], []
    for one in said:
        try:
            drills.append(parse_drill(one))
        except ValueError as exc:
            problems.append(str(exc))
    return sorted(drills, key=lambda drill: drill.started_at), problems


def _schedule(scenario: Scenario, lasts: float | None, target: float, terms: Terms) -> Judgement:
    return judge_timetable(
        terms.backups,
        lasts,
        target,
        now=terms.now,
        then=terms.copies,
        copied=scenario.need.reach != HOST or scenario.need.immutable,
    )


def _duration(one: Said) -> float:
    """Seconds from the moment of the data until it was published."""
    published = one.get("published_at") or one["recovery_point"]
    return max(0.0, (_clock.parse(published) - _clock.parse(one["recovery_point"])).total_seconds())


def _paired(sets: t.Sequence[Said], points: t.Sequence[Point]) -> list[tuple[Said, Point | None]]:
    by_name = {point.name: point for point in points}
    return [(one, by_name.get(str(one["set_id"]))) for one in sets]


def _short(one: Said, point: Point | None) -> dict[str, t.Any]:
    started = one.get("started") or one["recovery_point"]
    took = (_clock.parse(one.get("published_at") or started) - _clock.parse(started)).total_seconds()
    return {
        "set_id": one["set_id"],
        "recovery_point": one["recovery_point"],
        "published_at": one.get("published_at") or one["recovery_point"],
        "verdict": one["verdict"],
        "level": one["level"],
        "counts": bool(point and point.proven_at and not point.failed),
        "why": point.why if point else "it holds no database",
        "bytes": one["bytes"],
        "seconds": max(0.0, took),
        "reason": one["reason"],
        "pinned": bool(one.get("pinned")),
    }


def _gaps(points: t.Sequence[Point], terms: Terms) -> list[dict[str, t.Any]]:
    """Of the copies on the host itself, for the picture."""
    seen = expose(points, SPECIFICATION[0].need, start=terms.start, now=terms.now)
    return [
        {
            "since": _clock.rfc3339(gap.since),
            "until": _clock.rfc3339(gap.until),
            "seconds": gap.seconds,
            "running": gap.running,
        }
        for gap in seen.gaps
    ]


def _drill(drill: Drill) -> dict[str, t.Any]:
    return {
        "name": drill.name,
        "scenario": drill.scenario,
        "started_at": _clock.rfc3339(drill.started_at),
        "ended_at": _clock.rfc3339(drill.ended_at) if drill.ended_at else None,
        "seconds": drill.took if drill.ended_at else None,
        "segments": dict(drill.segments),
        "verdict": drill.verdict,
    }


def _why_pinned(one: Said) -> list[str]:
    """Each pin in words."""
    found = []
    for pin in one["pinned"]:
        if pin.get("why") == "hold":
            found.append(f"held by {pin.get('by')} until {pin.get('until')}: {pin.get('reason')}")
        else:
            found.append("made before a change that nobody has confirmed yet")
    return found


def _due(sets: t.Sequence[Said], drills: t.Sequence[Drill], terms: Terms) -> list[dict[str, t.Any]]:
    """What has to be done next, and when; without a moment it is due now."""
    found: list[tuple[str, Moment | None]] = []
    if terms.backups is not None:
        next_run = terms.backups.next_run(terms.now)
        if next_run is not None:
            found.append(("backup", next_run))
    if sets:
        proven = [_clock.parse(proof["at"]) for one in sets for proof in one.get("proofs") or () if proof.get("at")]
        found.append(("verification", max(proven) + dt.timedelta(days=7) if proven else None))
    for one in sets:
        for pin in one.get("pinned") or ():
            until = _clock.parse(pin["until"]) if pin.get("until") else None
            found.append((f"{one['set_id']}: " + ("end of its hold" if until else "confirm the change"), until))
    for scenario in SPECIFICATION:
        done = [drill.started_at for drill in drills if drill.scenario == scenario.name and drill.ended_at]
        last = max(done, default=None)
        found.append((f"drill: {scenario.title.lower()}", last + dt.timedelta(days=REVIEW_DAYS) if last else None))
    return [
        {
            "what": what,
            "at": _clock.rfc3339(moment) if moment else None,
            "overdue": moment is None or moment <= terms.now,
        }
        for what, moment in found
    ]


def _notes(said: Said, overridden: t.Sequence[str], problems: t.Sequence[str]) -> list[str]:
    notes = [f"policy overridden: {name}; the policy's target counts" for name in overridden]
    notes += list(problems)
    space = said.get("space") or {}
    total, free = space.get("total_bytes") or 0, space.get("free_bytes") or 0
    if total and free * 20 < total:
        notes.append("the disk of the backup root is nearly full")
    return notes
