# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module of the collection in a process of its own, as Ansible would, and kills it where a test wants that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
from dataclasses import dataclass

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


def run_module(
    name: str,
    params: t.Mapping[str, t.Any],
    *,
    check: bool = False,
    diff: bool = False,
    kill: tuple[str, str] | None = None,
    env: t.Mapping[str, str] | None = None,
    timeout: float = 600,
) -> Outcome:
    """Run one module; `kill=(step, victim)` sends SIGKILL to `self` or to a child program when the step is entered."""
    arguments = {
        "module": name,
        "kill": list(kill) if kill else None,
        "params": {**params, "_ansible_check_mode": check, "_ansible_diff": diff},
    }
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run(
        [sys.executable, "-c", _CHILD],
        input=json.dumps(arguments).encode(),
        capture_output=True,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": f"{COLLECTIONS}:{tests}", **(env or {})},
        check=False,
    )
    lines = [line for line in done.stdout.decode().splitlines() if line.startswith("{")]
    result = json.loads(lines[-1]) if lines else {}
    return Outcome(done.returncode, result, done.stderr.decode())
