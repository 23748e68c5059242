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


def say(text: str) -> None:
    print(f"lab: {text}", file=sys.stderr, flush=True)


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
    source = {"input": data} if data is not None else {"stdin": subprocess.DEVNULL}
    try:
        return subprocess.run(words, env=env, capture_output=True, check=False, **source)  # type: ignore[call-overload, no-any-return]
    except FileNotFoundError:
        raise LabError(f"there is no program {words[0]} on this machine") from None


def wait_for(what: str, ready: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.2)
