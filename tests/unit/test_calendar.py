# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""When jobs run: what operators write, against systemd's own reckoning and against what cron's runner reckons."""

from __future__ import annotations

import datetime as dt
import importlib.util
import re
import shutil
import subprocess
import typing as t
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils._calendar import Calendar, parse_calendar
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._jobs import problems_of

RUNNER = Path(__file__).resolve().parents[2] / "roles/mazevault_schedule/files/run.py"
NOW = dt.datetime(2026, 11, 23, 23, 6, 40, tzinfo=dt.timezone.utc)
USUAL = {
    "02:00,14:00": ["*-*-* 02,14:00:00 UTC"],
    "15 min": ["*-*-* *:00,15,30,45:00 UTC"],
    "6 h": ["*-*-* 00,06,12,18:00:00 UTC"],
    ":15": ["*-*-* *:15:00 UTC"],
    "Sun 04:00": ["Sun *-*-* 04:00:00 UTC"],
    "monthly 05:00": ["*-*-01 05:00:00 UTC"],
    "quarterly 05:00": ["*-01,04,07,10-01 05:00:00 UTC"],
    "04:30,16:30": ["*-*-* 04,16:30:00 UTC"],
    "01:10,02:20": ["*-*-* 01:10:00 UTC", "*-*-* 02:20:00 UTC"],
    "00:30 Europe/Prague": ["*-*-* 00:30:00 Europe/Prague"],
}


def calendar(text: t.Any) -> Calendar:
    found = parse_calendar(text, parameter="when")
    assert found is not None
    return found


def runner() -> t.Any:
    """The program that a schedule starts, as a module."""
    spec = importlib.util.spec_from_file_location("scheduled_run", RUNNER)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("text", USUAL)
def test_what_is_written_is_what_systemd_gets(text: str) -> None:
    assert calendar(text).on_calendar() == USUAL[text]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze isn't on this machine")
@pytest.mark.parametrize("text", USUAL)
def test_systemd_reckons_the_same(text: str) -> None:
    found = calendar(text)
    begin = dt.datetime.now(dt.timezone.utc)
    done = subprocess.run(
        ["systemd-analyze", "calendar", *found.on_calendar()],
        env={"TZ": "UTC", "LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    moments = re.findall(r"Next elapse: \w+ (\S+ \S+) UTC", done.stdout)
    soonest = min(dt.datetime.fromisoformat(moment).replace(tzinfo=dt.timezone.utc) for moment in moments)
    assert soonest in (found.next_run(begin), found.next_run(dt.datetime.now(dt.timezone.utc)))


def test_lists_and_text_are_the_same() -> None:
    assert calendar(["02:00", "14:00"]).times == calendar("02:00, 14:00").times == ((2, 0), (14, 0))


@pytest.mark.parametrize("text", [None, "", [], "never", "Never"])
def test_never(text: t.Any) -> None:
    assert parse_calendar(text, parameter="when") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("noon", "when: noon: no time of day"),
        ("25:00", "when: 25:00: no time of day"),
        ("7 min", "when: 7 min: doesn't divide an hour"),
        ("90 min", "when: 90 min: doesn't divide an hour"),
        ("30 s", "when: 30 s: doesn't divide an hour"),
        ("Sun 6 h", "when: 6 h: doesn't divide"),
        (840, "when: 840: a number"),
        ("Sun", "when: Sun: no time of day"),
        ("02:00 Europe/Nowhere", "when: "),
        # Clocks go forward there at two o'clock, and systemd leaves that run out.
        ("02:30 Europe/Prague", "has no 02:30, as clocks go forward"),
    ],
)
def test_bad_times_are_named(text: t.Any, said: str) -> None:
    with pytest.raises(BackupError) as caught:
        parse_calendar(text, parameter="when")
    assert said in caught.value.msg and caught.value.hint


@given(st.sampled_from(sorted(USUAL)), st.datetimes(dt.datetime(2026, 1, 1), dt.datetime(2028, 1, 1)))
def test_the_runner_of_cron_reckons_the_same(text: str, moment: dt.datetime) -> None:
    """The last run before a moment has no other one between itself and that moment."""
    now, found = moment.replace(tzinfo=dt.timezone.utc), calendar(text)
    last = runner().latest(found.as_dict(), now)
    assert last <= now < found.next_run(now)
    assert found.next_run(last - dt.timedelta(seconds=1)) == last
    assert found.next_run(last) == found.next_run(now)


def test_once_a_day_can_not_keep_24_hours() -> None:
    sets = [{"recovery_point": "2026-11-23T02:00:00Z", "published_at": "2026-11-23T02:40:00Z"}]
    said = [{"name": "vault1", "sets": sets}]

    def problems(text: str, **given: t.Any) -> list[str]:
        return problems_of(given.get("said", said), given.get("objectives", {}), calendar(text), delay=300, now=NOW)

    (problem,) = problems("02:00")
    assert problem.startswith("vault1: Database corruption: RPO < 24 h 0 min: the schedule can't meet it: 24 h 5 min")
    assert "40 min for one" in problem
    assert problems("02:00,14:00") == []
    assert problems("02:00", said=[{"name": "vault1"}]), "the times alone are too far apart"
    assert problems("6 h", objectives={"database_corruption": {"rpo": 6 * 3600}})
    pinned = [{"name": "vault1", "policy": {"objectives": {"database_corruption": {"rpo": "6 h"}}}}]
    assert problems("02:00,14:00", said=pinned)
    assert problems_of(said, {}, None, delay=0, now=NOW) == [
        "no backup is scheduled, so nothing that is promised can be kept by this schedule"
    ]
