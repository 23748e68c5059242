# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine's Docker engine: one that answers is used as it is; otherwise one is installed and started."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .place import TOP, Place
from .process import LabError, attempt, run, say, wait_for

PROGRAMS = {"docker": "docker.io", "mmdebstrap": "mmdebstrap", "ssh": "openssh-client", "ssh-keygen": "openssh-client"}
ENGINE_PROGRAMS = {"dockerd": "docker.io", "iptables": "iptables"}


def answers() -> bool:
    return shutil.which("docker") is not None and attempt("docker", "version").returncode == 0


def require() -> None:
    if not answers():
        raise LabError("no Docker engine answers")


def ensure(place: Place) -> None:
    place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _install_missing()
    if answers():
        return
    if os.geteuid() != 0:
        raise LabError("no Docker engine answers this user, and only root can start one")
    if Path("/run/systemd/system").exists():
        run("systemctl", "start", "docker")
        return
    log = place.folder / "dockerd.log"
    say(f"starting a Docker engine (log: {log})")
    with log.open("ab") as stream:
        # Of its own session: it serves on when the lab's command has ended.
        subprocess.Popen(
            ["dockerd"], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True, cwd="/"
        )
    wait_for(f"Docker engine (see {log})", answers, 60)


def _install_missing() -> None:
    def missing() -> list[str]:
        needed = PROGRAMS if answers() else {**PROGRAMS, **ENGINE_PROGRAMS}
        return sorted({package for program, package in needed.items() if shutil.which(program) is None})

    if not (packages := missing()):
        return
    say(f"missing on this machine: {' '.join(packages)}")
    run(TOP / "scripts/setup-test-host.sh", *packages)
    if packages := missing():
        raise LabError(f"still missing after their installation: {' '.join(packages)}")
