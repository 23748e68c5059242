#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: files_restore
short_description: Bring an archive of files back into a folder, all or nothing
version_added: 0.1.0
description:
  - Takes an archive of M(mazevault.backup.files_backup), or any that tar has made, such as the product's
    C(config_YYYYmmdd.tar.gz), in which names like C(opt/mazevault/.env) are. What it is, its first bytes say.
  - Reads the whole archive and checks it before the first byte is written. Refused are names that are absolute or lead
    upwards, links that lead outside the target, entries below a link, names that are there twice, device nodes, fifos,
    kinds of entries that tar rarely writes, and archives that come to more than is recorded or allowed.
  - Unpacks into a new folder beside the target that nobody else can enter, compares everything there with what was
    checked, and only then puts it in place. A killed run leaves the target as it was, the next run removes the rest.
  - Owners are set by number when run as root. Modes, times, ACLs, extended attributes and SELinux contexts are set too.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
attributes:
  check_mode:
    support: full
    details: Reads and checks the whole archive, and compares it with the target.
  diff_mode:
    support: full
    details: Names, kinds, modes, owners and sizes; neither contents nor hashes of them.
  idempotent:
    support: full
options:
  archive:
    description: The archive.
    type: path
    required: true
  target:
    description: Folder that the archive's content comes to lie in. It must lie in one that nobody else may write to.
    type: path
    required: true
  part:
    description: A folder of the archive. What lies in it comes to lie in O(target), the rest is left out.
    type: str
    default: ''
  report:
    description:
      - What was recorded when the archive was made. It is the report of M(mazevault.backup.files_backup), or a set's
        C(manifest.private.json) with O(component).
      - The archive has to hold what is recorded, and nothing else. What is recorded is allowed to be there.
      - It is trusted. Prove it first where others could have changed it.
    type: path
  component:
    description: Whose part of C(manifest.private.json) is meant.
    type: str
  existing:
    description:
      - What happens to a target that is there and not empty, and differs.
      - V(refuse) fails. V(replace) puts the new folder in its place, and keeps the old one.
      - V(merge) replaces what the archive holds, name by name, and leaves the rest alone. What is replaced is kept.
      - The old one is kept as O(target) followed by C(.before_) and the time.
    type: str
    default: refuse
    choices: [refuse, replace, merge]
  allow:
    description:
      - V(privileges) lets in set-uid and set-gid bits and file capabilities.
      - V(outside_links) lets in symlinks that lead outside the target.
      - Neither is needed for what is recorded in O(report).
    type: list
    elements: str
    default: []
    choices: [privileges, outside_links]
  max_bytes:
    description: Bytes that an archive without O(report) may come to, as a number or with a unit (V(2G)).
    type: str
    default: 10G
  max_members:
    description: How many entries an archive without O(report) may have.
    type: int
    default: 100000
  reserve:
    description:
      - Bytes that must stay free on the file system of the target, as a number or with a unit (V(2G)).
      - Unset means 5 % of the file system, at most 5 GiB.
    type: str
  confirm:
    description: Has to equal O(inventory_hostname) where an existing target is changed. Not needed in check mode.
    type: str
  inventory_hostname:
    description: The host's name in the inventory.
    type: str
notes:
  - An account other than root can't give files away. All belongs to the account then, and RV(owners) is false.
  - A target that is a mount point can't be replaced as a whole. With V(merge) the work is done inside of it.
seealso:
  - module: mazevault.backup.files_backup
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Bring the configuration back to a new host
  mazevault.backup.files_restore:
    archive: /opt/mazevault/backups/sets/mazevault_20261123_020000/config/config.tar.zst
    report: /opt/mazevault/backups/sets/mazevault_20261123_020000/manifest.private.json
    component: config
    part: opt/mazevault
    target: /opt/mazevault
    existing: merge
    confirm: "{{ mazevault_confirm | default('') }}"
    inventory_hostname: "{{ inventory_hostname }}"

- name: What is in this old archive?
  mazevault.backup.files_restore:
    archive: /opt/mazevault/backups/config_20260210.tar.gz
    target: /root/looked-at
  check_mode: true
  diff: true
"""

RETURN = r"""
target:
  description: The folder, symlinks resolved.
  type: str
  returned: success
action:
  description:
    - V(none) where everything is as the archive has it, V(created), V(replaced) or V(merged).
    - In check mode what would be done.
  type: str
  returned: success
kept:
  description: Where what was there before is kept, null where nothing had to be. In check mode it is null.
  type: str
  returned: success
entries:
  description: How many entries the archive, or its part, has.
  type: int
  returned: success
bytes:
  description: Bytes of all files.
  type: int
  returned: success
differences:
  description: In what the target wasn't as the archive has it, at most the first 100.
  type: list
  elements: str
  returned: success
different:
  description: How many of them there are.
  type: int
  returned: success
recorded:
  description: Whether the archive was compared with a record.
  type: bool
  returned: success
owners:
  description: Whether owners are as recorded.
  type: bool
  returned: success
without:
  description: Extended attributes that this file system or account can't have, each with how many entries lack it.
  type: dict
  returned: success
removed:
  description: What a killed run had left, and was removed.
  type: list
  elements: str
  returned: success
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _module
from ansible_collections.mazevault.backup.plugins.module_utils._confirm import require_confirmation
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import require_space
from ansible_collections.mazevault.backup.plugins.module_utils._members import Limits
from ansible_collections.mazevault.backup.plugins.module_utils._programs import HostRuntime
from ansible_collections.mazevault.backup.plugins.module_utils._put_back import Workplace
from ansible_collections.mazevault.backup.plugins.module_utils._refusals import ALLOWANCES, part_of
from ansible_collections.mazevault.backup.plugins.module_utils._sizes import parse_size
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress
from ansible_collections.mazevault.backup.plugins.module_utils._stored import Stored
from ansible_collections.mazevault.backup.plugins.module_utils._tar_file import (
    Record,
    check_archive,
    load_record,
    opener,
)
from ansible_collections.mazevault.backup.plugins.module_utils._tree import Difference, Entry, canonical
from ansible_collections.mazevault.backup.plugins.module_utils._unpack import Unpacker, difference_from, space_for

_SHOWN = 100


def _target(params: dict[str, t.Any]) -> str:
    target = os.path.realpath(params["target"] or "/")
    if not params["target"] or target == "/":
        raise BackupError(f"target: {params['target'] or 'empty'}: not a folder below /", hint="Name another folder.")
    if os.path.lexists(target) and not os.path.isdir(target):
        raise BackupError(f"target: {target}: there, and no folder", hint="Name another folder, or remove it.")
    return target


def _record(params: dict[str, t.Any]) -> Record | None:
    if not params["report"]:
        return None
    return load_record(params["report"], params["archive"], params["component"] or "")


def _limits(params: dict[str, t.Any], record: Record | None) -> Limits:
    if record is not None:
        return record.limits
    total = parse_size(params["max_bytes"], parameter="max_bytes")
    for name, value in (("max_bytes", total), ("max_members", params["max_members"])):
        if not value or value < 1:
            said = "empty" if params[name] == "" else params[name]
            raise BackupError(f"{name}: {said}: not above 0", hint="Give a number.")
    return Limits(t.cast(int, total), params["max_members"])


def _restore(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    reserve = parse_size(params["reserve"], parameter="reserve")
    target, record = _target(params), _record(params)
    limits = _limits(params, record)
    source = opener(Stored((params["archive"],)), HostRuntime())
    place = Workplace(target, _clock.stamp(_clock.now()))
    place.check()
    progress = Progress()
    progress.step("restore: check the archive")
    checked = check_archive(source, limits, record=record, allowed=params["allow"])
    chosen = part_of(checked.entries, params["part"])
    merging = params["existing"] == "merge" and os.path.isdir(target)
    with place.locked():
        progress.step("restore: compare with the target")
        there = place.occupied()
        wrong = difference_from(target, chosen, merge=merging) if there or merging else []
        result = _result(module, place, chosen, wrong, there, recorded=record is not None)
        if result["action"] == "none":
            if not module.check_mode:
                place.clean()
            return result
        if there and params["existing"] == "refuse":
            raise BackupError(
                f"target: {target}: there already, and different: {wrong[0]}" + (", ..." if len(wrong) > 1 else ""),
                hint="Name a new folder, or take existing=replace or existing=merge; the old one is kept.",
            )
        if place.inside and not merging:
            raise BackupError(
                f"target: {target}: a mount point, which can't be replaced",
                hint="Take existing=merge, or restore to a folder of its own and move the files.",
            )
        if there and params["existing"] == "replace":
            _check_inside(params, target)
        if there:
            require_confirmation(module.check_mode, params["confirm"], params["inventory_hostname"])
        require_space(
            target,
            space_for(checked, params["part"]),
            parameter="target",
            what="the unpacked archive",
            reserve=reserve,
        )
        if not result["owners"]:
            module.warn(f"target: {target}: all belongs to this account; only root can set the recorded owners")
        if module.check_mode:
            return result
        place.clean()
        unpacker = Unpacker(place.tree, params["part"])
        done = place.put(
            unpacker, lambda: unpacker.unpack(source, checked, limits), progress, wrong if merging else None
        )
    if done["without"]:
        named = ", ".join(f"{name} ({count})" for name, count in done["without"].items())
        module.warn(f"target: {target}: without extended attributes that can't be set here: {named}")
    return {**result, **done}


def _check_inside(params: dict[str, t.Any], target: str) -> None:
    """What is replaced moves away, with all that lies in it."""
    for name in ("archive", "report"):
        path = os.path.realpath(params[name]) if params[name] else ""
        if path.startswith(f"{target}/"):
            raise BackupError(
                f"target: {target}: {name} lies in it ({path}), and would be moved away with it",
                hint="Take existing=merge, or restore from a copy that lies elsewhere.",
            )


def _result(
    module: AnsibleModule,
    place: Workplace,
    chosen: t.Sequence[Entry],
    wrong: t.Sequence[Difference],
    there: bool,
    *,
    recorded: bool,
) -> dict[str, t.Any]:
    actions = {"refuse": "created", "replace": "replaced", "merge": "merged"}
    action = actions[module.params["existing"]] if there else "created"
    if there and not wrong:
        action = "none"
    removed = place.leftovers()
    return {
        "changed": action != "none" or bool(removed),
        "target": place.target,
        "action": action,
        "kept": None,
        "entries": len(chosen),
        "bytes": sum(entry.size for entry in chosen),
        "differences": [str(difference) for difference in wrong[:_SHOWN]],
        "different": len(wrong),
        "recorded": recorded,
        "owners": os.geteuid() == 0,
        "without": {},
        "removed": removed,
        "diff": {
            "before_header": place.target,
            "after_header": module.params["archive"],
            "before": "".join(f"{difference}\n" for difference in wrong),
            "after": "".join(f"{entry.line()}\n" for entry in canonical(chosen).values()) if action != "none" else "",
        },
    }


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            "archive": {"type": "path", "required": True},
            "target": {"type": "path", "required": True},
            "part": {"type": "str", "default": ""},
            "report": {"type": "path"},
            "component": {"type": "str"},
            "existing": {"type": "str", "default": "refuse", "choices": ["refuse", "replace", "merge"]},
            "allow": {"type": "list", "elements": "str", "default": [], "choices": list(ALLOWANCES)},
            "max_bytes": {"type": "str", "default": "10G"},
            "max_members": {"type": "int", "default": 100000},
            "reserve": {"type": "str"},
            "confirm": {"type": "str"},
            "inventory_hostname": {"type": "str"},
        },
        supports_check_mode=True,
    )
    _module.run(module, _restore)


if __name__ == "__main__":
    main()
