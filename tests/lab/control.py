# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A control node in the lab's network, with versions of ansible-core that this machine's Python may be too old for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from . import hosts, images
from .place import TOP, Place
from .process import attempt, run, say

CHECKOUT = "/checkout"
"""This checkout inside, read-only."""


@dataclass(frozen=True)
class Ended:
    """A program that ran on the control node."""

    rc: int
    output: str

    def recap(self, host: str) -> dict[str, int]:
        """A play's counts for one host; nothing when it had no part in it."""
        line = re.search(rf"^{re.escape(host)} +: (.*)$", self.output.rpartition("PLAY RECAP")[2], re.MULTILINE)
        return {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", line[1])} if line else {}

    def complaints(self) -> list[str]:
        return re.findall(r"^.*(?:\[[A-Z ]*WARNING\]|\[ERROR\]|Traceback).*$", self.output, re.MULTILINE)


@dataclass(frozen=True)
class Control:
    place: Place

    @property
    def container(self) -> str:
        return f"{self.place.name}-control"

    def start(self) -> None:
        """Anew; the lab's folder lies where the inventory says."""
        images.ensure_control()
        self.remove()
        say("starting the control node")
        words = ["--detach", "--init", "--name", self.container, "--hostname", "control", "--network", self.place.name]
        words += ["--label", f"{hosts.LABEL}={self.place.name}", f"--volume={TOP}:{CHECKOUT}:ro"]
        words += [f"--volume={self.place.folder}:{self.place.folder}:ro"]
        run("docker", "run", *words, images.CONTROL.tag)

    def remove(self) -> None:
        if attempt("docker", "inspect", self.container).returncode == 0:
            run("docker", "rm", "--force", "--volumes", self.container)

    def give(self, source: Path, destination: str) -> None:
        run("docker", "cp", source, f"{self.container}:{destination}")

    def run(self, version: str, program: str, *words: str, folder: str = "/root", **environment: str) -> Ended:
        """One of ansible-core's programs, of that version."""
        settings = [f"--env={name}={value}" for name, value in {"ANSIBLE_NOCOLOR": "true", **environment}.items()]
        place = ("docker", "exec", "--workdir", folder, *settings, self.container)
        done = attempt(*place, f"/opt/ansible/{version}/bin/{program}", *words)
        return Ended(done.returncode, (done.stdout + done.stderr).decode(errors="replace"))
