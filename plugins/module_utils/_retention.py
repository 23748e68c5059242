# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Which sets stay, which go, and why: a pure function of sets, what is known of them, rules and now.

A set goes only when nothing keeps it. What keeps one set because of another (its proof, its size, its time) depends on
all sets that are here, never on what else goes: so a second run finds nothing more to remove, and wider rules never
remove more.
"""

from __future__ import annotations

import datetime as dt
import typing as t
from dataclasses import dataclass, field

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._pins import Pin
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import PASS

DAY = 86400.0
# The specification's; what isn't named here is kept for ever, like keys and the vault.
BY_AGE = ("postgres", "config", "tls", "volumes", "kubernetes")
# Components whose size and rows tell something; the others are small.
MEASURED = ("postgres", "volumes")
FAR_SMALLER = 0.5
# A proof by `read` counts with a restore of the same kind that was this much older at most.
VOUCHING = 7 * DAY
# Clocks of two machines.
AHEAD = 300.0
PERIODS = ("daily", "weekly", "monthly", "yearly")


@dataclass(frozen=True)
class Rules:
    """How long things stay; all in whole days or numbers of sets.

    Attributes:
        days: of every component that goes by age.
        component_days: of single ones, instead.
        tls_days: how long certificates stay after they have ended.
        keep: how many of the newest proven sets with a component stay, whatever their age.
        daily, weekly, monthly, yearly: of so many periods the last proven set stays; 0 for none.
        evidence_days: of evidence of restores and drills.
    """

    days: int = 30
    component_days: t.Mapping[str, int] = field(default_factory=dict)
    tls_days: int = 90
    keep: int = 2
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    evidence_days: int = 1826

    def days_of(self, component: str) -> int | None:
        """None: for ever."""
        return self.component_days.get(component, self.days) if component in BY_AGE else None


def settle(given: t.Mapping[str, t.Any], pinned: t.Mapping[str, t.Any]) -> Rules:
    """The rules of a run: what was asked for, else the pinned or the specification's, whichever is longer.

    Args:
        given: by the names of `Rules`; None where nothing was asked for.
        pinned: the part `retention` of the policy of this host.
    Raises:
        BackupError: something that can't be, or that is weaker than what is pinned.
    """
    asked = {name: value for name, value in given.items() if value is not None}
    values: dict[str, int] = {}
    for name in ("days", "tls_days", "keep", *PERIODS, "evidence_days"):
        default, least = getattr(Rules, name), 0 if name in PERIODS or name == "tls_days" else 1
        values[name] = max(default, pinned.get(name, 0)) if name not in asked else asked[name]
        if values[name] < least:
            raise BackupError(f"{name}: {values[name]}: below {least}", hint="Nothing was removed. Give a higher one.")
        if values[name] < pinned.get(name, 0):
            raise _weaker(name, values[name], pinned[name])
    component_days: dict[str, int] = {}
    for name, days in (asked.get("component_days") or {}).items():
        if name not in BY_AGE:
            raise BackupError(
                f"component_days: {name}: not one of {', '.join(BY_AGE)}",
                hint="Nothing was removed. Other components are kept for ever.",
            )
        try:
            component_days[name] = int(days)
        except (TypeError, ValueError):
            component_days[name] = 0
        if component_days[name] < 1:
            raise BackupError(
                f"component_days: {name}: {days}: no number above 0", hint="Nothing was removed. Give days."
            )
        if component_days[name] < pinned.get("days", 0):
            raise _weaker(f"component_days: {name}", component_days[name], pinned["days"])
    return Rules(component_days=component_days, **values)


def _weaker(name: str, asked: int, pinned: int) -> BackupError:
    return BackupError(
        f"{name}: {asked}: the policy of this host has {pinned}",
        hint="Nothing was removed. Rules can only be stricter than what is pinned; another policy is pinned by hand.",
    )


@dataclass(frozen=True)
class Candidate:
    """A set as retention sees it; times are seconds since the epoch.

    Attributes:
        genuine: a key that counts has signed it. Others are somebody else's.
        doubts: why it isn't, or why it isn't believed otherwise.
        verdict, level, proven_at: what is known of it.
        alike: what a restore has to have in common with it to vouch for it.
        sizes: bytes by component.
        certificates: (fingerprint, end), the end None where it can't be read.
        accepted: a person has looked at what is suspicious about it.
    """

    set_id: str
    sequence: int
    point: float
    components: tuple[str, ...]
    genuine: bool = True
    doubts: tuple[str, ...] = ()
    verdict: str = PASS
    level: str = "restore"
    proven_at: float | None = None
    alike: tuple[t.Any, ...] = ()
    sizes: t.Mapping[str, int] = field(default_factory=dict)
    rows: int | None = None
    certificates: tuple[tuple[str, float | None], ...] = ()
    pins: tuple[Pin, ...] = ()
    accepted: bool = False


@dataclass(frozen=True)
class Decision:
    """What becomes of one set.

    Attributes:
        goes: it is to be removed.
        why: every reason, for people.
        counts: it is one of those that may push older ones out.
        suspicious: what a person should look at.
    """

    set_id: str
    goes: bool
    why: tuple[str, ...]
    counts: bool
    suspicious: tuple[str, ...] = ()


@dataclass
class _Seen:
    """A genuine set in the order of sequence numbers, with what follows from the others that are here.

    Attributes:
        time: no set is older than one that was made before it, whatever the clock said.
        timed_by: the place of the set whose time that is.
        measured_by: the place of the set that it is suspiciously smaller than.
        vouched_by: the place of the set whose restore its own proof needs.
        kept: why it stays.
    """

    found: Candidate
    time: float
    timed_by: int
    future: bool
    suspicious: list[str] = field(default_factory=list)
    measured_by: int | None = None
    counts: bool = False
    vouched_by: int | None = None
    kept: list[str] = field(default_factory=list)

    @property
    def trusted(self) -> bool:
        """Whether it counts as long as it is proven."""
        return not self.future and (not self.suspicious or self.found.accepted)


def plan(candidates: t.Iterable[Candidate], rules: Rules, now: float) -> list[Decision]:
    """A decision on every set, in the order of their sequence numbers."""
    ordered = sorted(candidates, key=lambda found: (found.sequence, found.set_id))
    seen = _look([found for found in ordered if found.genuine], now)
    for keep in (_by_word, _by_age, _by_certificate, _by_number, _by_period):
        keep(seen, rules, now)
    _by_each_other(seen)
    by_id = {one.found.set_id: one for one in seen}
    return [_decide(found, by_id.get(found.set_id), rules, now) for found in ordered]


def alarms(decisions: t.Iterable[Decision]) -> list[str]:
    """What is suspicious, one line each."""
    return [f"{made.set_id}: {reason}" for made in decisions for reason in made.suspicious]


def _decide(found: Candidate, seen: _Seen | None, rules: Rules, now: float) -> Decision:
    if seen is None:
        reason = "; ".join(found.doubts) or "not signed by a key that counts"
        return Decision(found.set_id, False, (f"not ours to remove: {reason}",), False, (reason,))
    told = () if found.accepted else tuple(seen.suspicious)
    if seen.kept:
        return Decision(found.set_id, False, tuple(seen.kept), seen.counts, told)
    spans = {name: rules.days_of(name) for name in found.components}
    longest = max((span for span in spans.values() if span is not None), default=rules.days)
    why = f"{(now - seen.time) / DAY:.1f} d old, kept for {longest} d, and nothing else keeps it"
    return Decision(found.set_id, True, (why,), seen.counts, told)


def _look(genuine: t.Sequence[Candidate], now: float) -> list[_Seen]:
    """The sets with what follows from each other: times, sizes, proofs."""
    vouchers = _vouchers(genuine, now)
    seen: list[_Seen] = []
    # By component the place of the newest set that others are measured by.
    measures: dict[str, int] = {}
    unbroken = latest = 0
    for place, found in enumerate(genuine):
        future = found.point > now + AHEAD
        time, timed_by = (found.point, place)
        if seen and seen[latest].time > found.point and not seen[latest].future:
            time, timed_by = seen[latest].time, latest
        one = _Seen(found, time, timed_by, future)
        if future:
            one.suspicious.append(f"its recovery point {_moment(found.point)} is in the future")
        elif timed_by == place:
            latest = place
        # A number that is missing may have been the set to measure by; an older one says nothing then.
        if place and found.sequence - genuine[place - 1].sequence > 1:
            unbroken = place
        _measure(one, {name: at for name, at in measures.items() if at >= unbroken}, genuine)
        voucher = vouchers.get(found.alike)
        proven = found.verdict == PASS and found.level == "restore"
        if found.verdict == PASS and found.level == "read" and voucher and found.proven_at is not None:
            proven = voucher[0] >= found.proven_at - VOUCHING
            one.vouched_by = voucher[2] if proven else None
        one.counts = proven and one.trusted
        seen.append(one)
        if found.verdict == PASS and found.level in ("read", "restore") and one.trusted:
            measures.update(dict.fromkeys(found.components, place))
    return seen


def _vouchers(genuine: t.Sequence[Candidate], now: float) -> dict[tuple[t.Any, ...], tuple[float, int, int]]:
    """For each kind of set the newest restore: (when, sequence number, place)."""
    found: dict[tuple[t.Any, ...], tuple[float, int, int]] = {}
    for place, one in enumerate(genuine):
        if one.verdict != PASS or one.level != "restore" or one.proven_at is None:
            continue
        if max(one.proven_at, one.point) <= now + AHEAD:
            found[one.alike] = max(found.get(one.alike, (0.0, 0, 0)), (one.proven_at, one.sequence, place))
    return found


def _measure(one: _Seen, measures: t.Mapping[str, int], genuine: t.Sequence[Candidate]) -> None:
    """Far smaller, or far fewer rows, than the last one that can be believed."""
    for name in MEASURED:
        if name not in one.found.components or name not in measures:
            continue
        last = genuine[measures[name]]
        size, former = one.found.sizes.get(name), last.sizes.get(name)
        reasons = []
        if size is not None and former and size < former * FAR_SMALLER:
            reasons.append(f"{name} has {size} bytes, after {former} in {last.set_id}")
        if name == "postgres" and one.found.rows is not None and last.rows and one.found.rows < last.rows * FAR_SMALLER:
            reasons.append(f"its tables have {one.found.rows} rows, after {last.rows} in {last.set_id}")
        one.suspicious += reasons
        if reasons and not one.found.accepted:
            one.measured_by = min(measures[name], len(genuine) if one.measured_by is None else one.measured_by)


def _by_word(seen: t.Sequence[_Seen], rules: Rules, now: float) -> None:
    """What somebody pinned or holds, and what is kept for ever."""
    for one in seen:
        one.kept += [pin.text for pin in one.found.pins]
        one.kept += [f"holds {name}, kept for ever" for name in one.found.components if rules.days_of(name) is None]
        if not one.found.components:
            one.kept.append("its manifest names no component")


def _by_age(seen: t.Sequence[_Seen], rules: Rules, now: float) -> None:
    for one in seen:
        for name in one.found.components:
            days = rules.days_of(name)
            if days is not None and now <= one.time + days * DAY:
                one.kept.append(f"{name} is kept for {days} d, until {_moment(one.time + days * DAY)}")


def _by_certificate(seen: t.Sequence[_Seen], rules: Rules, now: float) -> None:
    """Each certificate stays in the newest set that counts, or in all while none does."""
    for one in seen:
        if "tls" in one.found.components and not one.found.certificates:
            one.kept.append("holds tls, and its manifest doesn't say until when its certificates are valid")
        one.kept += [
            f"nobody knows when its certificate {name[:16]} ends" for name, end in one.found.certificates if end is None
        ]
    for needed in _needed(seen, rules, now):
        for one in needed.keepers:
            which = "the newest proven set" if needed.proven else "a set (no proven one has it)"
            whole = "" if one.found.components == ("tls",) else "; whole, as it can't be published apart yet"
            one.kept.append(f"{which} with {needed.text}{whole}")


@dataclass(frozen=True)
class _Needed:
    """A certificate that has to stay.

    Attributes:
        keepers: the sets that it stays in.
        proven: one of those that count has it.
        with_key: it lies in the component tls, whose archives hold the private key too.
    """

    name: str
    until: float
    keepers: tuple[_Seen, ...]
    proven: bool
    with_key: bool

    @property
    def text(self) -> str:
        return f"certificate {self.name[:16]}, which is kept until {_moment(self.until)}"


def _needed(seen: t.Sequence[_Seen], rules: Rules, now: float) -> list[_Needed]:
    """Every certificate whose time isn't over. A copy among the configuration replaces none of the component tls."""
    holders: dict[str, list[_Seen]] = {}
    ends: dict[str, float] = {}
    for one in seen:
        for name, end in one.found.certificates:
            if end is not None:
                holders.setdefault(name, []).append(one)
                ends[name] = max(end, ends.get(name, end))
    found = []
    for name, sets in holders.items():
        until = ends[name] + rules.tls_days * DAY
        if now <= until:
            whole = [one for one in sets if "tls" in one.found.components]
            counting = [one for one in whole or sets if one.counts]
            found.append(_Needed(name, until, tuple(counting[-1:] or whole or sets), bool(counting), bool(whole)))
    return found


def last_with_certificates(
    candidates: t.Iterable[Candidate], names: t.Container[str], rules: Rules, now: float
) -> dict[str, str]:
    """Why sets that a person names can't go: by their ids, the certificate that no other set has as well."""
    genuine = [found for found in sorted(candidates, key=lambda one: (one.sequence, one.set_id)) if found.genuine]
    left = [found for found in genuine if found.set_id not in names]
    after = {needed.name: needed for needed in _needed(_look(left, now), rules, now)}
    told: dict[str, str] = {}
    for needed in _needed(_look(genuine, now), rules, now):
        rest = after.get(needed.name)
        if rest is None or rest.proven < needed.proven or rest.with_key < needed.with_key:
            which = "proven " if needed.proven else ""
            for one in needed.keepers:
                if one.found.set_id in names:
                    told.setdefault(one.found.set_id, f"is the last {which}set with {needed.text}")
    return told


def _by_number(seen: t.Sequence[_Seen], rules: Rules, now: float) -> None:
    """The newest proven ones of each component, whatever their age; without so many of them nothing goes."""
    for name in sorted({name for one in seen for name in one.found.components}):
        holders = [one for one in seen if name in one.found.components]
        counting = [one for one in holders if one.counts]
        for one in counting[-rules.keep :]:
            one.kept.append(f"one of the newest {rules.keep} proven sets with {name}")
        if len(counting) < rules.keep:
            for one in holders:
                one.kept.append(f"only {len(counting)} of {rules.keep} sets with {name} that are to stay are proven")


def _by_period(seen: t.Sequence[_Seen], rules: Rules, now: float) -> None:
    """The last proven one of each of the newest days, weeks, months and years, counted from the newest set."""
    for period in PERIODS:
        count = int(getattr(rules, period))
        for name in BY_AGE if count > 0 else ():
            buckets: dict[int, _Seen] = {}
            for one in seen:
                if one.counts and name in one.found.components:
                    buckets[_bucket(period, one.found.point)] = one
            newest = max(buckets, default=0)
            for number, one in buckets.items():
                if newest - number < count:
                    one.kept.append(f"the last proven one with {name} of its {_WORDS[period]} ({count} are kept)")


def _by_each_other(seen: t.Sequence[_Seen]) -> None:
    """A set that another one's standing depends on stays as long as that one does."""
    grew = True
    while grew:
        grew = False
        measured_from, by = len(seen), ""
        for place in range(len(seen) - 1, -1, -1):
            one = seen[place]
            if not one.kept and place >= measured_from:
                one.kept.append(f"{by} is measured by it and what came before")
                grew = True
            if not one.kept:
                continue
            if one.measured_by is not None and one.measured_by < measured_from:
                measured_from, by = one.measured_by, one.found.set_id
            name = one.found.set_id
            for other, reason in (
                (one.vouched_by, f"its restore vouches for {name}"),
                (one.timed_by, f"{name} goes by its time"),
            ):
                if other is not None and not seen[other].kept:
                    seen[other].kept.append(reason)
                    grew = True


_WORDS = {"daily": "day", "weekly": "week", "monthly": "month", "yearly": "year"}


def _bucket(period: str, point: float) -> int:
    """A number that rises by one with each period (UTC, weeks from Monday)."""
    day = dt.datetime.fromtimestamp(point, dt.timezone.utc)
    if period == "daily":
        return day.toordinal()
    if period == "weekly":
        return (day.toordinal() - 1) // 7
    return day.year * 12 + day.month if period == "monthly" else day.year


def _moment(point: float) -> str:
    return dt.datetime.fromtimestamp(point, dt.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
