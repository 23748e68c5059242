#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: ledger_verify
short_description: Are ledger, sets, records and evidence what the host signed and a witness saw?
version_added: 0.1.0
description:
  - Checks the signature, the manifest and the line in the ledger of every set, the order of the sets, the records and
    the evidence, and compares all that with what a witness saw.
  - It reads no artefact. Whether their bytes agree with the signed sums is M(mazevault.backup.backup_verify)'s to tell.
  - The verdict has three values. A check that is required and has no result makes it V(unproven).
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
  - mazevault.backup._trust
  - mazevault.backup._trust.wanted
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: partial
    details: O(state=verified) changes nothing. Each O(state=accepted) is a record.
options:
  state:
    description:
      - V(verified) looks.
      - V(accepted) writes a signed record with which a person takes all sets that are here for good, after the ledger
        had to begin anew. What is wrong with a set itself stays wrong.
    type: str
    default: verified
    choices: [verified, accepted]
  backup_root:
    description: Folder of all sets.
    type: path
    required: true
  testimony:
    description: What M(mazevault.backup.recovery_set_witness) returned as C(testimony).
    type: dict
  without_witness:
    description: That there is no witness is on purpose, and leaves nothing unproven. It is said all the same.
    type: bool
    default: false
  inventory_hostname:
    description: The host's name in the inventory, for O(confirm).
    type: str
  confirm:
    description: For O(state=accepted), has to equal O(inventory_hostname).
    type: str
  by:
    description: Who accepts. Required for O(state=accepted).
    type: str
  reason:
    description: Why. Required for O(state=accepted).
    type: str
seealso:
  - module: mazevault.backup.backup_verify
  - module: mazevault.backup.recovery_set_witness
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Ask the control node what it saw
  mazevault.backup.recovery_set_witness:
    state: read
    installation: "{{ inventory_hostname }}"
  delegate_to: localhost
  become: false
  register: witness

- name: Is everything as it was?
  mazevault.backup.ledger_verify:
    backup_root: /opt/mazevault/backups
    testimony: "{{ witness.testimony }}"
"""

RETURN = r"""
verdict:
  description: V(pass), V(fail) or V(unproven).
  type: str
  returned: success
summary:
  description: The verdict in one line, with reasons.
  type: str
  returned: success
checks:
  description: Everything that was looked at, and everything that should have been.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: What was looked at.
      type: str
    level:
      description: Always V(checksum).
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
sets:
  description: C(verdict) and C(doubts) of each set, by its id.
  type: dict
  returned: success
ledger:
  description: What a witness has to see of the ledger.
  type: dict
  returned: success
  contains:
    ledger_head:
      description: Hash of its last line.
      type: str
    ledger_lines:
      description: Number of its lines.
      type: int
    host_key:
      description: Public half of the host's key (PEM), null before there is one.
      type: str
    host_time:
      description: The host's clock (UTC).
      type: str
    policy_sha256:
      description: SHA-256 of the pinned policy, null without one.
      type: str
record:
  description: Path of the record that was written, null where none was.
  type: str
  returned: success
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _module
from ansible_collections.mazevault.backup.plugins.module_utils._confirm import require_confirmation
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._examination import examine
from ansible_collections.mazevault.backup.plugins.module_utils._publication import (
    settle_ledger,
)
from ansible_collections.mazevault.backup.plugins.module_utils._records import ABOUT_THE_LEDGER, write_record
from ansible_collections.mazevault.backup.plugins.module_utils._recovery_set import (
    all_sets,
    seen_by_a_witness,
)
from ansible_collections.mazevault.backup.plugins.module_utils._testimony import parse
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import PASS, conclusion_text


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    root, trust = params["backup_root"], _module.trust_of(params)
    record = _accept(module, root, trust) if params["state"] == "accepted" else None
    testimony = parse(params["testimony"]) if params["testimony"] else None
    wanted = {**params["wanted"], "witness": not params["without_witness"]}
    found = examine(root, trust, testimony, wanted)
    said = conclusion_text(found.verdict, "checksum", found.checks)
    if found.verdict == PASS:
        said = "pass: signed by the host, " + ("as a witness saw it" if testimony else "and seen by no witness")
        said += "" if trust.policy else ", without a pinned policy"
    return {
        "changed": bool(record) or params["state"] == "accepted",
        "verdict": found.verdict,
        "summary": said,
        "checks": [check.as_dict() for check in found.checks],
        "sets": found.sets,
        "ledger": seen_by_a_witness(root, trust),
        "record": record,
    }


def _accept(module: AnsibleModule, root: str, trust: Trust) -> str | None:
    params = module.params
    require_confirmation(module.check_mode, params["confirm"], params["inventory_hostname"])
    for name in ("by", "reason"):
        if not params[name]:
            raise BackupError(f"{name}: missing", hint="Whoever accepts says who it is, and why.")
    if module.check_mode:
        return None
    # What was wrong is said in the ledger before it is accepted.
    settled = settle_ledger(root, trust)
    facts = {
        "by": params["by"],
        "reason": params["reason"],
        "sets": {found.set_id: found.sums_sha256 for found in all_sets(root)[0]},
        "former_problem": settled["set_aside"],
    }
    return write_record(root, ABOUT_THE_LEDGER, "accepted", facts, trust)


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            **_module.TRUST_SPEC,
            **_module.WANTED_SPEC,
            "state": {"type": "str", "default": "verified", "choices": ["verified", "accepted"]},
            "backup_root": {"type": "path", "required": True},
            "testimony": {"type": "dict"},
            "without_witness": {"type": "bool", "default": False},
            "inventory_hostname": {"type": "str"},
            "confirm": {"type": "str"},
            "by": {"type": "str"},
            "reason": {"type": "str"},
        },
        supports_check_mode=True,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
