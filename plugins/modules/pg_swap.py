#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_swap
short_description: Put a restored database in the live one's place, or the kept one back
version_added: 0.1.0
description:
  - Stops the application, ends the sessions, renames both databases in one transaction, and starts the application
    whatever happened. That is one process on the target which a lost connection does not end, with a guardian beside it
    for a killed one.
  - The former database is kept under another name until the operator drops it.
  - A journal on the target says before each step what comes, so that the next run finishes what a crash broke off.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
  - mazevault.backup._postgres
  - mazevault.backup._postgres.runtime
  - mazevault.backup._trust
attributes:
  check_mode:
    support: full
    details: Needs no confirmation, and returns what would be renamed.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details: O(state=recovered) is, it changes nothing where no swap was broken off. Each other call is a swap.
options:
  state:
    description:
      - V(swapped) puts the database that M(mazevault.backup.pg_restore) restored into the live one's place.
      - V(rolled_back) puts a kept database back.
      - V(recovered) brings broken-off swaps to an end and starts the application; it needs no confirmation.
    type: str
    required: true
    choices: [swapped, rolled_back, recovered]
  backup_root:
    description: Folder of all sets.
    type: path
    required: true
  set_id:
    description: Id of the staging folder that was opened with V(purpose=restore). Not for V(recovered) and check mode.
    type: str
  confirm:
    description: Has to equal O(inventory_hostname), or the module fails before anything is touched. Not needed in check
      mode.
    type: str
  inventory_hostname:
    description: Name of the host in the inventory, what O(confirm) is compared with.
    type: str
  kept:
    description: Name of the kept database for V(rolled_back). Unset means the newest one.
    type: str
  application_stop:
    description: Command that stops the application, as a list of words. Empty means that there is nothing to stop.
    type: list
    elements: str
    default: []
  application_start:
    description: Command that starts the application, as a list of words.
    type: list
    elements: str
    default: []
  application_timeout:
    description: Seconds that either command may take.
    type: float
    default: 300
  accept:
    description: Refusals that the operator takes upon himself.
    type: list
    elements: str
    default: []
    choices: [subscriptions, logical_slots]
  stale_after:
    description: Seconds without a sign of life after which another run counts as dead.
    type: float
    default: 120
seealso:
  - module: mazevault.backup.pg_restore
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Swap the restored database in
  mazevault.backup.pg_swap:
    state: swapped
    backup_root: /opt/mazevault/backups
    set_id: "{{ opened.set_id }}"
    confirm: "{{ mazevault_confirm }}"
    inventory_hostname: "{{ inventory_hostname }}"
    application_stop: [systemctl, stop, mazevault]
    application_start: [systemctl, start, mazevault]

- name: The restore was wrong, put the former database back
  mazevault.backup.pg_swap:
    state: rolled_back
    backup_root: /opt/mazevault/backups
    set_id: "{{ opened.set_id }}"
    confirm: "{{ mazevault_confirm }}"
    inventory_hostname: "{{ inventory_hostname }}"
    application_stop: [systemctl, stop, mazevault]
    application_start: [systemctl, start, mazevault]

- name: Finish what a crash broke off
  mazevault.backup.pg_swap:
    state: recovered
    backup_root: /opt/mazevault/backups
    application_start: [systemctl, start, mazevault]
"""

RETURN = r"""
database:
  description: Name of the live database.
  type: str
  returned: success
incoming:
  description: Name of the database that was (or would be) put in the live one's place, null for V(recovered).
  type: str
  returned: success
kept:
  description: Name under which the former database is (or would be) kept, null for V(recovered) and where there was
    none.
  type: str
  returned: success
swap_seconds:
  description: Seconds from the first ended session to the commit, null in check mode.
  type: float
  returned: success
stopped_seconds:
  description: Seconds from the stop of the application to the end of its start command, null in check mode.
  type: float
  returned: success
evidence:
  description: Path of the evidence that was written, null in check mode.
  type: str
  returned: success
recovered:
  description: Broken-off swaps that were brought to an end, with their outcome.
  type: list
  elements: dict
  returned: success
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _connection, _module
from ansible_collections.mazevault.backup.plugins.module_utils._confirm import require_confirmation
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._evidence import write_evidence
from ansible_collections.mazevault.backup.plugins.module_utils._files import read_json
from ansible_collections.mazevault.backup.plugins.module_utils._guard import run_guarded
from ansible_collections.mazevault.backup.plugins.module_utils._process import HostProcesses
from ansible_collections.mazevault.backup.plugins.module_utils._programs import Runtime
from ansible_collections.mazevault.backup.plugins.module_utils._sql import Server, Session
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress, Staging
from ansible_collections.mazevault.backup.plugins.module_utils._swap import (
    JOURNAL,
    Application,
    Journal,
    check_obstacles,
    derived_name,
    derived_prefix,
    finish,
    kept_databases,
    load_journal,
    maintenance,
    oid_of,
    perform,
    unfinished_swap,
)
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust


def _plan(params: dict[str, t.Any], session: Session, staging: Staging | None) -> Journal:
    """Who takes whose place, from the staging folder (swapped) or from the kept databases (rolled_back)."""
    database = params["database"]
    live = oid_of(session, database)
    stamp = staging.stamp if staging else _clock.stamp(_clock.now())
    comment, set_comment, word = None, False, "before"
    if params["state"] == "swapped":
        if staging is None:
            return Journal(
                database,
                live,
                derived_name(database, "restore", stamp),
                0,
                _kept_name(database, word, stamp, live),
                None,
                [],
                [],
            )
        path = os.path.join(staging.path, "restored.json")
        if not os.path.isfile(path):
            raise BackupError(
                f"set_id: {staging.name}: nothing was restored in it yet",
                hint="Restore beside the live database first.",
            )
        restored = read_json(path)
        incoming, oid, comment, set_comment = restored["name"], restored["oid"], restored["comment"], True
        if restored["verdict"] == "fail":
            raise BackupError(f"database: {incoming}: failed its proof", hint="Restore another set.")
        if oid_of(session, incoming) != oid:
            raise BackupError(f"database: {incoming}: isn't there any more", hint="Restore again.")
    else:
        word = "rolledback"
        kept = kept_databases(session, database)
        incoming = params["kept"] or (kept[-1] if kept else "")
        if not incoming:
            raise BackupError(
                f"kept: no database {derived_prefix(database, 'before')}... is there",
                hint="There was no restore to take back, or its former database was dropped.",
            )
        oid = oid_of(session, incoming)
        # What a former rollback replaced can be named too; it is never chosen by itself.
        if not oid or incoming not in (*kept, *kept_databases(session, database, "rolledback")):
            raise BackupError(
                f"kept: {incoming}: no kept database of {database}", hint=f"Kept are: {', '.join(kept) or 'none'}."
            )
    return Journal(
        database,
        live,
        incoming,
        oid,
        _kept_name(database, word, stamp, live),
        comment,
        params["application_stop"],
        params["application_start"],
        set_comment=set_comment,
    )


def _kept_name(database: str, word: str, stamp: str, live: int) -> str:
    return derived_name(database, word, stamp) if live else ""


def _application(params: dict[str, t.Any], journal: Journal | None = None) -> Application:
    start = params["application_start"] or (journal.start if journal else [])
    return Application(HostProcesses(), params["application_stop"], start, timeout=params["application_timeout"])


def _swap(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    runtime = _connection.runtime_of(params)
    server = _connection.server_of(params, runtime)
    if params["state"] == "recovered":
        return _recover(module, server)
    require_confirmation(module.check_mode, params["confirm"], params["inventory_hostname"])
    staging = Staging(params["backup_root"], params["set_id"]) if params["set_id"] and not module.check_mode else None
    if staging is None and not module.check_mode:
        raise BackupError("set_id: missing", hint="Open a staging folder first (recovery_set with purpose=restore).")
    if staging is not None and staging.exists():
        _connection.note_runtime(staging, runtime)
    with maintenance(server).session() as session:
        journal = _plan(params, session, staging)
        check_obstacles(session, journal.database, params["accept"])
    result: dict[str, t.Any] = {
        "changed": True,
        "database": journal.database,
        "incoming": journal.incoming,
        "kept": journal.kept or None,
        "swap_seconds": None,
        "stopped_seconds": None,
        "evidence": None,
        "recovered": [],
        "diff": {
            "before": f"{journal.database}: the live database\n",
            "after": f"{journal.database}: what was {journal.incoming}\n{journal.kept or '(nothing)'}: what was live\n",
        },
    }
    if staging is None:
        return result
    with staging.working() as progress:
        journal.path = os.path.join(staging.path, JOURNAL)
        outcome = _guarded(server, runtime, journal, _application(params, journal), progress, staging, params)
    return {**result, **{key: outcome[key] for key in ("swap_seconds", "stopped_seconds", "evidence")}}


def _guarded(
    server: Server,
    runtime: Runtime,
    journal: Journal,
    application: Application,
    progress: Progress,
    staging: Staging,
    params: dict[str, t.Any],
) -> dict[str, t.Any]:
    # Who can't sign finds out before the application stops.
    trust = _module.trust_of(params)
    trust.signer.ensure()

    def work() -> dict[str, t.Any]:
        try:
            outcome = perform(server, journal, application, progress.step)
        finally:
            runtime.close()
        # Here and not by the module: that one may be dead by now.
        evidence = _evidence(params["backup_root"], staging, journal, params["state"], outcome, trust)
        return {**outcome, "evidence": evidence}

    def rescue() -> None:
        left = load_journal(staging.path)
        if left is not None:
            finish(server, left, application)

    return run_guarded(work, rescue, os.path.join(staging.path, "swap_result.json"))


def _evidence(root: str, staging: Staging, journal: Journal, what: str, outcome: dict[str, t.Any], trust: Trust) -> str:
    """What was done, and what lies where now."""
    restored = os.path.join(staging.path, "restored.json")
    return write_evidence(
        root,
        staging.name,
        what,
        {
            "database": journal.database,
            "put_in_place": {"former_name": journal.incoming, "oid": journal.incoming_oid},
            "kept": {"name": journal.kept, "oid": journal.live_oid} if journal.live_oid else None,
            "restored_from": read_json(restored) if os.path.isfile(restored) else None,
            **outcome,
        },
        trust,
    )


def _recover(module: AnsibleModule, server: Server) -> dict[str, t.Any]:
    root, trust = module.params["backup_root"], _module.trust_of(module.params)
    top = os.path.join(root, "staging")
    recovered = []
    for name in sorted(os.listdir(top)) if os.path.isdir(top) else ():
        staging = Staging(root, name)
        if name.startswith(".") or not unfinished_swap(staging.path):
            continue
        why = staging.busy(0 if not module.check_mode else module.params["stale_after"])
        if why:
            raise BackupError(f"{name}: a swap is under way ({why})", hint="Wait for it to end.")
        journal = load_journal(staging.path)
        if journal is None:
            continue  # whoever was at it has finished and cleared up
        entry = {"restore": name, "database": journal.database, "state": journal.state}
        if not module.check_mode:
            with staging.working():
                entry["outcome"] = finish(server, journal, _application(module.params, journal))
                if entry["outcome"] == "done":
                    _evidence(root, staging, journal, "finished after a crash", {"times": journal.times}, trust)
        recovered.append(entry)
    return {
        "changed": bool(recovered),
        "database": server.database,
        "incoming": None,
        "kept": None,
        "swap_seconds": None,
        "stopped_seconds": None,
        "evidence": None,
        "recovered": recovered,
        "diff": {"before": "".join(f"{entry['restore']}: broken off\n" for entry in recovered), "after": ""},
    }


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            **_connection.SERVER_SPEC,
            **_connection.RUNTIME_SPEC,
            **_module.TRUST_SPEC,
            "state": {"type": "str", "required": True, "choices": ["swapped", "rolled_back", "recovered"]},
            "backup_root": {"type": "path", "required": True},
            "set_id": {"type": "str"},
            "confirm": {"type": "str"},
            "inventory_hostname": {"type": "str"},
            "kept": {"type": "str"},
            "application_stop": {"type": "list", "elements": "str", "default": []},
            "application_start": {"type": "list", "elements": "str", "default": []},
            "application_timeout": {"type": "float", "default": 300},
            "accept": {"type": "list", "elements": "str", "default": [], "choices": ["subscriptions", "logical_slots"]},
            "stale_after": {"type": "float", "default": 120},
        },
        supports_check_mode=True,
    )
    _module.run(module, _swap)


if __name__ == "__main__":
    main()
