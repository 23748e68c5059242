# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find and kill processes below one of ours, by /proc."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One live process."""

    pid: int
    ppid: int
    name: str
    cmdline: tuple[str, ...]

    def is_called(self, name: str) -> bool:
        """Tell whether the process or its program bears this name; a script counts by its own name too."""
        programs = {Path(argument).name for argument in self.cmdline[:2]}
        return self.name == name[:15] or name in programs


def _read(pid: int) -> Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        cmdline = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    # The name stands in brackets and may itself hold brackets and spaces.
    opening, closing = stat.index(b"("), stat.rindex(b")")
    state, ppid = stat[closing + 2 :].split()[:2]
    if state in (b"Z", b"X"):
        return None
    arguments = tuple(os.fsdecode(argument) for argument in cmdline.split(b"\0")[:-1])
    return Process(pid, int(ppid), os.fsdecode(stat[opening + 1 : closing]), arguments)


def processes() -> dict[int, Process]:
    """Return every live process, zombies left out."""
    found = (_read(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())
    return {process.pid: process for process in found if process is not None}


def descendants(root_pid: int) -> list[Process]:
    """Return the children, grandchildren and so on of a process, nearest first.

    A process whose parent has ended belongs to init and is not found any more.
    """
    everyone = processes()
    below: list[Process] = []
    level = {root_pid}
    while level:
        children = [process for process in everyone.values() if process.ppid in level]
        below += children
        level = {process.pid for process in children}
    return below


def named(root_pid: int, name: str) -> list[Process]:
    """Return the descendants that bear this name."""
    return [process for process in descendants(root_pid) if process.is_called(name)]


def wait_named(root_pid: int, name: str, *, timeout: float = 30) -> list[Process]:
    """Wait until a descendant bears this name."""
    deadline = time.monotonic() + timeout
    while not (found := named(root_pid, name)):
        if time.monotonic() > deadline:
            below = [process.cmdline[:2] or process.name for process in descendants(root_pid)]
            raise TimeoutError(f"no process called {name} below {root_pid} within {timeout} s; there are: {below}")
        time.sleep(0.005)
    return found


def kill9_named(root_pid: int, name: str) -> list[Process]:
    """Kill with SIGKILL the descendants that bear this name, and return them."""
    killed = []
    for process in named(root_pid, name):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process)
    return killed


def kill9_tree(root_pid: int) -> list[int]:
    """Kill a process with SIGKILL and all below it, stopped first so that none can start another."""
    stopped: list[int] = []
    while new := [pid for pid in (root_pid, *(p.pid for p in descendants(root_pid))) if pid not in stopped]:
        for pid in new:
            stopped.append(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
    for pid in stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return stopped


def wait_gone(pids: Iterable[int], *, timeout: float = 30) -> None:
    """Wait until none of the processes lives."""
    deadline = time.monotonic() + timeout
    left = list(pids)
    while left := [pid for pid in left if _read(pid) is not None]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"still alive after {timeout} s: {left}")
        time.sleep(0.005)
