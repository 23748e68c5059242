#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: recovery_set_pin
short_description: Confirm a change, hold a set, or say that a suspicious one is as it should be
version_added: 0.1.0
description:
  - A set that was made before a change (reason V(pre_change)) stays until somebody confirms that the change is good. A
    set that is held stays until the hold is over. M(mazevault.backup.backup_retention) goes by that.
  - Each is a signed record of the set, and a line in the ledger. The set itself is never touched.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
  - mazevault.backup._trust
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - V(confirmed) ends the pin of the set that O(set) names, or of all sets that were made before a change.
      - V(held) keeps a set until O(until), whatever its age. A second hold takes the place of the first.
      - V(released) ends a hold.
      - V(accepted) says that a person has looked at a set that is suspicious (far smaller than the last one, fewer
        rows, dated in the future), and that it is as it should be. It counts then, unless it is dated in the future.
    type: str
    required: true
    choices: [confirmed, held, released, accepted]
  backup_root:
    description: Folder of all sets.
    type: path
    required: true
  set:
    description: Id of the set. Unset means all, for O(state=confirmed) alone.
    type: str
  by:
    description: Who says so; of a hold, its owner.
    type: str
    required: true
  reason:
    description: Why. Required for O(state=held) and O(state=accepted).
    type: str
  until:
    description:
      - Last day of a hold, such as V(2027-03-01), or a moment such as V(2027-03-01T12:00:00Z) (UTC). Required for
        O(state=held).
    type: str
seealso:
  - module: mazevault.backup.backup_retention
  - module: mazevault.backup.recovery_set_info
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: The upgrade is good, the sets from before it may go in their time
  mazevault.backup.recovery_set_pin:
    state: confirmed
    backup_root: /opt/mazevault/backups
    by: A. Person

- name: Keep one for the auditors
  mazevault.backup.recovery_set_pin:
    state: held
    backup_root: /opt/mazevault/backups
    set: mazevault_20261123_020000
    by: A. Person
    reason: audit of 2026
    until: "2027-03-01"
"""

RETURN = r"""
sets:
  description: Ids of the sets that it was, or would be, said of.
  type: list
  elements: str
  returned: success
pinned:
  description:
    - What keeps each set afterwards, by its id; sets that nothing keeps but their age are left out. See
      M(mazevault.backup.recovery_set_info).
  type: dict
  returned: success
records:
  description: Paths of the records that were written, empty in check mode.
  type: list
  elements: str
  returned: success
"""

import contextlib
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _module
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._pins import (
    ACCEPTED,
    CONFIRMED,
    HELD,
    HOLD,
    KIND,
    PRE_CHANGE,
    RELEASED,
    STATES,
    Pin,
    accepted,
    end_of,
    pins_of,
)
from ansible_collections.mazevault.backup.plugins.module_utils._records import Record, write_record
from ansible_collections.mazevault.backup.plugins.module_utils._recovery_set import (
    RecoverySet,
    Shelf,
    all_sets,
    load_set,
    shelf_of,
)
from ansible_collections.mazevault.backup.plugins.module_utils._removal import retention_lock


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    params, root = module.params, module.params["backup_root"]
    _refuse_incomplete(params)
    trust = _module.trust_of(params)
    # A check leaves nothing behind, not even a lock.
    with contextlib.nullcontext() if module.check_mode else retention_lock(root):
        shelf, now = shelf_of(root, trust), _clock.now()
        said: dict[str, t.Any] = {"state": params["state"], "by": params["by"], "reason": params["reason"] or ""}
        if params["state"] == HELD:
            said["until"] = end_of(params["until"], now)
        wanted = [load_set(root, params["set"])] if params["set"] else all_sets(root)[0]
        concerned = [found for found in wanted if _is_news(found, shelf, said)]
        before = {found.set_id: _told(found, shelf.records(found)) for found in wanted}
        record = {"kind": KIND, "at": _clock.rfc3339(now), **said}
        after = {**before, **{found.set_id: _told(found, [*shelf.records(found), record]) for found in concerned}}
        written = [write_record(root, found.set_id, KIND, said, trust) for found in concerned if not module.check_mode]
    return {
        "changed": bool(concerned),
        "sets": [found.set_id for found in concerned],
        "pinned": {set_id: [pin.as_dict() for pin in pins] for set_id, (pins, _word) in after.items() if pins},
        "records": written,
        "diff": {"before": _shown(before), "after": _shown(after)},
    }


def _refuse_incomplete(params: t.Mapping[str, t.Any]) -> None:
    state = params["state"]
    needed = {CONFIRMED: (), RELEASED: ("set",), ACCEPTED: ("set", "reason"), HELD: ("set", "reason", "until")}[state]
    for name in ("by", *needed):
        if not str(params[name] or "").strip():
            raise BackupError(f"{name}: missing", hint=f"Nothing was written. Playbooks take mazevault_pin_{name}.")


def _told(found: RecoverySet, records: t.Sequence[Record]) -> tuple[list[Pin], bool]:
    return pins_of(found.manifest, records, _clock.now()), accepted(records)


def _is_news(found: RecoverySet, shelf: Shelf, said: t.Mapping[str, t.Any]) -> bool:
    """Whether the set isn't already what is said of it."""
    pins, word = _told(found, shelf.records(found))
    holds = [pin for pin in pins if pin.why == HOLD]
    if said["state"] == CONFIRMED:
        return any(pin.why == PRE_CHANGE for pin in pins)
    if said["state"] == RELEASED:
        return bool(holds)
    if said["state"] == ACCEPTED:
        return not word
    return not any((pin.by, pin.reason, pin.until) == (said["by"], said["reason"], said["until"]) for pin in holds)


def _shown(sets: t.Mapping[str, tuple[list[Pin], bool]]) -> str:
    lines = [f"{set_id}: {pin.text}" for set_id, (pins, _word) in sets.items() for pin in pins]
    lines += [f"{set_id}: accepted as it is" for set_id, (_pins, word) in sets.items() if word]
    return "".join(f"{line}\n" for line in sorted(lines))


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            **_module.TRUST_SPEC,
            "state": {"type": "str", "required": True, "choices": list(STATES)},
            "backup_root": {"type": "path", "required": True},
            "set": {"type": "str"},
            "by": {"type": "str", "required": True},
            "reason": {"type": "str"},
            "until": {"type": "str"},
        },
        supports_check_mode=True,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
