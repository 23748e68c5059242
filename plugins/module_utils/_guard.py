# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Work that must not be left half done when its process dies or the connection is lost.

Ansible runs neither rescue nor always after an unreachable host. So the work runs in a process of its own session, with
a guardian beside it; whichever of module, guardian and worker is killed, another one brings things to an end.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import write_json

Outcome = dict[str, t.Any]


def run_guarded(work: t.Callable[[], Outcome], rescue: t.Callable[[], None], result_path: str) -> Outcome:
    """Run `work` apart from this process; run `rescue` when it was killed.

    Args:
        work: must bring its own sessions (nothing open is shared with the caller).
        rescue: idempotent; makes the application available again.
        result_path: file that the outcome is left in, for a later run too.
    Returns:
        what `work` returned.
    Raises:
        BackupError: what `work` raised, or that it was killed.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(result_path)
    reading, writing = os.pipe()
    guardian = os.fork()
    if guardian == 0:
        os.close(reading)
        apart()
        _guard(work, rescue, result_path, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        worker = int(stream.readline() or b"0")
    os.waitpid(guardian, 0)
    # The guardian may have been killed: the worker goes on alone, this process takes its place.
    while worker and not os.path.exists(result_path) and _alive(worker):
        time.sleep(0.05)
    if not os.path.exists(result_path):
        rescue()
        _leave(result_path, {"error": _killed()})
    with open(result_path, encoding="utf-8") as stream_text:
        outcome: Outcome = json.load(stream_text)
    if "error" in outcome:
        error = outcome["error"]
        raise BackupError(error["msg"], hint=error["hint"], details=error.get("details"))
    return t.cast(Outcome, outcome["result"])


def _guard(work: t.Callable[[], Outcome], rescue: t.Callable[[], None], result_path: str, writing: int) -> t.NoReturn:
    worker = os.fork()
    if worker == 0:
        os.close(writing)
        apart()
        _work(work, result_path)
    os.write(writing, f"{worker}\n".encode())
    os.close(writing)
    os.waitpid(worker, 0)
    if not os.path.exists(result_path):
        with contextlib.suppress(BaseException):
            rescue()
        with contextlib.suppress(BaseException):
            _leave(result_path, {"error": _killed()})
    os._exit(0)


def _work(work: t.Callable[[], Outcome], result_path: str) -> t.NoReturn:
    try:
        outcome: Outcome = {"result": work()}
    except BackupError as exc:
        outcome = {"error": {"msg": exc.msg, "hint": exc.hint, "details": exc.details}}
    except BaseException as exc:
        outcome = {"error": {"msg": f"{type(exc).__name__}: {exc}", "hint": ""}}
    with contextlib.suppress(BaseException):
        _leave(result_path, outcome)
    os._exit(0)


def _leave(result_path: str, outcome: Outcome) -> None:
    write_json(result_path, outcome)


def _killed() -> dict[str, str]:
    return {
        "msg": "the process that did the work was killed; the application was started again",
        "hint": "Run the playbook again: it finds out how far things went, and finishes.",
    }


def apart() -> None:
    """A session of its own, deaf to a lost terminal, holding on to nobody's output."""
    os.setsid()
    for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    os.close(nowhere)


def _alive(pid: int) -> bool:
    """Whether a process (not our child) runs; a zombie doesn't."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
