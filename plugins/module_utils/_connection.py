# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The options by which a module reaches PostgreSQL, and where its programs run."""

from __future__ import annotations

import math
import os
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._container import ContainerRuntime
from ansible_collections.mazevault.backup.plugins.module_utils._engine import KINDS, Engine
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._leftovers import note_engine
from ansible_collections.mazevault.backup.plugins.module_utils._module import at_end
from ansible_collections.mazevault.backup.plugins.module_utils._programs import HostRuntime, Runtime, cpu_count
from ansible_collections.mazevault.backup.plugins.module_utils._sidecar import Limits
from ansible_collections.mazevault.backup.plugins.module_utils._sizes import parse_size
from ansible_collections.mazevault.backup.plugins.module_utils._sql import Server
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Staging

RUNTIME_SPEC: dict[str, t.Any] = {
    "runtime": {"type": "str", "default": "host", "choices": ["host", *KINDS]},
    "container": {"type": "str"},
    "bin_dir": {"type": "path"},
    "cpus": {"type": "float"},
    "memory": {"type": "str"},
    "io_weight": {"type": "int"},
}
JOBS_SPEC: dict[str, t.Any] = {"jobs": {"type": "int"}}
SERVER_SPEC: dict[str, t.Any] = {
    "host": {"type": "str", "default": "localhost"},
    "port": {"type": "int", "default": 5432},
    "user": {"type": "str", "default": "mazevault"},
    "database": {"type": "str", "default": "mazevault"},
    # A path, not a secret: the password never comes near a module's parameters.
    "passfile": {"type": "path", "no_log": False},
    "sslmode": {"type": "str", "choices": ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]},
    "sslrootcert": {"type": "path"},
}


def runtime_of(params: t.Mapping[str, t.Any], *, connected: bool = True) -> Runtime:
    """The runtime that the options name.

    Args:
        connected: the programs talk to the installation's server.
    Raises:
        BackupError: naming the option that is wrong, or the container that isn't there or doesn't run.
    """
    bin_dir = params.get("bin_dir") or ""
    if bin_dir and not os.path.isdir(bin_dir):
        raise BackupError(f"bin_dir: {bin_dir}: no such folder", hint="Name the folder of the PostgreSQL programs.")
    limits = _limits_of(params)
    if params["runtime"] == "host":
        return HostRuntime(bin_dir)
    if not params["container"]:
        raise BackupError(
            f"container: missing, and runtime is {params['runtime']}",
            hint="Name the container of the database; preflight of the role mazevault finds it.",
        )
    runtime = ContainerRuntime(
        Engine(params["runtime"]), params["container"], connected=connected, limits=limits, run=f"look_{os.getpid()}"
    )
    at_end(runtime.close)
    runtime.see(params.get("passfile") or "")
    if params.get("backup_root"):
        runtime.see(os.path.join(params["backup_root"], "sets"))
    return runtime


def _limits_of(params: t.Mapping[str, t.Any]) -> Limits:
    cpus, weight = params.get("cpus") or 0.0, params.get("io_weight") or 0
    if not (math.isfinite(cpus) and cpus >= 0):
        raise BackupError(f"cpus: {cpus}: not above 0", hint="Give a number of processors, such as 1.5.")
    if weight and not 10 <= weight <= 1000:
        raise BackupError(f"io_weight: {weight}: out of range", hint="Give a number from 10 to 1000; others have 500.")
    memory = parse_size(params.get("memory"), parameter="memory")
    return Limits(cpus, f"{memory}b" if memory else "", weight)


def note_runtime(staging: Staging, runtime: Runtime) -> None:
    """Let the programs work in staging, and a later run find what this one leaves."""
    if isinstance(runtime, ContainerRuntime):
        runtime.belongs_to(staging.path)
        note_engine(staging, runtime.name)
    runtime.see(staging.path, writable=True)


def jobs_of(params: t.Mapping[str, t.Any]) -> int:
    jobs = params.get("jobs")
    if jobs is None:
        return cpu_count()
    if not 1 <= int(jobs) <= 256:
        raise BackupError(f"jobs: {jobs}: out of range", hint="Give a number from 1 to 256.")
    return int(jobs)


def server_of(params: t.Mapping[str, t.Any], runtime: Runtime) -> Server:
    port = params["port"]
    if not 1 <= port <= 65535:
        raise BackupError(f"port: {port}: out of range", hint="Give a number from 1 to 65535.")
    for name in ("host", "user", "database"):
        if not params[name]:
            raise BackupError(f"{name}: empty", hint=f"Give the {name} of the PostgreSQL server.")
    return Server(
        host=params["host"],
        port=port,
        user=params["user"],
        database=params["database"],
        passfile=params.get("passfile") or "",
        sslmode=params.get("sslmode") or "",
        sslrootcert=params.get("sslrootcert") or "",
        connector=runtime.connect if isinstance(runtime, ContainerRuntime) else None,
    )
