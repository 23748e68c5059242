# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""schedule.yml as operators run it, and what it leaves behind run as systemd would: the unit's own command line."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils import _clock
from support import fake_systemctl, jobs
from support.fake_sets import Site
from support.flow import FULL
from support.keys import signing_key
from support.plays import TOP, Place, Play, tree_state

SET_UP = "Schedule | Set it up"
# Nobody listens there.
SILENT = {
    "ansible_connection": "ssh",
    "ansible_host": "127.0.0.1",
    "ansible_port": 1,
    "ansible_ssh_common_args": "-F none",
}
TIMERS = {f"mazevault-backup-{job}.timer" for job in ("backup", "on-change", "verify", "prune", "status")}


@dataclass(frozen=True)
class Node:
    """A control node in a folder: one installation with a set, a schedule's places, a systemctl that remembers."""

    folder: Path
    site: Site

    @property
    def units(self) -> Path:
        return self.folder / "node/units"

    @property
    def log(self) -> Path:
        return self.folder / "node/mazevault-backup.log"

    def paths(self) -> dict[str, str]:
        return {
            "mazevault_schedule_unit_folder": str(self.units),
            "mazevault_schedule_folder": str(self.folder / "node/lib"),
            "mazevault_schedule_log_file": str(self.log),
            "mazevault_schedule_logrotate_file": str(self.folder / "node/logrotate"),
            "mazevault_schedule_cron_file": str(self.folder / "node/cron"),
            "mazevault_schedule_manager": "systemd",
            "mazevault_schedule_scope": "user",
        }

    def variables(self) -> dict[str, t.Any]:
        return {
            "mazevault_backup_root": str(self.site.root),
            "mazevault_signing_key": signing_key(),
            "mazevault_witness_folder": str(self.site.witness),
            "mazevault_monitoring_folder": str(self.folder / "reports"),
            **self.paths(),
        }

    def env(self) -> dict[str, str]:
        programs = self.folder / "programs"
        fake_systemctl.put_into(programs)
        return {
            "PATH": f"{programs}:{os.environ['PATH']}",
            fake_systemctl.BOOK: str(self.folder / "book.json"),
            "USER": "",
            "LOGNAME": "",
        }

    def play(self, *arguments: str, others: t.Mapping[str, t.Any] | None = None, **extra: t.Any) -> Play:
        inventory = Place(self.folder).write_inventory({**(others or {}), "vault1": self.variables()})
        return Place(self.folder).run("schedule", inventory, *arguments, extra=extra, env=self.env())

    def running(self) -> set[str]:
        path = self.folder / "book.json"
        return set(json.loads(path.read_bytes())["running"]) if path.exists() else set()

    def fire(self, job: str) -> subprocess.CompletedProcess[str]:
        """What systemd starts, with an environment such as systemd gives."""
        unit = (self.units / f"mazevault-backup-{job}.service").read_text(encoding="utf-8")
        (line,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
        env = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder / "home"), "LANG": "C.UTF-8"}
        return subprocess.run(
            shlex.split(line.partition("=")[2]),
            env=env,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=120,
        )


def lines_of(play: Play) -> str:
    (found,) = [task.result["msg"] for task in play.tasks if task.name == "Schedule | What runs when"]
    return "\n".join(found)


@pytest.fixture(scope="module")
def scheduled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Play, Play]]:
    """A node whose schedule was looked at (--check --diff), then set up."""
    folder = tmp_path_factory.mktemp("node")
    (folder / "site").mkdir(mode=0o700)
    site = Site(folder / "site")
    site.publish(recovery_point=_clock.rfc3339(_clock.now()))
    node = Node(folder, site)
    check = node.play("--check", "--diff")
    assert not (folder / "node").exists() and not node.running(), "a check leaves nothing"
    yield node, check, node.play()


def test_a_check_on_a_fresh_node_is_true(scheduled: tuple[Node, Play, Play]) -> None:
    _node, check, real = scheduled
    assert (check.rc, real.rc) == (0, 0), check.output + real.output
    assert check.changed == real.changed == [SET_UP]
    (said,), (did,) = check.of("backup_schedule"), real.of("backup_schedule")
    assert {key: said[key] for key in ("jobs", "files", "problems", "diff")} == {
        key: did[key] for key in ("jobs", "files", "problems")
    } | {"diff": said["diff"]}
    assert "+OnCalendar=*-*-* 02,14:00:00 UTC" in check.output


def test_what_runs_and_what_does_not(scheduled: tuple[Node, Play, Play]) -> None:
    node, _check, real = scheduled
    assert node.running() == TIMERS == {path.name for path in node.units.glob("*.timer")}
    said = lines_of(real)
    assert "backup: 02:00,14:00: next run 20" in said
    for job, why in (("replicate", "no playbook"), ("drill", "no playbook"), ("verify_keys", "no place of escrow")):
        there = (TOP / f"playbooks/{'dr_test' if job == 'drill' else job}.yml").exists() and job != "verify_keys"
        assert there or any(line.startswith(f"{job}: left out: ") and why in line for line in said.splitlines()), said
    assert "nobody is told of failures" in said


def test_again_changes_nothing(scheduled: tuple[Node, Play, Play]) -> None:
    node = scheduled[0]
    before = tree_state(node.folder / "node")
    for arguments in (["--check"], []):
        again = node.play(*arguments)
        assert (again.rc, again.changed) == (0, []), again.output
    assert tree_state(node.folder / "node") == before


def test_a_timer_that_fires_runs_the_playbook(scheduled: tuple[Node, Play, Play]) -> None:
    """status.yml, as it changes nothing here and ends soon; red, as nobody has a copy that is proven elsewhere."""
    node = scheduled[0]
    done = node.fire("status")
    assert "PLAY RECAP" in done.stdout, done.stdout
    report = json.loads((node.folder / "reports/status.json").read_bytes())
    (one,) = report["installations"]
    row = next(found for found in one["objectives"] if found["scenario"] == "database_corruption")
    assert row["schedule"]["worst_seconds"] >= 12 * 3600 + 300, "it knows when backups are due, and how late"
    logged = node.log.read_text(encoding="utf-8")
    assert "status: started: " in logged and f"status: ended: exit status {done.returncode}" in logged
    assert (done.returncode == 0) == (report["verdict"] != "fail")
    prune = node.fire("prune")
    assert prune.returncode == 0 and len(node.site.sets()) == 1, prune.stdout


def test_once_a_day_is_a_problem_that_is_told(scheduled: tuple[Node, Play, Play]) -> None:
    node = scheduled[0]
    # The first one doesn't answer; the times alone tell enough about it.
    away = {"vault0": {**node.variables(), **SILENT}}
    done = node.play("--check", others=away, mazevault_schedule_backup="02:00")
    assert done.rc == 0 and done.changed == [SET_UP], done.output
    assert "PROBLEM: vault0: Database corruption: RPO < 24 h 0 min: the schedule can't meet it" in lines_of(done)
    assert "PROBLEM: vault1: Database corruption: RPO < 24 h 0 min: the schedule can't meet it" in lines_of(done)
    assert "[WARNING]: Schedule: vault1" in " ".join(done.output.split())


def test_a_time_that_nobody_reads_is_refused(scheduled: tuple[Node, Play, Play]) -> None:
    done = scheduled[0].play(mazevault_schedule_prune=840)
    assert done.rc != 0 and "jobs: prune: 840: a number" in done.failures[0].msg
    assert scheduled[0].play("--check", mazevault_schedule_on="somewhere").rc != 0


def test_on_the_host_itself(scheduled: tuple[Node, Play, Play], tmp_path: Path) -> None:
    """Its own ansible-playbook, its own inventory, and nothing but itself."""
    node = scheduled[0]
    there = {"folder": tmp_path / "lib", "unit_folder": tmp_path / "units", "log_file": tmp_path / "log"}
    extra: dict[str, t.Any] = {f"mazevault_schedule_{name}": str(path) for name, path in there.items()}
    extra["mazevault_schedule_logrotate_file"] = str(tmp_path / "logrotate")
    done = node.play("--check", mazevault_schedule_on="host", **extra)
    assert done.rc != 0 and "inventory: missing" in done.failures[0].msg
    extra |= {"mazevault_schedule_delay": 0, "mazevault_schedule_after_boot": 0}
    done = node.play(mazevault_schedule_on="host", mazevault_schedule_inventory="/srv/hosts.yml", **extra)
    assert done.rc == 0, done.output
    settings = json.loads((tmp_path / "lib/jobs.json").read_bytes())
    assert (settings["delay"], settings["after_boot"]) == (0, 0), "0 isn't unset"
    argv = settings["jobs"]["backup"]["argv"]
    limited = ["--limit", "vault1", "--connection", "local"]
    assert argv[1:8] == ["-i", "/srv/hosts.yml", "mazevault.backup.backup", *limited]


@pytest.mark.parametrize("answer", ["", None] if FULL else [None])
def test_a_survey_that_nobody_answered(scheduled: tuple[Node, Play, Play], answer: str | None) -> None:
    node = scheduled[0]
    extra = dict.fromkeys(set(jobs.public_variables()) - set(node.variables()), answer)
    job = run_job(node, extra)
    assert (job.status, job.failures, job.changed) == ("successful", [], 0), job.output[-3000:]


def test_a_survey_of_texts_and_the_end(scheduled: tuple[Node, Play, Play], tmp_path: Path) -> None:
    node = scheduled[0]
    extra = {
        "mazevault_schedule_backup": "01:00, 07:00, 13:00, 19:00",
        "mazevault_schedule_verify": "never",
        "mazevault_schedule_delay": "60",
        "mazevault_schedule_timeout": "3600",
        "mazevault_schedule_become": "false",
        "mazevault_schedule_arguments": "--forks 2",
    }
    job = run_job(node, extra)
    assert (job.status, job.failures) == ("successful", []), job.output[-3000:]
    settings = json.loads((node.folder / "node/lib/jobs.json").read_bytes())
    assert settings["jobs"]["backup"]["calendar"]["times"] == [[hour, 0] for hour in (1, 7, 13, 19)]
    assert settings["jobs"]["backup"]["argv"][-4:-2] == ["--forks", "2"] and settings["timeout"] == 3600
    assert node.running() == TIMERS - {"mazevault-backup-verify.timer"}
    done = node.play(mazevault_schedule_state="absent")
    assert (done.rc, done.changed) == (0, [SET_UP]), done.output
    left = {path.name for path in (node.folder / "node").rglob("*")}
    assert left == {"units", "mazevault-backup.log"} and not node.running()
    again = node.play(mazevault_schedule_state="absent")
    assert (again.rc, again.changed) == (0, [])


def run_job(node: Node, extra: dict[str, t.Any]) -> jobs.Job:
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory = Place(node.folder).write_inventory({"vault1": {**local, **node.variables()}})
    return jobs.run(node.folder, str(inventory), "schedule", extra, env=node.env())
