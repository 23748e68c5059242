#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: escrow
short_description: Keep every generation of MazeVault's keys in two halves, apart from each other
version_added: 0.1.0
description:
  - Encrypts C(secrets.vault) to the recipients of the half V(vault), and C(vault.key) and C(.env) to those of the half
    V(key). Nobody may be among both.
  - What is written is opened again before it counts, by a key that is forgotten then, and C(vault-tool list) is asked
    whether that key opens that vault, as with M(mazevault.backup.vault_verify).
  - Each half is copied to folders, of which some may be mounts. In each run every copy of every generation is looked
    at; one that was deleted, truncated or replaced is written again and told. A generation is never removed.
  - Where nothing has changed, nothing is copied. It can run every few minutes.
  - With one half out of reach the other is kept up to date, and the verdict is V(fail).
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
  - mazevault.backup._trust
  - mazevault.backup._trust.wanted
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  backup_root:
    description: Folder of all sets. The encrypted bundles lie in its C(escrow/), to heal copies from.
    type: path
    required: true
  installation:
    description: Name of the installation, in the bundles and in the marks of places.
    type: str
    required: true
  env_file:
    description: MazeVault's settings (C(.env)). Unset, or not there, means none.
    type: path
  vault_file:
    description: The encrypted secrets vault (C(secrets.vault)). Unset, or not there, means none.
    type: path
  key_file:
    description: The file with the vault's passphrase (C(vault.key)). Unset, or not there, means none.
    type: path
  removed:
    description:
      - Names (C(secrets.vault), C(vault.key), C(MASTER_KEY)) that were taken away on purpose. Without this the module
        fails where one of them was there last time and is gone, as a loss isn't a change to keep.
    type: list
    elements: str
    default: []
  encryption:
    description: How bundles are encrypted.
    type: str
    default: cms
    choices: [cms, age]
  recipients_vault:
    description: Who may open the half V(vault), certificates as PEM text or age's recipients. At least two.
    type: list
    elements: str
    required: true
  recipients_key:
    description: Who may open the half V(key), likewise, and nobody of O(recipients_vault).
    type: list
    elements: str
    required: true
  few_recipients_because:
    description: Why a half has one recipient only.
    type: str
    default: ""
  places_vault:
    description: Folders for the half V(vault). Each has to be there.
    type: list
    elements: path
    default: []
  places_key:
    description: Folders for the half V(key), others than those of O(places_vault).
    type: list
    elements: path
    default: []
  fresh_places:
    description:
      - Folders that are new media in the place of known ones. Without this a known folder without its mark is refused,
        as it may be the empty folder below a mount that is missing.
    type: list
    elements: path
    default: []
  offline_places:
    description:
      - Those of O(places_vault) and O(places_key) that are media which are not always plugged in. One that isn't there
        is V(unproven) only if it lacks a generation, or when it wasn't looked at for O(offline_days).
    type: list
    elements: path
    default: []
  offline_days:
    description: After how many days somebody has to plug in a medium again, to have it looked at.
    type: float
    default: 92
  places_away:
    description:
      - Places on other hosts, which M(mazevault.backup.escrow_place) looks at there. What each has to be asked is
        returned as RV(away); what it answered comes back as O(looks), in a second run of this module. Until then these
        places are V(unproven).
      - The role mazevault_keys does all that.
    type: list
    elements: dict
    default: []
    suboptions:
      half:
        description: The half that it holds.
        type: str
        required: true
        choices: [vault, key]
      name:
        description: What it is called in results and in the ledger, such as C(vault-escrow-1:/srv/escrow).
        type: str
        required: true
      host:
        description: Its host's name in the inventory.
        type: str
        required: true
      path:
        description: The folder on that host.
        type: str
        required: true
  looks:
    description:
      - What places on other hosts answered, as the filter P(mazevault.backup.escrow_looks#filter) makes it. The last
        look at a place counts.
    type: list
    elements: dict
    default: []
  handed:
    description: Copies that came from other hosts, base64 by name, to mend the backup root's own ones (RV(lost)) with.
    type: dict
    default: {}
  tool:
    description: The vendor's C(vault-tool), as a path or as a name. Where it isn't, the verdict is V(unproven).
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
seealso:
  - module: mazevault.backup.escrow_bundles
  - module: mazevault.backup.escrow_place
  - module: mazevault.backup.vault_verify
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Keep the keys, on change and every few minutes
  mazevault.backup.escrow:
    backup_root: /opt/mazevault/backups
    installation: "{{ inventory_hostname }}"
    env_file: /opt/mazevault/.env
    vault_file: /opt/mazevault/secrets.vault
    key_file: /opt/mazevault/vault.key
    recipients_vault: "{{ query('mazevault.backup.recipients', 'vault-a.crt,vault-b.crt') }}"
    recipients_key: "{{ query('mazevault.backup.recipients', 'key-a.crt,key-b.crt') }}"
    places_vault: [/mnt/escrow-vault]
    places_key: [/mnt/escrow-key]
  register: kept

- name: A new USB stick took the place of the one in the safe
  mazevault.backup.escrow:
    backup_root: /opt/mazevault/backups
    installation: "{{ inventory_hostname }}"
    env_file: /opt/mazevault/.env
    recipients_vault: "{{ recipients_vault }}"
    recipients_key: "{{ recipients_key }}"
    places_key: [/media/stick]
    fresh_places: [/media/stick]
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
    expected:
      description: What would be right, where that is short.
      type: str
    observed:
      description: What was there instead.
      type: str
generation:
  description: Id of the generation in use. Empty in check mode where it would be a new one.
  type: str
  returned: success
new:
  description: Whether the generation is, or would be, seen for the first time.
  type: bool
  returned: success
names:
  description: Names of the secrets and files in it, never a value.
  type: list
  elements: str
  returned: success
weak:
  description: Names whose values a person may have chosen. That one of them has changed is seen by its file only.
  type: list
  elements: str
  returned: success
made:
  description: Stamp of the bundles that were made, or empty.
  type: str
  returned: success
generations:
  description: Ids of all generations that are in escrow, oldest first.
  type: list
  elements: str
  returned: success
places:
  description: The places of both halves.
  type: list
  elements: dict
  returned: success
  contains:
    path:
      description: The folder.
      type: str
    half:
      description: V(vault) or V(key).
      type: str
    problem:
      description: Why it can't be used, or empty.
      type: str
    written:
      description: Names of all copies that were, or would be, written.
      type: list
      elements: str
    healed:
      description: Those of them that had been there in good order, and why they no longer were.
      type: dict
away:
  description: What each of O(places_away) has to be asked, and what M(mazevault.backup.escrow_place) is told there.
  type: list
  elements: dict
  returned: success
  contains:
    half:
      description: V(vault) or V(key).
      type: str
    name:
      description: What the place is called.
      type: str
    host:
      description: Its host.
      type: str
    path:
      description: The folder there.
      type: str
    known_as:
      description: Id that it had last.
      type: str
    fresh:
      description: Whether it is a new medium.
      type: bool
    copies:
      description: All that has to be there, each with C(name), C(bytes) and C(sha256).
      type: list
      elements: dict
lost:
  description: Bundles of which the backup root's own copy isn't whole, and that no place of this host has.
  type: list
  elements: str
  returned: success
notes:
  description: What a person should know.
  type: list
  elements: str
  returned: success
"""

import contextlib
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import (
    _escrow,
    _escrow_looks,
    _escrow_place,
    _ledger,
    _material,
    _module,
    _policy,
)
from ansible_collections.mazevault.backup.plugins.module_utils._engine import Engine
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._escrow import Escrowed
from ansible_collections.mazevault.backup.plugins.module_utils._escrow_place import HALVES, Copy, Look
from ansible_collections.mazevault.backup.plugins.module_utils._files import private_folder
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress, locked
from ansible_collections.mazevault.backup.plugins.module_utils._vault import ContainerTool, HostTool, Tool
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, UNPROVEN, Check, combine


def _tool(params: dict[str, t.Any]) -> Tool:
    if params["runtime"] == "host":
        return HostTool(params["tool"])
    if not params["image"]:
        raise BackupError(
            f"image: missing, and runtime is {params['runtime']}", hint="Name the image that holds the tool."
        )
    return ContainerTool(Engine(params["runtime"]), params["image"], params["tool"])


def _places(params: dict[str, t.Any]) -> list[tuple[str, str]]:
    """(half, path) of each place."""
    found: dict[str, str] = {}
    for half in HALVES:
        for path in params[f"places_{half}"]:
            real = os.path.realpath(path)
            if found.setdefault(real, half) != half:
                raise BackupError(
                    f"places_{half}: {path}: is a place of the other half too: both halves in one place are none",
                    hint="Name folders on different media or hosts; nothing was written.",
                )
    return [(half, path) for half in HALVES for path in dict.fromkeys(params[f"places_{half}"])]


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    root, trust, write = params["backup_root"], _module.trust_of(params), not module.check_mode
    overrides = _policy.refuse(trust.policy, params["wanted"])
    texts = {half: params[f"recipients_{half}"] for half in HALVES}
    wanted = _escrow.wish(params["encryption"], texts, params["few_recipients_because"], params["installation"])
    places, tool = _places(params), _tool(params)
    _escrow_looks.refuse_shared(params["places_away"])
    handed = _escrow_looks.decoded(params["handed"], "handed")
    private_folder(root, parameter="backup_root")
    material = _material.read(
        env_file=params["env_file"] or "", vault_file=params["vault_file"] or "", key_file=params["key_file"] or ""
    )
    progress = Progress()
    with locked(os.path.join(root, ".escrow.lock")) if write else contextlib.nullcontext():
        progress.step("generation")
        generation = _material.generation_of(root, material, trust, removed=params["removed"], write=write)
        known, wrong = _escrow.load(root, trust)
        checks = [Check(f"bundle {stamp}", "checksum", FAIL, why) for stamp, why in wrong.items()]
        fitting = _escrow.fitting(known, generation.id, wanted)
        made = ""
        if fitting is None and write:
            fitting = _escrow.make(root, material, generation, wanted, trust, tool, progress=progress)
            known, made = [*known, fitting], fitting.stamp
        paths = [path for _half, path in places]
        lost: list[str] = []
        for one in known:
            gone = _escrow.mend(one, paths, handed) if write else []
            checks += [Check(f"{one.generation}: {name}", "checksum", FAIL, "no good copy anywhere") for name in gone]
            lost += gone
        here = [_look(params, known, half, path, progress if write else None) for half, path in places]
        away, ask = _away(params, known)
        looks = [*here, *away]
        chain = _ledger.load(root)
        if write:
            progress.step("enter")
            _escrow.enter(root, known, looks, params["offline_places"])
    checks += _opening(fitting, material, tool)
    held = {_escrow.HALF_OF[name] for name in material.files} | ({"key"} if material.env else set())
    seen = {(look.half, look.path) for look in away}
    unasked = [pair for one in params["places_away"] if (pair := (one["half"], one["name"])) not in seen]
    resting = [look for look in here if _rests(params, look)]
    rest = {look.path: _escrow_looks.resting(look, known, chain, params["offline_days"]) for look in resting}
    checks += _escrow_looks.arrival(looks, held, unasked, rest, would_make=fitting is None)
    checks += [Check(f"policy overridden: {name}", "toc", UNPROVEN, "weaker than the policy") for name in overrides]
    would_make = fitting is None
    # What is written on other hosts is a change of the task that writes it.
    touched = any(look.healed if write else look.wrong for look in here)
    news = f"generation {generation.id or '(new)'}: {', '.join(material.names)}\n" if made or would_make else ""
    return {
        "changed": bool(made or would_make or touched),
        "verdict": combine(check.verdict for check in checks),
        "checks": [check.as_dict() for check in checks],
        "generation": generation.id,
        "new": generation.new,
        "names": list(material.names),
        "weak": list(generation.weak),
        "made": made,
        "generations": list(dict.fromkeys(one.generation for one in known)),
        "places": [_escrow_looks.told(look, _escrow.split(chain, known, look)[0]) for look in looks],
        "away": ask,
        "lost": lost,
        "notes": list(generation.notes),
        "diff": _escrow_looks.difference(news, here),
    }


def _look(params: dict[str, t.Any], known: list[Escrowed], half: str, path: str, progress: Progress | None) -> Look:
    """Look at a place of this host, and heal it unless this is a check."""
    of_file = _escrow_looks.copies_of(known, half)
    copies: list[Copy] = [copy for _one, copy in of_file.values()]
    known_as = _escrow.places_known(_ledger.load(params["backup_root"])).get(path, "")
    installation, fresh = params["installation"], path in params["fresh_places"]
    look = _escrow_place.look(path, half, copies, installation=installation, known_as=known_as, fresh=fresh)
    if progress and not look.problem:
        _escrow_place.heal(
            look, lambda name: of_file[name][0].read(name), copies, installation=installation, progress=progress
        )
    return look


def _rests(params: dict[str, t.Any], look: Look) -> bool:
    """Whether it is a medium that isn't plugged in."""
    return look.path in params["offline_places"] and bool(look.problem) and not _escrow_place.is_there(look.path)


def _away(params: dict[str, t.Any], known: list[Escrowed]) -> tuple[list[Look], list[dict[str, t.Any]]]:
    """(what was seen on other hosts, what each place there has to be asked)."""
    told = {(one.get("half"), one.get("name")): one for one in params["looks"]}
    places_known = _escrow.places_known(_ledger.load(params["backup_root"]))
    looks, ask = [], []
    for place in params["places_away"]:
        name = place["name"]
        fresh = name in params["fresh_places"]
        ask.append(_escrow_looks.asked(place, known, places_known.get(name, ""), fresh=fresh))
        if (place["half"], name) in told:
            looks.append(_escrow_looks.look_of(place, told[(place["half"], name)], known))
    return looks, ask


def _opening(fitting: Escrowed | None, material: _material.Material, tool: Tool) -> list[Check]:
    """Does the key open the vault? Where nobody could tell when the bundle was made, the files of now are asked."""
    if fitting is not None:
        stored = [
            Check(check["name"], check["level"], check["verdict"], check.get("reason", ""))
            for check in fitting.content["checks"]
        ]
        if combine(check.verdict for check in stored) != UNPROVEN or not stored:
            return stored
    return _escrow.checks_of(material.files, tool)


def main() -> t.NoReturn:
    recipients = {"type": "list", "elements": "str", "required": True}
    names = {"type": "list", "elements": "str", "default": []}
    places = {"type": "list", "elements": "path", "default": []}
    module = AnsibleModule(
        argument_spec={
            **_module.TRUST_SPEC,
            **_module.WANTED_SPEC,
            "backup_root": {"type": "path", "required": True},
            "installation": {"type": "str", "required": True},
            "env_file": {"type": "path"},
            "vault_file": {"type": "path"},
            # Paths and public keys, not secrets.
            "key_file": {"type": "path", "no_log": False},
            "removed": names,
            "encryption": {"type": "str", "default": "cms", "choices": ["cms", "age"]},
            "recipients_vault": recipients,
            "recipients_key": {**recipients, "no_log": False},
            "few_recipients_because": {"type": "str", "default": ""},
            "places_vault": places,
            "places_key": {**places, "no_log": False},
            "fresh_places": places,
            "offline_places": places,
            "offline_days": {"type": "float", "default": 92},
            "places_away": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "half": {"type": "str", "required": True, "choices": ["vault", "key"]},
                    "name": {"type": "str", "required": True},
                    "host": {"type": "str", "required": True},
                    "path": {"type": "str", "required": True},
                },
            },
            "looks": {"type": "list", "elements": "dict", "default": []},
            # Encrypted, but nobody needs it in a log.
            "handed": {"type": "dict", "default": {}, "no_log": True},
            "tool": {"type": "str", "default": "vault-tool"},
            "runtime": {"type": "str", "default": "host", "choices": ["host", "docker", "podman"]},
            "image": {"type": "str"},
        },
        supports_check_mode=True,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
