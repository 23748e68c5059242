# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Where a program runs (the runtime), and which of the installed versions it is."""

from __future__ import annotations

import glob
import os
import re
import shutil
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._process import (
    Child,
    HostProcesses,
    ProcessRunner,
    Result,
)

# Debian's and the PostgreSQL project's RPM layout.
VERSIONED_FOLDERS = ("/usr/lib/postgresql/{major}/bin", "/usr/pgsql-{major}/bin")


class Runtime(t.Protocol):
    """Where the programs of one installation run: on the host, or beside the server in its container.

    `run` and `start` take argument lists whose first word came from `program`.
    """

    name: str

    @property
    def processes(self) -> ProcessRunner: ...

    def program(self, name: str, *, major: int | None = None) -> str: ...

    def has(self, name: str, *, major: int | None = None) -> bool: ...

    def version(self, program: str) -> int: ...

    def see(self, path: str, *, writable: bool = False) -> None:
        """Say, before any program runs, that programs will work with a folder or file of this host."""

    def data_folder(self, path: str) -> str:
        """Where the folder that a server calls its data folder is on this host; empty where nobody knows."""

    def close(self) -> None:
        """End what runs for this runtime."""


class HostRuntime:
    """Programs of the machine that the module runs on.

    Args:
        bin_dir: folder of the PostgreSQL programs; empty means: look for the version that is asked for.
        processes: who starts the programs.
    """

    name = "host"

    def __init__(self, bin_dir: str = "", processes: ProcessRunner | None = None) -> None:
        self._bin_dir = bin_dir
        self._processes: ProcessRunner = processes or HostProcesses()
        self._versions: dict[str, int] = {}

    @property
    def processes(self) -> ProcessRunner:
        return self._processes

    def _candidates(self, name: str, major: int | None) -> t.Iterator[str]:
        if self._bin_dir:
            yield os.path.join(self._bin_dir, name)
            if name.startswith("pg_") or name in ("psql", "initdb", "postgres", "vacuumdb"):
                return
        if major is not None:
            for folder in VERSIONED_FOLDERS:
                yield os.path.join(folder.format(major=major), name)
        found = shutil.which(name)
        if found:
            yield found
        if major is None:
            for folder in VERSIONED_FOLDERS:
                yield from sorted(glob.glob(os.path.join(folder.format(major="*"), name)), reverse=True)

    def program(self, name: str, *, major: int | None = None) -> str:
        """The path of a program, of exactly PostgreSQL's major version `major` where one is given.

        Raises:
            BackupError: the program is missing, or of other versions only.
        """
        seen: list[str] = []
        for path in self._candidates(name, major):
            if not os.access(path, os.X_OK):
                continue
            if major is None:
                return path
            version = self.version(path)
            if version == major:
                return path
            seen.append(f"{path} is {version}")
        wanted = name if major is None else f"{name} {major}"
        raise BackupError(
            f"program: {wanted}: not found" + (f" ({', '.join(seen)})" if seen else ""),
            hint=f"Install {package_of(name, major)}, or name the folder of the programs (bin_dir).",
        )

    def has(self, name: str, *, major: int | None = None) -> bool:
        try:
            self.program(name, major=major)
        except BackupError:
            return False
        return True

    def version(self, program: str) -> int:
        """The major version that a PostgreSQL program reports."""
        if program not in self._versions:
            answer = self._processes.run([program, "--version"], timeout=30).check(f"program: {program}")
            match = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
            if not match:
                raise BackupError(f"program: {program}: not a PostgreSQL program: {answer.stdout.strip()[:80]}")
            self._versions[program] = int(match.group(1))
        return self._versions[program]

    def see(self, path: str, *, writable: bool = False) -> None:
        """Programs on the host see everything."""

    def data_folder(self, path: str) -> str:
        return path

    def close(self) -> None:
        """Nothing runs for it."""


def package_of(name: str, major: int | None) -> str:
    if name in ("initdb", "postgres"):
        return f"the PostgreSQL server package of version {major}" if major else "the PostgreSQL server package"
    if name.startswith("pg_") or name in ("psql", "vacuumdb"):
        return f"the PostgreSQL client package of version {major}" if major else "the PostgreSQL client package"
    return name


def cpu_count() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


__all__ = ["Child", "HostRuntime", "Result", "Runtime", "cpu_count", "package_of"]
