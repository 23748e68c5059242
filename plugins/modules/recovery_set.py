#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: recovery_set
short_description: Open, publish or give up a recovery set
version_added: 0.1.0
description:
  - O(state=open) makes a staging folder and returns the id that the other modules work with. What a dead run left
    behind is removed; a run that is alive makes this an error. A process stays beside the run until its folder is
    gone. It removes the folder, the set's keys in memory, containers and scratch servers when the run dies.
  - O(state=sealed) writes manifest, instructions, checksums and their signature, flushes all to the disk, publishes
    the set by one rename, and enters it in the ledger.
  - O(state=aborted) removes the staging folder. Published sets are never touched.
  - The state of a run is on the disk of the target, so that a crash, a retry and a second control node all see the
    same.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
  - mazevault.backup._trust
  - mazevault.backup._trust.wanted
  - mazevault.backup._keys
attributes:
  check_mode:
    support: full
    details: O(state=open) returns an id for the rest of the plan and makes nothing.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details: O(state=aborted) is. Each O(state=open) is a new set, and a set is sealed once.
options:
  state:
    description: What is wanted of the set.
    type: str
    required: true
    choices: [open, sealed, aborted]
  backup_root:
    description: Folder of all sets, mode 0700. O(state=open) makes it when its parent exists.
    type: path
    required: true
  set_id:
    description: Id that O(state=open) returned. Required for O(state=sealed) and O(state=aborted).
    type: str
  purpose:
    description: What the staging folder is for, a new set, a restore, or a verification. Only a set can be sealed.
    type: str
    default: set
    choices: [set, restore, verify]
  stale_after:
    description:
      - Seconds without a sign of life after which an open set counts as dead, and the next run may remove it.
      - Without a next run it is removed after twice that time and ten seconds. What a module works on is alive. A play
        of your own that does other things in between for long needs more here.
    type: float
    default: 120
  root_limit:
    description:
      - What O(backup_root) may take at most with a new set, a size such as V(200 GB), or a share of its file system
        such as V(60%). Unset means no limit.
      - The new set's size is judged by the last one's. Nothing is removed to make room.
    type: str
  encryption:
    description:
      - How a new set is encrypted. V(cms) is OpenSSL's CMS with AES-256-GCM, in parts of 32 MiB, to certificates.
        V(age) is the program of this name. V(none) leaves everything in plain and needs O(encryption_reason).
      - The set's own key pairs are made for this run and kept in memory only. Recipients get them in C(access/).
    type: str
    default: cms
    choices: [cms, age, none]
  encryption_reason:
    description:
      - Why there is no encryption, one recipient only, or one for both classes. It stands in manifest and ledger.
    type: str
  recipients_data:
    description:
      - Who may open the class data, certificates as PEM text or age's recipients.
      - At least two, so that the loss of one identity isn't the loss of the sets.
    type: list
    elements: str
    default: []
  recipients_keys:
    description: Who may open the class keys, likewise. None of them may be among O(recipients_data).
    type: list
    elements: str
    default: []
  other_keys:
    description:
      - What runs with another master key than these files have, in words. A set of it is published and has failed.
    type: list
    elements: str
    default: []
  keep_key:
    description:
      - With O(state=sealed), keep the key of class data in memory, for a restore that this set is the safety of.
      - The next O(state=aborted) forgets it.
    type: bool
    default: false
  installation:
    description: Name of the installation for the manifest. Required for O(state=sealed).
    type: str
  site:
    description: Name of the site for the manifest.
    type: str
  reason:
    description: Why the set was made.
    type: str
    default: manual
    choices: [scheduled, pre_change, on_change, rotation, manual]
  components:
    description: Components that the set has to hold. One that left no report makes sealing an error.
    type: list
    elements: str
    default: [postgres]
  only_changed:
    description:
      - Publish nothing where the set has only what the newest sets have already, byte for byte. The open set is given
        up then. So runs that look for changes can be frequent.
      - A dump of a database is never the same.
    type: bool
    default: false
  images:
    description: The images that the installation runs, for the manifest.
    type: list
    elements: dict
    default: []
    suboptions:
      tag:
        description: The image as the installation names it.
        type: str
        required: true
      digest:
        description: Its digest, C(sha256:) with 64 digits.
        type: str
        required: true
  verification:
    description: What M(mazevault.backup.backup_verify) returned for the open set, for the manifest.
    type: dict
    suboptions:
      verdict:
        description: The verdict.
        type: str
        choices: [pass, fail, unproven]
        default: unproven
      level:
        description: The level that was reached, empty for none.
        type: str
        default: ""
      wanted:
        description: The level that was asked for.
        type: str
        default: ""
      components:
        description: What was looked at. Others of the O(components) are unproven, and the set with them.
        type: list
        elements: str
        default: [postgres]
      seconds:
        description: Seconds that the proof took, an estimate of what a restore takes.
        type: float
notes:
  - With O(state=open) it notes which key generation O(env_file), O(vault_file) and O(key_file) are, and looks again
    with O(state=sealed). Where the policy or O(wanted) names places of an escrow, a set is V(unproven) as long as one
    of the generations that its data need isn't there. Bring them there in between, with M(mazevault.backup.escrow).
seealso:
  - module: mazevault.backup.recovery_set_info
  - module: mazevault.backup.pg_dump
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Open a recovery set
  mazevault.backup.recovery_set:
    state: open
    backup_root: /opt/mazevault/backups
    recipients_data:
      - "{{ lookup('ansible.builtin.file', 'recovery-a.crt') }}"
      - "{{ lookup('ansible.builtin.file', 'recovery-b.crt') }}"
    recipients_keys:
      - "{{ lookup('ansible.builtin.file', 'keys-a.crt') }}"
      - "{{ lookup('ansible.builtin.file', 'keys-b.crt') }}"
  register: opened

- name: Publish it
  mazevault.backup.recovery_set:
    state: sealed
    backup_root: /opt/mazevault/backups
    set_id: "{{ opened.set_id }}"
    installation: vault1
    reason: scheduled
    verification:
      verdict: pass
      level: restore

- name: Or give it up
  mazevault.backup.recovery_set:
    state: aborted
    backup_root: /opt/mazevault/backups
    set_id: "{{ opened.set_id }}"
"""

RETURN = r"""
set_id:
  description: Id of the set.
  type: str
  returned: success
  sample: mazevault_20261123_020000
path:
  description: Where the published set lies, or will lie.
  type: str
  returned: success
  sample: /opt/mazevault/backups/sets/mazevault_20261123_020000
removed:
  description: Staging folders of dead runs that were removed.
  type: list
  elements: str
  returned: O(state=open)
healed:
  description: Published sets that a dead run hadn't entered in the ledger yet, and that are in it now.
  type: list
  elements: str
  returned: O(state=open)
policy_overridden:
  description: Names of what O(wanted) has weaker than the pinned policy.
  type: list
  elements: str
  returned: O(state=open)
ledger_set_aside:
  description: What was wrong with the ledger, if it had to be set aside and a new one began; else null.
  type: str
  returned: O(state=open)
was_open:
  description: Whether there was a staging folder of this id.
  type: bool
  returned: O(state=aborted)
published:
  description: Whether the set was, or would be, published. Always true without O(only_changed).
  type: bool
  returned: O(state=sealed)
verdict:
  description: The set's verdict, of its proof and of its keys, null in check mode.
  type: str
  returned: O(state=sealed)
key_generations:
  description: Ids of the key generations that its data need, the one in use first; null in check mode.
  type: list
  elements: str
  returned: O(state=sealed)
keys_missing:
  description: Why its keys aren't safe in escrow, where they are to be; null in check mode.
  type: list
  elements: str
  returned: O(state=sealed)
sums_sha256:
  description: SHA-256 of the published set's C(SHA256SUMS), null in check mode.
  type: str
  returned: O(state=sealed)
sequence:
  description: Number of the set in the order of its installation's sets, null in check mode.
  type: int
  returned: O(state=sealed)
ledger_head:
  description: Hash of the ledger's last line, null in check mode. With the following, what a witness keeps.
  type: str
  returned: O(state=sealed)
ledger_lines:
  description: How many lines the ledger has, null in check mode.
  type: int
  returned: O(state=sealed)
host_key:
  description: Public half of the key that signed the set (PEM), null in check mode.
  type: str
  returned: O(state=sealed)
host_time:
  description: The host's clock when the module ended (UTC), null in check mode.
  type: str
  returned: O(state=sealed)
policy_sha256:
  description: SHA-256 of the policy that is pinned on the host, null without one and in check mode.
  type: str
  returned: O(state=sealed)
bytes:
  description: Size of the set's artefacts, null in check mode.
  type: int
  returned: O(state=sealed)
set_key_file:
  description: File in memory with the key that O(keep_key) kept, else null.
  type: str
  returned: O(state=sealed)
recovery_point:
  description: The moment that the set stands for, null in check mode.
  type: str
  returned: O(state=sealed)
"""

import os
import platform
import re
import typing as t

from ansible.module_utils.ansible_release import __version__ as ansible_core_version
from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _ledger, _module, _set_generations
from ansible_collections.mazevault.backup.plugins.module_utils._ceiling import parse_limit, require_below, usage
from ansible_collections.mazevault.backup.plugins.module_utils._encryption import CLASSES
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import (
    free_bytes,
    private_folder,
    remove_tree,
)
from ansible_collections.mazevault.backup.plugins.module_utils._leftovers import clean
from ansible_collections.mazevault.backup.plugins.module_utils._policy import refuse
from ansible_collections.mazevault.backup.plugins.module_utils._publication import (
    prepare_root,
    same_as_before,
    seal,
    settle_ledger,
    write_start_here,
)
from ansible_collections.mazevault.backup.plugins.module_utils._recovery_set import (
    all_sets,
    seen_by_a_witness,
    set_names,
)
from ansible_collections.mazevault.backup.plugins.module_utils._set_keys import (
    Protection,
    forget,
    forget_kept,
    keep_key,
    make_keys,
    protection,
)
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Staging
from ansible_collections.mazevault.backup.plugins.module_utils._sweeper import REMOVED, open_swept
from ansible_collections.mazevault.backup.plugins.module_utils._version import COLLECTION_VERSION

_PREFIX = {"set": "mazevault", "restore": "restore", "verify": "verify"}


def _open(module: AnsibleModule) -> dict[str, t.Any]:
    root, purpose = module.params["backup_root"], module.params["purpose"]
    there = os.path.lexists(root)
    private_folder(root if there else os.path.dirname(os.path.abspath(root)), parameter="backup_root")
    trust = _module.trust_of(module.params)
    overridden: t.Sequence[str] = ()
    protected: Protection | None = None
    if purpose == "set":
        _keep_below(root, module.params["root_limit"] or "")
        protected = _protection(module.params)
        asked = {"recipients": protected.fingerprints(), "encryption": [protected.scheme]}
        overridden = refuse(trust.policy, {**(module.params["wanted"] or {}), **asked})
    if not there and not module.check_mode:
        os.mkdir(root, 0o700)
    moment = _clock.now()
    taken = {
        *set_names(root),
        *(str(entry.get("set_id") or entry.get("staging") or "") for entry in _ledger.read(root)),
        *(os.listdir(os.path.join(root, "staging")) if os.path.isdir(os.path.join(root, "staging")) else ()),
    }
    # Two sets in one second can't have one name, also when the first was given up: the ledger tells of both.
    while f"{_PREFIX[purpose]}_{_clock.stamp(moment)}" in taken:
        moment += _clock.SECOND
    set_id = f"{_PREFIX[purpose]}_{_clock.stamp(moment)}"
    result: dict[str, t.Any] = {
        "changed": False,
        "set_id": set_id,
        "path": os.path.join(root, "sets", set_id),
        "removed": [],
        "healed": [],
        "ledger_set_aside": None,
        "policy_overridden": list(overridden),
    }
    if module.check_mode:
        return result
    # Who can't sign finds out now, and not after the dump.
    trust.signer.ensure()
    prepare_root(root)
    removed, unwatched = open_swept(
        root, set_id, {"purpose": purpose, "pid": os.getpid()}, stale_after=module.params["stale_after"]
    )
    if unwatched:
        module.warn(unwatched)
    if protected is not None:
        _make_keys(Staging(root, set_id), protected)
    settled = settle_ledger(root, trust)
    for name in removed:
        _ledger.append(root, REMOVED, staging=name)
    if purpose == "set":
        where = _set_generations.places_of(module.params)
        _set_generations.note(Staging(root, set_id), where, trust, unlike=module.params["other_keys"])
    own = trust.signer.public()
    if own not in trust.keys:
        module.warn(
            f"The policy {trust.policy.path if trust.policy else ''} doesn't name the key that this host signs with, so"
            " what is made now counts for nothing. Pin a policy that names it."
        )
    if settled["set_aside"]:
        module.warn(
            f"The ledger of {root} vouches for nothing ({settled['set_aside']}). It is kept aside as it was, a new one"
            " began, and all older sets are unproven until a person accepts them. Find out who or what did that."
        )
    return {**result, "removed": removed, "healed": settled["healed"], "ledger_set_aside": settled["set_aside"]}


def _protection(params: dict[str, t.Any]) -> Protection:
    texts = {name: params[f"recipients_{name}"] for name in CLASSES}
    return protection(params["encryption"], params["encryption_reason"] or "", texts)


def _make_keys(staging: Staging, wanted: Protection) -> None:
    try:
        with staging.working():
            make_keys(staging, wanted)
    except BaseException:
        forget(staging)
        remove_tree(staging.path)
        raise


def _keep_below(root: str, given: str) -> None:
    limit = parse_limit(given, free_bytes(root)[1], parameter="root_limit")
    if limit is not None:
        sets = all_sets(root)[0]
        last = sum(artefact["bytes"] for artefact in sets[-1].manifest["artefacts"]) if sets else 0
        require_below(limit, used=usage(root), sets=len(set_names(root)), next_set=last, root=root, given=given)


def _sealed(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    root, set_id = params["backup_root"], params["set_id"]
    if not params["installation"]:
        raise BackupError("installation: missing", hint="Give the inventory hostname.")
    path = os.path.join(root, "sets", set_id)
    result: dict[str, t.Any] = {
        "changed": True,
        "set_id": set_id,
        "path": path,
        "published": True,
        "verdict": None,
        "key_generations": None,
        "keys_missing": None,
        "sequence": None,
        "sums_sha256": None,
        "ledger_head": None,
        "ledger_lines": None,
        "host_key": None,
        "host_time": None,
        "policy_sha256": None,
        "bytes": None,
        "recovery_point": None,
        "set_key_file": None,
        "diff": {"before": "", "after": f"{path}: {', '.join(sorted(params['components']))}\n"},
    }
    if module.check_mode:
        return result
    staging, trust = Staging(root, set_id), _module.trust_of(params)
    with staging.working() as progress:
        if params["only_changed"] and same_as_before(staging, params["components"], trust):
            forget(staging)
            remove_tree(staging.path)
            return {**result, "changed": False, "published": False, "diff": {"before": "", "after": ""}}
        found = seal(
            staging,
            {
                "installation": params["installation"],
                "site": params["site"] or None,
                "reason": params["reason"],
                "wanted": params["wanted"],
                "components": params["components"],
                "images": _images(params["images"]),
                "verification": {
                    "components": [],
                    "verdict": "unproven",
                    "level": "",
                    "wanted": "",
                    "seconds": None,
                    **(params["verification"] or {}),
                    "at": _clock.rfc3339(_clock.now()),
                },
                "versions": {
                    "mazevault.backup": COLLECTION_VERSION,
                    "ansible-core": ansible_core_version,
                    "python": platform.python_version(),
                },
            },
            progress,
            trust,
        )
        write_start_here(root, trust)
    kept = keep_key(staging) if params["keep_key"] else None
    forget(staging)
    remove_tree(staging.path)
    return {
        **result,
        "set_key_file": kept,
        "verdict": found.manifest["verification"]["verdict"],
        "key_generations": found.manifest["key_generations"],
        "keys_missing": found.manifest["escrow"]["reasons"] if found.manifest["escrow"]["expected"] else [],
        "sequence": found.manifest["sequence"],
        "sums_sha256": found.sums_sha256,
        **seen_by_a_witness(root, trust),
        "bytes": sum(artefact["bytes"] for artefact in found.manifest["artefacts"]),
        "recovery_point": found.manifest["recovery_point"],
    }


def _images(given: t.Sequence[t.Mapping[str, str]]) -> list[dict[str, str]]:
    for image in given:
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", image["digest"]):
            raise BackupError(
                f"images: {image['tag']}: {image['digest'] or '(empty)'}: not a digest",
                hint="Give sha256: and 64 digits, as docker inspect has it in Image.",
            )
    return [{"tag": tag, "digest": digest} for tag, digest in sorted({(one["tag"], one["digest"]) for one in given})]


def _aborted(module: AnsibleModule) -> dict[str, t.Any]:
    root, set_id = module.params["backup_root"], module.params["set_id"]
    staging = Staging(root, set_id)
    there = staging.exists()
    if there and not module.check_mode:
        with staging.working():
            clean(staging)
        forget_kept(root)
        remove_tree(staging.path)
        # A restore's staging folder has nothing to publish: giving it up is its proper end.
        _ledger.append(root, "restore closed" if set_id.startswith("restore_") else "given up", staging=set_id)
    # A staging folder is no file that the user had or keeps.
    return {"changed": False, "set_id": set_id, "path": os.path.join(root, "sets", set_id), "was_open": there}


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    return {"open": _open, "sealed": _sealed, "aborted": _aborted}[module.params["state"]](module)


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            **_module.TRUST_SPEC,
            **_module.WANTED_SPEC,
            "state": {"type": "str", "required": True, "choices": ["open", "sealed", "aborted"]},
            "backup_root": {"type": "path", "required": True},
            "set_id": {"type": "str"},
            "purpose": {"type": "str", "default": "set", "choices": ["set", "restore", "verify"]},
            "root_limit": {"type": "str"},
            "stale_after": {"type": "float", "default": 120},
            "encryption": {"type": "str", "default": "cms", "choices": ["cms", "age", "none"]},
            "encryption_reason": {"type": "str"},
            "recipients_data": {"type": "list", "elements": "str", "default": []},
            # Certificates of those who may open the class keys: public.
            "recipients_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            **_module.KEYS_SPEC,
            # Names, not keys.
            "other_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            # Whether, not which.
            "keep_key": {"type": "bool", "default": False, "no_log": False},
            "installation": {"type": "str"},
            "site": {"type": "str"},
            "reason": {
                "type": "str",
                "default": "manual",
                "choices": ["scheduled", "pre_change", "on_change", "rotation", "manual"],
            },
            "components": {"type": "list", "elements": "str", "default": ["postgres"]},
            "only_changed": {"type": "bool", "default": False},
            "images": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"tag": {"type": "str", "required": True}, "digest": {"type": "str", "required": True}},
            },
            "verification": {
                "type": "dict",
                "options": {
                    "verdict": {"type": "str", "choices": ["pass", "fail", "unproven"], "default": "unproven"},
                    "level": {"type": "str", "default": ""},
                    "wanted": {"type": "str", "default": ""},
                    "components": {"type": "list", "elements": "str", "default": ["postgres"]},
                    "seconds": {"type": "float"},
                },
            },
        },
        required_if=[("state", "sealed", ("set_id",)), ("state", "aborted", ("set_id",))],
        supports_check_mode=True,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
