#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_retention
short_description: Remove recovery sets whose time is over
version_added: 0.1.0
description:
  - Decides on every set under O(backup_root), says why each stays or goes, and removes what goes. Sets go whole, and
    only when nothing keeps them.
  - A set stays while any of its components has to, database, configuration, volumes and Kubernetes objects by age,
    vault and keys for ever. It stays while it is the newest proven one with a certificate that has to stay, while it is
    one of the newest proven sets of any of its components, while it is pinned or held, and while another set's standing
    depends on it.
  - Only proven sets count, and push older ones out. That is a set proven by V(restore), or by V(read) with a V(restore)
    of the same kind at most seven days before. As long as a component has fewer proven sets than O(keep), none of its
    sets goes.
  - Sets that are dated in the future, far smaller than the last one, or have far fewer rows never count; they are
    returned as RV(alarms). What isn't signed by a key that counts, and whatever else lies there, is never touched.
  - What goes is moved aside by one rename, then deleted. Signed records say so before and after, and stay. A run that
    was killed leaves whole sets only, and the next one finishes it.
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
  backup_root:
    description: Folder of all sets.
    type: path
    required: true
  days:
    description:
      - Days that database, configuration, volumes and Kubernetes objects are kept.
      - Unset means 30, or what the policy of the host has, if that is more. Below the policy is an error; so it is with
        the options below.
    type: int
  component_days:
    description:
      - Days of single components, instead of O(days), by the component's name. Vault and keys are kept for ever.
    type: dict
  tls_days:
    description: Days that certificates are kept after they have ended. Unset means 90, or the policy's.
    type: int
  keep:
    description:
      - How many of the newest proven sets of each component stay, whatever their age. Unset means 2, or the policy's.
    type: int
  daily:
    description: Of so many days the last proven set stays, counted from the newest one. Unset means none.
    type: int
  weekly:
    description: The same for weeks.
    type: int
  monthly:
    description: The same for months.
    type: int
  yearly:
    description: The same for years.
    type: int
  evidence_days:
    description: Days that evidence of restores and drills is kept. Unset means 1826 (five years), or the policy's.
    type: int
  sets:
    description:
      - Ids of sets to remove whatever the rules say, and nothing else. Needs O(confirm).
      - A set that is pinned or held, that holds vault or keys, or that is the last one with a certificate that has to
        stay, is refused all the same.
    type: list
    elements: str
    default: []
  confirm:
    description: For O(sets), has to equal O(inventory_hostname).
    type: str
  inventory_hostname:
    description: The host's name in the inventory, for O(confirm).
    type: str
  clock:
    description:
      - The time of another machine, RFC 3339. If it and the host's clock differ by more than five minutes, nothing is
        removed, since nobody can say how old anything is.
    type: str
  stale_after:
    description: Seconds without a sign of life after which another run counts as dead.
    type: float
    default: 120
seealso:
  - module: mazevault.backup.recovery_set_pin
  - module: mazevault.backup.recovery_set_info
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: What would go, and why does the rest stay?
  mazevault.backup.backup_retention:
    backup_root: /opt/mazevault/backups
  check_mode: true
  register: retention

- name: Show it
  ansible.builtin.debug:
    msg: "{{ retention.lines }}"

- name: Keep 60 days, and the last set of each month of a year
  mazevault.backup.backup_retention:
    backup_root: /opt/mazevault/backups
    days: 60
    monthly: 12
"""

RETURN = r"""
plan:
  description: What becomes of each set, in their order.
  type: list
  elements: dict
  returned: success
  contains:
    set_id:
      description: Id of the set.
      type: str
    goes:
      description: Whether it is, or would be, removed.
      type: bool
    why:
      description: Every reason why it stays, or why it goes.
      type: list
      elements: str
    counts:
      description: Whether it is proven, and so may push older ones out.
      type: bool
    suspicious:
      description: What a person should look at, empty where that is nothing.
      type: list
      elements: str
    bytes:
      description: Size of its artefacts, null where its manifest isn't readable.
      type: int
lines:
  description: The plan for people, one line a set.
  type: list
  elements: str
  returned: success
alarms:
  description: What is suspicious, one line each.
  type: list
  elements: str
  returned: success
removed:
  description: Ids of the sets that were, or would be, removed.
  type: list
  elements: str
  returned: success
completed:
  description: Ids of the sets whose removal an earlier run had begun, and that were, or would be, deleted now.
  type: list
  elements: str
  returned: success
evidence_removed:
  description: Files of evidence that were, or would be, removed.
  type: list
  elements: str
  returned: success
bytes_freed:
  description: Size of the artefacts of RV(removed).
  type: int
  returned: success
rules:
  description: The rules that it went by.
  type: dict
  returned: success
"""

import contextlib
import datetime as dt
import os
import typing as t
from dataclasses import asdict, fields

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _module, _records
from ansible_collections.mazevault.backup.plugins.module_utils._confirm import require_confirmation
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._evidence import old_evidence, remove_evidence
from ansible_collections.mazevault.backup.plugins.module_utils._files import human_size, private_folder
from ansible_collections.mazevault.backup.plugins.module_utils._pins import Pin, pins_of
from ansible_collections.mazevault.backup.plugins.module_utils._publication import (
    prepare_root,
    write_start_here,
)
from ansible_collections.mazevault.backup.plugins.module_utils._recovery_set import (
    RecoverySet,
    Shelf,
    all_sets,
    shelf_of,
)
from ansible_collections.mazevault.backup.plugins.module_utils._removal import (
    candidate_of,
    finish,
    left_over,
    refuse_busy,
    retention_lock,
    set_aside,
    strangers,
    take_back,
)
from ansible_collections.mazevault.backup.plugins.module_utils._retention import (
    BY_AGE,
    Candidate,
    Decision,
    Rules,
    alarms,
    last_with_certificates,
    plan,
    settle,
)
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress

_APART = 300.0


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    params, root = module.params, module.params["backup_root"]
    trust = _module.trust_of(params)
    pinned = (trust.policy.content.get("retention") or {}) if trust.policy else {}
    rules = settle({one.name: params[one.name] for one in fields(Rules)}, pinned)
    _refuse_clock(params["clock"])
    if params["sets"]:
        require_confirmation(module.check_mode, params["confirm"], params["inventory_hostname"])
    if not os.path.isdir(root):
        if params["sets"]:
            raise BackupError(f"backup_root: {root}: no such folder", hint="Nothing was removed. Name the right one.")
        return _result(rules, [], {}, [], [], [])
    private_folder(root, parameter="backup_root")
    # A check leaves nothing behind, not even a lock.
    with contextlib.nullcontext() if module.check_mode else retention_lock(root):
        result = _under_lock(module, rules, shelf_of(root, trust))
    for alarm in result["alarms"]:
        module.warn(f"Suspicious: {alarm}")
    return result


def _under_lock(module: AnsibleModule, rules: Rules, shelf: Shelf) -> dict[str, t.Any]:
    params, root, trust = module.params, shelf.root, shelf.trust
    moment = _clock.now()
    good, bad = all_sets(root)
    by_id = {found.set_id: found for found in good}
    candidates = {found.set_id: candidate_of(found, shelf) for found in good}
    decisions = _without_strangers(plan(candidates.values(), rules, moment.timestamp()), by_id)
    decisions += [
        Decision(name, False, ("not ours to remove: its manifest is not readable",), False, ("not readable",))
        for name in bad
    ]
    if params["sets"]:
        pins = {name: candidate.pins for name, candidate in candidates.items()}
        for name in bad:
            records = _records.look_at(root, name, trust, shelf.chain).counting
            pins[name] = tuple(pins_of({}, records, moment))
        _refuse_named(root, params["sets"], pins, candidates)
        last = last_with_certificates(candidates.values(), params["sets"], rules, moment.timestamp())
        for name, why in last.items():
            raise BackupError(
                f"sets: {name}: {why}",
                hint="Nothing was removed. If the certificate is still in use, back up first; then another set has it.",
            )
        decisions = _named(decisions, params["sets"])
    going = [made for made in decisions if made.goes]
    begun, strange = left_over(root, shelf)
    evidence = old_evidence(root, trust, shelf.chain, moment - dt.timedelta(days=rules.evidence_days))
    if not module.check_mode:
        if going:
            refuse_busy(root, params["stale_after"])
            prepare_root(root)
        progress = Progress()
        take_back(shelf, [by_id[made.set_id] for made in decisions if not made.goes and made.set_id in by_id])
        set_aside(
            root,
            trust,
            {made.set_id: _facts(made, by_id.get(made.set_id)) for made in going},
            progress,
            stale_after=params["stale_after"],
        )
        if going or begun:
            write_start_here(root, trust)
        finish(root, trust, [*begun, *(made.set_id for made in going)], progress)
        remove_evidence(root, trust, evidence)
    sizes = {name: sum(candidate.sizes.values()) for name, candidate in candidates.items()}
    return _result(rules, decisions, sizes, begun, sorted(evidence), strange)


def _refuse_clock(text: str | None) -> None:
    if not text:
        return
    try:
        apart = _clock.now().timestamp() - _clock.parse(text).timestamp()
    except ValueError as exc:
        raise BackupError(f"clock: {text}: no moment", hint="Write it as 2026-11-23T02:00:00Z.") from exc
    if abs(apart) > _APART:
        raise BackupError(
            f"clock: {text}: this host's clock is {_clock.human_age(apart)} {'ahead' if apart > 0 else 'behind'}",
            hint="Nothing was removed, since nobody can say how old anything is. Set the clocks, then run again.",
        )


def _without_strangers(decisions: t.Iterable[Decision], sets: t.Mapping[str, RecoverySet]) -> list[Decision]:
    """A set that somebody laid files into stays, for those files' sake."""
    made = []
    for decision in decisions:
        why = tuple(strangers(sets[decision.set_id])) if decision.goes else ()
        told = (f"not ours alone to remove: {'; '.join(why)}",)
        made.append(Decision(decision.set_id, False, told, decision.counts, why) if why else decision)
    return made


def _refuse_named(
    root: str,
    names: t.Sequence[str],
    pins: t.Mapping[str, t.Sequence[Pin]],
    candidates: t.Mapping[str, Candidate],
) -> None:
    """What somebody pinned, what is kept for ever, and what isn't here doesn't go by its name either."""
    for name in names:
        if name not in pins:
            raise BackupError(f"sets: {name}: no such set", hint="Nothing was removed. recovery_set_info lists them.")
        if os.path.islink(os.path.join(root, "sets", name)):
            raise BackupError(f"sets: {name}: is a link", hint="Nothing was removed. Whoever made it removes it.")
        if pins[name]:
            raise BackupError(
                f"sets: {name}: {pins[name][0].text}",
                hint="Nothing was removed. Confirm the change or release the hold first (recovery_set_pin).",
            )
        for component in candidates[name].components if name in candidates else ():
            if component not in BY_AGE:
                raise BackupError(f"sets: {name}: holds {component}", hint="Nothing was removed. It is kept for ever.")


def _named(decisions: t.Iterable[Decision], names: t.Container[str]) -> list[Decision]:
    """Only what was named goes, whatever its age."""
    made = []
    for one in decisions:
        goes = one.set_id in names
        why = ("named by a person",) if goes else ("not named",) if one.goes else one.why
        made.append(Decision(one.set_id, goes, why, one.counts, one.suspicious))
    return made


def _facts(made: Decision, found: RecoverySet | None) -> dict[str, t.Any]:
    """What the record of a removal says."""
    known = {}
    if found is not None:
        known = {
            "set_sequence": found.manifest["sequence"],
            "recovery_point": found.manifest["recovery_point"],
            "components": found.manifest["components"],
        }
    return {"by": "retention", "why": list(made.why), **known}


def _result(
    rules: Rules,
    decisions: t.Sequence[Decision],
    sizes: t.Mapping[str, int],
    begun: list[str],
    evidence: list[str],
    strange: t.Sequence[str],
) -> dict[str, t.Any]:
    removed = [made.set_id for made in decisions if made.goes]
    lines = {made.set_id: _line(made, sizes.get(made.set_id)) for made in decisions}
    stays = [line for made in decisions for line in (lines[made.set_id],) if not made.goes]
    return {
        "changed": bool(removed or begun or evidence),
        "plan": [{**asdict(made), "bytes": sizes.get(made.set_id)} for made in decisions],
        "lines": list(lines.values()),
        "alarms": [
            *alarms(decisions),
            *(f"staging/.removing/{name}: nobody said that it goes, so it was left alone" for name in strange),
        ],
        "removed": removed,
        "completed": begun,
        "evidence_removed": evidence,
        "bytes_freed": sum(sizes.get(name, 0) for name in removed),
        "rules": asdict(rules),
        "diff": {
            "before": "".join(f"{line}\n" for line in [*lines.values(), *(f"evidence/{name}" for name in evidence)]),
            "after": "".join(f"{line}\n" for line in stays),
        },
    }


def _line(made: Decision, size: int | None) -> str:
    more = f" (and {len(made.why) - 2} more reasons)" if len(made.why) > 3 else ""
    why = "; ".join(made.why[: 2 if more else 3]) + more
    shown = f", {human_size(size)}" if size is not None else ""
    return f"{made.set_id}{shown}: {'goes' if made.goes else 'stays'}: {why}"


def main() -> t.NoReturn:
    numbers = ("days", "tls_days", "keep", "daily", "weekly", "monthly", "yearly", "evidence_days")
    module = AnsibleModule(
        argument_spec={
            **_module.TRUST_SPEC,
            **{name: {"type": "int"} for name in numbers},
            "backup_root": {"type": "path", "required": True},
            "component_days": {"type": "dict"},
            "sets": {"type": "list", "elements": "str", "default": []},
            "confirm": {"type": "str"},
            "inventory_hostname": {"type": "str"},
            "clock": {"type": "str"},
            "stale_after": {"type": "float", "default": 120},
        },
        supports_check_mode=True,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
