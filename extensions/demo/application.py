# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts and stops the stand-in application: application.py HOME start|stop

What "docker compose start" and "stop" are elsewhere. Its settings, keys among them, come from HOME/.env.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

STANDIN = Path(__file__).resolve().parents[2] / "tests/standin"
SERVICES = ("api", "ocsp")
PATIENCE = 10.0


def environment(home: Path) -> dict[str, str]:
    """What the stand-in's commands run with: what the system needs, and the settings of .env."""
    lines = (home / ".env").read_text(encoding="utf-8").splitlines()
    system = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**system, "PYTHONPATH": str(STANDIN), **dict(line.split("=", 1) for line in lines if "=" in line)}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "mazevault_standin", *words]


def running(home: Path, service: str) -> int | None:
    """The service's process id; a number that belongs to somebody else by now doesn't count."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((home / f"{service}.pid").read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"mazevault_standin" in words and service.encode() in words:
            return pid
    return None


def start(home: Path) -> None:
    """Returns when the processes are started; whoever needs them healthy waits for that."""
    for service in SERVICES:
        if running(home, service) is not None:
            continue
        with (home / f"{service}.log").open("ab") as log:
            process = subprocess.Popen(
                command(service),
                env=environment(home),
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (home / f"{service}.pid").write_text(f"{process.pid}\n")


def stop(home: Path) -> None:
    """Returns when none of the processes is left."""
    deadline = time.monotonic() + PATIENCE
    asked: set[int] = set()
    while left := {pid for service in SERVICES if (pid := running(home, service)) is not None}:
        late = time.monotonic() > deadline
        for pid in left if late else left - asked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        asked |= left
        time.sleep(0.02)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] not in ("start", "stop"):
        sys.exit("usage: application.py HOME start|stop")
    {"start": start, "stop": stop}[sys.argv[2]](Path(sys.argv[1]))
