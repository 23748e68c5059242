# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A schedule in a folder of the test: written, changed, removed; systemd is asked what it thinks of the units."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import typing as t
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import fake_systemctl
from support.modules import Outcome, run_module
from support.plays import TOP, tree_state

RUNNER = (TOP / "roles/mazevault_schedule/files/run.py").read_text(encoding="utf-8")
JOBS = [
    {"name": "backup", "when": "02:00,14:00", "playbook": "backup.yml", "variables": {"mazevault_reason": "scheduled"}},
    {"name": "on_change", "when": "15 min", "playbook": "backup.yml"},
    {"name": "verify", "when": "Sun 04:00", "playbook": "verify.yml"},
    {"name": "replicate", "when": ":15", "playbook": "replicate.yml", "unless": "there is no playbook for it"},
    {"name": "status", "when": "never", "playbook": "status.yml"},
]
TIMERS = {f"mazevault-backup-{job}.timer" for job in ("backup", "on-change", "verify")}


@dataclass(frozen=True)
class Machine:
    """A folder that has what a schedule writes, and a systemctl that only remembers."""

    folder: Path

    @property
    def units(self) -> Path:
        return self.folder / "units"

    @property
    def home(self) -> Path:
        return self.folder / "lib/schedule"

    @property
    def log(self) -> Path:
        return self.folder / "log/mazevault-backup.log"

    def params(self) -> dict[str, t.Any]:
        return {
            "scope": "user",
            "manager": "systemd",
            "jobs": JOBS,
            "inventory": ["/srv/inventory one.yml"],
            "program": sys.executable,
            "runner": RUNNER,
            "folder": str(self.home),
            "unit_folder": str(self.units),
            "cron_file": str(self.folder / "cron"),
            "log_file": str(self.log),
            "logrotate_file": str(self.folder / "logrotate"),
        }

    def try_it(self, *, check: bool = False, **params: t.Any) -> Outcome:
        programs = self.folder / "programs"
        fake_systemctl.put_into(programs)
        env = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            fake_systemctl.BOOK: str(self.folder / "book.json"),
            "HOME": str(self.folder),
        }
        given = {name: value for name, value in {**self.params(), **params}.items() if value is not None}
        return run_module("backup_schedule", given, check=check, diff=True, env=env)

    def schedule(self, **params: t.Any) -> dict[str, t.Any]:
        done = self.try_it(**params)
        assert done.rc == 0, (done.result, done.stderr)
        return done.result

    def book(self) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", json.loads((self.folder / "book.json").read_bytes()))

    def state(self) -> dict[str, t.Any]:
        left_out = ("programs", "book.json")
        state = tree_state(self.folder)
        return {path: found[:3] + found[4:] for path, found in state.items() if not set(path.split("/")) & {*left_out}}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    folder = tmp_path / "machine"
    folder.mkdir()
    return Machine(folder)


def test_a_check_tells_it_all_and_writes_nothing(machine: Machine) -> None:
    before = machine.state()
    found = machine.schedule(check=True)
    assert found["changed"] is True and not (machine.folder / "book.json").exists()
    assert machine.state().keys() - {"machine/programs"} == before.keys()
    shown = {one["after_header"]: one["after"] for one in found["diff"] if "after_header" in one}
    real = machine.schedule()
    assert {path: Path(path).read_text(encoding="utf-8") for path in shown} == shown
    assert real["files"] == found["files"] == sorted(shown)
    assert {key: real[key] for key in ("jobs", "lines", "problems")} == {
        key: found[key] for key in ("jobs", "lines", "problems")
    }


def test_a_second_run_changes_nothing(machine: Machine) -> None:
    machine.schedule()
    state, book = machine.state(), machine.book()
    for check in (True, False):
        again = machine.schedule(check=check)
        assert again["changed"] is False and again["diff"] == []
    assert machine.state() == state and machine.book() == book


def test_what_is_written(machine: Machine) -> None:
    found = machine.schedule()
    assert {path.name for path in machine.units.glob("*.timer")} == TIMERS == set(machine.book()["running"])
    assert machine.book()["calls"] == [["--user", "daemon-reload"], ["--user", "enable", "--now", *sorted(TIMERS)]]
    assert {job["name"]: (bool(job["next"]), job["left_out"]) for job in found["jobs"]} == {
        "backup": (True, ""),
        "on_change": (True, ""),
        "verify": (True, ""),
        "replicate": (False, "there is no playbook for it"),
        "status": (False, "never"),
    }
    assert re.match(
        r"backup: 02:00,14:00: next run \d{4}-\d\d-\d\dT(02|14):00:00.000000Z, up to 5 min", found["lines"][0]
    )
    timer = (machine.units / "mazevault-backup-backup.timer").read_text(encoding="utf-8").splitlines()
    assert {"OnCalendar=*-*-* 02,14:00:00 UTC", "RandomizedDelaySec=300", "Persistent=true"} <= set(timer)
    settings = json.loads((machine.home / "jobs.json").read_bytes())
    assert settings["jobs"]["backup"]["argv"] == [
        sys.executable,
        "-i",
        "/srv/inventory one.yml",
        "backup.yml",
        "-e",
        '{"mazevault_reason": "scheduled"}',
    ]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (machine.home / "state", machine.log)}
    assert modes == {"state": 0o700, "mazevault-backup.log": 0o640}
    assert not [one for one in (machine.folder / "lib", machine.home) if one.stat().st_mode & 0o022]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze isn't on this machine")
@pytest.mark.parametrize("scope", ["user", "system"])
def test_systemd_takes_the_units(machine: Machine, scope: str) -> None:
    """A folder with a blank, a per cent sign and a dollar in its name, too."""
    told = {"mazevault_notify_mail_to": ["a@example.org"]}
    home = machine.folder / "50 % of $HOME"
    machine.schedule(scope=scope, folder=str(home), notify_playbook="notify.yml", notify_variables=told)
    units = sorted(map(str, machine.units.iterdir()))
    assert len(units) == 7, "three timers, three services and the notifier"
    named = [unit.replace("@.service", "@backup.service") for unit in units]
    shutil.copy(
        machine.units / "mazevault-backup-notify@.service", machine.units / "mazevault-backup-notify@backup.service"
    )
    done = subprocess.run(
        ["systemd-analyze", f"--{scope}", "--man=no", "--recursive-errors=one", "verify", *named],
        capture_output=True,
        encoding="utf-8",
        env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(machine.folder), "HOME": str(machine.folder)},
        check=False,
    )
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "mazevault" in line]
    assert (done.returncode, ours) == (0, []), done.stderr
    broken = machine.units / "mazevault-backup-backup.service"
    broken.write_text(broken.read_text(encoding="utf-8").replace("ExecStart=", "ExecStrat="), encoding="utf-8")
    worse = subprocess.run(
        ["systemd-analyze", f"--{scope}", "--man=no", "verify", str(broken)], capture_output=True, check=False
    )
    assert worse.returncode or b"ExecStrat" in worse.stderr, "the check itself sees what is wrong"
    user = [
        line for line in (machine.units / "mazevault-backup-verify.service").read_text().splitlines() if "User=" in line
    ]
    assert len(user) == (scope == "system")


def test_logrotate_and_cron(machine: Machine) -> None:
    machine.schedule(manager="cron")
    assert not machine.units.exists() or not list(machine.units.iterdir())
    lines = (machine.folder / "cron").read_text(encoding="utf-8").splitlines()
    assert [line.split()[:5] for line in lines if "--due" in line] == [["*/5", "*", "*", "*", "*"]]
    rule = (machine.folder / "logrotate").read_text(encoding="utf-8")
    assert f'"{machine.log}" {{' in rule and "copytruncate" not in rule and "create 0640" in rule
    assert not (machine.folder / "book.json").exists(), "systemd wasn't asked for anything"


def test_another_time_is_another_timer_and_nothing_else(machine: Machine) -> None:
    machine.schedule()
    jobs = [{**JOBS[0], "when": "6 h"}, *JOBS[1:]]
    found = machine.schedule(jobs=jobs)
    changed = {Path(one["after_header"]).name for one in found["diff"]}
    assert changed == {"mazevault-backup-backup.timer", "jobs.json"}
    timer = "mazevault-backup-backup.timer"
    assert machine.book()["calls"][-4:] == [
        ["--user", "daemon-reload"],
        ["--user", "stop", timer],
        ["--user", "clean", "--what=state", timer],
        ["--user", "restart", timer],
    ], "systemd would take an earlier time of the new ones for one that was missed"


def test_another_delay_is_the_same_times(machine: Machine) -> None:
    """A run that is due just now isn't forgotten."""
    machine.schedule()
    machine.schedule(delay="1 min")
    assert machine.book()["calls"][-2:] == [["--user", "daemon-reload"], ["--user", "restart", *sorted(TIMERS)]]


def test_what_cron_remembers_of_other_times_goes(machine: Machine) -> None:
    machine.schedule(manager="cron")
    for job in ("backup", "on_change", "verify"):
        (machine.home / f"state/{job}.stamp").write_text('{"started": "2026-01-01T02:00:07Z"}', encoding="utf-8")
    machine.schedule(manager="cron", jobs=[{**JOBS[0], "when": "08:00"}, JOBS[1]])
    assert [path.name for path in (machine.home / "state").iterdir()] == ["on_change.stamp"]


def test_a_job_that_is_left_out_goes(machine: Machine) -> None:
    machine.schedule()
    machine.schedule(jobs=JOBS[:2])
    assert {path.name for path in machine.units.glob("*verify*")} == set()
    assert "mazevault-backup-verify.timer" not in machine.book()["running"]
    calls = [call[1:] for call in machine.book()["calls"]]
    assert ["clean", "--what=state", "mazevault-backup-verify.timer"] in calls
    assert ["reset-failed", "mazevault-backup-verify.service"] in calls


def test_a_timer_that_somebody_stopped_runs_again(machine: Machine) -> None:
    machine.schedule()
    book = machine.book()
    book["running"].remove("mazevault-backup-verify.timer")
    (machine.folder / "book.json").write_text(json.dumps(book), encoding="utf-8")
    assert machine.schedule(check=True)["changed"] is True
    assert machine.schedule()["changed"] is True
    assert set(machine.book()["running"]) == TIMERS


def test_the_end_leaves_the_log_and_what_others_wrote(machine: Machine) -> None:
    machine.schedule()
    other = machine.try_it(
        name="mazevault-backup-eu", folder=str(machine.folder / "eu"), logrotate_file=None, log_file=None
    )
    assert other.rc == 0, other.result
    theirs = {path.name for path in machine.units.glob("mazevault-backup-eu-*")}
    foreign = machine.units / "mazevault-backup-own.timer"
    foreign.write_text("[Timer]\nOnCalendar=daily\n", encoding="utf-8")
    (machine.home / "notes.txt").write_text("mine", encoding="utf-8")
    (machine.home / "state/backup.stamp").write_text("{}", encoding="utf-8")
    assert machine.schedule(state="absent", check=True)["changed"] is True
    assert len(list(machine.units.glob("mazevault-backup-backup.*"))) == 2
    assert machine.schedule(state="absent", jobs=[], runner=None)["changed"] is True
    assert {path.name for path in machine.units.iterdir()} == {*theirs, foreign.name}
    assert machine.log.exists() and not (machine.folder / "logrotate").exists()
    assert [path.name for path in machine.home.iterdir()] == ["notes.txt"]
    assert set(machine.book()["running"]) == {name for name in theirs if name.endswith(".timer")}
    assert machine.schedule(state="absent")["changed"] is False


def test_what_somebody_else_wrote_is_not_written_over(machine: Machine) -> None:
    machine.units.mkdir()
    foreign = machine.units / "mazevault-backup-backup.service"
    foreign.write_text("[Service]\nExecStart=/bin/true\n", encoding="utf-8")
    for check in (True, False):
        done = machine.try_it(check=check)
        assert done.rc != 0 and "is there, and isn't this schedule's" in done.result["msg"]
    assert foreign.read_text(encoding="utf-8").endswith("/bin/true\n") and not machine.home.exists()


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"name": "../x"}, "name: ../x: not a name"),
        ({"delay": "soon"}, "delay: soon: not a span of time"),
        ({"timeout": "1 s"}, "timeout: 1 s: not from 60 s"),
        ({"inventory": []}, "inventory: missing"),
        ({"runner": None}, "runner: missing"),
        ({"program": "no-such-program"}, "program: no-such-program: not there"),
        ({"folder": "somewhere"}, "folder: "),
        ({"user": "no-such-account"}, "user: no-such-account: no such account"),
        ({"jobs": [JOBS[0], JOBS[0]]}, "jobs: backup: given twice"),
        ({"jobs": [{**JOBS[0], "when": "Sun 04:00"}]}, "jobs: backup: Sun 04:00: not each day"),
        ({"jobs": [{**JOBS[0], "when": "now and then"}]}, "jobs: backup: now and then: no time of day"),
        ({"manager": "cron", "cron_file": None}, "manager: cron: only root may write"),
    ],
)
def test_bad_input_is_named(machine: Machine, params: dict[str, t.Any], said: str) -> None:
    done = machine.try_it(**params)
    assert done.rc != 0 and done.result["msg"].startswith(said), done.result["msg"]
    assert " -> " in done.result["msg"] and not machine.home.exists()


def test_a_schedule_that_can_not_keep_its_word_says_so(machine: Machine) -> None:
    daily = [{**JOBS[0], "when": "02:00"}]
    found = machine.try_it(jobs=daily, installations=[{"name": "vault1"}])
    assert found.rc == 0, found.result
    (problem,) = [one for one in found.result["problems"] if one.startswith("vault1")]
    assert "the schedule can't meet it" in problem
    assert any(problem in str(warning) for warning in found.result["warnings"])
