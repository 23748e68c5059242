#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: recovery_set_access
short_description: Let other recipients open published recovery sets
version_added: 0.1.0
description:
  - Opens the key of each set with an identity of before, and encrypts it to the recipients of now. The sets themselves
    stay as they are, byte for byte. What is new lies under C(records/), where M(mazevault.backup.backup_verify) and
    M(mazevault.backup.pg_restore) look for it.
  - It runs where the identity is, on a prover or on a custodian's machine with a copy of the sets, never on a host that
    is backed up.
  - Copies of a set that somebody took before are still opened by the recipients of before.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  backup_root:
    description: Folder of all sets.
    type: path
    required: true
  sets:
    description: Ids of sets. Unset means all that are encrypted.
    type: list
    elements: str
    default: []
  class:
    description: The class whose keys are meant.
    type: str
    required: true
    choices: [data, keys]
  recipients:
    description: All who are to open the sets from now on, certificates as PEM text or age's recipients. At least two.
    type: list
    elements: str
    required: true
  identity_file:
    description: File with the private key of a recipient of before, mode 0600, without a passphrase.
    type: path
    required: true
seealso:
  - module: mazevault.backup.recovery_set
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: The identity data-c takes the place of data-a
  mazevault.backup.recovery_set_access:
    backup_root: /srv/mazevault-copies
    class: data
    recipients:
      - "{{ lookup('ansible.builtin.file', 'recovery-data-b.crt') }}"
      - "{{ lookup('ansible.builtin.file', 'recovery-data-c.crt') }}"
    identity_file: /media/card/recovery-data-a.key
"""

RETURN = r"""
changed_sets:
  description: Ids of the sets whose keys were, or would be, encrypted to the recipients.
  type: list
  elements: str
  returned: success
unopened:
  description: Sets that this identity doesn't open, each with the reason. With any of them the module fails, after it
    has done the others.
  type: dict
  returned: always
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _module
from ansible_collections.mazevault.backup.plugins.module_utils._access import has_access, rewrap
from ansible_collections.mazevault.backup.plugins.module_utils._encryption import Recipient, read_recipient
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._recovery_set import RecoverySet, all_sets, load_set
from ansible_collections.mazevault.backup.plugins.module_utils._set_keys import LEAST_RECIPIENTS, opened_key


def _chosen(params: dict[str, t.Any]) -> list[RecoverySet]:
    root = params["backup_root"]
    found = [load_set(root, name) for name in params["sets"]] or all_sets(root)[0]
    return [one for one in found if one.scheme != "none"]


def _recipients(params: dict[str, t.Any], scheme: str) -> tuple[Recipient, ...]:
    read = (read_recipient(text, scheme, parameter="recipients") for text in params["recipients"])
    found = tuple({one.fingerprint: one for one in read}.values())
    if len(found) < LEAST_RECIPIENTS:
        raise BackupError(
            f"recipients: {len(found)}: when one identity is lost, these sets would be",
            hint=f"Give all who are to open them from now on, at least {LEAST_RECIPIENTS}.",
        )
    return found


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    sets = _chosen(params)
    if not sets:
        raise BackupError(
            f"backup_root: {params['backup_root']}: no encrypted set is there", hint="Name the folder above sets/."
        )
    recipients = {scheme: _recipients(params, scheme) for scheme in {one.scheme for one in sets}}
    wanted = [one for one in sets if not has_access(one, params["class"], recipients[one.scheme])]
    changed, unopened = [], {}
    for one in wanted:
        try:
            key = opened_key(
                one.path, one.scheme, params["class"], identity_file=params["identity_file"], records=one.records_path
            )
            if key is not None and not module.check_mode:
                rewrap(one, params["class"], key, recipients[one.scheme])
            changed.append(one.set_id)
        except BackupError as exc:
            unopened[one.set_id] = exc.msg
    names = ", ".join(one.name for one in next(iter(recipients.values())))
    result = {
        "changed": bool(changed),
        "changed_sets": changed,
        "unopened": unopened,
        "diff": {"before": "", "after": "".join(f"{name}: class {params['class']} for {names}\n" for name in changed)},
    }
    if unopened:
        raise BackupError(
            f"identity_file: {params['identity_file']}: doesn't open {len(unopened)} of {len(wanted)} sets",
            hint="The others are done. Run again with an identity that opens these.",
            details=result,
        )
    return result


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            "backup_root": {"type": "path", "required": True},
            "sets": {"type": "list", "elements": "str", "default": []},
            "class": {"type": "str", "required": True, "choices": ["data", "keys"]},
            "recipients": {"type": "list", "elements": "str", "required": True},
            "identity_file": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
