#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: identity_proof
short_description: Does each recovery identity still open what is encrypted to it?
version_added: 0.1.0
description:
  - Asks each recipient a question that nobody else can answer, a random code that is encrypted to this one alone. The
    custodian opens it where the identity is, offline, with one command, and reads the code aloud. The identity itself
    stays where it is.
  - A code that comes back is compared with the hash that the host has kept, and recorded, signed and entered in the
    ledger. A code that fits no open question is refused, which makes the verdict V(fail). The right ones count all the
    same.
  - An identity that has answered within O(days) isn't asked again. One that hasn't is V(unproven), and its question
    stays the same until it is answered.
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
    description: Folder of all sets. Questions lie in its C(identities/).
    type: path
    required: true
  installation:
    description: Name of the installation, for the custodian to see what was opened.
    type: str
    required: true
  encryption:
    description: How recipients are given.
    type: str
    default: cms
    choices: [cms, age]
  recipients:
    description:
      - Recipients by what they open, C(data) and C(keys) for the classes of sets, C(vault) and C(key) for the halves of
        the escrow. Each is a list of certificates as PEM text or of age's recipients.
    type: dict
    required: true
  codes:
    description: Codes that came back. Capitals, blanks and missing dashes don't matter.
    type: list
    elements: str
    default: []
  days:
    description: After how many days an identity has to show again that it works.
    type: float
    default: 92
seealso:
  - module: mazevault.backup.recovery_set_access
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Ask all custodians
  mazevault.backup.identity_proof:
    backup_root: /opt/mazevault/backups
    installation: "{{ inventory_hostname }}"
    recipients:
      data: "{{ query('mazevault.backup.recipients', 'data-a.crt,data-b.crt') }}"
  register: asked

- name: Two of them have answered
  mazevault.backup.identity_proof:
    backup_root: /opt/mazevault/backups
    installation: "{{ inventory_hostname }}"
    recipients:
      data: "{{ query('mazevault.backup.recipients', 'data-a.crt,data-b.crt') }}"
    codes: [1f0c2a-9b7e44-03d1aa-6c52f8, 7720be-00f1c3-d2a94b-118e6d]
"""

RETURN = r"""
verdict:
  description: V(pass) where every identity has answered in time, V(fail) with a refused code, else V(unproven).
  type: str
  returned: success
checks:
  description: One for each identity, and for each refused code.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: Whose it is.
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
asked:
  description: Open questions.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: Whom it is for.
      type: str
    opens:
      description: What this identity opens.
      type: list
      elements: str
    text:
      description: What to send. Empty in check mode where it would be made.
      type: str
    command:
      description: What the custodian types.
      type: str
answered:
  description: Names of identities that answered in this run.
  type: list
  elements: str
  returned: success
refused:
  description: Codes that answer none of the open questions, and never did.
  type: list
  elements: str
  returned: success
identities:
  description: Every identity, with C(name), C(opens), and C(proven_at), which is empty for never.
  type: list
  elements: dict
  returned: success
"""

import contextlib
import math
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _identities, _ledger, _module
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import private_folder
from ansible_collections.mazevault.backup.plugins.module_utils._identities import Identity
from ansible_collections.mazevault.backup.plugins.module_utils._staging import locked
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, Check, combine

_PARAMETERS = ("data", "keys", "vault", "key")


def _recipients(params: dict[str, t.Any]) -> list[Identity]:
    unknown = sorted(set(params["recipients"]) - set(_PARAMETERS))
    if unknown:
        raise BackupError(f"recipients: {', '.join(unknown)}: unknown", hint=f"Take {', '.join(_PARAMETERS)}.")
    texts = {name: [str(text) for text in params["recipients"].get(name) or ()] for name in _PARAMETERS}
    found = _identities.identities(params["encryption"], texts)
    if not found:
        raise BackupError(
            "recipients: nobody: then nobody can open anything either",
            hint="Give the recipients of sets and of escrow.",
        )
    return found


def _answer(
    params: dict[str, t.Any], people: list[Identity], trust: Trust, *, write: bool
) -> tuple[list[str], list[str]]:
    """Record what codes answer: (names of those who did, codes that answer nothing and never did)."""
    root = params["backup_root"]
    questions = {one.mark: _identities.open_question(root, one, trust) for one in people}
    before = {str(record.get("code_sha256")) for record in _identities.proofs(root, trust)}
    done, wrong = [], []
    for code in params["codes"]:
        digest = _identities.digest_of(code)
        owner = next((one for one in people if (questions[one.mark] or {}).get("code_sha256") == digest), None)
        question = questions[owner.mark] if owner else None
        if owner and question and _identities.is_code(code):
            if write:
                _identities.answered(root, owner, question, trust)
                questions[owner.mark] = None
            done.append(owner.name)
        elif digest not in before:
            wrong.append(code)
    if wrong and write:
        _ledger.append(root, "proof code refused", codes=len(wrong))
    return done, wrong


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    params, write = module.params, not module.check_mode
    root, trust, days = params["backup_root"], _module.trust_of(params), params["days"]
    if not (math.isfinite(days) and days > 0):
        raise BackupError(f"days: {days}: not above 0", hint="Give a number of days.")
    private_folder(root, parameter="backup_root")
    people = _recipients(params)
    changed = False
    asked = []
    if write:
        trust.signer.ensure()
    with locked(os.path.join(root, ".identities.lock")) if write else contextlib.nullcontext():
        done, wrong = _answer(params, people, trust, write=write)
        recorded = _identities.proofs(root, trust)
        proven = {one.mark: _identities.last_proof(one, recorded) for one in people}
        for one in people:
            if not _identities.is_due(proven[one.mark], days):
                continue
            text = ""
            if _identities.open_question(root, one, trust):
                text = _identities.text_of(root, one)
            else:
                changed = True
                if write:
                    text = _identities.ask(root, one, params["installation"], params["encryption"], trust)
            how = _identities.command(params["encryption"])
            asked.append({"name": one.name, "opens": list(one.opens), "text": text, "command": how})
    checks = [_identities.check(one, proven[one.mark], days) for one in people]
    said = "it answers none of the open questions: it was misheard, or is of an earlier one; let it be opened again"
    checks += [Check(f"code {code[:60]}", _identities.LEVEL, FAIL, said) for code in wrong]
    return {
        "changed": changed or bool(done),
        "verdict": combine(check.verdict for check in checks),
        "checks": [check.as_dict() for check in checks],
        "asked": asked,
        "answered": done,
        "refused": wrong,
        "identities": [{"name": one.name, "opens": list(one.opens), "proven_at": proven[one.mark]} for one in people],
    }


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            **_module.TRUST_SPEC,
            "backup_root": {"type": "path", "required": True},
            "installation": {"type": "str", "required": True},
            "encryption": {"type": "str", "default": "cms", "choices": ["cms", "age"]},
            "recipients": {"type": "dict", "required": True},
            # Worth nothing once it is here.
            "codes": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "days": {"type": "float", "default": 92},
        },
        supports_check_mode=True,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
