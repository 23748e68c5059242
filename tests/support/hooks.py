# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests do inside a module's process: run_module(hooks=...) calls these before the module begins."""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import json
import os
import pwd
import resource
import signal
import sys
import threading
import typing as t
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from support import compare, kill

_BASE = "ansible_collections.mazevault.backup.plugins.module_utils."


def _wrap(module: str, owner: str, name: str, wrapper: Callable[..., t.Any]) -> None:
    """Replace a function, or a method of a class, by `wrapper(original, ...)`."""
    place = importlib.import_module(_BASE + module)
    for part in filter(None, owner.split(".")):
        place = getattr(place, part)
    original = getattr(place, name)

    @functools.wraps(original)
    def wrapped(*args: t.Any, **kwargs: t.Any) -> t.Any:
        return wrapper(original, *args, **kwargs)

    setattr(place, name, wrapped)


def _at_each_step(action: Callable[[str], None]) -> None:
    def step(original: Callable[..., None], self: object, name: str, **facts: t.Any) -> None:
        original(self, name, **facts)
        action(name)

    _wrap("_staging", "Progress", "step", step)


def stop_at(step: str, marker: str) -> None:
    """Stop this process (SIGSTOP) when the step is entered, after saying so in the file `marker`."""

    def action(name: str) -> None:
        if name != step:
            return
        temporary = Path(f"{marker}.tmp{os.getpid()}")
        temporary.write_text(json.dumps({"step": name, "pid": os.getpid()}), encoding="utf-8")
        temporary.rename(marker)
        os.kill(os.getpid(), signal.SIGSTOP)

    _at_each_step(action)


def record_steps(path: str) -> None:
    """Append the name of each step to a file."""

    def action(name: str) -> None:
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(f"{name}\n")

    _at_each_step(action)


def keep_truth(path: str) -> None:
    """Read the content of each dump's snapshot with the tests' own SQL, in the session that holds it; keep the last."""

    def take(original: Callable[..., t.Any], *args: t.Any, **kwargs: t.Any) -> t.Any:
        snapshot = original(*args, **kwargs)
        content = compare.snapshot_of(snapshot.session._connection, ("tables", "large_objects"))
        Path(path).write_text(json.dumps(content), encoding="utf-8")
        return snapshot

    # The dump has the function under its own name.
    _wrap("_dump", "", "take_snapshot", take)


def kill_child(step: str, name: str, marker: str) -> None:
    """When the step is entered, kill the first child program of this name that appears, and say so in `marker`."""

    def hunt() -> None:
        killed: list[kill.Process] = []
        with contextlib.suppress(TimeoutError):
            while not killed:  # one that ended by itself in between doesn't count
                kill.wait_named(os.getpid(), name, timeout=10)
                killed = kill.kill9_named(os.getpid(), name)
        Path(marker).write_text(json.dumps({"step": step, "killed": [process.pid for process in killed]}))

    def action(entered: str) -> None:
        if entered == step:
            threading.Thread(target=hunt, daemon=True).start()

    _at_each_step(action)


def become(account: str, module: str) -> None:
    """Give up all rights but those of this account, once the module is read: the account may not be able to."""
    importlib.import_module(_BASE.replace("module_utils", "modules") + module)
    entry = pwd.getpwnam(account)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def without_program(name: str) -> None:
    """As on a machine that lacks a program of the engine."""

    def which(original: Callable[..., str | None], cmd: str, *args: t.Any, **kwargs: t.Any) -> str | None:
        return None if cmd == name else original(cmd, *args, **kwargs)

    _wrap("_engine", "shutil", "which", which)


def without_package(name: str) -> None:
    """As where it isn't installed."""
    sys.modules[name] = None  # type: ignore[assignment]


def patience(seconds: float) -> None:
    """Wait for a paused server no longer than this."""
    for module, name, value in (
        ("_container", "_LONGEST_PAUSE", seconds),
        ("_sidecar", "_LOOK", 0.5),
        ("_snapshot", "_SILENCE", seconds),
    ):
        setattr(importlib.import_module(_BASE + module), name, value)


def no_digests() -> None:
    """Tables are listed but not read: a dump without its proof, to tell what each of them costs."""

    def unread(
        _original: Callable[..., t.Any], _session: t.Any, schema: str, name: str, *_: t.Any, **__: t.Any
    ) -> t.Any:
        return {"schema": schema, "name": name, "rows": 0, "digest": "0:0"}

    _wrap("_contents", "", "digest_table", unread)


def memory_limit(megabytes: int) -> None:
    """Let this process have no more memory than this."""
    resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))


def without_sweeper() -> None:
    """As where no second interpreter can be started."""
    importlib.import_module(_BASE + "_sweeper").sys = SimpleNamespace(executable="/nonexistent/python3")  # type: ignore[attr-defined]


def clock_says(moment: str) -> None:
    """Let the module believe that it is another time; the clock goes on from there."""
    clock: t.Any = importlib.import_module(f"{_BASE}_clock")
    wanted, began = clock.parse(moment), clock.now()
    original = clock.now
    clock.now = lambda: wanted + (original() - began)


def full_disk(folder: str, left: int) -> None:
    """Below a folder nothing fits any more after `left` files: half of the next one is written, then ENOSPC."""
    written = [0]

    def write_file(original: Callable[..., None], path: str, content: str | bytes, **more: t.Any) -> None:
        if path.startswith(folder):
            written[0] += 1
            if written[0] > left:
                data = content.encode() if isinstance(content, str) else content
                Path(f"{path}.tmp{os.getpid()}").write_bytes(data[: len(data) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        original(path, content, **more)

    for module in ("_files", "_escrow_place", "_records", "_escrow", "_bundle"):
        _wrap(module, "", "write_file", write_file)
