# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What "make demo" does, as whoever runs the tests; root's demo goes on as another account."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import kill

TOP = Path(__file__).resolve().parents[2]
PYTHON = TOP / ".venv/demo/bin/python"
# Seconds: of a demo that hangs, and of processors. How long it takes is mostly the machine's affair.
LONGEST = 900
PROCESSOR_SECONDS = 90
MILESTONES = (
    "1. Start a small MazeVault",
    "60 secrets, encrypted under a master key",
    "2. Back it up, while it is used",
    "pass: proven to level restore",
    "postgres/database.dump",
    "START HERE when MazeVault is broken",
    "GET /api/v1/secrets/ID: 404 not found (30 of 60)",
    "GET /api/v1/secrets/ID: 500 decryption failed (10 of 60)",
    "GET /api/v1/certificates: 503",
    "decrypted 20, failed 10",
    "restore_database.yml --check",
    "Nothing was changed.",
    "60 of 60 secrets decrypt",
    "60 of 60 secrets, read through the API, have the value they had before",
    "GET /api/v1/certificates: 200",
    "failed 0",
    "audit chain intact",
    "rollback_database.yml --check",
    "playbooks/verify.yml",
    "backed up, broken, restored and proven",
    "Downtime for the reading client",
    "a demo, not a drill",
)


@dataclass(frozen=True)
class Place:
    """Where a demo happens; reachable by root's other account."""

    top: Path

    @property
    def folder(self) -> Path:
        return self.top / "demo"

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [PYTHON, TOP / "extensions/demo/demo.py", "--folder", self.folder],
            env={"PATH": os.environ["PATH"], "TMPDIR": str(self.top)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def processes(self) -> list[kill.Process]:
        """All that work in this place or name it."""
        return [process for process in kill.processes().values() if self._is_ours(process)]

    def _is_ours(self, process: kill.Process) -> bool:
        try:
            works_in = os.readlink(f"/proc/{process.pid}/cwd")
        except OSError:
            works_in = ""
        return process.pid != os.getpid() and any(str(self.top) in word for word in (works_in, *process.cmdline))

    def wait_for(self, process: subprocess.Popen[str], words: str) -> None:
        assert process.stdout is not None
        assert any(words in line for line in process.stdout), f"ended before: {words}"


@pytest.fixture
def place() -> Iterator[Place]:
    top = Path(tempfile.mkdtemp(prefix="test-demo-", dir="/tmp"))
    top.chmod(0o1777)
    found = Place(top)
    yield found
    for process in found.processes():
        os.kill(process.pid, signal.SIGKILL)
    shutil.rmtree(top)


def secrets_of(place: Place) -> list[str]:
    settings = (place.folder / "mazevault/.env").read_text().splitlines()
    keys = [line.split("=", 1)[1] for line in settings if "_KEY=" in line]
    return [*keys, (place.folder / "mazevault/api-token").read_text().strip()]


def ends(process: subprocess.Popen[str], seconds: float) -> tuple[int, str]:
    """Exit status and the rest of stderr."""
    _out, errors = process.communicate(timeout=seconds)
    return process.returncode, errors


def processor_seconds() -> float:
    """Of all processes that this one has seen to their end, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_the_demo_tells_its_whole_story(place: Place, record_property: t.Any) -> None:
    begun, used = time.monotonic(), processor_seconds()
    with place.start() as process:
        assert process.stdout is not None
        lines = []
        seen: set[str] = set()
        for line in process.stdout:
            lines.append(line)
            if line.startswith("4."):
                seen = {process.name for process in place.processes()}
        status, errors = ends(process, LONGEST)
    output = "".join(lines)
    assert (status, errors) == (0, ""), output
    record_property("seconds", round(time.monotonic() - begun))
    assert 5 < processor_seconds() - used < PROCESSOR_SECONDS

    position = 0
    for milestone in MILESTONES:
        position = output.find(milestone, position)
        assert position >= 0, f"missing, or too early: {milestone}\n{output}"

    assert "postgres" in seen, "the search for what runs finds nothing while the demo runs"
    assert place.processes() == []
    assert sorted(path.name for path in place.top.iterdir() if path != place.folder) == [], "copies are left"
    assert (place.folder / "backups/START-HERE.txt").is_file()

    logs = [path.read_text() for path in (place.folder / "logs").iterdir()]
    assert len(logs) >= 5
    keys = secrets_of(place)
    assert len(keys) == 3
    assert not [key for key in keys if any(key in text for text in (output, *logs))]


def interrupt(process: subprocess.Popen[str], _place: Place) -> None:
    process.send_signal(signal.SIGINT)


def kill_the_server(_process: subprocess.Popen[str], place: Place) -> None:
    servers = [found for found in place.processes() if found.is_called("postgres") and "-k" in found.cmdline]
    assert len(servers) == 1
    os.kill(servers[0].pid, signal.SIGQUIT)


@pytest.mark.parametrize(
    ("trouble", "status", "words"),
    [(interrupt, 130, "Interrupted."), (kill_the_server, 1, "backup.yml failed (2):")],
    ids=["ctrl-c", "failure"],
)
def test_nothing_runs_on_after(
    place: Place, trouble: t.Callable[[subprocess.Popen[str], Place], None], status: int, words: str
) -> None:
    with place.start() as process:
        place.wait_for(process, "playbooks/backup.yml")
        trouble(process, place)
        ended, errors = ends(process, 60)
    assert ended == status
    assert words in errors
    assert ("PLAY RECAP" in errors) is (status == 1)
    assert place.processes() == []
