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
  - Lists the certificates in those files, with the end of their validity, for the set's manifest.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
  - mazevault.backup._trust
attributes:
  check_mode:
    support: full
    details: Nothing is written. The files themselves are named in place of the copies.
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
    description: Files and folders to look through. One that isn't there is left out.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: File or folder, from the root folder on. Where it leads over symlinks, what they lead to is meant.
        type: path
        required: true
      name:
        description: What it is called in the archive. Unset means the path without its first slash.
        type: str
  linked:
    description: Folders that are looked through, and saved, only if a symlink in O(paths) leads into them.
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
  secrets_of:
    description: Files of settings that belong to another component, for the values to look for.
    type: list
    elements: path
    default: []
  vault_file:
    description: MazeVault's C(secrets.vault), which the key generation is told by too.
    type: path
  key_file:
    description: MazeVault's C(vault.key), likewise.
    type: path
  vault_in_escrow:
    description:
      - Leave O(vault_file) and O(key_file) out of the set, as they are kept in two halves, apart from each other.
      - Else, where they lie in O(paths), both belong to the class keys.
    type: bool
    default: false
notes:
  - The mark is C(@generation:) with the id of the key generation that the values of the first of O(settings) are. What
    can't be told apart from a loss, such as settings without the master key that was there before, is a warning, and
    the mark then names the generation before.
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
    paths:
      - path: /opt/mazevault/config
    settings: [/opt/mazevault/.env]
    texts: [/opt/mazevault/docker-compose.yml]
  register: found

- name: Save the rest
  mazevault.backup.files_backup:
    backup_root: /opt/mazevault/backups
    set_id: mazevault_20261123_020000
    component: config
    paths: "{{ found.data }}"
    excludes: "{{ found.excludes }}"
"""

RETURN = r"""
data:
  description: What belongs to the class data, as M(mazevault.backup.files_backup) wants its C(paths).
  type: list
  elements: dict
  returned: success
excludes:
  description: What is to be left out of it, as M(mazevault.backup.files_backup) wants its C(excludes).
  type: list
  elements: str
  returned: success
keys:
  description: What belongs to the class keys, as M(mazevault.backup.files_backup) wants its C(paths).
  type: list
  elements: dict
  returned: success
why:
  description: Each file that belongs to the class keys, and the reason.
  type: dict
  returned: success
  sample: {/opt/mazevault/certs/server.key: its name}
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
generation:
  description: Id of the key generation, empty where there is none, or would be a new one.
  type: str
  returned: success
nothing:
  description: Why there is nothing to save; empty where there is.
  type: str
  returned: success
"""

import os
import typing as t
from dataclasses import dataclass, field

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _module
from ansible_collections.mazevault.backup.plugins.module_utils._certificates import MOST, certificates_in
from ansible_collections.mazevault.backup.plugins.module_utils._env_file import settings_of
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import remove_tree, write_file, write_json
from ansible_collections.mazevault.backup.plugins.module_utils._generations import latest
from ansible_collections.mazevault.backup.plugins.module_utils._key_material import (
    Prepared,
    config_without_keys,
    links_into,
    secret_values,
    sort_files,
    without_keys,
)
from ansible_collections.mazevault.backup.plugins.module_utils._material import generation_of, lost_since, read
from ansible_collections.mazevault.backup.plugins.module_utils._names import literal_pattern
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Staging

_LARGEST_TEXT = 4 << 20


@dataclass
class _Found:
    """What files_backup is to be told, and what was learned on the way."""

    data: list[dict[str, str]] = field(default_factory=list)
    excludes: list[str] = field(default_factory=list)
    keys: list[dict[str, str]] = field(default_factory=list)
    why: dict[str, str] = field(default_factory=dict)
    looked: list[str] = field(default_factory=list)


def _text_of(path: str, parameter: str) -> str | None:
    """The content of a text; None where it isn't there."""
    if not os.path.lexists(path):
        return None
    if os.path.getsize(path) > _LARGEST_TEXT:
        raise BackupError(f"{parameter}: {path}: larger than 4 MiB", hint="Name .env and compose files only.")
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return stream.read()


def _secrets(params: dict[str, t.Any]) -> set[str]:
    found: set[str] = set()
    for name in ("settings", "secrets_of"):
        for path in params[name]:
            text = _text_of(path, name)
            found.update(secret_values(settings_of(text)).values() if text is not None else ())
    return found


def _generation(module: AnsibleModule) -> str:
    params = module.params
    if not params["settings"]:
        return ""
    files = {name: params[name] or "" for name in ("vault_file", "key_file")}
    try:
        material = read(env_file=params["settings"][0], **files)
    except BackupError as exc:
        # What nobody can make sense of is saved all the same, as key material.
        module.warn(f"keys: {exc.msg}. The generation of the keys isn't known.")
        return ""
    root, trust = params["backup_root"], _module.trust_of(params)
    gone = lost_since(root, material, trust)
    if gone:
        module.warn(f"keys: {', '.join(gone)}: there last time, and gone now. Bring it back before it is needed.")
    if gone or not material.names:
        return str((latest(root, trust) or {}).get("id", ""))
    return generation_of(root, material, trust, write=not module.check_mode).id


def _prepared(params: dict[str, t.Any], secrets: t.Collection[str], generation: str) -> dict[str, tuple[str, Prepared]]:
    """Path of each text that is there: its content, and that without key material."""
    mark = f"@generation:{generation or 'none'}"
    made: dict[str, tuple[str, Prepared]] = {}
    for name, prepare in (("settings", without_keys), ("texts", config_without_keys)):
        for path in params[name]:
            text = _text_of(path, name)
            if text is not None:
                made[os.path.realpath(path)] = (text, prepare(text, mark, secrets))
    return made


def _sort(params: dict[str, t.Any], texts: t.Mapping[str, tuple[str, Prepared]], secrets: t.Collection[str]) -> _Found:
    found = _Found()
    vault = {os.path.realpath(params[name]) for name in ("vault_file", "key_file") if params[name]}
    left_out: set[str] = set()
    tops = [dict(entry) for entry in params["paths"] if os.path.exists(entry["path"])]
    tops += [
        {"path": path, "name": None} for path in params["linked"] if links_into([top["path"] for top in tops], path)
    ]
    for top in tops:
        real = os.path.realpath(top["path"])
        name = top["name"] or os.path.normpath(top["path"]).lstrip("/")
        found.data.append({"path": top["path"], "name": name})
        within = sort_files([real], secrets)
        found.looked += within.paths
        within.keys.update({path: "the vault" for path in within.paths if path in vault})
        for path, why in within.keys.items():
            if path in texts:
                continue
            found.excludes.append(literal_pattern(path))
            if path in vault and params["vault_in_escrow"]:
                left_out.add(path)
                continue
            found.why[path] = why
            inside = os.path.relpath(path, real)
            found.keys.append({"path": path, "name": name if path == real else os.path.normpath(f"{name}/{inside}")})
    # A file that is nothing but key material isn't saved as data at all.
    gone = {entry["path"] for entry in found.keys} | left_out
    found.data = [entry for entry in found.data if os.path.realpath(entry["path"]) not in gone]
    for path in found.why:
        try:
            path.encode()
        except UnicodeEncodeError as exc:
            raise BackupError(
                f"paths: {path!r}: holds key material ({found.why[path]}), and its name isn't UTF-8", hint="Rename it."
            ) from exc
    for path, (text, one) in texts.items():
        found.looked += [] if path in found.looked else [path]
        if one.text != text:
            found.why[path] = "its settings"
            found.keys.append({"path": path, "name": path.lstrip("/")})
    return found


def _find(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    named = [("paths", entry["path"]) for entry in params["paths"]]
    named += [(name, path) for name in ("linked", "settings", "texts", "secrets_of") for path in params[name]]
    for parameter, path in named:
        if not os.path.isabs(path):
            raise BackupError(f"{parameter}: {path}: not an absolute path", hint="Name it from the root folder on.")
    staging = Staging(params["backup_root"], params["set_id"])
    secrets = _secrets(params)
    generation = _generation(module)
    texts = _prepared(params, secrets, generation)
    found = _sort(params, texts, secrets)
    certificates = [one.as_dict() for one in certificates_in(found.looked)]
    if len(certificates) >= MOST:
        module.warn(f"{params['component']}: more than {MOST} certificates; only the first ones are in the manifest.")
    nothing = ""
    if not (found.data or found.keys or texts):
        places = ", ".join(dict.fromkeys(path for _parameter, path in named))
        nothing = f"nothing is there ({places})" if places else "this installation has none"
    result: dict[str, t.Any] = {
        "changed": False,
        "data": [*found.data, *({"path": path, "like": path, "name": path.lstrip("/")} for path in texts)],
        "excludes": sorted(set(found.excludes)),
        "keys": found.keys,
        "why": found.why,
        "names": sorted({name for _text, one in texts.values() for name in one.names}),
        "certificates": certificates,
        "files": len(found.looked),
        "generation": generation,
        "nothing": nothing,
    }
    if module.check_mode:
        return result
    with staging.working():
        folder = os.path.join(staging.work(), f"prepared_{params['component']}")
        remove_tree(folder)
        os.mkdir(folder, 0o700)
        for number, entry in enumerate(one for one in result["data"] if "like" in one):
            entry["path"] = os.path.join(folder, f"{number}-{os.path.basename(entry['like'])}")
            write_file(entry["path"], texts[entry["like"]][1].text.encode("utf-8", "surrogateescape"))
        left = {"certificates": certificates, "nothing": nothing, "generation": generation}
        write_json(staging.report_path(f"{params['component']}.found"), left)
    return result


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            "backup_root": {"type": "path", "required": True},
            "set_id": {"type": "str", "required": True},
            "component": {"type": "str", "required": True, "choices": ["config", "tls", "volumes"]},
            "paths": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"path": {"type": "path", "required": True}, "name": {"type": "str"}},
            },
            "linked": {"type": "list", "elements": "path", "default": []},
            "settings": {"type": "list", "elements": "path", "default": []},
            "texts": {"type": "list", "elements": "path", "default": []},
            # Names of files.
            "secrets_of": {"type": "list", "elements": "path", "default": [], "no_log": False},
            "vault_file": {"type": "path"},
            "vault_in_escrow": {"type": "bool", "default": False},
            # A path, not a secret.
            "key_file": {"type": "path", "no_log": False},
            **_module.TRUST_SPEC,
        },
        supports_check_mode=True,
    )
    _module.run(module, _find)


if __name__ == "__main__":
    main()
