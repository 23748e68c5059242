#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_restore
short_description: Restore MazeVault's database beside the live one and prove it
version_added: 0.1.0
description:
  - Loads a recovery set's dump, or any dump file, into a new database beside the live one, gives it owner, privileges,
    settings and statistics, and compares everything with the set's manifest.
  - The live database is only read. M(mazevault.backup.pg_swap) puts the new one in its place afterwards.
  - O(mode=in_place) is for servers without room for two. It drops the live database, so it needs O(confirm) and a
    safety set.
  - Every byte of a set is compared with its checksums before anything is parsed.
  - A set whose key generations aren't all in escrow is refused, where there is to be one. So is a set whose data the
    keys in O(env_file), O(vault_file) and O(key_file) wouldn't decrypt, where any of them is named.
  - A dump is code that runs with the server's rights. A file that is no recovery set is loaded into a throw-away server
    first.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
  - mazevault.backup._postgres
  - mazevault.backup._postgres.runtime
  - mazevault.backup._postgres.jobs
  - mazevault.backup._set_key
  - mazevault.backup._trust
  - mazevault.backup._trust.wanted
  - mazevault.backup._keys
attributes:
  check_mode:
    support: full
    details: Makes all checks that only read, compares the live database with the set, and restores nothing.
  diff_mode:
    support: full
  idempotent:
    support: none
    details: Each run restores anew. What a dead run left is dropped first.
options:
  set:
    description: Id of a set, V(latest), or the path of a dump in custom, directory, tar or plain format, also inside
      gzip or zstd.
    type: str
    required: true
  backup_root:
    description: Folder of all sets.
    type: path
    required: true
  set_id:
    description: Id of the staging folder that M(mazevault.backup.recovery_set) opened with V(purpose=restore). Not in
      check mode.
    type: str
  mode:
    description: V(beside) leaves the live database alone, V(in_place) replaces it.
    type: str
    default: beside
    choices: [beside, in_place]
  installation:
    description: Name of this installation. A set of another one is refused.
    type: str
  accept:
    description: Refusals that the operator takes upon himself.
    type: list
    elements: str
    default: []
    choices:
      - other_installation
      - dirty_migration
      - subscriptions
      - logical_slots
      - unsigned
      - not_in_escrow
      - other_generation
  accept_because:
    description: Why V(not_in_escrow) or V(other_generation) is accepted. It is kept in the ledger.
    type: str
    default: ""
  confirm:
    description: Has to equal O(inventory_hostname) for O(mode=in_place), which drops the live database. Not needed in
      check mode.
    type: str
  inventory_hostname:
    description: Name of the host in the inventory, what O(confirm) is compared with.
    type: str
  safety_set:
    description: Id of the proven set that was made of the live database just now. Required for O(mode=in_place).
    type: str
  safety_set_key_file:
    description:
      - File with the key of an encrypted O(safety_set), as M(mazevault.backup.recovery_set) kept it.
      - Unset, O(identity_file) opens that one too.
    type: path
  application_stop:
    description: Command that stops the application, as a list of words. Used by O(mode=in_place).
    type: list
    elements: str
    default: []
  application_start:
    description: Command that starts the application, as a list of words. Used by O(mode=in_place).
    type: list
    elements: str
    default: []
  application_timeout:
    description: Seconds that either command may take.
    type: float
    default: 300
  scratch_dir:
    description: Folder for a throw-away server. Unset means C(/var/tmp) for root and the staging folder else.
    type: path
  scratch_user:
    description: Account of the throw-away server when the module runs as root. Unset means C(postgres), else C(nobody).
    type: str
  reserve:
    description: Bytes that must stay free, as a number or with a unit (V(2G)). Unset means 5 % of the file system, at
      most 5 GiB.
    type: str
seealso:
  - module: mazevault.backup.pg_swap
  - module: mazevault.backup.backup_verify
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Restore the newest set beside the live database
  mazevault.backup.pg_restore:
    backup_root: /opt/mazevault/backups
    set: latest
    set_id: "{{ opened.set_id }}"
    installation: "{{ inventory_hostname }}"
  register: restored

- name: A dump of the specification's own script
  mazevault.backup.pg_restore:
    backup_root: /opt/mazevault/backups
    set: /opt/mazevault/backups/mazevault_20260210_020000.sql.gz
    set_id: "{{ opened.set_id }}"

- name: No room for two databases
  mazevault.backup.pg_restore:
    backup_root: /opt/mazevault/backups
    set: mazevault_20261123_020000
    set_id: "{{ opened.set_id }}"
    mode: in_place
    safety_set: mazevault_20261123_101500
    confirm: "{{ mazevault_confirm }}"
    inventory_hostname: "{{ inventory_hostname }}"
    application_stop: [systemctl, stop, mazevault]
    application_start: [systemctl, start, mazevault]
"""

RETURN = r"""
database:
  description: Name of the restored database, null in check mode.
  type: str
  returned: success
verdict:
  description: V(pass) or V(unproven). A V(fail) is an error, and the new database is gone again. Null in check mode.
  type: str
  returned: success
checks:
  description: Everything that was compared.
  type: list
  elements: dict
  returned: success
left_out:
  description: Entries of the dump that this server or role can't restore, with reasons.
  type: list
  elements: str
  returned: success
outlook:
  description: What was known before, such as rows in the live database and in the set, and roles that had to be
    created.
  type: dict
  returned: success
  contains:
    live_exists:
      description: Whether the live database was there.
      type: bool
    live_rows:
      description: Rows in the live database, null where it could not be read.
      type: int
    set_rows:
      description: Rows in the set, null for a dump that is no set.
      type: int
    differing:
      description: Tables whose number of rows differs.
      type: list
      elements: str
    missing_roles:
      description: Roles of the set that the server did not have.
      type: list
      elements: str
    needed_bytes:
      description: Space that the restored database was expected to need.
      type: int
    server_major:
      description: Major version of the server.
      type: int
    notes:
      description: What else is worth knowing, such as another version of the collation.
      type: list
      elements: str
seconds:
  description: Seconds of each step.
  type: dict
  returned: success
"""

import functools
import os
import typing as t
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _connection, _ledger, _module
from ansible_collections.mazevault.backup.plugins.module_utils._confirm import require_confirmation
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._evidence import write_evidence
from ansible_collections.mazevault.backup.plugins.module_utils._files import write_json
from ansible_collections.mazevault.backup.plugins.module_utils._guard import run_guarded
from ansible_collections.mazevault.backup.plugins.module_utils._in_place import InPlace
from ansible_collections.mazevault.backup.plugins.module_utils._leftovers import note_scratch
from ansible_collections.mazevault.backup.plugins.module_utils._process import HostProcesses
from ansible_collections.mazevault.backup.plugins.module_utils._programs import Runtime
from ansible_collections.mazevault.backup.plugins.module_utils._recovery_set import RecoverySet, refuse_untrusted
from ansible_collections.mazevault.backup.plugins.module_utils._scratch import default_work, scratch_account
from ansible_collections.mazevault.backup.plugins.module_utils._set_generations import (
    Restoring,
    places_of,
    refuse_unfit,
)
from ansible_collections.mazevault.backup.plugins.module_utils._sizes import parse_size
from ansible_collections.mazevault.backup.plugins.module_utils._sql import Server
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress, Staging
from ansible_collections.mazevault.backup.plugins.module_utils._subject import (
    find_set,
    is_path,
    published_key,
    subject_of_path,
    subject_of_set,
)
from ansible_collections.mazevault.backup.plugins.module_utils._swap import (
    Application,
    check_obstacles,
    maintenance,
    oid_of,
)
from ansible_collections.mazevault.backup.plugins.module_utils._target import (
    Restored,
    precheck,
    refuse_older_server,
    restore_beside,
)
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, Check, combine
from ansible_collections.mazevault.backup.plugins.module_utils._verify import Places, Subject, prove


def _chosen(
    params: dict[str, t.Any],
    wanted: str,
    keys: dict[str, t.Any],
    server: Server,
    runtime: Runtime,
    fits: t.Callable[[RecoverySet, Trust], None] | None = None,
) -> tuple[Subject, str]:
    """(what to restore, the installation it belongs to); its bytes are those that were published.

    Args:
        fits: refuses a set before anything of it is opened.
    """
    if is_path(wanted):
        return subject_of_path(wanted), ""
    trust = _module.trust_of(params)
    found = find_set(params["backup_root"], wanted, trust, component="postgres")
    refuse_untrusted(found, trust, unsigned="unsigned" in params["accept"])
    if fits is not None:
        fits(found, trust)
    subject = subject_of_set(found, published_key(found, keys), sums=True)
    if not subject.sums and subject.public is not None:
        refuse_older_server(subject.public, server)
    checks = prove(subject, "checksum", runtime, Places("", ""), jobs=1, step=lambda _name: None)
    wrong = [check for check in checks if check.verdict == FAIL]
    if wrong:
        raise BackupError(
            f"set: {found.set_id}: damaged: {wrong[0].name}: {wrong[0].reason}",
            hint="Nothing was touched. Restore another set, or this one from another copy.",
        )
    return subject, str(found.manifest["installation"])


def _fit_keys(params: dict[str, t.Any], found: RecoverySet, trust: Trust, *, write: bool) -> None:
    """Refuse what the host's keys wouldn't open, and what nobody would open when the host is gone."""
    how = Restoring(places_of(params), params["wanted"], params["accept"], params["accept_because"])
    accepted = refuse_unfit(found.root, found.manifest, trust, how)
    if accepted and write:
        facts = {"set_id": found.set_id, "accepted": list(accepted), "because": how.because}
        _ledger.append(found.root, "keys accepted", **facts)


def _restore(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    if params["mode"] == "in_place":
        require_confirmation(module.check_mode, params["confirm"], params["inventory_hostname"])
    runtime, jobs = _connection.runtime_of(params), _connection.jobs_of(params)
    server = _connection.server_of(params, runtime)
    staging = Staging(params["backup_root"], params["set_id"]) if params["set_id"] else None
    if staging is not None and not module.check_mode:
        _connection.note_runtime(staging, runtime)
    if is_path(params["set"]):
        runtime.see(params["set"])
    reserve = parse_size(params["reserve"], parameter="reserve")
    if runtime.name == "host":
        scratch_account(params["scratch_user"] or "")
    fits = functools.partial(_fit_keys, params, write=not module.check_mode)
    subject, set_installation = _chosen(params, params["set"], params, server, runtime, fits)
    if params["mode"] == "in_place" and subject.private is None:
        raise BackupError(
            f"mode: in_place: {params['set']} is no recovery set, so nobody could say whether it came back whole",
            hint="Nothing was touched. Restore a file with mode=beside.",
        )
    outlook = precheck(
        subject, server, runtime, installation=params["installation"] or "", set_installation=set_installation,
        accept=params["accept"], reserve=reserve,
    )  # fmt: skip
    with maintenance(server).session() as session:
        check_obstacles(session, server.database, params["accept"])
    result: dict[str, t.Any] = {
        "changed": True,
        "database": None,
        "verdict": None,
        "checks": [],
        "left_out": [],
        "outlook": {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(outlook).items()},
        "seconds": {},
        "diff": {"before": "", "after": f"{params['set']} restored {params['mode']} of database {server.database}\n"},
    }
    if module.check_mode:
        return result
    if staging is None:
        raise BackupError("set_id: missing", hint="Open a staging folder first (recovery_set with purpose=restore).")
    with staging.working() as progress:
        places = Places(
            work=staging.work(),
            scratch=params["scratch_dir"] or default_work(runtime, staging.path),
            account=params["scratch_user"] or "",
            reserve=reserve,
            register=lambda folder: note_scratch(staging, folder),
        )
        if params["mode"] == "in_place":
            return {**result, **_in_place(params, subject, outlook.live_exists, staging, progress, server, runtime)}
        restored = restore_beside(subject, server, runtime, places, stamp=staging.stamp, jobs=jobs, step=progress.step)
        write_json(os.path.join(staging.path, "restored.json"), _for_the_swap(restored, params["set"]))
    return {
        **result,
        "database": restored.name,
        "verdict": combine(check.verdict for check in restored.checks),
        "checks": [check.as_dict() for check in restored.checks],
        "left_out": restored.left_out,
        "seconds": restored.seconds,
    }


def _for_the_swap(restored: Restored, wanted: str) -> dict[str, t.Any]:
    return {
        "set": wanted,
        "name": restored.name,
        "oid": restored.oid,
        "comment": restored.comment,
        "verdict": combine(check.verdict for check in restored.checks),
    }


def _in_place(
    params: dict[str, t.Any],
    subject: Subject,
    live_exists: bool,
    staging: Staging,
    progress: Progress,
    server: Server,
    runtime: Runtime,
) -> dict[str, t.Any]:
    safety = None
    if live_exists:
        if not params["safety_set"]:
            raise BackupError(
                "safety_set: missing", hint="Make and prove a set of the live database first; in place drops it."
            )
        kept = params["safety_set_key_file"]
        keys = {"set_key_file": kept, "identity_file": None if kept else params["identity_file"]}
        safety = _chosen(params, params["safety_set"], keys, server, runtime)[0]
    application = Application(
        HostProcesses(),
        params["application_stop"],
        params["application_start"],
        timeout=params["application_timeout"],
    )
    with maintenance(server).session() as session:
        live_oid = oid_of(session, params["database"])
    job = InPlace(
        runtime,
        server,
        subject,
        safety,
        application,
        staging.path,
        _connection.jobs_of(params),
        progress.step,
        live_oid,
    )

    def work() -> dict[str, t.Any]:
        try:
            return {"checks": [check.as_dict() for check in job.replace()]}
        finally:
            runtime.close()

    outcome = run_guarded(
        work,
        job.recover,
        os.path.join(staging.path, "in_place.json"),
    )
    checks = [Check(**check) for check in outcome["checks"]]
    write_evidence(
        params["backup_root"],
        staging.name,
        "restored in place",
        {"database": params["database"], "restored_from": params["set"], "safety_set": params["safety_set"], **outcome},
        _module.trust_of(params),
    )
    return {
        "database": params["database"],
        "verdict": combine(check.verdict for check in checks),
        "checks": outcome["checks"],
    }


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            **_connection.SERVER_SPEC,
            **_connection.RUNTIME_SPEC,
            **_connection.JOBS_SPEC,
            **_module.TRUST_SPEC,
            **_module.WANTED_SPEC,
            **_module.KEYS_SPEC,
            "set": {"type": "str", "required": True},
            "backup_root": {"type": "path", "required": True},
            "set_id": {"type": "str"},
            "mode": {"type": "str", "default": "beside", "choices": ["beside", "in_place"]},
            "installation": {"type": "str"},
            "accept": {
                "type": "list",
                "elements": "str",
                "default": [],
                "choices": [
                    "other_installation",
                    "dirty_migration",
                    "subscriptions",
                    "logical_slots",
                    "unsigned",
                    "not_in_escrow",
                    "other_generation",
                ],
            },
            "accept_because": {"type": "str", "default": ""},
            "confirm": {"type": "str"},
            "inventory_hostname": {"type": "str"},
            "safety_set": {"type": "str"},
            "safety_set_key_file": {"type": "path", "no_log": False},
            **_module.KEY_SPEC,
            "application_stop": {"type": "list", "elements": "str", "default": []},
            "application_start": {"type": "list", "elements": "str", "default": []},
            "application_timeout": {"type": "float", "default": 300},
            "scratch_dir": {"type": "path"},
            "scratch_user": {"type": "str"},
            "reserve": {"type": "str"},
        },
        supports_check_mode=True,
    )
    _module.run(module, _restore)


if __name__ == "__main__":
    main()
