#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: keys_in_use
short_description: Compare the keys that MazeVault's containers use with those in its files
version_added: 0.1.0
description:
  - What is in escrow comes from C(.env), C(secrets.vault) and C(vault.key). Where somebody has edited these and created
    no container anew, MazeVault still uses other keys, and data that are saved now open with those only.
  - It looks at the secret variables of each running container, and at what the compose files and C(.env) would give it.
    Names are told, never values.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
  - mazevault.backup._stack
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  vault_file:
    description: MazeVault's C(secrets.vault), for a master key that is in no variable.
    type: path
  key_file:
    description: MazeVault's C(vault.key), likewise.
    type: path
  timeout:
    description: Seconds to wait for an engine that is being restarted.
    type: float
    default: 30
seealso:
  - module: mazevault.backup.escrow
  - module: mazevault.backup.mazevault_stack_info
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Are the keys in the files those in use?
  mazevault.backup.keys_in_use:
    home: /opt/mazevault
    vault_file: /opt/mazevault/secrets.vault
    key_file: /opt/mazevault/vault.key
  register: used

- name: Red unless they are
  ansible.builtin.assert:
    that: used.verdict == 'pass'
"""

RETURN = r"""
verdict:
  description: V(pass), V(fail), or V(unproven) where a container doesn't run, or nothing says what it should have.
  type: str
  returned: success
checks:
  description: One for each container with secrets.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: The container, or the role that has none.
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
    observed:
      description: Names of what is the same.
      type: str
"""

import datetime as dt
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _compose, _module
from ansible_collections.mazevault.backup.plugins.module_utils._keys_in_use import compare
from ansible_collections.mazevault.backup.plugins.module_utils._stack import overrides_of
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import combine


def _written(params: t.Mapping[str, t.Any]) -> dt.datetime | None:
    paths = [params[name] for name in ("vault_file", "key_file") if params[name] and os.path.isfile(params[name])]
    newest = max((os.stat(path).st_mtime for path in paths), default=None)
    return None if newest is None else dt.datetime.fromtimestamp(newest, dt.timezone.utc)


def _look(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    engines, services = _compose.engines_of(params["runtime"]), overrides_of(params["services"] or {})

    def found() -> _compose.Found:
        return _compose.find(engines, project=params["project"] or "", services=services, home=params["home"])

    here = _compose.with_patience(found, timeout=params["timeout"])
    project = _compose.project_of(here.stack, home=params["home"])
    wanted = _compose.wanted_of_files(_compose.find_compose(here.engine), project, here.stack)
    checks = compare(here.stack, wanted, vault_written=_written(params))
    return {
        "changed": False,
        "verdict": combine(check.verdict for check in checks),
        "checks": [check.as_dict() for check in checks],
    }


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            **_compose.STACK_SPEC,
            "vault_file": {"type": "path"},
            # A path, not a secret.
            "key_file": {"type": "path", "no_log": False},
            "timeout": {"type": "float", "default": 30},
        },
        supports_check_mode=True,
    )
    _module.run(module, _look)


if __name__ == "__main__":
    main()
