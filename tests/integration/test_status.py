# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""status.yml over installations with sets, without, unreachable, and gone; by hand and as a scheduler runs it."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import sys
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _ledger
from ansible_collections.mazevault.backup.plugins.module_utils._evidence import write_evidence
from ansible_collections.mazevault.backup.plugins.module_utils._objectives import Terms, judge_installation
from ansible_collections.mazevault.backup.plugins.module_utils._scenarios import SEGMENTS
from ansible_collections.mazevault.backup.plugins.module_utils._signature import Signer
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust
from support import jobs
from support.fake_sets import Site
from support.flow import FULL
from support.keys import signing_key
from support.plays import Place, Play, tree_state

HOURS = dt.timedelta(hours=1)
FILES = {"status.html", "status.json", "mazevault_backup.prom", "mazevault_backup.rules.yml"}
# Nobody listens there.
SILENT = {
    "ansible_connection": "ssh",
    "ansible_host": "127.0.0.1",
    "ansible_port": 1,
    "ansible_ssh_common_args": "-F none",
}


@dataclass(frozen=True)
class Fleet:
    """vault1 with two sets, vault2 with none, and the control node's own folder."""

    folder: Path
    site: Site

    @property
    def reports(self) -> Path:
        return self.folder / "reports"

    def hosts(self) -> dict[str, dict[str, t.Any]]:
        common = {"mazevault_signing_key": signing_key(), "mazevault_witness_folder": str(self.site.witness)}
        common["mazevault_monitoring_folder"] = str(self.reports)
        return {
            "vault1": {"mazevault_backup_root": str(self.site.root), **common},
            "vault2": {"mazevault_backup_root": str(self.folder / "empty"), **common},
        }

    def play(self, *arguments: str, hosts: dict[str, dict[str, t.Any]] | None = None, **extra: t.Any) -> Play:
        place = Place(self.folder)
        (self.folder / "home").mkdir(exist_ok=True)
        inventory = place.write_inventory(hosts if hosts is not None else self.hosts())
        return place.run("status", inventory, *arguments, extra=extra)

    def status(self) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", json.loads((self.reports / "status.json").read_bytes()))

    def verdicts(self) -> dict[str, str]:
        return {one["name"]: one["verdict"] for one in self.status()["installations"]}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = Site(tmp_path_factory.mktemp("site"))
    for age in (13 * HOURS, HOURS):
        sealed = site.publish(recovery_point=_clock.rfc3339(_clock.now() - age))
        site.module(
            "recovery_set_witness",
            installation="vault1",
            seen={
                **{key: sealed[key] for key in ("set_id", "sums_sha256", "ledger_head", "ledger_lines", "host_key")},
                "host_time": sealed["host_time"],
                "set_sequence": sealed["sequence"],
            },
        )
    return site


@pytest.fixture
def fleet(sets: Site, tmp_path: Path) -> Iterator[Fleet]:
    site = Site(tmp_path / "site")
    shutil.copytree(sets.folder, site.folder)
    yield Fleet(tmp_path, site)


def objective(status: dict[str, t.Any], host: str, scenario: str = "database_corruption") -> dict[str, t.Any]:
    (one,) = [found for found in status["installations"] if found["name"] == host]
    (row,) = [found for found in one["objectives"] if found["scenario"] == scenario]
    return t.cast("dict[str, t.Any]", row)


def test_it_shows_writes_and_repeats(fleet: Fleet) -> None:
    before = tree_state(fleet.site.root)
    done = fleet.play()
    assert done.rc == 0, done.output
    assert {path.name for path in fleet.reports.iterdir()} == FILES
    assert done.changed == ["Status | Judge what was seen, and show it"]
    assert fleet.verdicts() == {"vault1": "unproven", "vault2": "fail"}
    rpo = objective(fleet.status(), "vault1")["rpo"]
    assert rpo["verdict"] == "pass" and 3600 <= rpo["now_seconds"] < 2 * 3600
    assert 12 * 3600 <= rpo["worst_seconds"] < 14 * 3600
    assert objective(fleet.status(), "vault2")["rpo"]["reason"] == "there is no recovery set"
    (line,) = [line for line in done.output.splitlines() if line.startswith("  Database corruption") and "pass" in line]
    assert len(line) <= 100, "the table itself, without quotes around it"
    assert tree_state(fleet.site.root) == before, "looking changes nothing"
    again = fleet.play()
    assert again.rc == 0 and again.changed == []


def test_a_check_shows_and_writes_nothing(fleet: Fleet) -> None:
    done = fleet.play("--check", "--diff")
    assert done.rc == 0, done.output
    assert not fleet.reports.exists()
    assert "  Database corruption" in done.output and "Would write" in done.output


def test_a_host_that_does_not_answer_is_red(fleet: Fleet) -> None:
    """The first one of all, which makes the report."""
    done = fleet.play(hosts={"vault0": {**fleet.hosts()["vault1"], **SILENT}, **fleet.hosts()})
    assert {path.name for path in fleet.reports.iterdir()} == FILES, done.output
    assert fleet.verdicts() == {"vault0": "fail", "vault1": "unproven", "vault2": "fail"}
    (check,) = fleet.status()["installations"][0]["checks"]
    assert check["name"] == "reachable" and "connect" in check["reason"].lower(), check
    prom = (fleet.reports / "mazevault_backup.prom").read_text(encoding="utf-8")
    assert 'mazevault_backup_installation_up{installation="vault0"} 0' in prom.splitlines()


def test_a_host_whose_backups_cannot_be_read_is_red(fleet: Fleet) -> None:
    hosts = fleet.hosts()
    hosts["vault2"]["mazevault_backup_root"] = "not/absolute"
    done = fleet.play(hosts=hosts)
    assert fleet.verdicts() == {"vault1": "unproven", "vault2": "fail"}, done.output
    (check,) = fleet.status()["installations"][1]["checks"]
    assert "backup_root: not/absolute: not an absolute path" in check["reason"]


def test_an_installation_that_is_in_no_inventory_any_more_is_red(fleet: Fleet) -> None:
    only = {"vault1": fleet.hosts()["vault1"]}
    done = fleet.play(hosts=only, mazevault_monitoring_expected="vault1, vault3")
    assert done.rc == 0, done.output
    assert fleet.verdicts() == {"vault1": "unproven", "vault3": "fail"}


def test_a_policy_names_who_is_expected(fleet: Fleet) -> None:
    key = fleet.folder / "etc/host.key"
    key.parent.mkdir()
    shutil.copy(signing_key(), key)
    content = {"installations": ["vault1", "vault9"], "objectives": {"database_corruption": {"rpo": "6 h"}}}
    fleet.site.module("backup_policy", state="pinned", signing_key=str(key), content=content)
    hosts = {"vault1": {**fleet.hosts()["vault1"], "mazevault_signing_key": str(key)}}
    longer = {"database_corruption": {"rpo": "24 h"}}
    done = fleet.play(hosts=hosts, mazevault_objectives=longer)
    assert done.rc == 0, done.output
    assert fleet.verdicts() == {"vault1": "fail", "vault9": "fail"}
    row = objective(fleet.status(), "vault1")
    assert (row["rpo"]["target_seconds"], row["rpo"]["verdict"]) == (6 * 3600, "fail")
    assert any("policy overridden: objectives.database_corruption.rpo" in line for line in done.output.splitlines())


def test_a_scheduler_sees_red(fleet: Fleet) -> None:
    done = fleet.play(mazevault_monitoring_fail_on_missed=True)
    assert done.rc != 0
    assert "vault2: Database corruption: RPO: there is no recovery set" in done.failures[0].msg
    alone = {"vault1": fleet.hosts()["vault1"]}
    assert fleet.play(hosts=alone, mazevault_monitoring_fail_on_missed=True).rc == 0
    done = fleet.play(hosts=alone, mazevault_monitoring_fail_on_unproven=True)
    assert done.rc != 0 and "Not everything is proven" in done.failures[0].msg


def test_a_limited_run_replaces_no_report_of_all(fleet: Fleet) -> None:
    fleet.play()
    before = tree_state(fleet.reports)
    done = fleet.play("--limit", "vault1", mazevault_monitoring_expected="vault1,vault2")
    assert done.rc == 0, done.output
    assert tree_state(fleet.reports) == before
    assert "  Database corruption" in done.output and "only some of the installations were looked at" in done.output


def test_a_run_over_nothing_is_red(fleet: Fleet) -> None:
    done = fleet.play(mazevault_hosts="no_such_group")
    assert done.rc != 0 and "no host of the inventory matches" in done.failures[0].msg
    assert not fleet.reports.exists()


def test_a_misspelt_variable_is_red(fleet: Fleet) -> None:
    done = fleet.play(mazevault_objectivs={})
    assert done.rc != 0 and "mazevault_objectivs (did you mean mazevault_objectives?)" in done.failures[0].msg


def test_a_root_that_was_put_back_proves_nothing(fleet: Fleet, tmp_path: Path) -> None:
    ledger = fleet.site.ledger
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:1]))
    done = fleet.play()
    assert done.rc == 0, done.output
    assert objective(fleet.status(), "vault1")["rpo"]["verdict"] != "pass"
    assert fleet.verdicts()["vault1"] == "fail"


def test_drills_count_from_their_first_line_on(fleet: Fleet) -> None:
    root, trust = str(fleet.site.root), Trust(Signer(signing_key()))

    def rto() -> dict[str, t.Any]:
        info = fleet.site.module("recovery_set_info")
        found = judge_installation({"name": "vault1", **info}, Terms(now=_clock.now()))
        return t.cast("dict[str, t.Any]", found["objectives"][0]["rto"])

    def end(name: str) -> Path:
        times = {"started_at": _clock.rfc3339(_clock.now() - HOURS), "ended_at": _clock.rfc3339(_clock.now())}
        facts = {"scenario": "database_corruption", "seconds": 3600, "verdict": "pass", **times}
        return Path(write_evidence(root, name, "drill", {**facts, "segments": dict.fromkeys(SEGMENTS, 360)}, trust))

    write_evidence(root, "restore_1", "database put in place", {"database": "mazevault"}, trust)
    _ledger.append(root, "drill started", drill="drill_1", scenario="database_corruption")
    assert (rto()["verdict"], rto()["reason"]) == ("unproven", "drill drill_1 is under way")
    evidence = end("drill_1")
    assert (rto()["verdict"], rto()["worst_seconds"]) == ("pass", 3600)
    content = evidence.read_text(encoding="utf-8")
    evidence.write_text(content.replace("3600", "1800"), encoding="utf-8")
    assert rto()["reason"] == "drill drill_1 is under way", "what somebody changed is no end"
    evidence.write_text(content, encoding="utf-8")
    end("drill_2")
    assert rto()["verdict"] == "unproven", "without a line at its begin nobody knows how often it was tried"
    info = fleet.site.module("recovery_set_info")
    assert [(one["name"], one["what"]) for one in info["restores"]] == [("restore_1", "database put in place")]


def test_sets_can_be_asked_for(fleet: Fleet) -> None:
    """By component, level and age; what is selected for a restore is no matter of filters."""

    def asked(**params: t.Any) -> list[str]:
        return [one["set_id"] for one in fleet.site.module("recovery_set_info", **params)["sets"]]

    older, newer = (path.name for path in fleet.site.sets())
    assert asked() == asked(component="postgres") == asked(level="toc") == asked(level="restore") == [older, newer]
    assert asked(component="tls") == []
    assert asked(max_age="6 h") == [newer] and asked(min_age="6 h") == [older]
    assert asked(min_age="30 min", max_age="12 h", level="restore", component="postgres") == [newer]
    shutil.rmtree(fleet.site.root / "sets" / older)
    found = fleet.site.module("recovery_set_info", max_age="1 min", set="latest")
    assert (found["sets"], found["selected"]["set_id"]) == ([], newer)
    (gone,) = found["gone"]
    assert (gone["set_id"], gone["verdict"], gone["level"]) == (older, "pass", "restore")
    assert 12 * HOURS < _clock.now() - _clock.parse(gone["recovery_point"]) < 15 * HOURS
    refused = fleet.site.try_module("recovery_set_info", max_age="long")
    assert refused.rc != 0 and refused.result["msg"].startswith("max_age: long: not a span of time")


@pytest.mark.parametrize("answer", ["", None] if FULL else [None])
def test_a_survey_that_nobody_answered(fleet: Fleet, answer: str | None) -> None:
    given = {
        "mazevault_backup_root",
        "mazevault_signing_key",
        "mazevault_witness_folder",
        "mazevault_monitoring_folder",
    }
    extra = dict.fromkeys(set(jobs.public_variables()) - given, answer)
    job = run_job(fleet, extra)
    assert (job.status, job.failures) == ("successful", []), job.output[-3000:]
    assert job.artifacts["mazevault_result_status"] == {"vault1": "unproven", "vault2": "fail"}


def test_a_survey_of_texts(fleet: Fleet) -> None:
    extra = {
        "mazevault_objectives": "{database_corruption: {rpo: 6 h}}",
        "mazevault_monitoring_review_days": "30",
        "mazevault_monitoring_schedule": "02:00, 14:00",
        "mazevault_monitoring_schedule_delay": "10 min",
        "mazevault_monitoring_fail_on_missed": "false",
        "mazevault_monitoring_expected": "vault1\nvault2",
        "mazevault_monitoring_alarm_after": "3600",
    }
    job = run_job(fleet, extra)
    assert (job.status, job.failures) == ("successful", []), job.output[-3000:]
    row = objective(fleet.status(), "vault1")
    assert (row["rpo"]["target_seconds"], row["schedule"]["verdict"], fleet.status()["review_days"]) == (
        21600,
        "fail",
        30,
    )
    assert run_job(fleet, {**extra, "mazevault_monitoring_fail_on_missed": "true"}).status == "failed"


def run_job(fleet: Fleet, extra: dict[str, t.Any]) -> jobs.Job:
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {name: {**local, **variables} for name, variables in fleet.hosts().items()}
    return jobs.run(fleet.folder, {"mazevault": {"hosts": hosts}}, "status", extra)
