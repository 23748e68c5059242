#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_policy
short_description: Pin a policy on a host, or compare a run with the pinned one
version_added: 0.1.0
description:
  - A policy says who may read sets, how they are proven, how long they stay and what is promised. Pinned on the host it
    holds against the variables of a run, which can only be stricter.
  - It is kept as canonical JSON, mode 0644. Its SHA-256 is in every manifest, record and line of a witness.
  - Whoever is root on the host can replace it. The hash in older sets and at the witness tells that it was another one.
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
  state:
    description:
      - V(pinned) writes O(content). To replace another policy needs O(confirm).
      - V(compared) compares O(wanted) with the pinned policy, and fails where that has to be refused.
    type: str
    default: compared
    choices: [pinned, compared]
  content:
    description:
      - The policy. Required for O(state=pinned). Keys that it may have are described below; an unknown one is refused.
      - C(installations), names that are expected. C(recipients), with the lists C(data) and C(keys) of SHA-256
        fingerprints of certificates (or of age's recipients themselves), each at least two, unless
        C(few_recipients_because) has a reason.
      - C(escrow), with the lists C(vault) and C(key). C(verify_level), the lowest one. C(encryption), schemes that are
        allowed. C(objectives), by scenario (V(database_corruption), V(node_failure), V(datacentre_failure),
        V(key_loss), V(ransomware)) C(rpo) and C(rto) such as V(24 h).
      - C(retention), with C(days), C(keep), C(evidence_days), C(tls_days). C(verification_keys), public keys (PEM) of
        hosts, witnesses and provers. C(witness), whether there has to be one.
      - The host's own public key is added to C(verification_keys) where that names any.
    type: dict
  confirm:
    description: Has to equal O(inventory_hostname) when another policy is replaced.
    type: str
  inventory_hostname:
    description: The host's name in the inventory, for O(confirm).
    type: str
seealso:
  - module: mazevault.backup.recovery_set
  - module: mazevault.backup.ledger_verify
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Pin the policy that lies beside the inventory
  mazevault.backup.backup_policy:
    state: pinned
    content: "{{ lookup('ansible.builtin.file', 'policy.yml') | from_yaml }}"

- name: Is this run as strict as the policy?
  mazevault.backup.backup_policy:
    wanted:
      verify_level: restore
      encryption: cms
"""

RETURN = r"""
path:
  description: Where the policy is, or would be.
  type: str
  returned: success
sha256:
  description: SHA-256 of the pinned policy, null without one.
  type: str
  returned: success
content:
  description: The policy, null without one.
  type: dict
  returned: success
overrides:
  description: Names of what O(wanted) has weaker than the policy.
  type: list
  elements: str
  returned: success
"""

import hashlib
import json
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _module, _policy
from ansible_collections.mazevault.backup.plugins.module_utils._confirm import require_confirmation
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import write_file
from ansible_collections.mazevault.backup.plugins.module_utils._signature import key_id
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    params, trust = module.params, _module.trust_of(module.params)
    if params["state"] == "pinned":
        return _pinned(module, trust)
    path = trust.policy.path if trust.policy else _place(trust)
    return {
        "changed": False,
        "overrides": list(_policy.refuse(trust.policy, params["wanted"])),
        **_told(path, trust.policy),
    }


def _told(path: str, policy: _policy.Policy | None) -> dict[str, t.Any]:
    return {
        "path": path,
        "sha256": policy.sha256 if policy else None,
        "content": policy.content if policy else None,
    }


def _place(trust: Trust) -> str:
    """Beside the key, where `find` looks unless there is one in the usual place."""
    return os.path.join(os.path.dirname(trust.signer.key), _policy.NAME)


def _pinned(module: AnsibleModule, trust: Trust) -> dict[str, t.Any]:
    params = module.params
    if not params["content"]:
        raise BackupError("content: missing", hint="Give the policy as a dictionary.")
    content = _policy.settle(params["content"])
    if content.get("verification_keys"):
        # A host whose own signature doesn't count could prove nothing any more. In a check there may be no key yet.
        if not module.check_mode:
            trust.signer.ensure()
        own = trust.signer.public()
        content = _policy.settle(
            {**content, "verification_keys": [*content["verification_keys"], *([own] if own else [])]}
        )
    data = _policy.canonical(content)
    former = trust.policy
    path = former.path if former else _place(trust)
    pinned = _policy.Policy(path, content, hashlib.sha256(data).hexdigest())
    changed = former is None or former.sha256 != pinned.sha256
    if changed and former is not None:
        require_confirmation(module.check_mode, params["confirm"], params["inventory_hostname"])
    if changed and not module.check_mode:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        write_file(path, data, mode=0o644)
    return {
        "changed": changed,
        "overrides": [],
        **_told(path, pinned),
        "diff": {
            "before": _shown(former.content) if former else "",
            "after": _shown(content),
            "before_header": path,
            "after_header": path,
        },
    }


def _shown(content: t.Mapping[str, t.Any]) -> str:
    """For people: keys by their ids, one value a line."""
    keys = [f"sha256 {key_id(key)}" for key in content.get("verification_keys") or ()]
    short = {**content, **({"verification_keys": keys} if keys else {})}
    return json.dumps(short, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            **_module.TRUST_SPEC,
            **_module.WANTED_SPEC,
            "state": {"type": "str", "default": "compared", "choices": ["pinned", "compared"]},
            "content": {"type": "dict"},
            "confirm": {"type": "str"},
            "inventory_hostname": {"type": "str"},
        },
        supports_check_mode=True,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
