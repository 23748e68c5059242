# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""When a scheduled job runs: days and times of day in a zone, in words of this collection and of systemd. Pure."""

from __future__ import annotations

import datetime as dt
import re
import typing as t
import zoneinfo
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._policy import seconds_of
from ansible_collections.mazevault.backup.plugins.module_utils._timetable import DAYS, Timetable, parse_timetable

NEVER = "never"
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHLY = {"monthly": tuple(range(1, 13)), "quarterly": (1, 4, 7, 10)}
_PREFIX = re.compile(rf"(?i)({'|'.join((*WEEKDAYS, 'daily', *MONTHLY))}) +(.+)\Z")
_HINT = "Write 02:00,14:00 or 15 min, Sun 04:00, monthly 05:00, quarterly 05:00, or never; UTC unless a zone follows."


@dataclass(frozen=True)
class Calendar:
    """At each of `times` (hour, minute) in `zone`, on the days that are named; nothing named is each day.

    Attributes:
        text: as it was given.
        weekday: 0 is Monday.
        months: on the first day of each of them.
    """

    text: str
    times: tuple[tuple[int, int], ...]
    zone: str = "UTC"
    weekday: int | None = None
    months: tuple[int, ...] = ()

    @property
    def daily(self) -> bool:
        return self.weekday is None and not self.months

    def timetable(self, delay: float = 0.0) -> Timetable:
        """For judging what is promised; only of a daily one."""
        return Timetable(self.times, self.zone, 0.0, delay)

    def falls_on(self, day: dt.date) -> bool:
        if self.months:
            return day.day == 1 and day.month in self.months
        return self.weekday is None or day.weekday() == self.weekday

    def next_run(self, now: dt.datetime) -> dt.datetime:
        """The first moment after `now`, in UTC."""
        zone = dt.timezone.utc if self.zone == "UTC" else zoneinfo.ZoneInfo(self.zone)
        first = now.astimezone(zone).date()
        for number in range(DAYS):
            day = first + dt.timedelta(days=number)
            for hour, minute in self.times if self.falls_on(day) else ():
                moment = dt.datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
                if moment > now:
                    return moment.astimezone(dt.timezone.utc)
        raise AssertionError("unreachable: each calendar has a run within a year")

    def on_calendar(self) -> list[str]:
        """Values of OnCalendar= (systemd.time)."""
        day = "*-*-*"
        if self.weekday is not None:
            day = f"{WEEKDAYS[self.weekday]} {day}"
        if self.months:
            every = len(self.months) == 12
            day = f"*-{'*' if every else ','.join(f'{month:02d}' for month in self.months)}-01"
        return [f"{day} {hours}:{minutes}:00 {self.zone}" for hours, minutes in _grouped(self.times)]

    def as_dict(self) -> dict[str, t.Any]:
        """For the program that runs jobs where there is no systemd."""
        return {
            "times": [list(time) for time in self.times],
            "zone": self.zone,
            "weekday": self.weekday,
            "months": list(self.months),
        }


def _grouped(times: t.Iterable[tuple[int, int]]) -> list[tuple[str, str]]:
    """(hours, minutes) so that all of one with all of the other are the times."""
    by_hour: dict[int, list[int]] = {}
    for hour, minute in sorted(times):
        by_hour.setdefault(hour, []).append(minute)
    found: dict[tuple[int, ...], list[int]] = {}
    for hour, minutes in by_hour.items():
        found.setdefault(tuple(minutes), []).append(hour)
    return [
        ("*" if len(hours) == 24 else ",".join(f"{hour:02d}" for hour in hours), ",".join(f"{m:02d}" for m in minutes))
        for minutes, hours in found.items()
    ]


def parse_calendar(given: t.Any, *, parameter: str) -> Calendar | None:
    """A calendar from a list or text; None for never and for nothing.

    Raises:
        BackupError: naming what can't be read, or a time that a day of the coming year doesn't have.
    """
    words = given if isinstance(given, (list, tuple)) else [] if given is None else [given]
    text = ",".join(str(word).strip() for word in words if str(word).strip())
    if text.lower() in ("", NEVER):
        return None
    prefix, rest = "daily", text
    found = _PREFIX.match(text)
    if found:
        prefix, rest = found[1].lower(), found[2].strip()
    if re.match(r"\d+(\.\d+)? *[a-z]+\Z", rest):
        calendar = Calendar(text, _of_interval(rest, parameter, alone=found is None))
    elif rest.isdigit():
        raise BackupError(f"{parameter}: {text}: a number", hint=f'In YAML 14:00 is 840: write "14:00". {_HINT}')
    else:
        table = parse_timetable(rest, parameter=parameter) if ":" in rest else None
        if table is None or not table.times:
            raise BackupError(f"{parameter}: {text}: no time of day", hint=_HINT)
        names = [name.lower() for name in WEEKDAYS]
        calendar = Calendar(
            text,
            table.times,
            table.zone,
            names.index(prefix) if prefix in names else None,
            MONTHLY.get(prefix, ()),
        )
    _refuse_missing(calendar, parameter)
    return calendar


def _of_interval(text: str, parameter: str, *, alone: bool) -> tuple[tuple[int, int], ...]:
    try:
        seconds = seconds_of(text)
    except ValueError as exc:
        raise BackupError(f"{parameter}: {exc}", hint=_HINT) from exc
    # Only so is a run at the same times of each day, and one that was missed can be caught up.
    whole = seconds >= 60 and seconds % 60 == 0
    if not whole or not alone or 86400 % seconds or (3600 % seconds and seconds % 3600):
        raise BackupError(
            f"{parameter}: {text}: doesn't divide an hour or a day into whole minutes",
            hint="Take 5, 10, 15, 20 or 30 min, or 1, 2, 3, 4, 6, 8, 12 or 24 h.",
        )
    return tuple((at // 60, at % 60) for at in range(0, 1440, int(seconds) // 60))


def _refuse_missing(calendar: Calendar, parameter: str) -> None:
    """A time that is skipped when clocks go forward is a run that systemd and cron leave out."""
    if calendar.zone == "UTC":
        return
    zone = zoneinfo.ZoneInfo(calendar.zone)
    today = dt.datetime.now(zone).date()
    for number in range(DAYS):
        day = today + dt.timedelta(days=number)
        for hour, minute in calendar.times if calendar.falls_on(day) else ():
            local = dt.datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
            if local.astimezone(dt.timezone.utc).astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None):
                raise BackupError(
                    f"{parameter}: {calendar.text}: {day} has no {hour:02d}:{minute:02d}, as clocks go forward",
                    hint="That run would be left out. Write the time in UTC, or another one.",
                )
