# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that the lab runs, and its progress lines."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


class LabError(Exception):
    """The lab can't go on; the text says why and what to do."""


STARTED = time.monotonic()


def say(text: str) -> None:
    """One write, so that lines of several threads don't mix."""
    sys.stderr.write(f"lab {time.monotonic() - STARTED:4.0f}s  {text}\n")
    sys.stderr.flush()


def run(*words: str | Path, data: bytes | None = None, env: dict[str, str] | None = None) -> str:
    """Its output; what it said on stderr if it fails."""
    done = attempt(*words, data=data, env=env)
    if done.returncode:
        shown = " ".join(str(word) for word in words)[:200]
        said = (done.stderr.decode(errors="replace").strip() or done.stdout.decode(errors="replace").strip())[-3000:]
        raise LabError(f"{shown}: exit code {done.returncode}\n{said}")
    return done.stdout.decode(errors="replace")


def attempt(
    *words: str | Path, data: bytes | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(words, env=env, input=data or b"", capture_output=True, check=False)
    except FileNotFoundError:
        raise LabError(f"there is no program {words[0]} on this machine") from None


def wait_for(what: str, ready: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.2)
