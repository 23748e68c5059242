# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the collection's playbooks as a user would, and shows what they report."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from installation import TOP, DemoError
from screen import Screen

TAIL = 40
# One line of what debug prints as JSON: "msg": "...", or an item of "msg": [...].
MESSAGE = re.compile(r'(?:    "msg": |        )(".*"),?')


class Playbooks:
    """ansible-playbook with the demo's inventory and configuration; whole outputs are kept in the folder logs/."""

    def __init__(self, folder: Path, screen: Screen) -> None:
        self._folder = folder
        self._screen = screen

    def run(self, playbook: str, *options: str, log: str) -> None:
        inventory = self._folder / "inventory.yml"
        if inventory.is_relative_to(TOP):
            inventory = inventory.relative_to(TOP)
        words = ["-i", str(inventory), f"playbooks/{playbook}.yml", *options]
        self._screen.command("ansible-playbook", *words)
        path = self._folder / "logs" / f"{log}.log"
        with (
            path.open("w", encoding="utf-8") as stream,
            subprocess.Popen(
                [sys.executable, str(Path(sys.executable).parent / "ansible-playbook"), *words],
                env=self._environment(),
                cwd=TOP,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            ) as process,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                stream.write(line)
                self._pick(line.rstrip("\n"))
        if process.returncode:
            tail = path.read_text(encoding="utf-8").splitlines()[-TAIL:]
            raise DemoError("\n".join([f"{playbook}.yml failed ({process.returncode}):", *tail, f"All of it: {path}"]))

    def _pick(self, line: str) -> None:
        """Tasks pass by; what stays is what playbooks report (debug's messages) and the last line's figures."""
        if line.startswith("TASK ["):
            self._screen.progress(line[6:].rpartition("]")[0])
        elif found := MESSAGE.fullmatch(line):
            self._screen.say(json.loads(found[1]), hang="  ")
        elif line.startswith("demo "):
            self._screen.say(" ".join(line.split()))

    def _environment(self) -> dict[str, str]:
        """Nothing of the user's own Ansible and PostgreSQL settings."""
        names = ("PATH", "TERM", "TMPDIR", "LD_LIBRARY_PATH")
        return {
            **{name: os.environ[name] for name in names if name in os.environ},
            "HOME": str(self._folder / "ansible"),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(self._folder / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "true",
        }
