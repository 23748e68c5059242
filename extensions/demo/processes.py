# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing that the demo starts outlives it, however deep it was started and whoever let go of it (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """A process below us whose parent ends becomes our child instead of init's."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(*, spare: int | None = None) -> set[int]:
    """All live processes below this one, without `spare` and what is below that."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            # The name stands in brackets and may itself hold brackets and spaces.
            state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state not in "ZX" and int(entry.name) != spare:
                parents[int(entry.name)] = int(parent)
    found: set[int] = set()
    level = {os.getpid()}
    while level := {pid for pid, parent in parents.items() if parent in level}:
        found |= level
    return found


def end_all(*, spare: int | None, patience: float = 5) -> None:
    """Ask every process below this one to end, then make it end; a server that ends its own children is spared."""
    deadline = time.monotonic() + patience
    asked: set[int] = set()
    while left := descendants(spare=spare):
        late = time.monotonic() > deadline
        for pid in left if late else left - asked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        asked |= left
        time.sleep(0.05)
