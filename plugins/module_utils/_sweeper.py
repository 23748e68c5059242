# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""A process beside each run that outlives it, and removes what it left if it died.

It does what the next run would do, without waiting for one: keys in memory, containers, scratch servers, the staging
folder. It is a program of its own, so it holds nothing of the module that started it, and it ends with the folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import syslog
import time
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils import _ledger
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._guard import apart
from ansible_collections.mazevault.backup.plugins.module_utils._leftovers import Rest, clean, remove_rest, rest_of
from ansible_collections.mazevault.backup.plugins.module_utils._process import HostProcesses
from ansible_collections.mazevault.backup.plugins.module_utils._set_keys import forget_kept, is_kept
from ansible_collections.mazevault.backup.plugins.module_utils._staging import (
    Staging,
    in_progress,
    locked,
    open_staging,
)

REMOVED = "removed the rest of a dead run"
_LONGEST_NAP = 5.0
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv.pop(1));"
    " from ansible_collections.mazevault.backup.plugins.module_utils._sweeper import main; main()"
)


class Watch:
    """Tells when a run is dead: its sign of life stayed the same for `patience` seconds.

    Time counts by a clock that nobody sets, and only while we ourselves run: after a pause of the whole machine
    everybody first gets the time to go on.
    """

    def __init__(self, patience: float, nap: float) -> None:
        self._patience, self._most = patience, 2 * nap
        self._sign: object = None
        self._last = self._quiet = 0.0

    def is_dead(self, sign: object, now: float) -> bool:
        if sign == self._sign:
            self._quiet += min(now - self._last, self._most)
        else:
            self._sign, self._quiet = sign, 0.0
        self._last = now
        return self._quiet >= self._patience

    def begin_again(self) -> None:
        self._quiet = 0.0


def patience_of(stale_after: float) -> float:
    """Seconds of silence after which a run's rest is removed although nobody needs its place.

    More than after which the next run may take it for dead.
    """
    return 2 * stale_after + 10


def open_swept(root: str, name: str, owner: t.Mapping[str, t.Any], *, stale_after: float) -> tuple[list[str], str]:
    """Make `staging/<name>`, remove what dead runs left behind, and let a sweeper watch the new folder.

    Returns:
        names of the removed folders; why there is no sweeper, or an empty string.
    """
    removed = open_staging(root, name, owner, stale_after=stale_after, clean=clean)
    try:
        _start(Staging(root, name), stale_after)
    except BackupError as exc:
        return (
            removed,
            f"Nobody watches over {name}: should this run be killed, its rest stays until the next. {exc.msg}",
        )
    return removed, ""


def _start(staging: Staging, stale_after: float) -> None:
    """Returns once the sweeper needs nothing of us any more: the module's own files go when it ends."""
    top = __file__.rpartition("/ansible_collections/")[0]
    HostProcesses().run(
        [sys.executable or "python3", "-I", "-c", _PROGRAM, top, staging.root, staging.name, str(stale_after)],
        timeout=60,
    ).check("sweeper")


def main() -> t.NoReturn:
    root, name, stale_after = sys.argv[1:4]
    os.umask(0o077)
    apart()
    if os.fork():
        os._exit(0)
    syslog.openlog("mazevault-sweeper", syslog.LOG_PID, syslog.LOG_DAEMON)
    _leave_the_session()
    Sweeper(Staging(root, name), float(stale_after)).watch()
    os._exit(0)


def _leave_the_session() -> None:
    """Where logind ends all processes of a session with it, be none of them; elsewhere nothing is lost."""
    if os.geteuid() == 0 and os.path.isdir("/run/systemd/system"):
        with contextlib.suppress(BackupError):
            HostProcesses().run(scope_command(os.getpid()), timeout=20)


def scope_command(pid: int) -> list[str]:
    """What asks systemd to take a process into a unit of its own."""
    return [
        "busctl", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager",
        "StartTransientUnit", "ssa(sv)a(sa(sv))", f"mazevault-sweeper-{pid}.scope", "fail",
        "2", "PIDs", "au", "1", str(pid), "CollectMode", "s", "inactive-or-failed", "0",
    ]  # fmt: skip


class Sweeper:
    """Watches over one staging folder, and over the key that its set may leave for a restore."""

    def __init__(self, staging: Staging, stale_after: float) -> None:
        self._staging, self._stale_after = staging, stale_after
        self._nap = min(_LONGEST_NAP, patience_of(stale_after) / 10)
        self._rest, self._noted = Rest(), 0
        self._said = ""

    def watch(self) -> None:
        """Until the folder is gone, whoever removed it, and what it told of."""
        watch = self._new_watch()
        while True:
            with contextlib.suppress(OSError):  # a file system that is away for a while
                there = self._look()
                if not there and not self._is_left():
                    break
                if watch.is_dead(self._staging.sign_of_life(), time.monotonic()):
                    if self._sweep() if there else self._sweep_rest():
                        break
                    watch.begin_again()
            time.sleep(self._nap)
        self._watch_kept()

    def _look(self) -> bool:
        """Whether the folder is there; what it tells of is kept in mind, as it can go with its notes."""
        try:
            changed = os.lstat(self._staging.path).st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return False
        if changed != self._noted:
            with contextlib.suppress(BackupError):
                self._rest, self._noted = rest_of(self._staging), changed
        return True

    def _is_left(self) -> bool:
        return any(os.path.lexists(path) for path in (self._rest.memory, *self._rest.scratch))

    def _sweep_rest(self) -> bool:
        """The staging folder was removed by hand, and its notes with it; those who were named in them weren't."""
        with contextlib.suppress(BackupError):
            remove_rest(self._rest, self._staging.path)
        return not self._is_left()

    def _new_watch(self) -> Watch:
        return Watch(patience_of(self._stale_after), self._nap)

    def _sweep(self) -> bool:
        """Do what the next run would do; whether that came to an end."""
        name, root = self._staging.name, self._staging.root
        try:
            why = self._staging.remove_dead(self._stale_after, clean)
        except (BackupError, OSError) as exc:
            why = str(exc)
        if why:
            self._say(f"{name}: its run is dead, but its rest stays for now: {why}")
            return False
        self._say(f"{name}: {REMOVED}")
        with contextlib.suppress(BackupError, OSError):
            forget_kept(root)
            if may_write(root):
                _ledger.append(root, REMOVED, staging=name, by="sweeper")
        return True

    def _watch_kept(self) -> None:
        """A key that sealing kept goes when no restore has come, or is left, to use it."""
        root, watch = self._staging.root, self._new_watch()
        while is_kept(root, self._staging.name):
            with contextlib.suppress(BackupError, OSError):
                # A restore has a folder of its own, and a sweeper that looks after it.
                if watch.is_dead(time.monotonic() if _others(root) else "nobody", time.monotonic()):
                    with locked(os.path.join(root, "staging", ".lock")):
                        if not _others(root):
                            forget_kept(root)
            time.sleep(self._nap)

    def _say(self, words: str) -> None:
        if words != self._said:
            self._said = words
            # Text of others may hold line ends.
            syslog.syslog(syslog.LOG_WARNING, re.sub(r"\s+", " ", words))


def _others(root: str) -> list[str]:
    try:
        return in_progress(root)
    except FileNotFoundError:
        return []


def may_write(root: str) -> bool:
    """Whether the ledger is one to add to; one that is broken or gone is for a run to find, and to say so aloud."""
    sets = os.path.join(root, "sets")
    chain = _ledger.load(root)
    return not chain.problem and bool(chain.entries or (os.path.isdir(sets) and not os.listdir(sets)))
