# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Work in progress under `staging/`: who works on it, whether that one still lives, and which step it is at.

An Ansible task is a process of its own, so a lock can't be held over a play. A staging folder is busy while a module
holds `flock` on it, or while its heartbeat is fresh; only otherwise may another run remove it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import re
import threading
import time
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils import _clock
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, Busy
from ansible_collections.mazevault.backup.plugins.module_utils._files import (
    fsync_path,
    private_folder,
    read_json,
    remove_tree,
    write_file,
    write_json,
)

# What a set can hold; each leaves its report in staging under its own name.
COMPONENTS = ("postgres", "vault", "keys", "config", "tls", "volumes", "kubernetes")
DEFAULT_STALE_AFTER = 120.0
_BEAT = 5.0
# Whoever clears up after a dead run may have containers to end and many gigabytes to remove.
_CLEARING = 300.0


class Progress:
    """The named step a run is at, for people and for whoever has to find out what a dead run was doing."""

    def __init__(self, path: str | None = None) -> None:
        self._path = path
        self.steps: list[dict[str, t.Any]] = []
        self._since = time.monotonic()

    def step(self, name: str, **facts: t.Any) -> None:
        """Enter the step `name`; the one before it ends here."""
        if self.steps:
            self.steps[-1]["seconds"] = round(time.monotonic() - self._since, 3)
        self._since = time.monotonic()
        self.steps.append({"step": name, "at": _clock.rfc3339(_clock.now()), **facts})
        if self._path:
            with contextlib.suppress(OSError):
                write_file(self._path, json.dumps({"pid": os.getpid(), **self.steps[-1]}) + "\n")


class Staging:
    """One folder under `staging/`.

    Layout: `owner.json`, `heartbeat`, `lock`, `progress.json`, `<component>.json`, and `set/`, which is what gets
    published.
    """

    def __init__(self, root: str, name: str) -> None:
        # Staging folders are removed as a whole: a name must never lead anywhere else.
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise BackupError(
                f"set_id: {name!r}: not the name of a staging folder",
                hint="Pass the set_id that recovery_set returned with state=open.",
            )
        self.root = root
        self.name = name
        self.path = os.path.join(root, "staging", name)
        self.set_path = os.path.join(self.path, "set")

    @property
    def stamp(self) -> str:
        """The moment in its name, which what is made in it is named after."""
        found = re.fullmatch(r"[a-z]+_(\d{8}_\d{6}\w*)", self.name)
        if found is None:
            raise BackupError(
                f"set_id: {self.name}: not the name of a staging folder",
                hint="Pass the set_id that recovery_set returned with state=open.",
            )
        return found[1]

    def report_path(self, component: str) -> str:
        return os.path.join(self.path, f"{component}.json")

    def work(self) -> str:
        """A folder for unpacked copies; apart, so that a container can see it without all the rest."""
        path = os.path.join(self.path, "work")
        os.makedirs(path, mode=0o700, exist_ok=True)
        return path

    def exists(self) -> bool:
        return os.path.isdir(self.path)

    def sign_of_life(self) -> int:
        """What changes as long as a module works here; 0 when it can't be told."""
        try:
            return os.stat(os.path.join(self.path, "heartbeat")).st_mtime_ns
        except OSError:
            return 0

    def owner(self) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", read_json(os.path.join(self.path, "owner.json")))

    @contextlib.contextmanager
    def working(self) -> t.Iterator[Progress]:
        """Hold the lock and keep the heartbeat fresh while the block runs.

        Raises:
            BackupError: the staging folder is gone (the run was given up), or another module works on it.
        """
        if not self.exists():
            raise BackupError(
                f"set_id: {self.name}: no work in progress under {os.path.dirname(self.path)}",
                hint="Open a recovery set first; what a run leaves idle for too long is removed (stale_after).",
            )
        fd = os.open(os.path.join(self.path, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        stop = threading.Event()
        beat = threading.Thread(target=self._beat, args=(stop,), daemon=True)
        try:
            if not _try_lock(fd):
                raise Busy(
                    f"set_id: {self.name}: another module works on it",
                    hint="Wait for it to end; a lost connection doesn't end a module on the host.",
                )
            beat.start()
            yield Progress(os.path.join(self.path, "progress.json"))
        finally:
            stop.set()
            if beat.is_alive():
                beat.join()
            os.close(fd)

    def _beat(self, stop: threading.Event) -> None:
        while True:
            with contextlib.suppress(OSError):
                os.utime(os.path.join(self.path, "heartbeat"))
            if stop.wait(_BEAT):
                return

    def busy(self, stale_after: float) -> str:
        """Why this folder may not be removed, or an empty string."""
        try:
            fd = os.open(os.path.join(self.path, "lock"), os.O_RDWR | os.O_CLOEXEC)
        except OSError as exc:
            if exc.errno != errno.ENOENT:
                raise
        else:
            try:
                if not _try_lock(fd):
                    return "a module works on it now"
            finally:
                os.close(fd)
        return self._fresh(stale_after)

    def _fresh(self, stale_after: float) -> str:
        try:
            age = time.time() - os.stat(os.path.join(self.path, "heartbeat")).st_mtime
        except OSError:
            return ""
        # A heartbeat from the future (clock set back) must not block for ever.
        return f"its run was alive {age:.0f} s ago" if -stale_after < age < stale_after else ""

    def remove_dead(self, stale_after: float, clean: t.Callable[[Staging], None]) -> str:
        """Remove this folder as the next run would; nobody can begin to work in it meanwhile.

        Returns:
            why it is left as it is, or an empty string.
        """
        with locked(os.path.join(os.path.dirname(self.path), ".lock")), contextlib.ExitStack() as held:
            if not self.exists():
                return ""
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(os.path.join(self.path, "lock"), os.O_RDWR | os.O_CLOEXEC)
                held.callback(os.close, fd)
                if not _try_lock(fd):
                    return "a module works on it now"
            why = self._fresh(stale_after)
            if not why:
                clean(self)
                remove_tree(self.path)
            return why


def open_staging(
    root: str, name: str, owner: t.Mapping[str, t.Any], *, stale_after: float, clean: t.Callable[[Staging], None]
) -> list[str]:
    """Make `staging/<name>`; remove what dead runs left behind.

    Args:
        clean: called with each dead run's folder before it is removed (to end what it left running).
    Returns:
        the names of the removed folders.
    Raises:
        Busy: another run is alive.
    """
    private_folder(root, parameter="backup_root")
    top = os.path.join(root, "staging")
    os.makedirs(top, mode=0o700, exist_ok=True)
    removed: list[str] = []
    with locked(os.path.join(top, ".lock"), patience=_CLEARING):
        others = in_progress(root)
        for entry in others:
            other = Staging(root, entry)
            why = other.busy(stale_after)
            if why:
                raise Busy(
                    f"backup_root: {root}: another run is under way: {entry} ({why})",
                    hint=f"Wait for it. A dead run counts as alive for {stale_after:.0f} s after its last sign.",
                )
        for entry in others:
            other = Staging(root, entry)
            clean(other)
            remove_tree(other.path)
            removed.append(entry)
        fresh = Staging(root, name)
        building = os.path.join(top, f".{name}.new")
        remove_tree(building)
        os.makedirs(os.path.join(building, "set"), mode=0o700)
        write_json(
            os.path.join(building, "owner.json"),
            {**owner, "host": platform.node(), "opened": _clock.rfc3339(_clock.now())},
        )
        write_file(os.path.join(building, "heartbeat"), "")
        write_file(os.path.join(building, "lock"), "")
        os.rename(building, fresh.path)
        fsync_path(top)
    return removed


def in_progress(root: str) -> list[str]:
    """Names of all staging folders, of live runs and of dead ones."""
    return sorted(entry for entry in os.listdir(os.path.join(root, "staging")) if not entry.startswith("."))


@contextlib.contextmanager
def locked(path: str, *, patience: float = 30.0) -> t.Iterator[None]:
    """Hold `flock` on a file, waiting for at most `patience` seconds."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        end = time.monotonic() + patience
        while not _try_lock(fd):
            if time.monotonic() > end:
                raise Busy(f"{path}: held by another process for {patience:.0f} s", hint="Wait for it to end.")
            time.sleep(0.05)
        yield
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
