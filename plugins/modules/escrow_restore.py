#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: escrow_restore
short_description: Bring MazeVault's keys back from escrow
version_added: 0.1.0
description:
  - Opens the bundles that M(mazevault.backup.escrow) made, with one identity for each half, and puts C(secrets.vault),
    C(vault.key) and the secrets of C(.env) back, on the same host or on another one.
  - A bundle counts only if its index was signed by a key that counts, and if it holds the generation that the index
    tells. Everything is opened and proven before anything is written.
  - Of a C(.env) that is there only the secrets are put back, and what isn't escrowed stays. Files that are replaced are
    kept beside, with C(.before_) and the time.
  - Values are in memory only until they are written, mode 0600. They are never told.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
  - mazevault.backup._trust
attributes:
  check_mode:
    support: full
    details: Bundles are opened and proven; nothing is written.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  backup_root:
    description: Folder of all sets, which gets the list of generations. It has to be there.
    type: path
    required: true
  installation:
    description: Name of the installation that the bundles were made for.
    type: str
    required: true
  places:
    description: Folders with copies of the bundles, of both halves.
    type: list
    elements: path
    required: true
  handed:
    description:
      - For each place on another host, by its name, the files that M(mazevault.backup.escrow_place) gave there, base64
        by name. They are in memory only, and count as much as copies in O(places).
    type: dict
    default: {}
  generation:
    description: Id of the generation, as the manifest of a set tells it, or V(latest).
    type: str
    default: latest
  identity_vault:
    description: File with the private key of a recipient of the half V(vault), mode 0600. Unset leaves that half out.
    type: path
  identity_key:
    description: File with the private key of a recipient of the half V(key), mode 0600. Unset leaves that half out.
    type: path
  verification_keys:
    description:
      - Public keys (PEM) of hosts whose signature counts, besides those of the pinned policy and this host's own. On a
        new host that of the former one, from the card, never from the place of a bundle.
    type: list
    elements: str
    default: []
  env_file:
    description: Where the settings are to be. Unset leaves them out.
    type: path
  vault_file:
    description: Where C(secrets.vault) is to be. Unset leaves it out.
    type: path
  key_file:
    description: Where C(vault.key) is to be. Unset leaves it out.
    type: path
  confirm:
    description: Has to equal O(inventory_hostname) where something other is replaced. What is missing needs none.
    type: str
  inventory_hostname:
    description: The host's name in the inventory, for O(confirm).
    type: str
  tool:
    description: The vendor's C(vault-tool). See M(mazevault.backup.vault_verify).
    type: str
    default: vault-tool
seealso:
  - module: mazevault.backup.escrow
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Bring the keys back that were lost
  mazevault.backup.escrow_restore:
    backup_root: /opt/mazevault/backups
    installation: "{{ inventory_hostname }}"
    places: [/mnt/escrow-vault, /mnt/escrow-key]
    identity_vault: /dev/shm/vault-a.key
    identity_key: /dev/shm/key-a.key
    env_file: /opt/mazevault/.env
    vault_file: /opt/mazevault/secrets.vault
    key_file: /opt/mazevault/vault.key
    confirm: "{{ mazevault_confirm }}"
    inventory_hostname: "{{ inventory_hostname }}"
"""

RETURN = r"""
generation:
  description: Id of the generation that was put back.
  type: str
  returned: success
verdict:
  description: Whether the key opens the vault, V(pass) or V(unproven). Without a vault V(pass), since all files are
    those that were signed. Where it doesn't open the module fails, and nothing is written.
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
written:
  description: Files that were, or would be, written.
  type: list
  elements: dict
  returned: success
  contains:
    path:
      description: The file.
      type: str
    names:
      description: Names of the secrets that differed, never a value.
      type: list
      elements: str
kept:
  description: Paths of files that were replaced.
  type: list
  elements: str
  returned: success
"""

import os
import typing as t
from dataclasses import dataclass

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _generations, _ledger, _module
from ansible_collections.mazevault.backup.plugins.module_utils._confirm import require_confirmation
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._escrow import checks_of
from ansible_collections.mazevault.backup.plugins.module_utils._escrow_place import HALVES
from ansible_collections.mazevault.backup.plugins.module_utils._files import private_folder, write_file
from ansible_collections.mazevault.backup.plugins.module_utils._fingerprint import NAME as FINGERPRINT_KEY
from ansible_collections.mazevault.backup.plugins.module_utils._from_escrow import (
    Index,
    find,
    open_all,
    spread,
    with_keys,
)
from ansible_collections.mazevault.backup.plugins.module_utils._material import ENV, KEY, VAULT, Material, read
from ansible_collections.mazevault.backup.plugins.module_utils._set_keys import memory_for, private_key_file
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust
from ansible_collections.mazevault.backup.plugins.module_utils._vault import HostTool
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, Check, combine

# In this order: the vault is of no use before its key is there, and settings may name both.
_TARGETS = ((KEY, "key_file"), (VAULT, "vault_file"), (ENV, "env_file"))


@dataclass(frozen=True)
class _Write:
    """A file to be put back; its content is a secret."""

    path: str
    content: bytes
    names: tuple[str, ...]
    replaces: bool


def _plan(params: dict[str, t.Any], contents: dict[str, bytes]) -> list[_Write]:
    """What differs from what is there."""
    found = []
    for name, parameter in _TARGETS:
        path, content = params[parameter], contents.get(name)
        if not path or content is None:
            continue
        if not os.path.lexists(path):
            found.append(_Write(path, content, (name,), False))
            continue
        if os.path.islink(path) or not os.path.isfile(path):
            raise BackupError(f"{parameter}: {path}: is there and no file", hint="Name the file itself.")
        with open(path, "rb") as stream:
            there = stream.read()
        names: tuple[str, ...] = (name,)
        if name == ENV:
            text, names = with_keys(*(data.decode("utf-8", "surrogateescape") for data in (there, content)))
            content = text.encode("utf-8", "surrogateescape")
        if content != there:
            found.append(_Write(path, content, names, True))
    return found


def _put(write: _Write, moment: str) -> str:
    """Write one file; where the one before it is kept, or an empty string."""
    kept = ""
    if write.replaces:
        info = os.stat(write.path)
        kept, number = f"{write.path}.before_{moment}", 1
        # Two restores in one second each keep what they replace.
        while os.path.lexists(kept):
            number += 1
            kept = f"{write.path}.before_{moment}_{number}"
        os.link(write.path, kept)
    write_file(write.path, write.content)
    if write.replaces:
        os.chown(write.path, info.st_uid, info.st_gid)
        os.chmod(write.path, info.st_mode & 0o770)
    return kept


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    root, trust = params["backup_root"], _module.trust_of(params)
    private_folder(root, parameter="backup_root")
    identities = {half: params[f"identity_{half}"] or "" for half in HALVES}
    for half, path in identities.items():
        if path:
            private_key_file(path, f"identity_{half}")
    if not any(identities.values()):
        raise BackupError(
            "identity_vault, identity_key: none is given, so no half can be opened",
            hint="Let a recipient of each half bring an identity, in a file on a tmpfs such as /dev/shm.",
        )
    with memory_for("restore") as memory:
        index = find(
            [*params["places"], *spread(params["handed"], memory)],
            [*trust.keys, *params["verification_keys"]],
            installation=params["installation"],
            generation=params["generation"],
        )
        contents = open_all(index, identities)
    checks = [Check(f"bundle {name}", "checksum", PASS) for name in sorted(index.paths)]
    if VAULT in contents and KEY in contents:
        checks += checks_of(contents, HostTool(params["tool"]))
    verdict = combine(check.verdict for check in checks)
    told = [check.as_dict() for check in checks]
    if verdict == FAIL:
        raise BackupError(
            f"generation: {index.generation}: its key doesn't open its vault",
            hint="Nothing was written. Take another generation.",
            details={"checks": told},
        )
    writes = _plan(params, contents)
    if any(write.replaces for write in writes):
        require_confirmation(module.check_mode, params["confirm"], params["inventory_hostname"])
    kept: list[str] = []
    if not module.check_mode:
        moment = _clock.stamp(_clock.now())
        kept = [path for path in (_put(write, moment) for write in writes) if path]
        _enter(params, index, contents, trust, writes)
    return {
        "changed": bool(writes),
        "generation": index.generation,
        "verdict": verdict,
        "checks": told,
        "written": [{"path": write.path, "names": list(write.names)} for write in writes],
        "kept": kept,
        "diff": {
            "before": "".join(f"{write.path}: {'other' if write.replaces else 'missing'}\n" for write in writes),
            "after": "".join(f"{write.path}: {', '.join(write.names)} of {index.generation}\n" for write in writes),
        },
    }


def _enter(
    params: dict[str, t.Any], index: Index, contents: dict[str, bytes], trust: Trust, writes: list[_Write]
) -> None:
    """The host knows the generation by its id again, where all of it came back; and the ledger tells of the restore."""
    key = _generations.key_of(trust)
    trust.signer.ensure()
    if FINGERPRINT_KEY in contents and not key.exists():
        write_file(key.path, contents[FINGERPRINT_KEY])
    held = {name for entry in index.content["files"] for name in entry["holds"]} - {FINGERPRINT_KEY}
    if held <= set(contents):
        there = read(**{parameter: params[parameter] or "" for _name, parameter in _TARGETS})
        escrowed = Material(there.values, {name: contents[name] for name in (VAULT, KEY) if name in contents})
        if ENV not in held or params["env_file"]:
            sources = there.sources
            _generations.adopt(
                params["backup_root"], index.generation, escrowed.values, escrowed.files, trust, sources=sources
            )
    if writes:
        paths = [write.path for write in writes]
        # A new host has nothing else that tells which generations of older sets are safe.
        facts = {"generation": index.generation, "paths": paths, "in_escrow_too": index.others}
        _ledger.append(params["backup_root"], "keys restored", **facts)


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            **_module.TRUST_SPEC,
            "backup_root": {"type": "path", "required": True},
            "installation": {"type": "str", "required": True},
            "places": {"type": "list", "elements": "path", "required": True},
            # Encrypted, but nobody needs it in a log.
            "handed": {"type": "dict", "default": {}, "no_log": True},
            "generation": {"type": "str", "default": "latest"},
            "identity_vault": {"type": "path"},
            # Paths and public keys, not secrets.
            "identity_key": {"type": "path", "no_log": False},
            "verification_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "env_file": {"type": "path"},
            "vault_file": {"type": "path"},
            "key_file": {"type": "path", "no_log": False},
            "confirm": {"type": "str"},
            "inventory_hostname": {"type": "str"},
            "tool": {"type": "str", "default": "vault-tool"},
        },
        supports_check_mode=True,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
