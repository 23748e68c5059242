# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module of the collection in a process of its own, as Ansible would, and kills it where a test wants that."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import typing as t
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.keys import signing_key

# Modules that sign what they do.
SIGNING = (
    "recovery_set",
    "recovery_set_info",
    "backup_verify",
    "component_restore",
    "pg_restore",
    "pg_swap",
    "ledger_verify",
    "backup_policy",
    "backup_retention",
    "recovery_set_pin",
)
COLLECTIONS = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", "playbooks", "collections"))

# Runs in the child. `kill` names a step and what to kill when it is entered: "self" or a program's name.
_CHILD = r"""
import json, os, signal, sys
arguments = json.load(sys.stdin)
from ansible.module_utils.testing import patch_module_args
import importlib
base = "ansible_collections.mazevault.backup.plugins."
if arguments["kill"]:
    staging = importlib.import_module(base + "module_utils._staging")
    wanted, victim = arguments["kill"]
    original = staging.Progress.step
    def step(self, name, **facts):
        original(self, name, **facts)
        if name != wanted:
            return
        print(json.dumps({"killed_at": name, "victim": victim}), file=sys.stderr, flush=True)
        if victim == "self":
            os.kill(os.getpid(), signal.SIGKILL)
        from support.kill import kill9_named
        kill9_named(os.getpid(), victim)
    staging.Progress.step = step
for name, values in arguments["hooks"]:
    hooks = importlib.import_module("support.hooks")
    getattr(hooks, name)(**values)
module = importlib.import_module(base + "modules." + arguments["module"])
with patch_module_args(arguments["params"]):
    module.main()
"""


@dataclass(frozen=True)
class Outcome:
    """rc, the module's JSON result ({} when it was killed), and stderr."""

    rc: int
    result: dict[str, t.Any]
    stderr: str


Hook = tuple[str, Mapping[str, t.Any]]


def _input(
    name: str, params: Mapping[str, t.Any], check: bool, diff: bool, kill: tuple[str, str] | None, hooks: Sequence[Hook]
) -> bytes:
    if name in SIGNING:
        params = {"signing_key": signing_key(), **params}
    arguments = {
        "module": name,
        "kill": list(kill) if kill else None,
        "hooks": [[hook, dict(values)] for hook, values in hooks],
        "params": {**params, "_ansible_check_mode": check, "_ansible_diff": diff},
    }
    return json.dumps(arguments).encode()


def _environment(env: Mapping[str, str] | None) -> dict[str, str]:
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return {**os.environ, "PYTHONPATH": f"{COLLECTIONS}:{tests}", **(env or {})}


def command(
    name: str, params: Mapping[str, t.Any], hooks: Sequence[Hook] = ()
) -> tuple[list[str], bytes, dict[str, str]]:
    """Command line, stdin and environment of one module's process, for those who start it themselves."""
    return [sys.executable, "-c", _CHILD], _input(name, params, False, False, None, hooks), _environment(None)


def _outcome(rc: int, stdout: bytes, stderr: bytes) -> Outcome:
    lines = [line for line in stdout.decode().splitlines() if line.startswith("{")]
    return Outcome(rc, json.loads(lines[-1]) if lines else {}, stderr.decode())


def run_module(
    name: str,
    params: Mapping[str, t.Any],
    *,
    check: bool = False,
    diff: bool = False,
    kill: tuple[str, str] | None = None,
    hooks: Sequence[Hook] = (),
    env: Mapping[str, str] | None = None,
    timeout: float = 600,
) -> Outcome:
    """Run one module; `kill=(step, victim)` sends SIGKILL to `self` or to a child program when the step is entered.

    `hooks` are functions of support.hooks with their arguments, called in the module's process before it begins.
    """
    done = subprocess.run(
        [sys.executable, "-c", _CHILD],
        input=_input(name, params, check, diff, kill, hooks),
        capture_output=True,
        timeout=timeout,
        env=_environment(env),
        check=False,
    )
    return _outcome(done.returncode, done.stdout, done.stderr)


class Running:
    """A module at work, that stops itself (SIGSTOP) at a step, so that a test can look around or kill somebody.

    A step may be entered by another process than the module's own: see `stopped`.
    """

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, outputs: tuple[Path, Path]) -> None:
        self._process = process
        self._marker = folder / "stopped.json"
        self._outputs = outputs
        self.stopped = 0

    @property
    def pid(self) -> int:
        """The module's own process."""
        return self._process.pid

    def wait_stopped(self, *, timeout: float = 60) -> bool:
        """Wait until the module stops at its step (True), or ends without (False)."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                pid = int(json.loads(self._marker.read_text(encoding="utf-8"))["pid"])
                if Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T":
                    self._marker.unlink()
                    self.stopped = pid
                    return True
            if self._process.poll() is not None and not self._marker.exists():
                return False
            time.sleep(0.005)
        raise TimeoutError(f"the module neither stopped nor ended within {timeout} s")

    def go_on(self) -> None:
        """Let the stopped process continue."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.stopped, signal.SIGCONT)

    def kill(self) -> None:
        """Send SIGKILL to the module's own process."""
        self._process.kill()

    def end(self, *, timeout: float = 120) -> Outcome:
        """Wait for the module's end, and return its outcome."""
        rc = self._process.wait(timeout)
        return _outcome(rc, *(path.read_bytes() for path in self._outputs))


@contextlib.contextmanager
def started(
    name: str,
    params: Mapping[str, t.Any],
    *,
    stop_at: str = "",
    hooks: Sequence[Hook] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Start one module in the background; with `stop_at` it stops whenever it enters that step."""
    with tempfile.TemporaryDirectory(prefix="running-") as name_of_folder:
        folder = Path(name_of_folder)
        if stop_at:
            hooks = [*hooks, ("stop_at", {"step": stop_at, "marker": str(folder / "stopped.json")})]
        (folder / "in").write_bytes(_input(name, params, False, False, None, hooks))
        outputs = (folder / "out", folder / "err")
        with (folder / "in").open("rb") as stdin, outputs[0].open("wb") as out, outputs[1].open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-c", _CHILD],
                stdin=stdin,
                stdout=out,
                stderr=err,
                env=_environment(env),
                start_new_session=True,
            )
        running = Running(process, folder, outputs)
        try:
            yield running
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            running.go_on()
