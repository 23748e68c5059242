#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: recovery_set_info
short_description: List recovery sets, or find the one to restore
version_added: 0.1.0
description:
  - Reads manifests, records and the ledger of a backup root, and changes nothing.
  - It checks signatures, manifests and the ledger, and no artefact; that is the job of
    M(mazevault.backup.backup_verify).
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
  - mazevault.backup._trust
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  backup_root:
    description: Folder of all sets.
    type: path
    required: true
  set:
    description:
      - V(latest) is the newest set that has not failed; an id names one set; the path of a dump names a file that is no
        set.
      - Unset lists all sets and selects none.
    type: str
  component:
    description: List only sets that hold this component, such as V(postgres). V(latest) is the newest of them.
    type: str
  level:
    description: List only sets that pass, proven to this level or a higher one.
    type: str
    choices: [toc, checksum, read, restore]
  max_age:
    description: List only sets whose data are at most so old, a span such as V(30 d), V(24 h) or V(45 min).
    type: str
  min_age:
    description: List only sets whose data are at least so old, likewise.
    type: str
seealso:
  - module: mazevault.backup.recovery_set
  - module: mazevault.backup.recovery_report
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Which set would be restored?
  mazevault.backup.recovery_set_info:
    backup_root: /opt/mazevault/backups
    set: latest
  register: found

- name: Show its age
  ansible.builtin.debug:
    msg: "{{ found.selected.set_id }} is {{ found.selected.age_seconds }} s old"

- name: Which sets of the last week can be restored?
  mazevault.backup.recovery_set_info:
    backup_root: /opt/mazevault/backups
    component: postgres
    level: restore
    max_age: 7 d
  register: good

- name: Show the largest one
  ansible.builtin.debug:
    msg: "{{ good.sets | sort(attribute='bytes') | map(attribute='set_id') | last | default('none') }}"
"""

RETURN = r"""
sets:
  description: All readable sets, or those that the filters let through, oldest first.
  type: list
  elements: dict
  returned: success
  contains:
    set_id:
      description: Id of the set.
      type: str
    path:
      description: Folder of the set.
      type: str
    sequence:
      description: Its place in the order of sets.
      type: int
    installation:
      description: Name of the installation that it was made of.
      type: str
    reason:
      description: Why it was made.
      type: str
    components:
      description: Components that it holds.
      type: list
      elements: str
    recovery_point:
      description: The moment that its data stands for (UTC).
      type: str
    started:
      description: When the run began that made it (UTC).
      type: str
    published_at:
      description: When it was complete (UTC).
      type: str
    age_seconds:
      description: Seconds since the recovery point.
      type: int
    verdict:
      description: V(pass), V(fail) or V(unproven), from the manifest, the records that count, and RV(sets[].doubts).
      type: str
    doubts:
      description: Why the set itself is not to be believed, such as an invalid signature; empty where all is well.
      type: list
      elements: str
    level:
      description: The verification level that the verdict is about.
      type: str
    proven_at:
      description: When the verdict was reached (UTC), null where there is none.
      type: str
    pinned:
      description: What keeps the set whatever its age, empty where nothing does.
      type: list
      elements: dict
      contains:
        why:
          description:
            - V(pre_change) until the change is confirmed, or V(hold). See M(mazevault.backup.recovery_set_pin).
          type: str
        since:
          description: When it began (UTC).
          type: str
        by:
          description: Who holds the set, null for a change.
          type: str
        reason:
          description: Why it is held, null for a change.
          type: str
        until:
          description: When the hold ends by itself (UTC), null for a change.
          type: str
    proofs:
      description: Every proof that counts with C(verdict), C(level) and C(at), the one of its publication first.
      type: list
      elements: dict
    proof_seconds:
      description: Seconds that the proof took when the set was made, null where that isn't known.
      type: float
    bytes:
      description: Size of the artefacts.
      type: int
    policy_sha256:
      description: SHA-256 of the policy that it was made under, null where none was pinned.
      type: str
    not_covered:
      description: What the set doesn't hold.
      type: list
      elements: str
    key_generations:
      description: Ids of the key generations that its data need, the one in use first.
      type: list
      elements: str
    missing_protection:
      description: Protection that the set doesn't have, such as V(encryption).
      type: list
      elements: str
    postgres:
      description: Public facts of the dump, null for a set without a database.
      type: dict
space:
  description: The file system of the backup root, or of where it will be.
  type: dict
  returned: success
  contains:
    free_bytes:
      description: Bytes that are free.
      type: int
    total_bytes:
      description: Its size.
      type: int
unreadable:
  description: Names of sets whose manifest can't be read.
  type: list
  elements: str
  returned: success
gone:
  description: Sets that were published and are not here any more, as far as a whole ledger tells of them, oldest first.
  type: list
  elements: dict
  returned: success
  contains:
    set_id:
      description: Id of the set.
      type: str
    published_at:
      description: When it was entered in the ledger (UTC).
      type: str
    recovery_point:
      description: The moment that its data stood for (UTC), null where the ledger doesn't say.
      type: str
    verdict:
      description: What it was published with.
      type: str
    level:
      description: The verification level of that verdict, null where the ledger doesn't say.
      type: str
drills:
  description: Every drill that ever began here, from its first line in the ledger on, oldest first.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: Name of the drill.
      type: str
    scenario:
      description: The scenario that was played.
      type: str
    started_at:
      description: When it began (UTC).
      type: str
    ended_at:
      description: When it ended (UTC); null where there is no evidence of an end.
      type: str
    seconds:
      description: What it took, by a clock that never jumps.
      type: float
    segments:
      description: Seconds of each part of the way to service.
      type: dict
    verdict:
      description: What came of it.
      type: str
restores:
  description: Restores and rollbacks of which there is evidence that counts, oldest first.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: Name of the evidence.
      type: str
    what:
      description: What was done.
      type: str
    at:
      description: When (UTC).
      type: str
ledger:
  description: What a witness has to see of the ledger.
  type: dict
  returned: success
  contains:
    problem:
      description: Why the ledger vouches for nothing, empty while its chain holds.
      type: str
    ledger_head:
      description: Hash of its last line.
      type: str
    ledger_lines:
      description: Number of its lines.
      type: int
    host_key:
      description: Public half of the host's key (PEM), null before there is one.
      type: str
    host_time:
      description: The host's clock (UTC).
      type: str
    policy_sha256:
      description: SHA-256 of the pinned policy, null without one.
      type: str
selected:
  description: The entry of the set that O(set) names, or for a file outside of the sets one with C(set_id) null and its
    path.
  type: dict
  returned: when O(set) is given
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _module
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import free_bytes
from ansible_collections.mazevault.backup.plugins.module_utils._history import (
    drills_of,
    evidence_of,
    gone_sets,
    restores_of,
)
from ansible_collections.mazevault.backup.plugins.module_utils._policy import seconds_of
from ansible_collections.mazevault.backup.plugins.module_utils._recovery_set import (
    all_sets,
    resolve,
    seen_by_a_witness,
    set_names,
    shelf_of,
    state_of,
)
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import LEVELS, PASS


def _wanted(params: t.Mapping[str, t.Any]) -> t.Callable[[t.Mapping[str, t.Any]], bool]:
    """Whether the filters let a set through."""
    ages = {}
    for name in ("min_age", "max_age"):
        try:
            ages[name] = seconds_of(params[name]) if params[name] else None
        except ValueError as exc:
            raise BackupError(f"{name}: {exc}", hint="Write a number of seconds, 30 d, 24 h or 45 min.") from exc
    least, most, level, component = ages["min_age"], ages["max_age"], params["level"], params["component"]

    def lets_through(found: t.Mapping[str, t.Any]) -> bool:
        proven = LEVELS.index(found["level"]) if found["verdict"] == PASS and found["level"] in LEVELS else -1
        return (
            (not component or component in found["components"])
            and (not level or proven >= LEVELS.index(level))
            and (least is None or found["age_seconds"] >= least)
            and (most is None or found["age_seconds"] <= most)
        )

    return lets_through


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    root, wanted = module.params["backup_root"], module.params["set"]
    trust = _module.trust_of(module.params)
    lets_through = _wanted(module.params)
    good, bad = all_sets(root)
    shelf = shelf_of(root, trust)
    free, total = free_bytes(root)
    evidence = evidence_of(root, trust, shelf.chain)
    result: dict[str, t.Any] = {
        "changed": False,
        "sets": [state for state in (state_of(found, shelf) for found in good) if lets_through(state)],
        "space": {"free_bytes": free, "total_bytes": total},
        "unreadable": bad,
        "gone": gone_sets(shelf.chain, set_names(root)),
        "drills": drills_of(shelf.chain, evidence),
        "restores": restores_of(evidence),
        "ledger": {"problem": shelf.chain.problem, **seen_by_a_witness(root, trust)},
    }
    if not wanted:
        return result
    if "/" in wanted:
        if not os.path.exists(wanted):
            raise BackupError(f"set: {wanted}: no such file", hint="Name a set's id, latest, or the path of a dump.")
        result["selected"] = {"set_id": None, "path": wanted, "verdict": "unproven", "level": ""}
        return result
    result["selected"] = state_of(resolve(root, wanted, trust, component=module.params["component"] or ""), shelf)
    return result


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            **_module.TRUST_SPEC,
            "backup_root": {"type": "path", "required": True},
            "set": {"type": "str"},
            "component": {"type": "str"},
            "level": {"type": "str", "choices": list(LEVELS)},
            "max_age": {"type": "str"},
            "min_age": {"type": "str"},
        },
        supports_check_mode=True,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
