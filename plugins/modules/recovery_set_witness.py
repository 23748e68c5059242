#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: recovery_set_witness
short_description: Keep apart from the host what its recovery sets and ledger were
version_added: 0.1.0
description:
  - Runs on the control node (C(delegate_to)) and keeps a book for each installation, a file that only grows. Each line
    holds the hash of the line before it and is signed with the witness's own key.
  - A host's signature proves who made a set. That nobody cut, rewrote or replaced what the host keeps can only be told
    by somebody else who saw it earlier.
  - With O(state=read) it returns what M(mazevault.backup.ledger_verify) compares a host with.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
attributes:
  check_mode:
    support: full
    details: Judges what it is shown and writes nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
    details: The line that is added is not counted as a change.
options:
  state:
    description:
      - V(witnessed) judges O(seen) by what was seen before, and adds a line.
      - V(read) adds nothing.
      - V(accepted) adds a line with which a person takes O(seen) for the truth from now on, after a ledger was lost or
        a host got another key.
    type: str
    default: witnessed
    choices: [witnessed, read, accepted]
  installation:
    description: The inventory hostname. It names the book.
    type: str
    required: true
  folder:
    description: Folder of the books. It has to outlive the run; in AWX that is no folder of the execution environment.
    type: path
    default: ~/.mazevault-backup/witness
  signing_key:
    description:
      - Path of the witness's private key (EC P-384, PEM, mode 0600), made when it isn't there.
      - Unset means C(witness.key) in O(folder).
    type: path
  seen:
    description:
      - What M(mazevault.backup.recovery_set) returned with C(state=sealed), or for the ledger alone what
        M(mazevault.backup.recovery_set_info) returned as C(ledger).
      - Required unless O(state=read).
    type: dict
    suboptions:
      set_id:
        description: Id of the set; unset for the ledger alone.
        type: str
      set_sequence:
        description: Number of the set. Required with a set.
        type: int
      sums_sha256:
        description: SHA-256 of its C(SHA256SUMS). Required with a set.
        type: str
      ledger_head:
        description: Hash of the ledger's last line.
        type: str
        required: true
      ledger_lines:
        description: Number of the ledger's lines.
        type: int
        required: true
      host_key:
        description: Public half of the host's key (PEM).
        type: str
        required: true
      host_time:
        description: The host's clock.
        type: str
        required: true
      policy_sha256:
        description: SHA-256 of the host's pinned policy.
        type: str
  max_skew:
    description: Seconds by which the clocks of host and witness may differ. Above that the time is V(unproven).
    type: float
    default: 60
  syslog:
    description:
      - Where to send a message about the line too, a socket's path such as V(/dev/log), or C(HOST[:PORT]) (UDP).
    type: str
  tsa_url:
    description: Address of a time stamp authority (RFC 3161) that is asked to stamp the line.
    type: str
  tsa_ca:
    description: File with the authority's CA certificates. Without it a stamp is kept, and unproven.
    type: path
  tsa_timeout:
    description: Seconds that the authority may take.
    type: float
    default: 20
  confirm:
    description: For O(state=accepted), has to equal O(installation).
    type: str
  by:
    description: Who accepts. Required for O(state=accepted).
    type: str
  reason:
    description: Why. Required for O(state=accepted).
    type: str
seealso:
  - module: mazevault.backup.ledger_verify
  - module: mazevault.backup.recovery_set
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Publish the set
  mazevault.backup.recovery_set:
    state: sealed
    backup_root: /opt/mazevault/backups
    set_id: "{{ opened.set_id }}"
    installation: "{{ inventory_hostname }}"
  register: sealed

- name: Let the control node witness it
  mazevault.backup.recovery_set_witness:
    installation: "{{ inventory_hostname }}"
    seen:
      set_id: "{{ sealed.set_id }}"
      set_sequence: "{{ sealed.sequence }}"
      sums_sha256: "{{ sealed.sums_sha256 }}"
      ledger_head: "{{ sealed.ledger_head }}"
      ledger_lines: "{{ sealed.ledger_lines }}"
      host_key: "{{ sealed.host_key }}"
      host_time: "{{ sealed.host_time }}"
  delegate_to: localhost
  become: false
"""

RETURN = r"""
verdict:
  description: V(fail) where O(seen) contradicts what was seen before or the book itself was changed, V(unproven) where
    something can't be told, else V(pass).
  type: str
  returned: success
summary:
  description: The verdict in one line, with reasons.
  type: str
  returned: success
checks:
  description: Everything that was looked at.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: What was looked at.
      type: str
    level:
      description: Always V(checksum).
      type: str
    verdict:
      description: V(pass), V(fail) or V(unproven).
      type: str
    reason:
      description: Why it is not V(pass).
      type: str
testimony:
  description: All that this witness has seen, for M(mazevault.backup.ledger_verify).
  type: dict
  returned: success
line:
  description: The line that was added, with its C(sha256); null where none was.
  type: dict
  returned: success
book:
  description: Path of the book.
  type: str
  returned: success
public_key:
  description: Public half of the witness's key (PEM); empty before there is one.
  type: str
  returned: success
skew_seconds:
  description: The host's clock minus the witness's, null where nothing was seen.
  type: float
  returned: success
syslog:
  description: V(sent), or why not; null where none was wanted.
  type: str
  returned: success
time_stamp:
  description: What came of asking the authority; null where none was wanted.
  type: dict
  returned: success
  contains:
    verdict:
      description: V(pass) where the stamp verifies, else V(unproven).
      type: str
    reason:
      description: Why it is not V(pass).
      type: str
    time:
      description: The authority's time, as it says it.
      type: str
    file:
      description: Where its reply is kept.
      type: str
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _module, _timestamp, _witness
from ansible_collections.mazevault.backup.plugins.module_utils._confirm import require_confirmation
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._signature import Signer
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import (
    FAIL,
    PASS,
    UNPROVEN,
    Check,
    combine,
    conclusion_text,
)


def _seen(params: dict[str, t.Any]) -> dict[str, t.Any]:
    seen = {key: value for key, value in (params["seen"] or {}).items() if value is not None and value != ""}
    if not seen:
        raise BackupError("seen: missing", hint="Pass what recovery_set returned when it sealed the set.")
    if seen.get("set_id") and not {"set_sequence", "sums_sha256"} <= seen.keys():
        raise BackupError(
            f"seen: {seen['set_id']}: without its number or sums", hint="Pass set_sequence and sums_sha256."
        )
    return seen


def _skew(seen: dict[str, t.Any]) -> float | None:
    try:
        return round((_clock.parse(str(seen["host_time"])) - _clock.now()).total_seconds(), 3)
    except (ValueError, TypeError):
        return None


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    folder, state = params["folder"], params["state"]
    signer = Signer(params["signing_key"] or os.path.join(folder, "witness.key"))
    book = _witness.Book(folder, params["installation"], signer)
    lines, problem = book.read()
    before = _witness.testimony_of(lines, problem)
    result: dict[str, t.Any] = {
        "changed": False,
        "line": None,
        "book": book.path,
        "skew_seconds": None,
        "syslog": None,
        "time_stamp": None,
    }
    checks = [Check("book", "checksum", FAIL, problem)] if problem else []
    facts: dict[str, t.Any] = {}
    if state != "read":
        seen = _seen(params)
        result["skew_seconds"] = _skew(seen)
        if state == "accepted":
            facts = _acceptance(module)
        elif not problem:
            checks += _witness.judge(seen, before, result["skew_seconds"], params["max_skew"])
            time = [check.verdict for check in checks if check.name == "time"]
            facts = {"time": time[0], "verdict": combine(check.verdict for check in checks)}
        facts = {**seen, "installation": params["installation"], "skew": str(result["skew_seconds"]), **facts}
    elif not lines:
        checks.append(Check("book", "checksum", UNPROVEN, "this witness has never seen the installation"))
    # A book that somebody changed gets no line more.
    if facts and not problem and not module.check_mode:
        line = book.append(_witness.ACCEPTED if state == "accepted" else _witness.WITNESSED, facts)
        result["line"] = line
        result["syslog"] = _tell(module, line)
        result["time_stamp"] = _stamp(module, book, line)
        lines, problem = book.read()
    verdict = combine(check.verdict for check in checks) if checks else PASS
    return {
        **result,
        "verdict": verdict,
        "summary": "pass: nothing contradicts what was seen before"
        if verdict == PASS
        else conclusion_text(verdict, "checksum", checks),
        "checks": [check.as_dict() for check in checks],
        "testimony": _witness.testimony_of(lines, problem).as_dict(),
        "public_key": signer.public(),
    }


def _acceptance(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    require_confirmation(module.check_mode, params["confirm"], params["installation"])
    for name in ("by", "reason"):
        if not params[name]:
            raise BackupError(f"{name}: missing", hint="Whoever accepts says who it is, and why.")
    return {"by": params["by"], "reason": params["reason"], "time": UNPROVEN}


def _tell(module: AnsibleModule, line: dict[str, t.Any]) -> str | None:
    if not module.params["syslog"]:
        return None
    words = (
        "installation",
        "set_id",
        "set_sequence",
        "sums_sha256",
        "ledger_lines",
        "ledger_head",
        "sha256",
        "verdict",
    )
    text = " ".join(f"{word}={line[word]}" for word in words if line.get(word) is not None)
    try:
        _timestamp.tell_syslog(module.params["syslog"], f"mazevault.backup witness: {line['event']} {text}")
    except BackupError as exc:
        module.warn(f"The witness's line was not sent: {exc.msg}")
        return exc.msg
    return "sent"


def _stamp(module: AnsibleModule, book: _witness.Book, line: dict[str, t.Any]) -> dict[str, t.Any] | None:
    """A stamp that can't be had is no reason to lose a backup: it is said, and the line stands without it."""
    params = module.params
    if not params["tsa_url"]:
        return None

    def post(url: str, query: bytes) -> bytes:
        headers = {"Content-Type": "application/timestamp-query"}
        try:
            with open_url(url, data=query, headers=headers, method="POST", timeout=params["tsa_timeout"]) as reply:
                return t.cast(bytes, reply.read(1 << 21))
        except Exception as exc:
            raise BackupError(f"tsa_url: {url}: {exc}", hint="See to the address.") from exc

    out = f"{book.path}.{line['sequence']}.tsr"
    try:
        found = _timestamp.ask(line["sha256"], params["tsa_url"], params["tsa_ca"] or "", out, post)
    except BackupError as exc:
        found = {"verdict": UNPROVEN, "reason": exc.msg, "time": None, "file": None}
    if found["verdict"] == UNPROVEN:
        module.warn(f"The witness's line has no proven time stamp: {found['reason']}")
    book.append(_witness.STAMPED, {"of": line["sequence"], **{key: str(value) for key, value in found.items()}})
    return found


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "default": "witnessed", "choices": ["witnessed", "read", "accepted"]},
            "installation": {"type": "str", "required": True},
            "folder": {"type": "path", "default": "~/.mazevault-backup/witness"},
            "signing_key": {"type": "path", "no_log": False},
            "seen": {
                "type": "dict",
                "options": {
                    "set_id": {"type": "str"},
                    "set_sequence": {"type": "int"},
                    "sums_sha256": {"type": "str"},
                    "ledger_head": {"type": "str", "required": True},
                    "ledger_lines": {"type": "int", "required": True},
                    "host_key": {"type": "str", "required": True, "no_log": False},
                    "host_time": {"type": "str", "required": True},
                    "policy_sha256": {"type": "str"},
                },
            },
            "max_skew": {"type": "float", "default": 60},
            "syslog": {"type": "str"},
            "tsa_url": {"type": "str"},
            "tsa_ca": {"type": "path"},
            "tsa_timeout": {"type": "float", "default": 20},
            "confirm": {"type": "str"},
            "by": {"type": "str"},
            "reason": {"type": "str"},
        },
        supports_check_mode=True,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
