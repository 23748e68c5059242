#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_dump
short_description: Dump MazeVault's PostgreSQL database together with what proves the dump
version_added: 0.1.0
description:
  - Takes one exported snapshot of the database, locks first, and makes everything of that one moment. That is the dump,
    the row count and a salted content digest of every table, of large objects and sequences, and a catalogue of all
    objects.
  - What no dump carries is written beside it, roles without passwords, owner, privileges, settings, comment and
    connection limit of the database, and the server's configuration files where the role may read them.
  - In a recovery set that is encrypted, everything is encrypted as it is written; nothing touches the disk in plain.
  - The dump appears under its name only when it is whole and flushed. A failed or killed run leaves nothing there.
  - Another session that waits longer than O(block_limit) for the locks of this run ends the attempt. It is repeated a
    few times, then the module fails and says so.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
  - mazevault.backup._postgres
  - mazevault.backup._postgres.runtime
  - mazevault.backup._postgres.jobs
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: none
    details: Each run makes a new dump. An existing O(dest) is never overwritten, it is an error.
options:
  dest:
    description:
      - Folder to make. It must not exist, its parent must, and nobody else may write there.
      - The facts that prove the dump are written beside it, to O(dest) followed by C(.json).
      - Give either this or O(backup_root) with O(set_id).
    type: path
  backup_root:
    description: Backup root with the open recovery set that the dump becomes a part of.
    type: path
  set_id:
    description: Id of the open recovery set, as M(mazevault.backup.recovery_set) returned it.
    type: str
  format:
    description:
      - V(custom) is one file, streamed through the compressor, so that no uncompressed copy touches the disk.
      - V(directory) dumps tables in parallel, faster with several large tables and many processors. It can't be part
        of a set that is encrypted.
    type: str
    default: custom
    choices: [custom, directory]
  compression:
    description:
      - V(zstd) is the zstd program with frame checksums, outside of pg_dump (pg_dump's own zstd and lz4 have none).
      - V(gzip) is pg_dump's own. V(none) leaves the dump as it is.
      - V(auto) takes V(zstd) where the program is installed, else V(gzip).
    type: str
    default: auto
    choices: [auto, zstd, gzip, none]
  block_limit:
    description: Seconds that another session may wait for the locks of this run, before the attempt is given up.
    type: float
    default: 30
  reserve:
    description:
      - Bytes that must stay free on the file system of the dump, as a number or with a unit (V(2G)).
      - Unset means 5 % of the file system, at most 5 GiB.
    type: str
seealso:
  - module: mazevault.backup.backup_verify
  - module: mazevault.backup.pg_restore
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Dump the database of the open recovery set
  mazevault.backup.pg_dump:
    host: /run/postgresql
    backup_root: /opt/mazevault/backups
    set_id: mazevault_20261123_020000

- name: Dump to a folder of one's own before a manual change
  mazevault.backup.pg_dump:
    host: db.example.org
    passfile: /root/.pgpass
    sslmode: verify-full
    dest: /opt/mazevault/backups/by-hand
  register: dump

- name: Many processors and big tables
  mazevault.backup.pg_dump:
    dest: /srv/dumps/monday
    format: directory
    jobs: 8
"""

RETURN = r"""
path:
  description: Folder of the dump.
  type: str
  returned: success
  sample: /opt/mazevault/backups/staging/mazevault_20261123_020000/set/postgres
report:
  description: File with the facts that prove the dump. It names tables and roles.
  type: str
  returned: success
recovery_point:
  description: The moment that the data stands for (UTC), null in check mode.
  type: str
  returned: success
  sample: "2026-11-23T02:00:01.123456Z"
bytes:
  description: Size of all files of the dump, null in check mode.
  type: int
  returned: success
artefacts:
  description: One entry a file, with path, bytes, SHA-256 of the file and of its plaintext, format and compression.
  type: list
  elements: dict
  returned: success
postgres:
  description: Public facts of the dump for the manifest, the planned ones in check mode.
  type: dict
  returned: success
attempts:
  description: How many attempts were made. 0 in check mode.
  type: int
  returned: success
longest_block_seconds:
  description: The longest time that another session was seen waiting for the locks of this run.
  type: float
  returned: success
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _connection, _module
from ansible_collections.mazevault.backup.plugins.module_utils._dump import Dumper, describe, make_plan
from ansible_collections.mazevault.backup.plugins.module_utils._encryption import SetKey
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import (
    fsync_path,
    fsync_tree,
    private_folder,
    remove_tree,
    require_space,
    write_json,
)
from ansible_collections.mazevault.backup.plugins.module_utils._set_keys import key_of
from ansible_collections.mazevault.backup.plugins.module_utils._sizes import parse_size
from ansible_collections.mazevault.backup.plugins.module_utils._source import look_at_source
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress, Staging


def _target(params: dict[str, t.Any]) -> tuple[str, str, Staging | None]:
    """(folder to make, report file, staging) for either way of naming the destination."""
    if params["set_id"]:
        staging = Staging(params["backup_root"], params["set_id"])
        return os.path.join(staging.set_path, "postgres"), staging.report_path("postgres"), staging
    dest = os.path.abspath(params["dest"])
    return dest, f"{dest}.json", None


def _dump(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    for name in ("dest", "set_id"):
        if params[name] == "":
            raise BackupError(f"{name}: empty", hint="Name a new folder (dest), or the id of an open set (set_id).")
    reserve = parse_size(params["reserve"], parameter="reserve")
    runtime, jobs = _connection.runtime_of(params), _connection.jobs_of(params)
    server = _connection.server_of(params, runtime)
    dest, report, staging = _target(params)
    if staging is None:
        if os.path.lexists(dest):
            raise BackupError(
                f"dest: {dest}: exists already", hint="A dump never overwrites anything; name a new folder."
            )
        private_folder(os.path.dirname(dest), parameter="dest")
        runtime.see(os.path.dirname(dest), writable=True)
    elif not module.check_mode:
        _connection.note_runtime(staging, runtime)
    with server.session("mazevault.backup look") as session:
        source = look_at_source(session, server.database, lock_timeout=min(2.0, params["block_limit"] / 2))
    runtime.program("pg_dump", major=source.server_major)
    key = None if staging is None or not staging.exists() else key_of(staging, "data")
    plan = make_plan(
        runtime,
        dump_format=params["format"],
        compression=params["compression"],
        jobs=jobs,
        encrypted=key is not None,
    )
    # Encrypted content doesn't shrink below its binary size; hexadecimal text does, so this is the cautious side.
    needed = int(source.table_bytes * 1.1) + (16 << 20)
    require_space(
        os.path.dirname(dest),
        needed,
        parameter="dest" if staging is None else "backup_root",
        what="the dump",
        reserve=reserve,
    )
    result: dict[str, t.Any] = {
        "changed": True,
        "path": dest,
        "report": report,
        "recovery_point": None,
        "bytes": None,
        "artefacts": [],
        "attempts": 0,
        "longest_block_seconds": 0.0,
        "postgres": {
            "server_version": source.server_version,
            "size_bytes": source.size_bytes,
            "tables": source.tables,
            "schema_version": source.schema_version,
            "schema_dirty": source.schema_dirty,
            "format": plan.format,
            "compression": plan.compression,
        },
        "diff": {"before": "", "after": f"{dest}: dump of {source.database}, {plan.format}, {plan.compression}\n"},
    }
    if source.schema_dirty:
        module.warn(
            f"schema_migrations: version {source.schema_version} is dirty:"
            " a migration was broken off before this backup"
        )
    if module.check_mode:
        return result
    if staging is None:
        done = _into(dest, report, Progress(), params["dest"], runtime, server, plan, source, params, reserve, None)
    else:
        with staging.working() as progress:
            done = _into(dest, report, progress, staging.name, runtime, server, plan, source, params, reserve, key)
    return {**result, **done}


def _into(
    dest: str,
    report: str,
    progress: Progress,
    run_name: str,
    runtime: t.Any,
    server: t.Any,
    plan: t.Any,
    source: t.Any,
    params: dict[str, t.Any],
    reserve: int | None,
    key: SetKey | None,
) -> dict[str, t.Any]:
    """Dump under a temporary name beside `dest`, then let it appear."""
    temporary = os.path.join(os.path.dirname(dest), f".{os.path.basename(dest)}.part")
    remove_tree(temporary)  # of a killed run
    os.mkdir(temporary, 0o700)
    try:
        dumper = Dumper(
            runtime,
            server,
            plan,
            block_limit=params["block_limit"],
            reserve=reserve,
            progress=progress,
            run_name=run_name,
            key=key,
        )
        outcome = dumper.dump(temporary, source)
        progress.step("dump: flush")
        fsync_tree(temporary)
        progress.step("dump: report")
        write_json(report, describe(outcome))
        progress.step("dump: rename")
        remove_tree(dest)  # only a staged one can exist: of a former attempt in the same open set
        os.rename(temporary, dest)
        fsync_path(os.path.dirname(dest))
        progress.step("dump: done")
    except BaseException:
        remove_tree(temporary)
        raise
    return {
        "recovery_point": outcome.public["recovery_point"],
        "bytes": sum(artefact["bytes"] for artefact in outcome.artefacts),
        "artefacts": outcome.artefacts,
        "postgres": outcome.public,
        "attempts": outcome.attempts,
        "longest_block_seconds": outcome.longest_block_seconds,
    }


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            **_connection.SERVER_SPEC,
            **_connection.RUNTIME_SPEC,
            **_connection.JOBS_SPEC,
            "dest": {"type": "path"},
            "backup_root": {"type": "path"},
            "set_id": {"type": "str"},
            "format": {"type": "str", "default": "custom", "choices": ["custom", "directory"]},
            "compression": {"type": "str", "default": "auto", "choices": ["auto", "zstd", "gzip", "none"]},
            "block_limit": {"type": "float", "default": 30},
            "reserve": {"type": "str"},
        },
        mutually_exclusive=[("dest", "set_id")],
        required_one_of=[("dest", "set_id")],
        required_together=[("backup_root", "set_id")],
        supports_check_mode=True,
    )
    _module.run(module, _dump)


if __name__ == "__main__":
    main()
