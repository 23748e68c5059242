#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: recovery_set_record
short_description: Take the record of a proof that was made on another host
version_added: 0.1.0
description:
  - A prover opens and restores a copy of a set, and signs what came of it. This puts its record, byte for byte, among
    the host's own (C(records/)), and its hash into the host's ledger, so that it counts there.
  - Taken is only what a key of the pinned policy has signed (C(verification_keys)), what is about this set, and what
    was made of the very bytes that lie here.
  - A record that is here already is left alone.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
  - mazevault.backup._trust
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  backup_root:
    description: Folder of all sets.
    type: path
    required: true
  set:
    description: Id of the set that was proven.
    type: str
    required: true
  record:
    description: The record's bytes in base64, as M(ansible.builtin.slurp) gives them.
    type: str
    required: true
  signature:
    description: Its signature's bytes, likewise.
    type: str
    required: true
seealso:
  - module: mazevault.backup.backup_verify
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Take what the prover found
  mazevault.backup.recovery_set_record:
    backup_root: /opt/mazevault/backups
    set: mazevault_20261123_020000
    record: "{{ read.results[0].content }}"
    signature: "{{ read.results[1].content }}"
"""

RETURN = r"""
set_id:
  description: Id of the set.
  type: str
  returned: success
record:
  description: Path of the record, null in check mode unless it is there already.
  type: str
  returned: success
by:
  description: SHA-256 of the public key (DER) that signed it.
  type: str
  returned: success
verdict:
  description: What was found.
  type: str
  returned: success
level:
  description: The highest level that passed, empty for none.
  type: str
  returned: success
"""

import base64
import binascii
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _module
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._foreign_record import check_record, file_record
from ansible_collections.mazevault.backup.plugins.module_utils._recovery_set import load_set


def _bytes(params: dict[str, t.Any], name: str) -> bytes:
    try:
        return base64.b64decode(params[name], validate=True)
    except (ValueError, binascii.Error) as exc:
        raise BackupError(f"{name}: not base64", hint="Read the file with ansible.builtin.slurp.") from exc


def _take(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    trust = _module.trust_of(params)
    found = load_set(params["backup_root"], params["set"])
    record = check_record(found, _bytes(params, "record"), _bytes(params, "signature"), trust)
    path, changed = file_record(record, trust, write=not module.check_mode)
    return {
        # Proofs are no change: what counts is a set, an escrow generation, a schedule or a file that came or went.
        "changed": False,
        "set_id": found.set_id,
        "record": None if changed and module.check_mode else path,
        "by": record.by,
        "verdict": record.content["verdict"],
        "level": str(record.content.get("level") or ""),
    }


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            **_module.TRUST_SPEC,
            "backup_root": {"type": "path", "required": True},
            "set": {"type": "str", "required": True},
            "record": {"type": "str", "required": True},
            "signature": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    _module.run(module, _take)


if __name__ == "__main__":
    main()
