#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: vault_verify
short_description: Does this key open this encrypted secrets vault?
version_added: 0.1.0
description:
  - Runs MazeVault's own C(vault-tool list) on copies of C(secrets.vault) and C(vault.key) that are in memory only, once
    with the key, and once with another one, which has to be refused.
  - The tool's documentation tells neither its exit statuses nor what it prints. So the verdict is V(pass) only where it
    ends with 0, complains of nothing, and prints names and nothing else. What may be a value is dropped.
  - It needs no rights but to read both files, and changes nothing.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  vault_file:
    description: The vault, C(secrets.vault), or a copy of it.
    type: path
    required: true
  key_file:
    description: The file with its passphrase, C(vault.key), or a copy of it.
    type: path
    required: true
  expected:
    description: Names of credentials that have to be in the vault.
    type: list
    elements: str
    default: []
  tool:
    description:
      - The tool, as a path or as a name that is looked for in the C(PATH), C(/usr/local/bin) and C(/opt/mazevault/bin).
        With O(image), its name or path in the container.
      - Where it isn't, the verdict is V(unproven).
    type: str
    default: vault-tool
  runtime:
    description: Where the tool runs. V(docker) and V(podman) need O(image).
    type: str
    default: host
    choices: [host, docker, podman]
  image:
    description: Image that holds the tool. It is never pulled, and its container has no network.
    type: str
  timeout:
    description: Seconds after which a run of the tool is ended.
    type: float
    default: 30
seealso:
  - module: mazevault.backup.escrow
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Does the key open the vault?
  mazevault.backup.vault_verify:
    vault_file: /opt/mazevault/secrets.vault
    key_file: /opt/mazevault/vault.key
    expected: [MAZEVAULT_MASTER_KEY]
  register: vault

- name: Stop where it doesn't, or where nobody can tell
  ansible.builtin.assert:
    that: vault.verdict == 'pass'

- name: The same with the tool out of an image
  mazevault.backup.vault_verify:
    vault_file: /opt/mazevault/secrets.vault
    key_file: /opt/mazevault/vault.key
    runtime: docker
    image: registry.example.com/mazevault/backend:1.0.17
"""

RETURN = r"""
verdict:
  description: V(pass), V(fail) or V(unproven).
  type: str
  returned: success
names:
  description: Names of the credentials in the vault, never a value.
  type: list
  elements: str
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
    expected:
      description: What would be right, where that is short.
      type: str
    observed:
      description: What was there instead.
      type: str
"""

import math
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _module
from ansible_collections.mazevault.backup.plugins.module_utils._engine import Engine
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._vault import ContainerTool, HostTool, Tool, prove
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import combine

# A vault holds some dozens of credentials; what is larger is something else.
_LARGEST = 16 << 20


def _content(path: str, parameter: str) -> bytes:
    try:
        size = os.path.getsize(path)
        if not os.path.isfile(path) or not 0 < size <= _LARGEST:
            raise BackupError(
                f"{parameter}: {path}: empty, larger than 16 MiB, or no file", hint="Name the vault's own files."
            )
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as exc:
        raise BackupError(f"{parameter}: {path}: {exc.strerror}", hint="Name a file on the target host.") from exc


def _tool(params: dict[str, t.Any]) -> Tool:
    if params["runtime"] == "host":
        return HostTool(params["tool"])
    if not params["image"]:
        raise BackupError(
            f"image: missing, and runtime is {params['runtime']}", hint="Name the image that holds the tool."
        )
    return ContainerTool(Engine(params["runtime"]), params["image"], params["tool"])


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    if not (math.isfinite(params["timeout"]) and params["timeout"] > 0):
        raise BackupError(f"timeout: {params['timeout']}: not above 0", hint="Give a number of seconds.")
    vault, key = _content(params["vault_file"], "vault_file"), _content(params["key_file"], "key_file")
    found = prove(vault, key, _tool(params), expected=params["expected"], timeout=params["timeout"])
    return {
        "changed": False,
        "verdict": combine(check.verdict for check in found.checks),
        "names": list(found.names),
        "checks": [check.as_dict() for check in found.checks],
    }


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            "vault_file": {"type": "path", "required": True},
            # Paths, not secrets.
            "key_file": {"type": "path", "required": True, "no_log": False},
            "expected": {"type": "list", "elements": "str", "default": []},
            "tool": {"type": "str", "default": "vault-tool"},
            "runtime": {"type": "str", "default": "host", "choices": ["host", "docker", "podman"]},
            "image": {"type": "str"},
            "timeout": {"type": "float", "default": 30},
        },
        supports_check_mode=True,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
