#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: key_material
short_description: Tell files with key material from others, before they are saved
version_added: 0.1.0
description:
  - Looks through files and folders for private keys, key stores, and values that the settings of MazeVault keep secret.
    What holds any belongs to the class keys of a recovery set, everything else to the class data.
  - Of settings and compose files it makes copies in which each secret value is replaced by a mark, so that who restores
    the data sees how MazeVault was configured. M(mazevault.backup.files_backup) saves such a copy in place of the file.
  - Lists the certificates in those files, with the end of their validity.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
attributes:
  check_mode:
    support: full
    details: Nothing is written, so the paths of copies are empty.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  backup_root:
    description: Backup root with the open recovery set. The copies are made in its staging folder.
    type: path
    required: true
  set_id:
    description: Id of the open recovery set.
    type: str
    required: true
  component:
    description: The component that the files belong to.
    type: str
    required: true
    choices: [config, tls, volumes]
  paths:
    description: Files and folders to look through. Symlinks in them are not followed.
    type: list
    elements: path
    default: []
  settings:
    description:
      - Files of settings (C(.env)) of which copies are made. Their secret values, told by the names of settings and in
        addresses, are looked for everywhere else. One that isn't there is left out.
    type: list
    elements: path
    default: []
  texts:
    description: Compose files, and other texts of names and values, of which copies are made.
    type: list
    elements: path
    default: []
  generation:
    description: Id of the key generation that the values belong to, for the mark.
    type: str
    default: unknown
seealso:
  - module: mazevault.backup.files_backup
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: What of the configuration is key material?
  mazevault.backup.key_material:
    backup_root: /opt/mazevault/backups
    set_id: mazevault_20261123_020000
    component: config
    paths: [/opt/mazevault/config]
    settings: [/opt/mazevault/.env]
    texts: [/opt/mazevault/docker-compose.yml]
  register: found
"""

RETURN = r"""
keys:
  description: Files that belong to the class keys, those of O(settings) among them.
  type: list
  elements: str
  returned: success
why:
  description: The reason for each of them.
  type: dict
  returned: success
prepared:
  description: Copies without key material, C(path), and the file that each stands for, C(like).
  type: list
  elements: dict
  returned: success
names:
  description: Names of the settings whose values were taken out.
  type: list
  elements: str
  returned: success
certificates:
  description: Certificates that were found, each with C(path), C(subject), C(not_after) and C(sha256).
  type: list
  elements: dict
  returned: success
files:
  description: How many files were looked through.
  type: int
  returned: success
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _module
from ansible_collections.mazevault.backup.plugins.module_utils._certificates import certificates_in
from ansible_collections.mazevault.backup.plugins.module_utils._env_file import settings_of
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import remove_tree, write_file
from ansible_collections.mazevault.backup.plugins.module_utils._key_material import (
    Prepared,
    config_without_keys,
    secret_values,
    sort_files,
    without_keys,
)
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Staging

_LARGEST_TEXT = 4 << 20


def _texts(params: dict[str, t.Any]) -> dict[str, str]:
    """The content of the settings and texts that are there."""
    found: dict[str, str] = {}
    for path in (*params["settings"], *params["texts"]):
        if not os.path.lexists(path):
            continue
        if os.path.getsize(path) > _LARGEST_TEXT:
            raise BackupError(f"settings: {path}: larger than 4 MiB", hint="Name the .env and compose files.")
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
            found[path] = stream.read()
    return found


def _find(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    for name in ("settings", "texts", "paths"):
        for path in params[name]:
            if not os.path.isabs(path):
                raise BackupError(f"{name}: {path}: not an absolute path", hint="Name it from the root folder on.")
    staging = Staging(params["backup_root"], params["set_id"])
    texts, mark = _texts(params), f"@generation:{params['generation']}"
    secrets = {value for path in params["settings"] if path in texts for value in _values(texts[path])}
    made: dict[str, Prepared] = {}
    for path, text in texts.items():
        prepare = without_keys if path in params["settings"] else config_without_keys
        made[path] = prepare(text, mark, secrets)
    searched = sort_files([path for path in params["paths"] if os.path.lexists(path)], secrets)
    why = {**searched.keys, **{path: "its settings" for path, one in made.items() if one.text != texts[path]}}
    looked = [*searched.paths, *(path for path in texts if path not in searched.paths)]
    result: dict[str, t.Any] = {
        "changed": False,
        "keys": sorted(why),
        "why": why,
        "names": sorted({name for one in made.values() for name in one.names}),
        "certificates": [one.as_dict() for one in certificates_in(looked)],
        "files": len(looked),
        "prepared": [{"path": "", "like": path} for path in made],
    }
    if module.check_mode:
        return result
    with staging.working():
        folder = os.path.join(staging.work(), f"prepared_{params['component']}")
        remove_tree(folder)
        os.mkdir(folder, 0o700)
        for entry, (path, one) in zip(result["prepared"], made.items()):
            entry["path"] = os.path.join(folder, f"{len(os.listdir(folder))}-{os.path.basename(path)}")
            write_file(entry["path"], one.text.encode("utf-8", "surrogateescape"))
    return result


def _values(text: str) -> list[str]:
    return list(secret_values(settings_of(text)).values())


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            "backup_root": {"type": "path", "required": True},
            "set_id": {"type": "str", "required": True},
            "component": {"type": "str", "required": True, "choices": ["config", "tls", "volumes"]},
            "paths": {"type": "list", "elements": "path", "default": []},
            "settings": {"type": "list", "elements": "path", "default": []},
            "texts": {"type": "list", "elements": "path", "default": []},
            "generation": {"type": "str", "default": "unknown"},
        },
        supports_check_mode=True,
    )
    _module.run(module, _find)


if __name__ == "__main__":
    main()
