# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""When runs are due: times of day in a zone, or an interval, and the longest time between two of them. Pure."""

from __future__ import annotations

import datetime as dt
import re
import typing as t
import zoneinfo
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._clock import exact_span
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._exposure import Judgement
from ansible_collections.mazevault.backup.plugins.module_utils._policy import seconds_of
from ansible_collections.mazevault.backup.plugins.module_utils._scenarios import meets
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, UNPROVEN

_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)\Z")
_MINUTE = re.compile(r":([0-5]\d)\Z")
_HINT = (
    "Write times such as 02:00, 14:00 (with a zone: 02:00 Europe/Prague), minutes such as :15,"
    " or an interval such as 6 h."
)
# Days that are looked at: a year, so that both changes of the clock are among them.
DAYS = 370


@dataclass(frozen=True)
class Timetable:
    """Runs at `times` (hour, minute) of each day in `zone`, or each `interval` seconds; `delay` is added at random."""

    times: tuple[tuple[int, int], ...] = ()
    zone: str = "UTC"
    interval: float = 0.0
    delay: float = 0.0

    def runs(self, after: dt.datetime, days: int) -> list[dt.datetime]:
        """Every run from `after` on, in UTC; with an interval nobody knows when, so there is none."""
        zone = dt.timezone.utc if self.zone == "UTC" else zoneinfo.ZoneInfo(self.zone)
        first = after.astimezone(zone).date()
        found = []
        for number in range(days + 2):
            day = first + dt.timedelta(days=number)
            for hour, minute in self.times:
                local = dt.datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
                found.append(local.astimezone(dt.timezone.utc))
        return sorted({moment for moment in found if moment >= after})

    def longest(self, now: dt.datetime) -> float:
        """Seconds between two runs at worst, within the coming year."""
        if self.interval:
            return self.interval + self.delay
        runs = self.runs(now, DAYS)
        return max((later - sooner).total_seconds() for sooner, later in zip(runs, runs[1:])) + self.delay

    def next_run(self, now: dt.datetime) -> dt.datetime | None:
        return self.runs(now, 2)[0] if self.times else None


def parse_timetable(given: t.Any, *, parameter: str, delay: t.Any = 0) -> Timetable | None:
    """A timetable from a list or text; unset is None.

    Raises:
        BackupError: naming what can't be read.
    """
    words = given if isinstance(given, (list, tuple)) else re.split(r"[,\n]", "" if given is None else str(given))
    words = [str(word).strip() for word in words if str(word).strip()]
    if not words:
        return None
    try:
        late = seconds_of(delay or 0)
        if len(words) == 1 and ":" not in words[0]:
            interval = seconds_of(words[0])
            if not 60 <= interval <= 366 * 86400:
                raise ValueError(f"{words[0]}: not between a minute and a year")
            return Timetable(interval=interval, delay=late)
        times: set[tuple[int, int]] = set()
        zones = set()
        for word in words:
            clock, _space, zone = word.partition(" ")
            times |= _times(clock)
            zones |= {zone.strip()} - {""}
        if len(zones) > 1:
            raise ValueError(f"{', '.join(sorted(zones))}: more than one zone")
        zone = next(iter(zones), "UTC")
        if zone != "UTC":
            zoneinfo.ZoneInfo(zone)
    except (ValueError, zoneinfo.ZoneInfoNotFoundError, OSError) as exc:
        raise BackupError(f"{parameter}: {exc}", hint=_HINT) from exc
    return Timetable(tuple(sorted(times)), zone, 0.0, late)


def _times(word: str) -> set[tuple[int, int]]:
    found = _TIME.match(word)
    if found:
        return {(int(found[1]), int(found[2]))}
    every_hour = _MINUTE.match(word)
    if every_hour:
        return {(hour, int(every_hour[1])) for hour in range(24)}
    raise ValueError(f"{word}: no time of day")


def judge_timetable(
    table: Timetable | None,
    lasts: float | None,
    target: float,
    *,
    now: dt.datetime,
    then: Timetable | None = None,
    copying: float = 0.0,
    copied: bool = False,
) -> Judgement:
    """Whether the objective can be met at all if every run works.

    What is lost at worst: the time to the next run, what that one takes, and where copies go elsewhere the time to the
    next copying and what it takes.

    Args:
        lasts: seconds that a run takes at worst; None: none was seen yet.
        then: the copies' timetable.
        copied: the scenario needs a copy elsewhere.
    """
    if table is None:
        return Judgement(UNPROVEN, "no schedule is known", target)
    least = table.longest(now) + (lasts or 0.0)
    words = f"{exact_span(table.longest(now))} between runs, {exact_span(lasts or 0)} for one"
    if copied and then is None:
        return Judgement(UNPROVEN, "no schedule for copies is known", target, least)
    if copied and then is not None:
        least += then.longest(now) + copying
        words += f", {exact_span(then.longest(now) + copying)} until it is copied"
    if not meets(least, target):
        return Judgement(FAIL, f"the schedule can't meet it: {words}", target, least)
    if lasts is None:
        return Judgement(UNPROVEN, "nobody knows yet how long a run takes", target, least)
    return Judgement(PASS, words, target, least)
