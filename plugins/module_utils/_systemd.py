# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""systemctl, the system's or an account's own."""

from __future__ import annotations

from ansible_collections.mazevault.backup.plugins.module_utils._process import Result
from ansible_collections.mazevault.backup.plugins.module_utils._programs import HostRuntime

_HOST = HostRuntime()


class Systemd:
    """What a schedule asks of it."""

    def __init__(self, *, own: bool) -> None:
        self._argv = [_HOST.program("systemctl"), *(["--user"] if own else [])]

    def _run(self, *words: str) -> Result:
        return _HOST.processes.run([*self._argv, *words], timeout=120)

    def ask(self, *words: str) -> None:
        """Raises BackupError where it doesn't do that."""
        self._run(*words).check(f"systemctl {words[0]}", hint="See to what systemd says, then run schedule.yml again.")

    def runs(self, timer: str) -> bool:
        """Whether it is enabled, and active now."""
        return all(self._run(word, "--quiet", timer).rc == 0 for word in ("is-enabled", "is-active"))

    def forget_runs(self, *timers: str) -> None:
        """When these, which are stopped, ran last: what they had before would count as missed when they start again.

        One that never ran has nothing to forget, and versions before 246 don't know how to: neither is a failure.
        """
        if timers:
            self._run("clean", "--what=state", *timers)

    def forget_failures(self, *services: str) -> None:
        """Of services whose files are gone; a template stands for all that were made from it. Most never failed."""
        if services:
            self._run("reset-failed", *(service.replace("@.", "@*.") for service in services))
