#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: escrow_probe
short_description: What an account can see and do at a place of the escrow
version_added: 0.1.0
description:
  - Runs on the host of the place, for M(mazevault.backup.escrow_separation) to judge. Writes an empty file with a
    random name, looks for those of other places, tries what an account that belongs to the other half has to be
    refused, and removes its file again. Nothing else at the place is touched.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
attributes:
  check_mode:
    support: none
    details: To look, it has to write. What it writes is removed in the end.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  state:
    description:
      - V(planted) writes the file, and tells what this host and its mounts are called.
      - V(looked) looks for O(nonces).
      - V(tried) is for an account that has no business here. It tries to list the folder, to read the file O(nonce),
        and to delete it.
      - V(removed) deletes O(nonce).
    type: str
    required: true
    choices: [planted, looked, tried, removed]
  path:
    description: The folder.
    type: path
    required: true
  nonce:
    description: Name of the file that was written here.
    type: str
    default: ""
  nonces:
    description: Names of the files of all places.
    type: list
    elements: str
    default: []
seealso:
  - module: mazevault.backup.escrow_separation
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Write a file at each place
  mazevault.backup.escrow_probe:
    state: planted
    path: /srv/escrow/prague
  delegate_to: key-escrow-1
"""

RETURN = r"""
problem:
  description: Why nothing could be tried, or empty.
  type: str
  returned: success
nonce:
  description: With O(state=planted) the name of the file, empty where it couldn't be written.
  type: str
  returned: success
folder:
  description: With O(state=planted) device and number of the folder.
  type: list
  elements: int
  returned: success
source:
  description: With O(state=planted) kind and source of what is mounted there.
  type: str
  returned: success
host:
  description: With O(state=planted) what tells this host from others, its machine id and its public SSH keys.
  type: list
  elements: str
  returned: success
listed:
  description: Whether this account may see what lies there.
  type: bool
  returned: success
seen:
  description: With O(state=looked) those of O(nonces) that are here.
  type: list
  elements: str
  returned: success
could:
  description: With O(state=tried) what wasn't refused.
  type: list
  elements: str
  returned: success
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _module, _separation
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    path, state = params["path"], params["state"]
    for name in [params["nonce"], *params["nonces"]]:
        if name and not _separation.is_probe(name):
            raise BackupError(f"nonce: {name[:80]!r}: not the name of a probe")
    result: dict[str, t.Any] = {"changed": False, "problem": "", "nonce": params["nonce"], "folder": [], "source": ""}
    result.update({"host": [], "listed": False, "seen": [], "could": []})
    if state == "planted":
        result.update(_separation.plant(path))
    elif state == "looked":
        result["seen"] = _separation.seen_at(path, params["nonces"])
    elif state == "tried":
        result["could"] = _separation.attempt(path, params["nonce"])
    elif params["nonce"]:
        _separation.remove(path, params["nonce"])
    return result


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "required": True, "choices": ["planted", "looked", "tried", "removed"]},
            "path": {"type": "path", "required": True},
            "nonce": {"type": "str", "default": ""},
            "nonces": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=False,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
