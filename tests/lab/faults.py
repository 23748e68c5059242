# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens to hosts in the middle of a run: each at a named step of the module that works there."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from support import kill, steps
from support.plays import RunningPlay

from . import hosts
from .process import LabError, run
from .site import POSTGRES, ROOT, Site

# In the order that a run enters them; a short one can be missed, then the next one counts.
BACKUP = (
    "dump: take the snapshot",
    "dump: pg_dump starts",
    "dump: pg_dump runs",
    "dump: pg_dump has ended",
    "dump: read back what was written",
    "dump: flush",
    "verify: toc",
    "verify: read",
    "verify: scratch server",
    "verify: restore into scratch",
    "verify: compare",
    "seal: manifest",
    "seal: sums",
    "seal: signature",
    "seal: flush",
    "seal: rename",
    "seal: published",
    "seal: ledger",
)
RESTORE = (
    "restore: clear",
    "restore: create the database",
    "restore: load",
    "restore: statistics",
    "restore: prove",
    *steps.SWAP,
)

# Waits on the host itself for a step or a later one, does something at once, and tells the step.
_WATCHER = r"""
import glob, json, subprocess, sys, time
wanted, action, limit = json.loads(sys.argv[1]), sys.argv[2], time.monotonic() + float(sys.argv[3])
pattern = "/opt/mazevault/backups/staging/*/progress.json"
of_dead_runs = set(glob.glob(pattern))
while time.monotonic() < limit:
    for path in set(glob.glob(pattern)) - of_dead_runs:
        try:
            with open(path) as stream:
                step = json.load(stream)["step"]
        except (OSError, ValueError):
            continue
        if step in wanted:
            done = subprocess.run(["bash", "-c", action], capture_output=True, text=True)
            print(json.dumps([step, done.returncode, done.stdout + done.stderr]))
            sys.exit()
    time.sleep(0.005)
sys.exit("never at " + wanted[0])
"""

# What sshd runs for those who are logged in, one process after the other, by its number.
_CUT = r"""
for folder in /proc/[0-9]*; do
    case "$(tr '\0' ' ' <"$folder/cmdline" 2>/dev/null)" in
        "sshd: operator"*) kill -KILL "${folder#/proc/}" 2>/dev/null ;;
    esac
done
:
"""


@dataclass(frozen=True)
class Fault:
    """What is done on the host at the step, what a while later, and what an operator does when the run has ended."""

    name: str
    action: str = ":"
    later: str = ""
    mend: str = ""
    kills_control_node: bool = False


CONNECTION_CUT = Fault("the ssh connection is cut", _CUT)
CONTROL_NODE_KILLED = Fault("the control node is killed", kills_control_node=True)
DATABASE_KILLED = Fault("the database is killed", f"docker kill {POSTGRES}", mend=f"docker start {POSTGRES}")
DATABASE_STOPPED = Fault("the database is stopped", f"docker stop {POSTGRES}", mend=f"docker start {POSTGRES}")
DATABASE_RESTARTED = Fault("the database is restarted", f"docker restart {POSTGRES}")
# A start of the application wakes what is paused, and may have come first.
DATABASE_PAUSED = Fault("the database is paused", f"docker pause {POSTGRES}", later=f"docker unpause {POSTGRES} || :")
ENGINE_RESTARTED = Fault("the engine is restarted", "systemctl restart docker")
DISK_FULL = Fault(
    "the disk is full", f"dd if=/dev/zero of={ROOT}/filler bs=64k 2>/dev/null; :", mend=f"rm -f {ROOT}/filler"
)
FAULTS = (
    CONNECTION_CUT,
    CONTROL_NODE_KILLED,
    DATABASE_KILLED,
    DATABASE_STOPPED,
    DATABASE_RESTARTED,
    DATABASE_PAUSED,
    ENGINE_RESTARTED,
)
PAUSE = 5.0


class Watch:
    """Somebody on the host who does the action when the step comes."""

    def __init__(self, site: Site, steps: Sequence[str], action: str, *, seconds: float = 240) -> None:
        words = ["docker", "exec", hosts.container(site.place, site.host), "python3", "-c", _WATCHER]
        self._process = subprocess.Popen(
            [*words, json.dumps(list(steps)), action, str(seconds)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def step(self) -> str:
        """Wait for the step; the one that it was is returned."""
        out, said = self._process.communicate()
        if self._process.returncode:
            raise LabError(f"watcher: {said.decode()}")
        step, rc, text = json.loads(out)
        if rc:
            raise LabError(f"at {step}: exit code {rc}: {text}")
        return str(step)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


@contextmanager
def watching(site: Site, fault: Fault, steps: Sequence[str]) -> Iterator[Watch]:
    """Somebody who does the fault when the run enters the first of the steps, or one of the others."""
    watch = Watch(site, steps, fault.action)
    try:
        yield watch
    finally:
        watch.close()


def after(site: Site, running: RunningPlay, fault: Fault) -> None:
    """What follows the fault's action, at once or a while later."""
    if fault.kills_control_node:
        running.kill()
        end_masters(site)
    if fault.later:
        time.sleep(PAUSE)
        site.shell(fault.later)


def end_masters(site: Site) -> None:
    """Kill what holds this control node's connections open."""
    for process in kill.processes().values():
        if process.name == "ssh" and any(str(site.control_path) in word for word in process.cmdline):
            run("kill", "-KILL", str(process.pid))
