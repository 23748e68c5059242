# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that timers and cron start: one run at a time, its log, its time, what is caught up, who is told."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.plays import TOP

RUNNER = TOP / "roles/mazevault_schedule/files/run.py"
DAILY = {"times": [[2, 0], [14, 0]], "zone": "UTC", "weekday": None, "months": []}
# Waits for a file, at most so long that a test that fails ends too.
WAIT = """
import os, sys, time
print("begun", flush=True)
for attempt in range(200):
    if os.path.exists(sys.argv[1]):
        break
    time.sleep(0.05)
"""


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


@dataclass
class Scheduled:
    """A folder with the runner and the jobs of a test."""

    folder: Path
    jobs: dict[str, dict[str, t.Any]]
    more: dict[str, t.Any] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def write(self) -> None:
        self.state.mkdir(exist_ok=True)
        (self.folder / "run.py").write_bytes(RUNNER.read_bytes())
        usual = {"title": "a job", "calendar": DAILY, "lock": "", "waits": False, "patience": 0}
        settings = {
            "jobs": {name: {**usual, **job} for name, job in self.jobs.items()},
            "state": str(self.state),
            "log": str(self.log),
            "log_limit": 0,
            "environment": {"FROM_THE_SCHEDULE": "yes"},
            "directory": str(self.folder),
            "delay": 0,
            "after_boot": 0,
            "timeout": 30,
            "pause": 0,
            "notify": [],
            **self.more,
        }
        (self.folder / "jobs.json").write_text(json.dumps(settings), encoding="utf-8")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        self.write()
        argv = [sys.executable, str(self.folder / "run.py"), *arguments]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")

    def run(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        said = process.communicate(timeout=30)[0]
        return process.returncode, said

    def report(self, job: str) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", json.loads((self.state / f"{job}.json").read_bytes()))

    def logged(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 15
        while not (self.log.exists() and text in self.logged()):
            assert time.monotonic() < deadline, f"{text} isn't in the log"
            time.sleep(0.02)


def scheduled(folder: Path, **jobs: dict[str, t.Any]) -> Scheduled:
    return Scheduled(folder, jobs)


def test_it_goes_to_the_journal_and_to_the_log(tmp_path: Path) -> None:
    code = "import os,sys; print(os.environ['FROM_THE_SCHEDULE'], os.getcwd()); sys.stderr.write('wrong'); sys.exit(3)"
    one = scheduled(tmp_path, backup={"argv": python(code)})
    rc, said = one.run("backup")
    assert rc == 3
    assert sorted(said.splitlines()[1:3]) == sorted([f"yes {tmp_path}", "wrong"])
    lines = one.logged().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [f"backup: {line}" for line in said.splitlines()]
    assert all(dt.datetime.fromisoformat(line.split()[0].replace("Z", "+00:00")) for line in lines)
    report = one.report("backup")
    assert (report["rc"], report["job"], sorted(report["lines"])) == (3, "backup", sorted([f"yes {tmp_path}", "wrong"]))


def test_nothing_of_the_callers_environment_comes_along(tmp_path: Path) -> None:
    one = scheduled(tmp_path, backup={"argv": python("import os; print(sorted(os.environ))")})
    os.environ["A_CANARY_OF_THE_TEST"] = "x"
    try:
        _rc, said = one.run("backup")
    finally:
        del os.environ["A_CANARY_OF_THE_TEST"]
    assert "FROM_THE_SCHEDULE" in said and "A_CANARY_OF_THE_TEST" not in said


def test_a_run_is_not_started_twice(tmp_path: Path) -> None:
    go = tmp_path / "go"
    one = scheduled(tmp_path, backup={"argv": python(WAIT, str(go))})
    first = one.start("backup")
    one.wait_for("begun")
    assert one.run("backup") == (0, "its last run is still at work; nothing was started\n")
    go.touch()
    assert first.wait(15) == 0
    assert one.logged().count("backup: started") == 1
    first.communicate()


def test_who_shares_a_lock_waits_or_leaves_it(tmp_path: Path) -> None:
    go = tmp_path / "go"
    one = scheduled(
        tmp_path,
        prune={"argv": python(WAIT, str(go)), "lock": "sets"},
        on_change={"argv": python("print('ran')"), "lock": "sets"},
        backup={"argv": python("print('ran')"), "lock": "sets", "waits": True, "patience": 20},
        verify={"argv": python("print('ran')"), "lock": "sets", "waits": True, "patience": 0},
        status={"argv": python("print('ran')")},
    )
    first = one.start("prune")
    one.wait_for("begun")
    rc, said = one.run("on_change")
    assert (rc, "the next one does the same" in said, "ran" in said) == (0, True, False)
    rc, said = one.run("verify")
    assert (rc, "nothing was started" in said) == (75, True) and one.report("verify")["rc"] == 75
    assert one.run("status")[0] == 0, "what shares nothing isn't kept"
    waiting = one.start("backup")
    time.sleep(0.5)
    assert waiting.poll() is None
    go.touch()
    assert waiting.wait(15) == 0 and first.wait(15) == 0
    assert "ran" in waiting.communicate()[0]
    first.communicate()


def test_a_runner_that_is_killed_keeps_no_lock(tmp_path: Path) -> None:
    one = scheduled(tmp_path, backup={"argv": python(WAIT, str(tmp_path / "go"))})
    first = one.start("backup")
    one.wait_for("begun")
    first.kill()
    first.communicate()
    assert one.report("backup").get("ended") is None, "nobody takes it for a run that ended"
    (tmp_path / "go").touch()
    assert one.run("backup")[0] == 0


def test_a_schedule_that_is_removed_lets_its_run_end(tmp_path: Path) -> None:
    one = scheduled(tmp_path, backup={"argv": python(WAIT, str(tmp_path / "go"))})
    first = one.start("backup")
    one.wait_for("begun")
    for path in (*one.state.iterdir(), tmp_path / "run.py", tmp_path / "jobs.json"):
        path.unlink()
    one.state.rmdir()
    (tmp_path / "go").touch()
    assert first.wait(15) == 0 and "ended: exit status 0" in first.communicate()[0]


def test_a_run_that_does_not_end_is_ended(tmp_path: Path) -> None:
    child = "import time; time.sleep(60)"
    code = f"import subprocess as s, sys\np = s.Popen([sys.executable, '-c', {child!r}])\nprint(p.pid, flush=True)"
    code += "\np.wait()"
    one = scheduled(tmp_path, backup={"argv": python(code)})
    one.more = {"timeout": 1.5}
    begin = time.monotonic()
    rc, said = one.run("backup")
    assert rc == 124 and time.monotonic() - begin < 20
    assert "ERROR: ended after 2 s" in said and one.report("backup")["lines"] == [
        "ERROR: ended after 2 s, the longest that a run may take"
    ]
    pid = int(said.splitlines()[1])
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline, "what it started goes too"
        time.sleep(0.05)


def test_a_stop_is_handed_on(tmp_path: Path) -> None:
    one = scheduled(tmp_path, backup={"argv": python(WAIT, str(tmp_path / "go"))})
    first = one.start("backup")
    one.wait_for("begun")
    first.send_signal(signal.SIGTERM)
    assert first.wait(10) == 128 + signal.SIGTERM
    assert one.report("backup")["rc"] == 128 + signal.SIGTERM
    first.communicate()


def test_it_begins_when_the_machine_is_up_for_long_enough(tmp_path: Path) -> None:
    """A run that was missed is caught up at once, when what it needs isn't there yet."""

    def up() -> int:
        return int(subprocess.run(["ps", "-o", "etimes=", "-p", "1"], capture_output=True, check=True).stdout)

    one = scheduled(tmp_path, backup={"argv": python("print('ran')")})
    one.write()
    (one.state / "backup.json").write_text(json.dumps({"job": "backup", "ended": "before", "rc": 0}), encoding="utf-8")
    one.more = {"after_boot": up() + 3}
    process = one.start("backup")
    one.wait_for("; begins after ")
    assert "ended" not in one.report("backup"), "if it were killed now, the last run's report wouldn't be told"
    assert process.wait(15) == 0 and up() >= one.more["after_boot"]
    said = [line.partition(": ")[2] for line in one.logged().splitlines()]
    assert "begins after" in said[0] and said[1:3] == ["started: a job", "ran"]
    process.communicate()


def test_no_line_is_lost_when_the_log_is_rotated(tmp_path: Path) -> None:
    code = "import sys,time\nfor i in range(60): print(f'line {i}', flush=True); time.sleep(.01)"
    one = scheduled(tmp_path, backup={"argv": python(code)})
    process = one.start("backup")
    one.wait_for("line 3")
    one.log.rename(tmp_path / "log.1")
    assert process.wait(15) == 0
    both = (tmp_path / "log.1").read_text(encoding="utf-8") + one.logged()
    assert [line.rpartition(": ")[2] for line in both.splitlines() if ": line " in line] == [
        f"line {i}" for i in range(60)
    ]
    assert "line 59" in one.logged()
    process.communicate()


def test_a_log_that_can_not_be_written_ends_no_backup(tmp_path: Path) -> None:
    one = scheduled(tmp_path, backup={"argv": python("print('ran')")})
    one.more = {"log": str(tmp_path / "missing/log")}
    rc, said = one.run("backup")
    assert rc == 0 and "ran" in said and said.count("No such file") == 1


def test_cron_catches_up_what_was_missed(tmp_path: Path) -> None:
    one = scheduled(tmp_path, backup={"argv": python("print('ran')")}, status={"argv": python("print('status')")})
    assert one.run("--due") == (0, ""), "what is new waits for its time"
    assert not one.log.exists()
    stamp = one.state / "backup.stamp"
    stamp.write_text(json.dumps({"started": "2026-01-01T02:00:07Z"}), encoding="utf-8")
    assert one.run("--due") == (0, "")
    assert one.logged().count("ran") == 1 and "status:" not in one.logged(), "once, however much was missed"
    assert one.run("--due") == (0, "") and one.logged().count("ran") == 1


def test_cron_tells_of_a_failure(tmp_path: Path) -> None:
    one = scheduled(tmp_path, backup={"argv": python("import sys; sys.exit(2)")})
    one.more = {"notify": python("import sys; open('told', 'a').write(sys.argv[2] + chr(10))")}
    one.write()
    (one.state / "backup.stamp").write_text(json.dumps({"started": "2026-01-01T02:00:07Z"}), encoding="utf-8")
    assert one.run("--due")[0] == 2
    (line,) = (tmp_path / "told").read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {
        "mazevault_notify_job": "backup",
        "mazevault_notify_memory": str(one.state / "backup.notified"),
        "mazevault_notify_report": str(one.state / "backup.json"),
    }


def test_a_notification_that_fails_is_tried_again(tmp_path: Path) -> None:
    code = "import os,sys; open('tries','a').write('x'); sys.exit(os.path.getsize('tries') < 3)"
    one = scheduled(tmp_path, backup={"argv": python("")})
    one.more = {"notify": python(code)}
    assert one.run("--notify", "backup")[0] == 0
    assert (tmp_path / "tries").read_text() == "xxx"


def test_success_makes_the_next_failure_news(tmp_path: Path) -> None:
    one = scheduled(tmp_path, backup={"argv": python("")})
    one.write()
    (one.state / "backup.notified").write_text("{}", encoding="utf-8")
    assert one.run("backup")[0] == 0
    assert not (one.state / "backup.notified").exists()


def test_what_is_told_of_ansibles_output(tmp_path: Path) -> None:
    output = [
        "TASK [Open it] ****",
        'ok: [vault1] => {"changed": false, "value": "a result is not told"}',
        "[ERROR]: Task failed: no room",
        'fatal: [vault1]: FAILED! => {"changed": false, "msg": "backup_root: /x: too little space"}',
        'fatal: [vault2]: UNREACHABLE! => {"changed": false, "msg": "no route", "unreachable": true}',
        "PLAY RECAP ****",
        "vault1                     : ok=3    changed=0    unreachable=0    failed=1",
    ]
    one = scheduled(tmp_path, backup={"argv": python(f"import sys; print({chr(10).join(output)!r}); sys.exit(2)")})
    assert one.run("backup")[0] == 2
    assert one.report("backup")["lines"] == [
        "[ERROR]: Task failed: no room",
        "vault1: backup_root: /x: too little space",
        "vault2: no route",
        "vault1 : ok=3 changed=0 unreachable=0 failed=1",
    ]


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["--notify"], ["backup", "backup"]])
def test_a_wrong_call_says_how(tmp_path: Path, arguments: list[str]) -> None:
    rc, said = scheduled(tmp_path, backup={"argv": python("")}).run(*arguments)
    assert rc == 78 and said.startswith("usage: run.py")


def test_a_program_that_is_missing_is_a_failure(tmp_path: Path) -> None:
    one = scheduled(tmp_path, backup={"argv": [str(tmp_path / "no-ansible")]})
    rc, said = one.run("backup")
    assert rc == 127 and "No such file" in said and one.report("backup")["rc"] == 127
