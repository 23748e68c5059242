#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: escrow_bundles
short_description: Hand over encrypted bundles of MazeVault's keys, for places on other hosts
version_added: 0.1.0
description:
  - Reads bundles that M(mazevault.backup.escrow) made, and their signed indexes, out of the backup root. Only what is
    as this host signed it is handed over, and of each half only what belongs to it.
  - Everything is encrypted to the recipients of its half. Give the task C(no_log) all the same, since a log is no place
    for both halves.
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
  names_vault:
    description: Names of files of the half V(vault).
    type: list
    elements: str
    default: []
  names_key:
    description: Names of files of the half V(key).
    type: list
    elements: str
    default: []
seealso:
  - module: mazevault.backup.escrow_place
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Take what is missing at a place on another host
  mazevault.backup.escrow_bundles:
    backup_root: /opt/mazevault/backups
    names_key: "{{ looked.wrong.keys() }}"
  register: bundles
  no_log: true
"""

RETURN = r"""
contents:
  description: For V(vault) and V(key) the files, base64 by name.
  type: dict
  returned: success
left:
  description: Names of what is too much for one run. The next run goes on.
  type: list
  elements: str
  returned: success
refused:
  description: Names that aren't handed over, each with the reason.
  type: dict
  returned: success
indexes:
  description: What the signed indexes say of each generation, oldest first.
  type: list
  elements: dict
  returned: success
host_key:
  description: The public key (PEM) that this host signs with.
  type: str
  returned: success
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _escrow, _escrow_looks, _module
from ansible_collections.mazevault.backup.plugins.module_utils._escrow_place import HALVES
from ansible_collections.mazevault.backup.plugins.module_utils._files import sha256_file


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    trust = _module.trust_of(params)
    known, wrong = _escrow.load(params["backup_root"], trust)
    contents: dict[str, dict[str, str]] = {}
    refused = {f"escrow/{stamp}": why for stamp, why in wrong.items()}
    left: list[str] = []
    for half in HALVES:
        there = _escrow_looks.copies_of(known, half)
        whole = []
        for name in dict.fromkeys(params[f"names_{half}"]):
            if name not in there:
                refused[name] = f"nothing of the half {half} has this name"
                continue
            one, copy = there[name]
            path = os.path.join(one.folder, name)
            if not os.path.isfile(path) or sha256_file(path) != copy.sha256:
                refused[name] = "the backup root's own copy isn't whole"
            else:
                whole.append(name)
        now, later = _escrow_looks.carried(whole, lambda name, there=there: there[name][1].bytes)  # type: ignore[misc]
        contents[half] = _escrow_looks.encoded({name: there[name][0].read(name) for name in now})
        left += later
    return {
        "changed": False,
        "contents": contents,
        "left": left,
        "refused": refused,
        "indexes": [one.content for one in known],
        "host_key": trust.signer.public(),
    }


def main() -> t.NoReturn:
    names = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            **_module.TRUST_SPEC,
            "backup_root": {"type": "path", "required": True},
            "names_vault": names,
            # Names, not secrets.
            "names_key": {**names, "no_log": False},
        },
        supports_check_mode=True,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
