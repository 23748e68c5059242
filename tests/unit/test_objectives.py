# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Made-up histories and the verdicts that they must have."""

from __future__ import annotations

import datetime as dt
import typing as t
import zoneinfo
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils._drills import judge_rto, parse_drill
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._exposure import Copy, Point, expose
from ansible_collections.mazevault.backup.plugins.module_utils._objectives import Terms, judge_installation
from ansible_collections.mazevault.backup.plugins.module_utils._policy import SCENARIOS
from ansible_collections.mazevault.backup.plugins.module_utils._scenarios import (
    SPECIFICATION,
    Need,
    parse_objectives,
    targets_of,
)
from ansible_collections.mazevault.backup.plugins.module_utils._status import missed, report_of
from ansible_collections.mazevault.backup.plugins.module_utils._timetable import parse_timetable
from support.histories import HOURS, MINUTES, NOW, UTC, History, a_copy, a_drill, a_set, every, text

DAY = 24 * HOURS
HOST = Need()


def judged(history: History, **terms: t.Any) -> dict[str, t.Any]:
    return judge_installation(history.said(), Terms(now=NOW, **terms))


def row(found: dict[str, t.Any], scenario: str = "database_corruption") -> dict[str, t.Any]:
    (own,) = [one for one in found["objectives"] if one["scenario"] == scenario]
    return t.cast("dict[str, t.Any]", own)


def twice_a_day(days: float = 20, **more: t.Any) -> list[dict[str, t.Any]]:
    return [a_set(at, **more) for at in every(12 * HOURS, days=days, until=NOW - 3 * HOURS)]


def test_the_table_is_the_specifications() -> None:
    hours = {one.name: (one.rpo / 3600, one.rto / 3600, one.rto_kubernetes) for one in SPECIFICATION}
    assert hours == {
        "database_corruption": (24, 4, None),
        "node_failure": (24, 4, 7200),
        "datacentre_failure": (1, 8, None),
        "key_loss": (0, 2, None),
        "ransomware": (24, 8, None),
    }
    assert tuple(hours) == SCENARIOS


# Data lost


def test_two_runs_a_day_meet_it() -> None:
    rpo = row(judged(History(sets=twice_a_day())))["rpo"]
    assert (rpo["verdict"], rpo["worst_seconds"], rpo["now_seconds"]) == ("pass", 12 * 3600 + 600, 3 * 3600)


def test_one_run_a_day_misses_it_by_what_it_takes() -> None:
    sets = [a_set(at) for at in every(DAY, days=9, until=NOW - HOURS)]
    rpo = row(judged(History(sets=sets)))["rpo"]
    assert (rpo["verdict"], rpo["worst_seconds"]) == ("fail", 24 * 3600 + 600)
    assert rpo["reason"].startswith("24 h 10 min until ")


def test_the_running_exposure_counts() -> None:
    sets = [a_set(at) for at in every(12 * HOURS, days=9, until=NOW - 25 * HOURS)]
    rpo = row(judged(History(sets=sets)))["rpo"]
    assert (rpo["verdict"], rpo["worst_seconds"], rpo["now_seconds"]) == ("fail", 25 * 3600, 25 * 3600)
    assert rpo["reason"].startswith("25 h 0 min now")


def test_a_set_at_two_that_takes_forty_minutes_and_is_copied_at_a_quarter_past() -> None:
    """02:00 to 02:40, fetched at 03:15, there and proven at 03:25: the next day's loss is 25 h 25 min."""
    sets = []
    for number in range(5):
        at = dt.datetime(2026, 11, 18 + number, 2, 0, tzinfo=UTC)
        sets.append(a_set(at, took=40 * MINUTES, copies=[a_copy(at + 85 * MINUTES)]))
    found = judge_installation(
        History(sets=sets).said(),
        Terms(now=sets_end(sets) + 2 * HOURS, backups=parse_timetable("02:00", parameter="x")),
    )
    assert row(found, "node_failure")["rpo"]["worst_seconds"] == (25 * 60 + 25) * 60
    assert row(found)["rpo"]["worst_seconds"] == (24 * 60 + 40) * 60
    assert row(found, "node_failure")["rpo"]["reason"].startswith("25 h 25 min until ")


def sets_end(sets: list[dict[str, t.Any]]) -> dt.datetime:
    return dt.datetime.fromisoformat(sets[-1]["published_at"].replace("Z", "+00:00"))


@pytest.mark.parametrize(
    ("day", "hours"), [((2026, 10, 24), 25), ((2026, 3, 28), 23)], ids=["winter time begins", "summer time begins"]
)
def test_a_day_is_as_long_as_it_was(day: tuple[int, int, int], hours: int) -> None:
    """A cron table in local time: the night of the change has an hour more, or less."""
    prague = zoneinfo.ZoneInfo("Europe/Prague")
    early = dt.datetime(*day, 4, 0, tzinfo=prague)
    local = dt.datetime(*(early + DAY).timetuple()[:3], 4, 0, tzinfo=prague)
    sets = [{**a_set(at), "recovery_point": at.isoformat()} for at in (early, local)]
    now = local.astimezone(UTC) + HOURS
    rpo = row(judge_installation(History(sets=sets).said(), Terms(now=now)))["rpo"]
    assert rpo["worst_seconds"] == hours * 3600 + 600
    assert rpo["verdict"] == ("fail" if hours == 25 else "pass")


def test_nothing_at_all_is_missed_and_says_so() -> None:
    rpo = row(judged(History()))["rpo"]
    assert (rpo["verdict"], rpo["reason"]) == ("fail", "there is no recovery set")


def test_what_was_never_proven_is_unproven() -> None:
    rpo = row(judged(History(sets=twice_a_day(level="checksum"))))["rpo"]
    assert rpo["verdict"] == "unproven"
    assert "proven is checksum, which is less than a restore" in rpo["reason"]


def test_unproven_sets_that_come_too_late_are_missed_all_the_same() -> None:
    sets = [a_set(at, level="checksum") for at in every(2 * DAY, days=8, until=NOW - HOURS)]
    assert row(judged(History(sets=sets)))["rpo"]["verdict"] == "fail"


def test_a_gap_that_only_unproven_sets_fill_is_unproven() -> None:
    sets = twice_a_day()
    for place in (10, 11):
        sets[place] = a_set(NOW - 3 * HOURS - (40 - place) * 12 * HOURS, level="read", postgres={})
    rpo = row(judged(History(sets=sets)))["rpo"]
    assert (rpo["verdict"], rpo["worst_seconds"]) == ("unproven", 36 * 3600 + 600)


def test_failed_sets_never_count() -> None:
    sets = twice_a_day()
    for place in (20, 21, 22):
        sets[place] = {**sets[place], "verdict": "fail"}
    rpo = row(judged(History(sets=sets)))["rpo"]
    assert (rpo["verdict"], rpo["worst_seconds"]) == ("fail", 48 * 3600 + 600)


def test_a_late_proof_is_usable_from_then_on() -> None:
    sets = twice_a_day()
    at = NOW - 3 * HOURS - 10 * 12 * HOURS
    sets[30] = a_set(at, proven_at=at + 11 * HOURS)
    assert row(judged(History(sets=sets)))["rpo"]["worst_seconds"] == 23 * 3600


def test_being_proven_again_later_moves_nothing() -> None:
    sets = twice_a_day()
    again = {"verdict": "pass", "level": "restore", "at": text(NOW - MINUTES)}
    proven = [{**one, "proofs": [*one["proofs"], again], "proven_at": again["at"]} for one in sets]
    assert row(judged(History(sets=proven)))["rpo"] == row(judged(History(sets=sets)))["rpo"]


def test_a_set_that_was_read_counts_beside_one_of_its_kind_that_was_restored() -> None:
    sets = twice_a_day(days=6, level="read")
    sets[3] = {**sets[3], "level": "restore", "proofs": [{**sets[3]["proofs"][0], "level": "restore"}]}
    assert row(judged(History(sets=sets)))["rpo"]["verdict"] == "pass"
    other = {**sets[3], "postgres": {**sets[3]["postgres"], "schema_version": 126}}
    assert row(judged(History(sets=[*sets[:3], other, *sets[4:]])))["rpo"]["verdict"] == "unproven"
    old = twice_a_day(days=16, level="read")
    old[1] = {**old[1], "level": "restore", "proofs": [{**old[1]["proofs"][0], "level": "restore"}]}
    assert row(judged(History(sets=old)))["rpo"]["verdict"] == "unproven", "restored more than a week before"


def test_sets_of_the_future_count_for_nothing() -> None:
    found = judged(History(sets=[*twice_a_day(days=2), a_set(NOW + 2 * DAY)]))
    assert row(found)["rpo"]["now_seconds"] == 3 * 3600
    assert [check["verdict"] for check in found["checks"] if check["name"] == "clock"] == ["fail"]


def test_sets_without_a_database_are_no_recovery_points_of_it() -> None:
    sets = [{**one, "components": ["tls"]} for one in twice_a_day(days=2)]
    assert row(judged(History(sets=sets)))["rpo"]["reason"] == "there is no recovery set"


def test_sets_that_were_removed_still_tell_of_their_time() -> None:
    sets = twice_a_day(days=60)
    keys = ("set_id", "published_at", "recovery_point", "verdict", "level")
    gone = [{key: one[key] for key in keys} for one in sets[:60]]
    whole, pruned = judged(History(sets=sets)), judged(History(sets=sets[60:], more={"gone": gone}))
    assert row(pruned)["rpo"] == row(whole)["rpo"]
    bad = [one for place, one in enumerate(gone) if place not in (10, 11, 12)]
    assert row(judged(History(sets=sets[60:], more={"gone": bad})))["rpo"]["worst_seconds"] == 48 * 3600 + 600


def test_what_is_gone_is_not_what_could_be_restored_now() -> None:
    one = a_set(NOW - HOURS)
    gone = {key: one[key] for key in ("set_id", "published_at", "recovery_point", "verdict", "level")}
    rpo = row(judged(History(sets=[a_set(NOW - 30 * HOURS)], more={"gone": [gone]})))["rpo"]
    assert (rpo["verdict"], rpo["now_seconds"]) == ("fail", 30 * 3600)


def test_gaps_before_the_period_of_review_are_forgotten() -> None:
    old = [a_set(NOW - 130 * DAY), a_set(NOW - 120 * DAY)]
    sets = [*old, *[a_set(at) for at in every(12 * HOURS, days=119, until=NOW)]]
    assert row(judged(History(sets=sets)))["rpo"]["verdict"] == "pass"
    assert row(judged(History(sets=sets), review_days=125))["rpo"]["verdict"] == "fail"


@pytest.mark.parametrize(
    ("scenario", "copy", "verdict"),
    [
        ("node_failure", None, "unproven"),
        ("node_failure", {"reach": "other_host"}, "pass"),
        ("node_failure", {"reach": "other_site"}, "pass"),
        ("node_failure", {"reach": "other_host", "proven_at": None}, "unproven"),
        ("node_failure", {"reach": "host"}, "unproven"),
        ("datacentre_failure", {"reach": "other_host"}, "unproven"),
        ("datacentre_failure", {"reach": "other_site"}, "fail"),
        ("ransomware", {"reach": "other_site"}, "unproven"),
        ("ransomware", {"reach": "other_host", "immutable": True}, "unproven"),
        ("ransomware", {"reach": "other_host", "immutable": True, "by_another": True}, "pass"),
    ],
)
def test_a_copy_must_be_out_of_reach(scenario: str, copy: dict[str, t.Any] | None, verdict: str) -> None:
    sets = []
    for at in every(12 * HOURS, days=9, until=NOW - 2 * HOURS):
        sets.append(a_set(at, copies=[{**a_copy(at + 30 * MINUTES), **copy}] if copy else []))
    assert row(judged(History(sets=sets)), scenario)["rpo"]["verdict"] == verdict


def test_what_this_version_cannot_have_is_unproven_and_says_why() -> None:
    found = judged(History(sets=twice_a_day()))
    reasons = {one["scenario"]: one["rpo"]["reason"] for one in found["objectives"][1:]}
    assert reasons == {
        "node_failure": "no copy on another host is known",
        "datacentre_failure": "no copy at another site is known",
        "key_loss": "which keys are in use and in escrow isn't known",
        "ransomware": "no immutable copy on another host is known",
    }
    assert {one["rto"]["reason"] for one in found["objectives"]} == {"no drill yet"}
    assert found["verdict"] == "unproven"


def test_a_host_that_contradicts_its_witness_proves_nothing() -> None:
    trust = {"verdict": "fail", "summary": "fail: an older copy took its place"}
    found = judged(History(sets=twice_a_day(), more={"trust": trust}))
    assert row(found)["rpo"]["verdict"] == "unproven"
    assert found["verdict"] == "fail"


# Keys


@pytest.mark.parametrize(
    ("late", "verdict", "worst"),
    [(-HOURS, "pass", 0.0), (0 * HOURS, "pass", 0.0), (MINUTES, "fail", 60.0), (None, "fail", 10 * 86400.0)],
)
def test_a_generation_is_in_escrow_before_it_is_used(late: dt.timedelta | None, verdict: str, worst: float) -> None:
    used = NOW - 10 * DAY
    kept = text(used + late) if late is not None else None
    said = {"id": "g1", "in_use_from": text(used), "escrow_vault_at": text(used - DAY), "escrow_key_at": kept}
    rpo = row(judged(History(more={"generations": [said]})), "key_loss")["rpo"]
    assert (rpo["verdict"], max(rpo["worst_seconds"], 0.0)) == (verdict, worst)


def test_one_half_of_the_escrow_is_none() -> None:
    said = {"id": "g1", "in_use_from": text(NOW - DAY), "escrow_vault_at": text(NOW - 2 * DAY)}
    rpo = row(judged(History(more={"generations": [said]})), "key_loss")["rpo"]
    assert (rpo["verdict"], rpo["reason"]) == ("fail", "generation g1 is in use and not in both halves of the escrow")


# Time to service


def rto(*drills: dict[str, t.Any], **terms: t.Any) -> dict[str, t.Any]:
    found = judged(History(sets=twice_a_day(), more={"drills": list(drills)}), **terms)
    return t.cast("dict[str, t.Any]", row(found)["rto"])


def test_the_slowest_of_many_drills_counts() -> None:
    days = every(DAY, days=9)
    quick = [a_drill(day, took=HOURS) for day in days]
    assert (rto(*quick)["verdict"], rto(*quick)["worst_seconds"]) == ("pass", 3600)
    slow = [*quick[:4], a_drill(days[4] + HOURS, took=5 * HOURS), *quick[4:]]
    assert (rto(*slow)["verdict"], rto(*slow)["worst_seconds"]) == ("fail", 5 * 3600)


def test_a_drill_that_never_ended_is_missed_beside_a_hundred_good_ones() -> None:
    good = [a_drill(NOW - number * 12 * HOURS) for number in range(1, 101)]
    found = rto(*good, a_drill(NOW - 30 * DAY, took=None))
    assert found["verdict"] == "fail" and found["reason"].endswith("began on 2026-10-24 and never ended")


def test_a_drill_under_way_is_neither() -> None:
    found = rto(a_drill(NOW - HOURS, took=None))
    assert (found["verdict"], "is under way" in found["reason"]) == ("unproven", True)
    assert rto(a_drill(NOW - 4 * HOURS, took=None))["verdict"] == "fail", "it has taken too long already"


def test_a_failed_drill_is_no_slow_one() -> None:
    assert rto(a_drill(NOW - DAY), a_drill(NOW - 2 * DAY, verdict="fail"))["verdict"] == "fail"
    assert rto(a_drill(NOW - DAY, verdict="unproven"))["verdict"] == "unproven"


def test_what_a_drill_left_out_is_named() -> None:
    found = rto(a_drill(NOW - DAY, left_out=["obtain_identity", "provision"]))
    assert found["verdict"] == "unproven"
    assert found["reason"].endswith("left out: obtain identity, provision")
    granted = {"obtain_identity": 3600.0, "provision": 1800.0}
    found = rto(a_drill(NOW - DAY, left_out=["obtain_identity", "provision"]), allowances=granted)
    assert (found["verdict"], found["worst_seconds"]) == ("pass", 3.5 * 3600)
    granted["provision"] = 3600.0
    assert rto(a_drill(NOW - DAY, left_out=["obtain_identity", "provision"]), allowances=granted)["verdict"] == "fail"


def test_a_drill_expires() -> None:
    found = rto(a_drill(NOW - 101 * DAY))
    assert found["verdict"] == "unproven" and "101 d" in found["reason"]


def test_a_clock_that_was_put_back_makes_no_drill_quick() -> None:
    assert rto(a_drill(NOW - DAY, took=HOURS, seconds=5 * 3600.0))["worst_seconds"] == 5 * 3600
    backwards = {**a_drill(NOW - DAY), "ended_at": text(NOW - 2 * DAY)}
    found = judged(History(sets=twice_a_day(), more={"drills": [backwards, a_drill(NOW - 3 * DAY)]}))
    (check,) = [one for one in found["checks"] if one["name"] == "drills"]
    assert check["verdict"] == "unproven" and "ended before it began" in check["reason"]


def test_kubernetes_has_less_time_for_a_node() -> None:
    drills = {"drills": [a_drill(NOW - DAY, scenario="node_failure", took=3 * HOURS)]}
    assert row(judged(History(more=drills)), "node_failure")["rto"]["verdict"] == "pass"
    more = {**drills, "runtime": "kubernetes"}
    assert row(judged(History(more=more)), "node_failure")["rto"]["verdict"] == "fail"


# Schedules


@pytest.mark.parametrize(
    ("schedule", "delay", "verdict", "least"),
    [
        ("02:00", 0, "fail", 24 * 60 + 10),
        ("02:00,14:00", 0, "pass", 12 * 60 + 10),
        (["02:00", "14:00"], "10 min", "pass", 12 * 60 + 20),
        ("01:00, 02:00", 0, "pass", 23 * 60 + 10),
        ("01:00, 02:00", "50 min", "fail", 24 * 60),
        ("02:00 Europe/Prague", 0, "fail", 25 * 60 + 10),
        ("12:30 Europe/Prague, 00:30", 0, "pass", 13 * 60 + 10),
        ("6 h", 0, "pass", 6 * 60 + 10),
        ("24 h", 0, "fail", 24 * 60 + 10),
    ],
)
def test_what_a_schedule_can_meet(schedule: t.Any, delay: t.Any, verdict: str, least: int) -> None:
    table = parse_timetable(schedule, parameter="schedule", delay=delay)
    found = row(judged(History(sets=twice_a_day()), backups=table))["schedule"]
    assert (found["verdict"], found["worst_seconds"]) == (verdict, least * 60)


def test_a_schedule_that_cannot_meet_it_is_red_before_anything_is_missed() -> None:
    found = judged(History(sets=twice_a_day()), backups=parse_timetable("02:00", parameter="schedule"))
    assert row(found)["rpo"]["verdict"] == "pass" and found["verdict"] == "fail"
    said = missed({"installations": [found]})
    assert said == [
        "vault1: Database corruption: SCHEDULE: the schedule can't meet it: 24 h 0 min between runs, 10 min for one"
    ]


def test_copies_take_their_time_too() -> None:
    tables = {
        "backups": parse_timetable("02:00,14:00", parameter="a"),
        "copies": parse_timetable(":15", parameter="b"),
    }
    found = judged(History(sets=twice_a_day()), **tables)
    assert row(found, "node_failure")["schedule"]["worst_seconds"] == (13 * 60 + 10) * 60
    assert row(found, "datacentre_failure")["schedule"]["verdict"] == "fail"
    alone = judged(History(sets=twice_a_day()), backups=tables["backups"])
    assert row(alone, "node_failure")["schedule"]["verdict"] == "unproven"


@pytest.mark.parametrize(
    "bad", ["25:00", "02:00 Nowhere/City", "soon", "02:00 UTC, 14:00 Europe/Prague", "1 s", "24:00"]
)
def test_a_schedule_that_is_none_is_refused(bad: str) -> None:
    with pytest.raises(BackupError, match="schedule: "):
        parse_timetable(bad, parameter="schedule")


def test_no_schedule_is_no_verdict() -> None:
    found = judged(History(sets=twice_a_day()))
    assert row(found)["schedule"]["verdict"] == "unproven"
    assert parse_timetable(None, parameter="x") is parse_timetable("", parameter="x") is None


# Targets


def test_the_operator_may_change_what_no_policy_pins() -> None:
    sets = twice_a_day()
    assert (
        row(judged(History(sets=sets), wanted=parse_objectives({"database_corruption": {"rpo": "12 h"}})))["rpo"][
            "verdict"
        ]
        == "fail"
    )
    longer = parse_objectives({"database_corruption": {"rpo": "2 d", "rto": ""}, "ransomware": None})
    assert row(judged(History(sets=sets), wanted=longer))["rpo"]["target_seconds"] == 2 * 86400


def test_a_policy_holds_against_longer_targets() -> None:
    policy = {"objectives": {"database_corruption": {"rpo": 43200.0}}}
    wanted = parse_objectives({"database_corruption": {"rpo": "24 h"}})
    found = judged(History(sets=twice_a_day(), more={"policy": policy}), wanted=wanted)
    assert row(found)["rpo"]["target_seconds"] == 43200 and row(found)["rpo"]["verdict"] == "fail"
    assert found["notes"] == ["policy overridden: objectives.database_corruption.rpo; the policy's target counts"]
    stricter = judged(
        History(more={"policy": policy}), wanted=parse_objectives({"database_corruption": {"rpo": "1 h"}})
    )
    assert row(stricter)["rpo"]["target_seconds"] == 3600 and stricter["notes"] == []


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"flood": {"rpo": 1}}, "objectives: flood: unknown"),
        ({"ransomware": {"rpo": "soon"}}, "objectives.ransomware.rpo: soon: not a span of time"),
        ({"ransomware": {"rpi": 1}}, "objectives.ransomware: rpi: unknown"),
        ({"ransomware": {"rpo": -1}}, "objectives.ransomware.rpo: -1: not 0 or more"),
        ({"ransomware": {"rto": float("nan")}}, "objectives.ransomware.rto: nan: not 0 or more"),
        ({"ransomware": 24}, "objectives.ransomware: 24: no dictionary"),
        ("24 h", "objectives: 24 h: no dictionary"),
    ],
)
def test_objectives_that_are_none_are_refused(bad: t.Any, said: str) -> None:
    with pytest.raises(BackupError) as refused:
        parse_objectives(bad)
    assert refused.value.msg.startswith(said)


# Pins


def test_what_is_pinned_and_until_when() -> None:
    end = NOW + 5 * DAY
    hold = {"why": "hold", "since": text(NOW), "by": "A. Person", "reason": "an audit", "until": text(end)}
    change = {"why": "pre_change", "since": text(NOW), "by": None, "reason": None, "until": None}
    sets = [*twice_a_day(days=2), a_set(NOW - HOURS, pinned=[hold, change])]
    found = judged(History(sets=sets))
    (pinned,) = found["pinned"]
    assert pinned["why"] == [
        f"held by A. Person until {text(end)}: an audit",
        "made before a change that nobody has confirmed yet",
    ]
    due = {one["what"].partition(": ")[2]: one["at"] for one in found["due"] if "mazevault_" in one["what"]}
    assert due.keys() == {"end of its hold", "confirm the change"} and due["confirm the change"] is None


# The fleet


def test_an_installation_that_vanished_is_red() -> None:
    policy = {"installations": ["vault1", "vault2"]}
    report = report_of([History(sets=twice_a_day(), more={"policy": policy}).said()], Terms(now=NOW))
    assert {one["name"]: one["verdict"] for one in report["installations"]} == {"vault1": "unproven", "vault2": "fail"}
    assert (report["verdict"], report["vanished"]) == ("fail", ["vault2"])
    assert missed(report) == ["vault2: reachable: expected, and in no inventory"]
    some = report_of([History(sets=twice_a_day(), more={"policy": policy}).said()], Terms(now=NOW), None)
    assert (some["verdict"], some["vanished"]) == ("unproven", [])


def test_a_host_that_does_not_answer_is_red() -> None:
    report = report_of([{"name": "vault1", "problem": "connection refused"}], Terms(now=NOW), ["vault1"])
    assert report["verdict"] == "fail" and missed(report) == ["vault1: reachable: connection refused"]
    assert {one["rpo"]["verdict"] for one in report["installations"][0]["objectives"]} == {"unproven"}


def test_no_installation_at_all_is_no_success() -> None:
    assert report_of([], Terms(now=NOW))["verdict"] == "unproven"


# What holds for any history

# In steps of an hour, so that things often happen at once.
moments = st.integers(0, 24 * 40).map(lambda hours: NOW - hours * HOURS)
spans = st.integers(0, 30).map(lambda hours: hours * HOURS)


@st.composite
def points(draw: st.DrawFn) -> Point:
    at, took = draw(moments), draw(spans)
    proven = draw(st.none() | spans.map(lambda span: at + took + span))
    copy = Copy("host", "host", at + took, proven, gone=draw(st.booleans()))
    return Point(f"{at:%s}", at, at + took, proven, draw(st.booleans()), (copy,))


def told(found: list[Point], **more: t.Any) -> float:
    worst = expose(found, HOST, start=NOW - 30 * DAY, now=NOW, **more).worst
    return worst.seconds if worst else float("inf")


@given(st.lists(points(), max_size=12))
def test_the_worst_exposure_is_that_of_the_worst_minute(found: list[Point]) -> None:
    """Asked for each moment just before something changes: how old is the newest point that was usable by then?"""
    usable = [(point.usable(HOST), point) for point in found]
    known = [(moment, point.at) for moment, point in usable if moment is not None and moment <= NOW]
    ages = []
    for moment in {moment for moment, _at in known if moment >= NOW - 30 * DAY}:
        before = [at for other, at in known if other < moment]
        after = [at for other, at in known if other <= moment]
        if before and max(after) > max(before):
            ages.append((moment - max(before)).total_seconds())
    there = [point.usable(HOST, now_there=True) for point in found]
    present = [point.at for moment, point in zip(there, found, strict=True) if moment is not None and moment <= NOW]
    if present:
        ages.append((NOW - max(present)).total_seconds())
    assert told(found) == max(ages, default=float("inf"))


@given(st.lists(points(), max_size=12), st.randoms())
def test_the_order_in_which_points_are_told_of_means_nothing(found: list[Point], random: t.Any) -> None:
    mixed = list(found)
    random.shuffle(mixed)
    assert told(mixed) == told(found)


@given(st.lists(points(), max_size=12))
def test_proofs_are_never_better_than_claims(found: list[Point]) -> None:
    """Over sets that are all there, as one that is gone may hide another's gap."""
    here = [replace(one, copies=(replace(one.copies[0], gone=False),)) for one in found]
    proven = expose(here, HOST, start=NOW - 30 * DAY, now=NOW).running
    said = expose(here, HOST, start=NOW - 30 * DAY, now=NOW, proven=False).running
    assert proven is None or (said is not None and said.seconds <= proven.seconds)


drills = st.builds(
    a_drill,
    moments,
    took=st.none() | spans,
    verdict=st.sampled_from(["pass", "fail", "unproven"]),
    left_out=st.lists(st.sampled_from(["fetch", "keys"]), max_size=2),
)


@given(st.lists(drills, max_size=6), drills)
def test_one_more_drill_never_hides_a_bad_one(said: list[dict[str, t.Any]], one: dict[str, t.Any]) -> None:
    rank = {"pass": 0, "unproven": 1, "fail": 2}

    def verdict(given_drills: list[dict[str, t.Any]]) -> str:
        parsed = [parse_drill({**drill, "name": f"d{place}"}) for place, drill in enumerate(given_drills)]
        return judge_rto(parsed, 4 * 3600.0, start=NOW - 100 * DAY, now=NOW).verdict

    if said and verdict(said) == "fail":
        assert verdict([*said, one]) == "fail"
    if said and rank[verdict([*said, one])] < rank[verdict(said)]:
        assert verdict(said) == "unproven" and not any(drill["ended_at"] for drill in said)


targets_by_scenario = st.dictionaries(
    st.sampled_from(SCENARIOS),
    st.fixed_dictionaries({}, optional={"rpo": st.floats(0, 1e6), "rto": st.floats(0, 1e6)}),
)


@given(targets_by_scenario, targets_by_scenario)
def test_no_wish_makes_a_target_longer_than_the_policys(wanted: t.Any, pinned: t.Any) -> None:
    targets, overridden = targets_of(wanted, pinned)
    for scenario, most in pinned.items():
        for name, seconds in most.items():
            assert getattr(targets[scenario], name) <= seconds
            wish = wanted.get(scenario, {}).get(name)
            assert (f"objectives.{scenario}.{name}" in overridden) == (wish is not None and wish > seconds)
