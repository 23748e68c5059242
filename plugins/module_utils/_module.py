# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What every module of the collection does the same way: connection options, umask, errors."""

from __future__ import annotations

import math
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _policy
from ansible_collections.mazevault.backup.plugins.module_utils._container import ContainerRuntime
from ansible_collections.mazevault.backup.plugins.module_utils._engine import KINDS, Engine
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError, of_system
from ansible_collections.mazevault.backup.plugins.module_utils._leftovers import note_engine
from ansible_collections.mazevault.backup.plugins.module_utils._programs import HostRuntime, Runtime, cpu_count
from ansible_collections.mazevault.backup.plugins.module_utils._sidecar import Limits
from ansible_collections.mazevault.backup.plugins.module_utils._signature import Signer, default_key
from ansible_collections.mazevault.backup.plugins.module_utils._sizes import parse_size
from ansible_collections.mazevault.backup.plugins.module_utils._sql import Server
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Staging
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust

RUNTIME_SPEC: dict[str, t.Any] = {
    "runtime": {"type": "str", "default": "host", "choices": ["host", *KINDS]},
    "container": {"type": "str"},
    "bin_dir": {"type": "path"},
    "cpus": {"type": "float"},
    "memory": {"type": "str"},
    "io_weight": {"type": "int"},
}
# Paths, not secrets.
TRUST_SPEC: dict[str, t.Any] = {"signing_key": {"type": "path", "no_log": False}}
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
# Paths, not secrets.
KEY_SPEC: dict[str, t.Any] = {
    "set_key_file": {"type": "path", "no_log": False},
    "identity_file": {"type": "path"},
}

# Where MazeVault's keys lie.
KEYS_SPEC: dict[str, t.Any] = {
    "env_file": {"type": "path"},
    "vault_file": {"type": "path"},
    "key_file": {"type": "path", "no_log": False},
}

# Ended when the module ends.
_OPENED: list[Runtime] = []


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
    _OPENED.append(runtime)
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


# What a run wishes, as far as a policy may say otherwise; the values are checked by who uses them.
WANTED_SPEC: dict[str, t.Any] = {"wanted": {"type": "dict", "default": {}}}


def trust_of(params: t.Mapping[str, t.Any]) -> Trust:
    """Who signs, and whose signatures count; reads nothing but what must be there already."""
    key = params.get("signing_key") or default_key()
    if not os.path.isabs(key):
        raise BackupError(f"signing_key: {key}: not an absolute path", hint="Name it from the root folder on.")
    return Trust(Signer(key), _policy.find(key))


def check_common(params: t.Mapping[str, t.Any]) -> None:
    """Options that several modules have, and that mean the same in each."""
    root = params.get("backup_root")
    if root is not None and not os.path.isabs(root):
        raise BackupError(
            f"backup_root: {root or 'empty'}: not an absolute path", hint="Name it from the root folder on."
        )
    for name in ("application_timeout", "block_limit", "stale_after"):
        seconds = params.get(name)
        if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
            raise BackupError(f"{name}: {seconds}: not above 0", hint="Give a number of seconds.")


def run(module: AnsibleModule, action: t.Callable[[AnsibleModule], dict[str, t.Any]]) -> t.NoReturn:
    """Run the module's one action; a BackupError becomes a message that says what to do."""
    os.umask(0o077)
    try:
        check_common(module.params)
        result = action(module)
    except BackupError as exc:
        module.fail_json(
            msg=f"{exc.msg} -> {exc.hint}" if exc.hint else exc.msg, reason=exc.msg, hint=exc.hint, **exc.details
        )
    except OSError as exc:
        error = of_system(exc, "See to that file or folder and its rights, then run again.")
        module.fail_json(msg=f"{error.msg} -> {error.hint}", reason=str(exc), hint=error.hint)
    finally:
        for runtime in _OPENED:
            runtime.close()
    module.exit_json(**result)
