#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: recovery_report
short_description: Judge what was measured against what is promised, and write that down for people and for machines
version_added: 0.1.0
description:
  - Runs on the control node (C(delegate_to)) with what was gathered from the hosts, and judges every scenario of the
    specification's table of RPO and RTO.
  - A verdict is V(pass), V(fail) or V(unproven). What nobody measured is V(unproven), with the reason.
  - It returns a table for the terminal, and writes a page (HTML), the report (JSON), metrics and alert rules for
    Prometheus into O(folder). Each file is written under another name first, so nobody reads half of one.
  - Times are UTC.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
attributes:
  check_mode:
    support: full
    details: Judges and returns everything, and writes nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
    details:
      - A change is a file that appears, or alert rules that say something else. Report, page and metrics carry the time
        and are written anew each time; that is no change.
options:
  installations:
    description: What was gathered, one dictionary an installation.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The inventory hostname.
        type: str
        required: true
      problem:
        description: Why nobody could look, such as that the host isn't reachable. That makes the installation V(fail).
        type: str
      runtime:
        description: V(kubernetes) has a shorter target for the failure of a node.
        type: str
      sets:
        description: RV(mazevault.backup.recovery_set_info#module:sets).
        type: list
        elements: dict
        default: []
      gone:
        description: RV(mazevault.backup.recovery_set_info#module:gone).
        type: list
        elements: dict
        default: []
      unreadable:
        description: RV(mazevault.backup.recovery_set_info#module:unreadable).
        type: list
        elements: str
        default: []
      space:
        description: RV(mazevault.backup.recovery_set_info#module:space).
        type: dict
      drills:
        description:
          - RV(mazevault.backup.recovery_set_info#module:drills), and drills that are kept elsewhere.
        type: list
        elements: dict
        default: []
      restores:
        description: RV(mazevault.backup.recovery_set_info#module:restores).
        type: list
        elements: dict
        default: []
      generations:
        description:
          - Key generations with C(id), C(in_use_from), C(in_use_until) (unset while in use), C(escrow_vault_at) and
            C(escrow_key_at), the moments from which on each half of the escrow has it, proven.
        type: list
        elements: dict
        default: []
      trust:
        description: What M(mazevault.backup.ledger_verify) returned; C(verdict) and C(summary) are read.
        type: dict
      policy:
        description: RV(mazevault.backup.backup_policy#module:content), the policy that is pinned on the host.
        type: dict
  expected:
    description:
      - Names of installations that there should be, besides those that pinned policies name. One that isn't among
        O(installations) is V(fail).
    type: list
    elements: str
    default: []
  partial:
    description: Only some of the installations were looked at. Then none counts as vanished, and no file is written.
    type: bool
    default: false
  show:
    description: Whether the table is printed, with colours on a terminal.
    type: bool
    default: true
  objectives:
    description:
      - Targets other than the specification's, C(rpo) and C(rto) by scenario (V(database_corruption), V(node_failure),
        V(datacentre_failure), V(key_loss), V(ransomware)), such as V(12 h).
      - Where a policy is pinned, a longer target than the policy's has no effect and is noted.
    type: dict
    default: {}
  allowances:
    description: Spans of time granted for parts of a restore that drills don't go through, by name of the part.
    type: dict
    default: {}
  review_days:
    description: Days that are looked back upon.
    type: float
    default: 100
  schedule:
    description:
      - When backups are due. Times of day (V(02:00)), minutes of each hour (V(:15)), or one interval (V(6 h)). A zone
        may follow a time of day (V(02:00 Europe/Prague)); without one it is UTC.
      - Unset means that nobody knows, and that nothing is said about whether objectives can be met.
    type: list
    elements: str
    default: []
  schedule_delay:
    description: By how much a run may start late at random, such as V(10 min).
    type: str
  copy_schedule:
    description: When sets are copied elsewhere, likewise.
    type: list
    elements: str
    default: []
  now:
    description: The moment to judge by (RFC 3339). Unset means now.
    type: str
  folder:
    description:
      - Folder on the control node for C(status.html), C(status.json), C(mazevault_backup.prom) and
        C(mazevault_backup.rules.yml), made (mode 0700) when it isn't there. Unset writes nothing.
    type: path
  metrics_file:
    description:
      - Another place for the metrics, such as a file of node_exporter's textfile collector. Its name ends in C(.prom),
        its folder has to exist, and everybody may read it (mode 0644).
    type: path
  rules_file:
    description: Another place for the alert rules. Its folder has to exist.
    type: path
  page_template:
    description: Jinja2 template of the page. Unset writes no page.
    type: path
  alarm_after:
    description: Age of the report after which the alert rules say that it is too old, such as V(6 h).
    type: str
    default: 26 h
requirements:
  - Jinja2, where O(page_template) is given; Ansible's own Python has it.
seealso:
  - module: mazevault.backup.recovery_set_info
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Look at the sets
  mazevault.backup.recovery_set_info:
    backup_root: /opt/mazevault/backups
  register: found

- name: Judge them, on the control node
  mazevault.backup.recovery_report:
    installations:
      - name: "{{ inventory_hostname }}"
        sets: "{{ found.sets }}"
        gone: "{{ found.gone }}"
        space: "{{ found.space }}"
    schedule: ["02:00", "14:00"]
    folder: /var/lib/mazevault-status
  delegate_to: localhost
  become: false
  register: judged

- name: Show the table
  ansible.builtin.debug:
    msg: "{{ judged.table }}"
"""

RETURN = r"""
verdict:
  description: V(fail) where one installation fails, V(unproven) where something isn't known, else V(pass).
  type: str
  returned: success
verdicts:
  description: The verdict of each installation by its name.
  type: dict
  returned: success
missed:
  description: What is red, one line each.
  type: list
  elements: str
  returned: success
report:
  description: Everything, as in C(status.json).
  type: dict
  returned: success
  contains:
    at:
      description: The moment of the report (UTC).
      type: str
    installations:
      description: Verdict, checks, objectives with verdicts and reasons, sets, gaps, drills and what is due.
      type: list
      elements: dict
    vanished:
      description: Installations that are expected and weren't given.
      type: list
      elements: str
table:
  description: The report as lines of text, at most 100 columns wide.
  type: list
  elements: str
  returned: success
files:
  description: Paths of the files that were written, or would be.
  type: list
  elements: str
  returned: success
"""

import datetime as dt
import json
import math
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _module
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import write_file
from ansible_collections.mazevault.backup.plugins.module_utils._metrics import metrics_text, rules_text
from ansible_collections.mazevault.backup.plugins.module_utils._objectives import REVIEW_DAYS, Terms
from ansible_collections.mazevault.backup.plugins.module_utils._page import page_context, shown
from ansible_collections.mazevault.backup.plugins.module_utils._policy import seconds_of
from ansible_collections.mazevault.backup.plugins.module_utils._scenarios import SEGMENTS, parse_objectives
from ansible_collections.mazevault.backup.plugins.module_utils._status import Report, missed, report_of
from ansible_collections.mazevault.backup.plugins.module_utils._table import table_lines
from ansible_collections.mazevault.backup.plugins.module_utils._timetable import parse_timetable

EVERYBODY = 0o644
OWNER = 0o600


def _terms(params: t.Mapping[str, t.Any]) -> Terms:
    days = params["review_days"]
    if not (math.isfinite(days) and 1 <= days <= 3660):
        raise BackupError(f"review_days: {days}: not from 1 to 3660", hint="Give a number of days, such as 100.")
    try:
        now = _clock.parse(params["now"]) if params["now"] else _clock.now()
    except ValueError as exc:
        raise BackupError(f"now: {exc}", hint="Write it like 2026-11-23T02:00:00Z.") from exc
    return Terms(
        now=now if now.tzinfo else now.replace(tzinfo=dt.timezone.utc),
        review_days=days,
        wanted=parse_objectives(params["objectives"]),
        allowances=_allowances(params["allowances"]),
        backups=parse_timetable(params["schedule"], parameter="schedule", delay=_span(params, "schedule_delay")),
        copies=parse_timetable(params["copy_schedule"], parameter="copy_schedule"),
    )


def _span(params: t.Mapping[str, t.Any], name: str) -> float:
    try:
        return seconds_of(params[name] or 0)
    except ValueError as exc:
        raise BackupError(f"{name}: {exc}", hint="Write a number of seconds, 10 min or 6 h.") from exc


def _allowances(given: t.Mapping[str, t.Any]) -> dict[str, float]:
    unknown = sorted(given.keys() - set(SEGMENTS))
    if unknown:
        raise BackupError(f"allowances: {', '.join(unknown)}: unknown", hint=f"Take {', '.join(SEGMENTS)}.")
    try:
        return {name: seconds_of(span) for name, span in given.items() if span is not None and span != ""}
    except ValueError as exc:
        raise BackupError(f"allowances: {exc}", hint="Write a number of seconds, 10 min or 6 h.") from exc


def _page(template: str, report: Report) -> str:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError
    except ImportError as exc:
        raise BackupError(
            "page_template: Jinja2 is not in this Python",
            hint="Set ansible_python_interpreter to Ansible's own Python.",
        ) from exc
    folder, name = os.path.split(template)
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    try:
        return environment.get_template(name).render(page_context(report))
    except TemplateError as exc:
        raise BackupError(f"page_template: {template}: {exc}", hint="Take the one that comes with the role.") from exc


def _files(params: t.Mapping[str, t.Any], report: Report) -> dict[str, tuple[str, int]]:
    """(content, mode) by path."""
    folder, found = params["folder"], {}
    if params["metrics_file"] and not params["metrics_file"].endswith(".prom"):
        raise BackupError(
            f"metrics_file: {params['metrics_file']}: doesn't end in .prom",
            hint="node_exporter reads no other file; give it that ending.",
        )
    if folder:
        text = json.dumps(report, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        found[os.path.join(folder, "status.json")] = (text, OWNER)
        if params["page_template"]:
            found[os.path.join(folder, "status.html")] = (_page(params["page_template"], report), OWNER)
    stale = _span(params, "alarm_after")
    if stale < 60:
        raise BackupError(f"alarm_after: {params['alarm_after']}: less than a minute", hint="Write it like 6 h.")
    for option, name, text in (
        ("metrics_file", "mazevault_backup.prom", metrics_text(report)),
        ("rules_file", "mazevault_backup.rules.yml", rules_text(stale)),
    ):
        path = params[option] or (os.path.join(folder, name) if folder else "")
        if path:
            found[path] = (text, EVERYBODY)
    return found


def _differs(path: str, content: str) -> bool:
    """Whether writing it is a change: the file appears, or it carries no time and says something else."""
    if not os.path.lexists(path):
        return True
    if not path.endswith((".yml", ".yaml")):
        return False
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read() != content


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    names = [one["name"] for one in params["installations"]]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise BackupError(f"installations: {', '.join(twice)}: given twice", hint="Give each installation once.")
    report = report_of(params["installations"], _terms(params), None if params["partial"] else params["expected"])
    files = {} if params["partial"] else _files(params, report)
    changed = any(_differs(path, content) for path, (content, _mode) in files.items())
    if files and not module.check_mode:
        if params["folder"]:
            os.makedirs(params["folder"], mode=0o700, exist_ok=True)
        for path, (content, mode) in files.items():
            write_file(path, content, mode=mode)
    return {
        "changed": changed,
        "verdict": report["verdict"],
        "verdicts": {one["name"]: one["verdict"] for one in report["installations"]},
        "missed": missed(report),
        "report": report,
        "table": table_lines(report),
        "files": sorted(files),
    }


def main() -> t.NoReturn:
    listed = {"type": "list", "elements": "dict", "default": []}
    module = AnsibleModule(
        argument_spec={
            "installations": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "problem": {"type": "str"},
                    "runtime": {"type": "str"},
                    "sets": listed,
                    "gone": listed,
                    "unreadable": {"type": "list", "elements": "str", "default": []},
                    "space": {"type": "dict"},
                    "drills": listed,
                    "restores": listed,
                    "generations": listed,
                    "trust": {"type": "dict"},
                    "policy": {"type": "dict"},
                },
            },
            "expected": {"type": "list", "elements": "str", "default": []},
            "partial": {"type": "bool", "default": False},
            "show": {"type": "bool", "default": True},
            "objectives": {"type": "dict", "default": {}},
            "allowances": {"type": "dict", "default": {}},
            "review_days": {"type": "float", "default": REVIEW_DAYS},
            "schedule": {"type": "list", "elements": "str", "default": []},
            "schedule_delay": {"type": "str"},
            "copy_schedule": {"type": "list", "elements": "str", "default": []},
            "now": {"type": "str"},
            "folder": {"type": "path"},
            "metrics_file": {"type": "path"},
            "rules_file": {"type": "path"},
            "page_template": {"type": "path"},
            "alarm_after": {"type": "str", "default": "26 h"},
        },
        supports_check_mode=True,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
