# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts and stops the stand-in application of a test: standin_control.py FOLDER start|stop

Its environment lies in FOLDER/environment.json.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def running(folder: Path) -> int | None:
    """The application's process id, when it lives."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((folder / "pid").read_text())
        if b"mazevault_standin" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            return pid
    return None


def start(folder: Path) -> None:
    if running(folder):
        return
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mazevault_standin", "api"],
            env=json.loads((folder / "environment.json").read_text()),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (folder / "pid").write_text(str(process.pid))


def stop(folder: Path) -> None:
    deadline = time.monotonic() + 10
    while pid := running(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
        time.sleep(0.02)


if __name__ == "__main__":
    {"start": start, "stop": stop}[sys.argv[2]](Path(sys.argv[1]))
