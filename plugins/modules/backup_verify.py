#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_verify
short_description: Prove a recovery set, an open one, a published one, or any dump
version_added: 0.1.0
description:
  - Climbs the levels V(toc), V(checksum), V(read) and V(restore) up to the one that is asked for. Each includes those
    below.
  - The verdict has three values. What was shown to be wrong is V(fail), what could not be shown is V(unproven), and
    V(pass) needs every level up to O(level) to have passed. Nothing checked is V(unproven).
  - A result for a published set is kept as a signed record whose hash is in the ledger.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
  - mazevault.backup._postgres.runtime
  - mazevault.backup._postgres.jobs
  - mazevault.backup._set_key
  - mazevault.backup._trust
attributes:
  check_mode:
    support: full
    details: Proves V(toc) and V(checksum), which only read; names what would be done for higher levels; writes no
      record.
  diff_mode:
    support: none
  idempotent:
    support: full
    details: Proving changes no set. The record that is added is not counted as a change.
options:
  set:
    description:
      - The id of an open or published set, V(latest), or the path of a dump that is no set.
      - A dump without a manifest can fail, but above V(toc) it is never more than V(unproven).
    type: str
    required: true
  backup_root:
    description: Folder of all sets. Required unless O(set) is a path.
    type: path
  components:
    description: What of a set is to be proven. Nothing means all that it holds.
    type: list
    elements: str
    default: []
  level:
    description:
      - V(toc) lists the contents. It says nothing about the data.
      - V(checksum) compares every file with its recorded SHA-256.
      - V(read) decodes every byte and compares the rows of every table, and what archives of files hold, with the
        manifest.
      - V(restore) restores into a throw-away server and compares counts and digests of every table, sequences, large
        objects, owners, privileges, constraints, indexes and extensions, and runs amcheck where the server has it.
        Archives are unpacked and compared, those with key material on a file system in memory.
    type: str
    default: restore
    choices: [toc, checksum, read, restore]
  scratch_dir:
    description:
      - Folder for the throw-away server, with room for the whole database.
      - Unset means C(/var/tmp) for root (the server runs under another account) and the staging folder else.
    type: path
  scratch_user:
    description: Account of the throw-away server when the module runs as root. Unset means C(postgres), else C(nobody).
    type: str
  reserve:
    description: Bytes that must stay free, as a number or with a unit (V(2G)). Unset means 5 % of the file system, at
      most 5 GiB.
    type: str
  stale_after:
    description: Seconds without a sign of life after which another run counts as dead.
    type: float
    default: 120
notes:
  - Of an encrypted set whose key isn't here, O(level=checksum) proves that its bytes are those that were proven before
    it was published. Higher levels are V(unproven) then.
  - Archives of class keys are opened only before they are published. Later their bytes are compared with those that
    were proven.
seealso:
  - module: mazevault.backup.pg_dump
  - module: mazevault.backup.pg_restore
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Prove the newest set by restoring it
  mazevault.backup.backup_verify:
    backup_root: /opt/mazevault/backups
    set: latest

- name: Are the bytes of all sets still those that were published?
  mazevault.backup.backup_verify:
    backup_root: /opt/mazevault/backups
    set: "{{ item }}"
    level: checksum
  loop: "{{ found.sets | map(attribute='set_id') }}"

- name: What is in this old file?
  mazevault.backup.backup_verify:
    set: /opt/mazevault/backups/mazevault_20260210_020000.sql.gz
    level: read
"""

RETURN = r"""
verdict:
  description: V(pass), V(fail) or V(unproven) on the level that was asked for.
  type: str
  returned: success
level:
  description: The highest level that passed, empty for none.
  type: str
  returned: success
wanted:
  description: The level that was asked for.
  type: str
  returned: success
summary:
  description: The verdict in one line, with reasons.
  type: str
  returned: success
checks:
  description: Everything that was looked at.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: What was looked at.
      type: str
    level:
      description: The level that needs it.
      type: str
    verdict:
      description: V(pass), V(fail) or V(unproven).
      type: str
    reason:
      description: Why it is not V(pass).
      type: str
    expected:
      description: What had to be there.
      type: str
    observed:
      description: What was there.
      type: str
components:
  description: What was looked at; empty for a dump that is no set.
  type: list
  elements: str
  returned: success
set_id:
  description: Id of the set, null for a dump that is no set.
  type: str
  returned: success
record:
  description: Path of the record that was written, null where none was.
  type: str
  returned: success
seconds:
  description: Seconds that the proof took.
  type: float
  returned: success
"""

import contextlib
import os
import tempfile
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.warnings import warn

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _connection, _module
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import remove_tree, sha256_file
from ansible_collections.mazevault.backup.plugins.module_utils._leftovers import note_scratch
from ansible_collections.mazevault.backup.plugins.module_utils._programs import Runtime
from ansible_collections.mazevault.backup.plugins.module_utils._records import write_record
from ansible_collections.mazevault.backup.plugins.module_utils._scratch import default_work, scratch_account
from ansible_collections.mazevault.backup.plugins.module_utils._set_proof import SetSubject, prove_set
from ansible_collections.mazevault.backup.plugins.module_utils._sizes import parse_size
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress, Staging
from ansible_collections.mazevault.backup.plugins.module_utils._subject import (
    find_set,
    is_path,
    published_key,
    set_of_published,
    set_of_staging,
    subject_of_path,
)
from ansible_collections.mazevault.backup.plugins.module_utils._sums import SUMS
from ansible_collections.mazevault.backup.plugins.module_utils._sweeper import open_swept
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import (
    LEVELS,
    PASS,
    conclude,
    conclusion_text,
    require,
)
from ansible_collections.mazevault.backup.plugins.module_utils._verify import Places


def _subject(params: dict[str, t.Any]) -> tuple[SetSubject, str | None, Staging | None]:
    """(what to prove, id of a published set, staging of an open one)."""
    wanted, root = params["set"], params["backup_root"]
    if is_path(wanted):
        return SetSubject((), subject_of_path(wanted)), None, None
    # A run that died after publishing leaves a staging folder without the set.
    if root and wanted and os.path.isdir(Staging(root, wanted).set_path):
        staging = Staging(root, wanted)
        return set_of_staging(staging, params["components"]), None, staging
    found = find_set(root, wanted, _module.trust_of(params))
    key, sums = published_key(found, params), params["level"] != "toc"
    return set_of_published(found, key, sums=sums, wanted=params["components"]), found.set_id, None


@contextlib.contextmanager
def _place(
    params: dict[str, t.Any], staging: Staging | None, runtime: Runtime
) -> t.Iterator[tuple[str, Progress, t.Callable[[str], None]]]:
    """(work folder, progress, where scratch servers are registered): in the open set, or in a folder of its own."""
    own = staging is None
    with contextlib.ExitStack() as place:
        if staging is None:
            # Also what is unpacked of a dump that is in no backup root is to go when we are killed.
            root = params["backup_root"] or place.enter_context(tempfile.TemporaryDirectory(prefix="mazevault-verify-"))
            staging = Staging(root, f"verify_{_clock.stamp(_clock.now())}_{os.getpid()}")
            unwatched = open_swept(root, staging.name, {"purpose": "verify"}, stale_after=params["stale_after"])[1]
            if unwatched:
                warn(unwatched)
        here = staging
        try:
            with here.working() as progress:
                _connection.note_runtime(here, runtime)
                yield here.work(), progress, lambda folder: note_scratch(here, folder)
        finally:
            if own:
                runtime.close()
                remove_tree(staging.path)


def _verify(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    runtime, jobs = _connection.runtime_of(params, connected=False), _connection.jobs_of(params)
    reserve = parse_size(params["reserve"], parameter="reserve")
    wanted = params["level"]
    subject, set_id, staging = _subject(params)
    if subject.database is not None:
        runtime.see(subject.database.folder or subject.database.path)
    started = time.monotonic()
    if runtime.name == "host":
        scratch_account(params["scratch_user"] or "")
    if params["scratch_dir"] and not os.path.isdir(params["scratch_dir"]):
        raise BackupError(
            f"scratch_dir: {params['scratch_dir']}: no such folder", hint="Name a folder with room for the database."
        )
    # Reading is harmless; unpacking and restoring write, so check mode stops below them.
    climb = min(wanted, "checksum", key=LEVELS.index) if module.check_mode else wanted
    if climb in ("toc", "checksum"):
        checks = prove_set(subject, climb, runtime, Places("", ""), jobs=jobs, step=lambda _name: None)
    else:
        with _place(params, staging, runtime) as (work, progress, register):
            places = Places(
                work=work,
                scratch=params["scratch_dir"] or default_work(runtime, os.path.dirname(work)),
                account=params["scratch_user"] or "",
                reserve=reserve,
                register=register,
            )
            checks = prove_set(subject, climb, runtime, places, jobs=jobs, step=progress.step)
    checks = require(checks, climb, subject.required())
    verdict, level = conclude(checks, climb)
    result: dict[str, t.Any] = {
        "changed": False,
        "verdict": verdict,
        "level": level,
        "wanted": wanted,
        "summary": conclusion_text(verdict, level, checks),
        "checks": [check.as_dict() for check in checks],
        "components": list(subject.components),
        "set_id": set_id or (staging.name if staging else None),
        "record": None,
        "seconds": round(time.monotonic() - started, 3),
    }
    if module.check_mode:
        if climb != wanted and verdict == PASS:
            result["summary"] = f"would go on to level {wanted}: {result['summary']} so far"
        return result
    if set_id:
        facts = {
            key: result[key] for key in ("verdict", "level", "wanted", "summary", "checks", "seconds", "components")
        }
        # Of which bytes this is told, for those who take this record for a set of theirs.
        sums = os.path.join(params["backup_root"], "sets", set_id, SUMS)
        facts["sums_sha256"] = sha256_file(sums) if os.path.isfile(sums) else None
        result["record"] = write_record(params["backup_root"], set_id, "verify", facts, _module.trust_of(params))
    return result


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            **_connection.RUNTIME_SPEC,
            **_connection.JOBS_SPEC,
            **_module.TRUST_SPEC,
            "set": {"type": "str", "required": True},
            "backup_root": {"type": "path"},
            "components": {"type": "list", "elements": "str", "default": []},
            "level": {"type": "str", "default": "restore", "choices": ["toc", "checksum", "read", "restore"]},
            "scratch_dir": {"type": "path"},
            "scratch_user": {"type": "str"},
            "reserve": {"type": "str"},
            "stale_after": {"type": "float", "default": 120},
            **_module.KEY_SPEC,
        },
        supports_check_mode=True,
    )
    _module.run(module, _verify)


if __name__ == "__main__":
    main()
