#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: component_restore
short_description: Bring the files of a recovery set's component back, key material and the rest as one tree
version_added: 0.1.0
description:
  - Takes the archives of one component made of files. Those of class keys lie over those of class data, so a C(.env)
    comes back with its values and not with the marks that stand in their place.
  - The set's signature, its checksums and each archive's record are compared before anything is written.
  - Without O(in_place) everything comes to lie in a folder of its own, under the names that the archives have. Nothing
    that is in use is touched.
  - With O(in_place) each file goes back to where it was taken from. What else is there stays, and what is replaced is
    kept beside it, in a folder with C(.before_) and the time in its name.
  - Owners are set by number when run as root. Modes, times, ACLs, extended attributes and SELinux contexts are set too.
  - A run that was killed is finished by running it again.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
  - mazevault.backup._set_key
  - mazevault.backup._trust
attributes:
  check_mode:
    support: full
    details: Opens and reads the archives, and compares them with what is there.
  diff_mode:
    support: full
    details: Names, kinds, modes, owners and sizes; neither contents nor hashes of them.
  idempotent:
    support: full
options:
  backup_root:
    description: Folder of all sets.
    type: path
    required: true
  set:
    description: Id of a set, or V(latest), the newest one with this component that hasn't failed its proof.
    type: str
    default: latest
  component:
    description: The component.
    type: str
    required: true
    choices: [config, tls, volumes]
  target:
    description:
      - Folder that the files come to lie in, without O(in_place). What is there and differs is kept beside it.
      - Unset means a folder below C(restored/) in O(backup_root), by the set's id and the component.
    type: path
  in_place:
    description: Put the files back to where they were taken from.
    type: bool
    default: false
  places:
    description:
      - Names in the archives, each with the folder of this host that this is. Used by O(in_place).
      - Volumes need one (C(volumes/backend_data)). Other files lie where their names say, seen from the root folder.
    type: dict
    default: {}
  keys_set_key_file:
    description: As O(set_key_file), for the set's key of class keys.
    type: path
  keys_identity_file:
    description: As O(identity_file), of a recipient of class keys.
    type: path
  installation:
    description: Name of this installation. A set of another one is refused.
    type: str
  accept:
    description:
      - Refusals that the operator takes upon himself.
      - V(without_keys) leaves key material out. In a folder of its own, files with marks stay as they are; with
        O(in_place) they are left out too.
    type: list
    elements: str
    default: []
    choices: [other_installation, unsigned, without_keys]
  reserve:
    description:
      - Bytes that must stay free on the file systems of the targets, as a number or with a unit (V(2G)).
      - Unset means 5 % of the file system, at most 5 GiB.
    type: str
  confirm:
    description: Has to equal O(inventory_hostname) where O(in_place) changes anything. Not needed in check mode.
    type: str
  inventory_hostname:
    description: The host's name in the inventory.
    type: str
seealso:
  - module: mazevault.backup.files_restore
  - module: mazevault.backup.pg_restore
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Look at the configuration as it was
  mazevault.backup.component_restore:
    backup_root: /opt/mazevault/backups
    component: config
    installation: "{{ inventory_hostname }}"
    identity_file: /dev/shm/data.key
    keys_identity_file: /dev/shm/keys.key

- name: Put the files of a volume back
  mazevault.backup.component_restore:
    backup_root: /opt/mazevault/backups
    set: mazevault_20261123_020000
    component: volumes
    in_place: true
    places:
      volumes/mazevault_backend_data: /var/lib/docker/volumes/mazevault_backend_data/_data
    set_key_file: /dev/shm/set.key
    confirm: "{{ mazevault_confirm }}"
    inventory_hostname: "{{ inventory_hostname }}"
"""

RETURN = r"""
set_id:
  description: Id of the set.
  type: str
  returned: success
component:
  description: The component.
  type: str
  returned: success
recovery_point:
  description: The moment that the files stand for.
  type: str
  returned: success
proof:
  description: What is known of the set.
  type: dict
  returned: success
  contains:
    verdict:
      description: V(pass) or V(unproven); V(fail) only of a set that was named.
      type: str
    level:
      description: The highest level that was proven.
      type: str
    at:
      description: When it was proven, null for the proof before it was published.
      type: str
classes:
  description: Classes whose archives were brought back.
  type: list
  elements: str
  returned: success
targets:
  description: Each folder that files come to lie in.
  type: list
  elements: dict
  returned: success
  contains:
    target:
      description: The folder, symlinks resolved.
      type: str
    action:
      description:
        - V(none) where everything is as the set has it, V(created), V(replaced) or V(merged).
        - In check mode what would be done.
      type: str
    kept:
      description: Where what was there before is kept, null where nothing had to be, and in check mode.
      type: str
    entries:
      description: How many files, folders and links belong there.
      type: int
    different:
      description: How many of them were missing or different.
      type: int
differences:
  description: In what the folders weren't as the set has them, at most the first 100.
  type: list
  elements: str
  returned: success
bytes:
  description: Bytes of all files.
  type: int
  returned: success
marked:
  description: Files that have marks in place of key material, because that was left out.
  type: list
  elements: str
  returned: success
missing:
  description: Files that were left out with the key material.
  type: list
  elements: str
  returned: success
owners:
  description: Whether owners are as recorded.
  type: bool
  returned: success
without:
  description: Extended attributes that a file system or account can't have, each with how many entries lack it.
  type: dict
  returned: success
removed:
  description: What a killed run had left, and was removed.
  type: list
  elements: str
  returned: success
evidence:
  description: Path of the record of what was done, null where nothing was.
  type: str
  returned: success
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _ledger, _module
from ansible_collections.mazevault.backup.plugins.module_utils._component import Component, component_of
from ansible_collections.mazevault.backup.plugins.module_utils._confirm import require_confirmation
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._evidence import write_evidence
from ansible_collections.mazevault.backup.plugins.module_utils._names import told
from ansible_collections.mazevault.backup.plugins.module_utils._overlay import Overlay, Putting, portions, whole
from ansible_collections.mazevault.backup.plugins.module_utils._recovery_set import refuse_untrusted, shelf_of
from ansible_collections.mazevault.backup.plugins.module_utils._sizes import parse_size
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress
from ansible_collections.mazevault.backup.plugins.module_utils._subject import find_set
from ansible_collections.mazevault.backup.plugins.module_utils._tree import canonical
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL

_SHOWN = 100


def _plan(params: dict[str, t.Any], component: Component, tree: Overlay) -> list[Putting]:
    """Where everything is to go, and in what that isn't as it should be."""
    stamp = _clock.stamp(_clock.now())
    if params["in_place"]:
        places = component.places({str(name): str(path) for name, path in params["places"].items()})
        parts, mode = portions(tree, places), 0o755
    else:
        beside = os.path.join(params["backup_root"], "restored", component.found.set_id, component.name)
        target = os.path.realpath(params["target"] or beside)
        if target == "/":
            raise BackupError("target: /: not a folder below /", hint="Name another folder.")
        parts, mode = [whole(tree, target)], 0o700
    puttings = [Putting(tree, part, stamp, merge=params["in_place"], mode=mode) for part in parts]
    for putting in puttings:
        putting.look()
    return puttings


def _chosen(module: AnsibleModule) -> tuple[Component, dict[str, t.Any]]:
    """(the component, what is known of its set): the set is one that may be used."""
    params = module.params
    if not params["set"] or "/" in params["set"]:
        raise BackupError(f"set: {params['set'] or 'empty'}: not a set", hint="Give a set's id, or latest.")
    trust = _module.trust_of(params)
    found = find_set(params["backup_root"], params["set"], trust, component=params["component"])
    refuse_untrusted(found, trust, unsigned="unsigned" in params["accept"])
    installation = str(found.manifest["installation"])
    if params["installation"] not in (None, installation) and "other_installation" not in params["accept"]:
        raise BackupError(
            f"set: {found.set_id}: belongs to {installation}, not to {params['installation']}",
            hint="Nothing was touched. Choose a set of this installation, or accept other_installation.",
        )
    proof = shelf_of(found.root, trust).judge(found)
    if proof["verdict"] == FAIL:
        module.warn(f"set: {found.set_id}: failed its proof; it was named, so its files are brought back all the same")
    return component_of(found, params["component"], params), {key: proof[key] for key in ("verdict", "level", "at")}


def _restore(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    reserve = parse_size(params["reserve"], parameter="reserve")
    component, proof = _chosen(module)
    without_keys = "without_keys" in params["accept"]
    tree = component.opened(without_keys=without_keys, marked=not params["in_place"])
    puttings = _plan(params, component, tree)
    entries = tree.entries.values()
    result: dict[str, t.Any] = {
        "changed": any(one.action != "none" or one.leftovers() for one in puttings),
        "set_id": component.found.set_id,
        "component": component.name,
        "recovery_point": component.found.manifest["recovery_point"],
        "proof": proof,
        "classes": component.classes,
        "targets": [one.described() for one in puttings],
        "differences": [str(wrong) for one in puttings for wrong in one.wrong][:_SHOWN],
        "bytes": sum(entry.size for entry in entries),
        "marked": [told(name) for name in sorted(component.marked)],
        "missing": [told(name) for name in sorted(component.missing)],
        "owners": os.geteuid() == 0,
        "without": {},
        "removed": [path for one in puttings for path in one.leftovers()],
        "evidence": None,
    }
    result["diff"] = {
        "before": "".join(f"{one.target}: {wrong}\n" for one in puttings for wrong in one.wrong),
        "after": "".join(f"{entry.line()}\n" for entry in canonical(entries).values()) if result["changed"] else "",
    }
    if all(one.action == "none" for one in puttings):
        for one in () if module.check_mode else puttings:
            one.tidy()
        return result
    if params["in_place"]:
        require_confirmation(module.check_mode, params["confirm"], params["inventory_hostname"])
    for one in puttings:
        one.require_space(reserve)
    if not result["owners"]:
        module.warn("owners: all belongs to this account; only root can set the recorded owners")
    if module.check_mode:
        return result
    return {**result, **_put(module, puttings, result)}


def _put(module: AnsibleModule, puttings: t.Sequence[Putting], result: dict[str, t.Any]) -> dict[str, t.Any]:
    params, root, progress = module.params, module.params["backup_root"], Progress()
    facts = {
        key: result[key] for key in ("set_id", "component", "classes", "recovery_point", "proof", "marked", "missing")
    }
    # Who opened key material is told also when it ends before its evidence is written.
    _ledger.append(root, "restore files began", set_id=result["set_id"], component=result["component"])
    without: dict[str, int] = {}
    for one in puttings:
        for name, count in one.put(progress)["without"].items():
            without[name] = without.get(name, 0) + count
    if without:
        named = ", ".join(f"{name} ({count})" for name, count in sorted(without.items()))
        module.warn(f"{result['component']}: without extended attributes that can't be set here: {named}")
    targets = [one.described() for one in puttings]
    evidence = write_evidence(
        root,
        f"files_{result['component']}_{_clock.stamp(_clock.now())}",
        "restore files",
        {**facts, "in_place": params["in_place"], "targets": targets, "accept": params["accept"]},
        _module.trust_of(params),
    )
    return {"targets": targets, "without": without, "evidence": evidence}


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            **_module.TRUST_SPEC,
            **_module.KEY_SPEC,
            "backup_root": {"type": "path", "required": True},
            "set": {"type": "str", "default": "latest"},
            "component": {"type": "str", "required": True, "choices": ["config", "tls", "volumes"]},
            "target": {"type": "path"},
            "in_place": {"type": "bool", "default": False},
            "places": {"type": "dict", "default": {}},
            # Paths, not secrets.
            "keys_set_key_file": {"type": "path", "no_log": False},
            "keys_identity_file": {"type": "path", "no_log": False},
            "installation": {"type": "str"},
            "accept": {
                "type": "list",
                "elements": "str",
                "default": [],
                "choices": ["other_installation", "unsigned", "without_keys"],
            },
            "reserve": {"type": "str"},
            "confirm": {"type": "str"},
            "inventory_hostname": {"type": "str"},
        },
        supports_check_mode=True,
    )
    _module.run(module, _restore)


if __name__ == "__main__":
    main()
