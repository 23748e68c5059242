# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts: fail beats unproven beats pass, and nothing checked proves nothing."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.filter.verdict import FilterModule
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import (
    FAIL,
    LEVELS,
    PASS,
    REQUIRED_OF_POSTGRES,
    UNPROVEN,
    Check,
    combine,
    complete,
    conclude,
    conclusion_text,
    level_reached,
    require,
)

VERDICTS = (PASS, UNPROVEN, FAIL)
checks = st.lists(st.builds(Check, st.just("x"), st.sampled_from(LEVELS), st.sampled_from(VERDICTS)), max_size=12)


def ladder(*verdicts: str) -> list[Check]:
    """One check a level, from `toc` on."""
    return [Check("x", level, verdict) for level, verdict in zip(LEVELS, verdicts)]


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        ([], UNPROVEN),
        ([PASS], PASS),
        ([PASS, PASS], PASS),
        ([PASS, UNPROVEN], UNPROVEN),
        ([UNPROVEN, FAIL], FAIL),
        ([PASS, FAIL], FAIL),
        ([FAIL, UNPROVEN, PASS], FAIL),
    ],
)
def test_combine(seen: list[str], verdict: str) -> None:
    assert all(combine(order) == verdict for order in itertools.permutations(seen))


@pytest.mark.parametrize(
    ("verdicts", "wanted", "verdict", "level"),
    [
        ((), "toc", UNPROVEN, ""),
        ((PASS,), "toc", PASS, "toc"),
        ((PASS, PASS), "checksum", PASS, "checksum"),
        ((PASS, PASS, PASS, PASS), "restore", PASS, "restore"),
        ((PASS, PASS, PASS, PASS), "read", PASS, "restore"),
        ((PASS, PASS), "restore", UNPROVEN, "checksum"),
        ((PASS, UNPROVEN, PASS, PASS), "restore", UNPROVEN, "toc"),
        ((PASS, UNPROVEN, FAIL), "read", FAIL, "toc"),
        ((PASS, PASS, PASS, FAIL), "restore", FAIL, "read"),
        ((FAIL,), "restore", FAIL, ""),
        # a failure above the wanted level is still a failure
        ((PASS, PASS, FAIL), "checksum", FAIL, "checksum"),
        # a level that was left out proves nothing of itself
        ((UNPROVEN, PASS, PASS), "read", UNPROVEN, ""),
    ],
)
def test_conclude(verdicts: tuple[str, ...], wanted: str, verdict: str, level: str) -> None:
    assert conclude(ladder(*verdicts), wanted) == (verdict, level)


@given(checks, st.sampled_from(LEVELS))
def test_pass_means_that_every_level_up_to_the_wanted_one_was_checked_and_passed(
    found: list[Check], wanted: str
) -> None:
    verdict, level = conclude(found, wanted)
    if verdict == PASS:
        assert LEVELS.index(level) >= LEVELS.index(wanted)
        for needed in LEVELS[: LEVELS.index(wanted) + 1]:
            assert {check.verdict for check in found if check.level == needed} == {PASS}
    assert (verdict == FAIL) == any(check.verdict == FAIL for check in found)
    assert level == level_reached(found)


@given(checks, st.sampled_from(LEVELS), st.sampled_from(LEVELS))
def test_another_failure_never_helps(found: list[Check], wanted: str, where: str) -> None:
    assert conclude([*found, Check("y", where, FAIL)], wanted)[0] == FAIL
    doubted = conclude([*found, Check("y", wanted, UNPROVEN)], wanted)[0]
    assert doubted != PASS


def test_the_summary_names_the_reason() -> None:
    assert conclusion_text(PASS, "read", ladder(PASS, PASS, PASS)) == "pass: proven to level read"
    failed = [Check("checksums", "checksum", FAIL, "a.dump: changed"), Check("x", "read", UNPROVEN, "no manifest")]
    assert conclusion_text(FAIL, "toc", failed) == "fail: checksums: a.dump: changed"
    assert conclusion_text(UNPROVEN, "toc", failed) == "unproven: x: no manifest"
    assert conclusion_text(UNPROVEN, "", []) == "unproven: nothing was checked"


def test_a_check_leaves_out_what_is_empty() -> None:
    assert Check("x", "toc", PASS).as_dict() == {"name": "x", "level": "toc", "verdict": "pass"}


# what is required


def proven(level: str) -> list[Check]:
    """Every required check of a database's proof up to a level, passed."""
    needed = LEVELS[: LEVELS.index(level) + 1]
    return [Check(name, rank, PASS) for rank in needed for name in REQUIRED_OF_POSTGRES[rank]]


@pytest.mark.parametrize("level", LEVELS)
def test_with_every_required_check_a_level_is_reached(level: str) -> None:
    done = proven(level)
    assert require(done, level, REQUIRED_OF_POSTGRES) == done
    assert conclude(done, level) == (PASS, level)


@pytest.mark.parametrize("gone", [(level, name) for level in LEVELS for name in REQUIRED_OF_POSTGRES[level]])
def test_without_any_one_of_them_it_is_not(gone: tuple[str, str]) -> None:
    left = [check for check in proven("restore") if (check.level, check.name) != gone]
    verdict, level = conclude(require(left, "restore", REQUIRED_OF_POSTGRES), "restore")
    assert verdict == UNPROVEN
    assert LEVELS.index(gone[0]) == (LEVELS.index(level) + 1 if level else 0)


def test_a_level_that_has_said_why_gets_no_list_of_what_is_missing() -> None:
    checks = [Check("contents", "toc", PASS), Check("checksums", "checksum", UNPROVEN, "no hash was recorded")]
    assert require(checks, "restore", REQUIRED_OF_POSTGRES) == checks


def test_what_is_not_wanted_is_not_required() -> None:
    assert require(proven("toc"), "toc", REQUIRED_OF_POSTGRES) == proven("toc")
    assert [check.name for check in complete([], {"read": ["rows"]})] == ["rows"]


@pytest.mark.parametrize(
    ("given", "required", "verdict"),
    [
        ({"a": PASS, "b": PASS}, ["a", "b"], PASS),
        ({"a": PASS}, ["a", "b"], UNPROVEN),
        ({"a": PASS, "b": FAIL}, ["a"], FAIL),
        ({}, [], UNPROVEN),
        ({"a": "ok"}, ["a"], UNPROVEN),
        ({"a": None}, [], UNPROVEN),
    ],
)
def test_the_filter_for_playbooks(given: dict[str, str], required: list[str], verdict: str) -> None:
    assert FilterModule().filters()["verdict"](given, required) == verdict
