#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: escrow_separation
short_description: Are the two halves of the escrow apart from each other?
version_added: 0.1.0
description:
  - Writes an empty file with a random name at each place, looks for it at the places of the other half, and removes it.
    So it finds one folder by two names, a bind mount, and one export that is mounted twice.
  - V(fail) is what is shown to be shared, that, the same file system, an account that reads both, a recipient of both.
    V(pass) needs that all was tried and nothing found, and an attestation for each place that has not expired. All else
    is V(unproven), a place that this host doesn't see too.
  - As long as both halves are folders that one account of one host reads, the verdict is V(fail). Who has that account
    has both halves, though they are encrypted to different people.
  - For places on other hosts M(mazevault.backup.escrow_probe) looks there, with the account of each place, and then
    with the account of the other half, which has to be refused. What it told is judged here. The role mazevault_keys
    does that.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
attributes:
  check_mode:
    support: none
    details: To look, it has to write. What it writes is gone when it ends.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  places_vault:
    description: Places of the half V(vault).
    type: list
    elements: str
    default: []
  places_key:
    description: Places of the half V(key).
    type: list
    elements: str
    default: []
  encryption:
    description: How bundles are encrypted.
    type: str
    default: cms
    choices: [cms, age]
  recipients_vault:
    description: Who may open the half V(vault), as in M(mazevault.backup.escrow).
    type: list
    elements: str
    required: true
  recipients_key:
    description: Who may open the half V(key).
    type: list
    elements: str
    required: true
  planted:
    description:
      - Results of M(mazevault.backup.escrow_probe) with C(state=planted), from a loop over all places, whose items have
        C(name) and C(half). With it O(places_vault) and O(places_key) aren't looked at.
    type: list
    elements: dict
    default: []
  looked:
    description: Results of the same with C(state=looked), from a loop over O(planted).
    type: list
    elements: dict
    default: []
  crossings:
    description:
      - What became of each try with the account of one half at the other's place, with C(credential_of), C(at), and
        C(could) or C(msg) of the result of C(state=tried).
    type: list
    elements: dict
    default: []
  attestations:
    description: What somebody vouches for, as no program can see it.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The place, by its path or by its name.
        type: str
        required: true
      by:
        description: Who vouches for it.
        type: str
        required: true
      where:
        description: Where it is, such as a room, or a deposit box with the number of its seal.
        type: str
        required: true
      valid_until:
        description: Until when, C(2027-03-31).
        type: str
        required: true
seealso:
  - module: mazevault.backup.escrow
  - module: mazevault.backup.escrow_probe
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Are the halves apart?
  mazevault.backup.escrow_separation:
    places_vault: [/mnt/escrow-vault]
    places_key: [/mnt/escrow-key]
    recipients_vault: "{{ query('mazevault.backup.recipients', 'vault-a.crt,vault-b.crt') }}"
    recipients_key: "{{ query('mazevault.backup.recipients', 'key-a.crt,key-b.crt') }}"
    attestations:
      - path: /mnt/escrow-key
        by: J. Novak
        where: deposit box 12 in Brno, seal 4711
        valid_until: "2027-03-31"
"""

RETURN = r"""
verdict:
  description: V(pass), V(fail) or V(unproven).
  type: str
  returned: success
checks:
  description: What was looked at.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: What it was.
      type: str
    level:
      description: The verification level that it belongs to.
      type: str
    verdict:
      description: V(pass), V(fail) or V(unproven).
      type: str
    reason:
      description: Why it isn't V(pass).
      type: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _escrow, _module
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._escrow_place import HALVES
from ansible_collections.mazevault.backup.plugins.module_utils._separation import (
    Attestation,
    crossing_of,
    facts_of,
    judge,
    probe,
)
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import combine


def _attestations(given: list[dict[str, str]]) -> list[Attestation]:
    found = []
    for one in given:
        try:
            _clock.parse(one["valid_until"])
        except ValueError as exc:
            raise BackupError(
                f"attestations: {one['path']}: valid_until: {one['valid_until']}: no date",
                hint='Write it as "2027-03-31", in quotes.',
            ) from exc
        found.append(Attestation(**one))
    return found


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    attestations = _attestations(params["attestations"])
    texts = {half: params[f"recipients_{half}"] for half in HALVES}
    owners = _escrow.owners(params["encryption"], texts)
    if params["planted"]:
        facts = facts_of(params["planted"], params["looked"])
    else:
        facts = probe([(half, path) for half in HALVES for path in dict.fromkeys(params[f"places_{half}"])])
    crossings = [crossing_of(one) for one in params["crossings"]]
    disjoint = not owners["vault"].keys() & owners["key"].keys()
    today = _clock.rfc3339(_clock.now())[:10]
    checks = judge(facts, attestations, crossings, disjoint=disjoint, today=today)
    return {
        "changed": False,
        "verdict": combine(check.verdict for check in checks),
        "checks": [check.as_dict() for check in checks],
    }


def main() -> t.NoReturn:
    text = {"type": "str", "required": True}
    recipients = {"type": "list", "elements": "str", "required": True}
    places = {"type": "list", "elements": "str", "default": []}
    results = {"type": "list", "elements": "dict", "default": []}
    module = AnsibleModule(
        argument_spec={
            "places_vault": places,
            # Paths and public keys, not secrets.
            "places_key": {**places, "no_log": False},
            "encryption": {"type": "str", "default": "cms", "choices": ["cms", "age"]},
            "recipients_vault": recipients,
            "recipients_key": {**recipients, "no_log": False},
            "planted": results,
            "looked": results,
            "crossings": results,
            "attestations": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"path": text, "by": text, "where": text, "valid_until": text},
            },
        },
        supports_check_mode=False,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
