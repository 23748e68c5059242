# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The container engine of a host, by its command-line program."""

from __future__ import annotations

import json
import os
import shutil
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._process import HostProcesses, ProcessRunner, Result

# An engine that is busy, or whose containers are paused, answers late.
PATIENCE = 60.0
_SILENT = ("cannot connect to the docker daemon", "is the docker daemon running", "error during connect",
           "cannot connect to podman")  # fmt: skip


class EngineAway(BackupError):
    """The engine doesn't answer: it is stopped, or is being restarted."""


class Missing(BackupError):
    """There is no container or image of this name."""


def is_away(result: Result) -> bool:
    """Whether a command failed because no engine answered."""
    return result.rc != 0 and any(words in result.stderr.lower() for words in _SILENT)


class Engine:
    """One engine.

    Args:
        name: `docker`; the word that users set as the runtime, and the program's name.
        processes: who starts the program.
    """

    def __init__(self, name: str = "docker", processes: ProcessRunner | None = None) -> None:
        self.name = name
        self.processes: ProcessRunner = processes or HostProcesses()

    @property
    def program(self) -> str:
        """Path of the engine's program.

        Raises:
            BackupError: it isn't installed.
        """
        # Under sudo the PATH may lack the folder that the vendor's packages use.
        found = shutil.which(self.name) or shutil.which(self.name, path="/usr/local/bin:/usr/bin:/bin")
        if not found:
            raise BackupError(
                f"mazevault_runtime: {self.name}: the program {self.name} isn't there",
                hint=f"Install {self.name} on the host, or set mazevault_runtime to what the installation runs on.",
            )
        return found

    def run(self, *arguments: str, timeout: float = PATIENCE) -> Result:
        """Run the engine's program to its end; any exit status is the caller's to judge.

        Raises:
            EngineAway: the engine doesn't answer.
        """
        result = self.processes.run(
            [self.program, *arguments], env={"HOME": os.environ.get("HOME", "/")}, timeout=timeout
        )
        said = result.stderr.lower()
        if is_away(result):
            raise EngineAway(f"{self.name}: the engine doesn't answer", hint=f"systemctl start {self.name}")
        if result.rc != 0 and "permission denied" in said and "sock" in said:
            raise BackupError(f"{self.name}: this account may not use the engine", hint="Run with become, as root.")
        return result

    def call(self, what: str, *arguments: str, timeout: float = PATIENCE) -> str:
        """Run it and return what it wrote.

        Raises:
            Missing: what the arguments name isn't there.
            BackupError: any other exit status than 0; `what` begins the message.
        """
        result = self.run(*arguments, timeout=timeout)
        if result.rc != 0 and "no such" in result.stderr.lower():
            raise Missing(f"{what}: not there", details={"stderr_tail": result.stderr})
        return result.check(what).stdout

    def inspect(self, names: t.Sequence[str], *, kind: str = "container") -> list[dict[str, t.Any]]:
        """What the engine knows of these containers (or images, volumes, networks), in this order."""
        if not names:
            return []
        text = self.call(f"{kind}: {', '.join(names)}", kind, "inspect", "--", *names)
        return t.cast("list[dict[str, t.Any]]", json.loads(text))

    def containers(self, **labels: str) -> list[dict[str, t.Any]]:
        """Every container with these labels (an empty value: with the label, whatever its value), also stopped ones.

        One that goes away meanwhile is left out.
        """
        filters = [
            f"--filter=label={key}={value}" if value else f"--filter=label={key}" for key, value in labels.items()
        ]
        names = self.call("containers", "ps", "--all", "--quiet", "--no-trunc", *filters).split()
        found = []
        for name in names:
            try:
                found += self.inspect([name])
            except Missing:
                continue
        return found

    def remove(self, names: t.Sequence[str]) -> None:
        """End and remove containers, with their anonymous volumes; those that are gone already don't matter."""
        if names:
            result = self.run("rm", "--force", "--volumes", *names)
            gone = any(words in result.stderr.lower() for words in ("no such container", "already in progress"))
            if result.rc != 0 and not gone:
                result.check(f"container: {', '.join(names)}")
