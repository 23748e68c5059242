# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What every module of the collection does the same way: connection options, umask, errors."""

from __future__ import annotations

import math
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._programs import HostRuntime, Runtime, cpu_count
from ansible_collections.mazevault.backup.plugins.module_utils._sql import Server

RUNTIME_SPEC: dict[str, t.Any] = {
    "runtime": {"type": "str", "default": "host", "choices": ["host"]},
    "bin_dir": {"type": "path"},
    "jobs": {"type": "int"},
}
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


def runtime_of(params: t.Mapping[str, t.Any]) -> Runtime:
    bin_dir = params.get("bin_dir") or ""
    if bin_dir and not os.path.isdir(bin_dir):
        raise BackupError(f"bin_dir: {bin_dir}: no such folder", hint="Name the folder of the PostgreSQL programs.")
    return HostRuntime(bin_dir)


def jobs_of(params: t.Mapping[str, t.Any]) -> int:
    jobs = params.get("jobs")
    if jobs is None:
        return cpu_count()
    if not 1 <= int(jobs) <= 256:
        raise BackupError(f"jobs: {jobs}: out of range", hint="Give a number from 1 to 256.")
    return int(jobs)


def server_of(params: t.Mapping[str, t.Any]) -> Server:
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
    )


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
        said = " ".join(f"{exc.filename or 'operating system'}: {exc.strerror or exc}".split())
        hint = "See to that file or folder and its rights, then run again."
        module.fail_json(msg=f"{said} -> {hint}", reason=str(exc), hint=hint)
    module.exit_json(**result)
