#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_schedule
short_description: Have the playbooks of this collection run by themselves
version_added: 0.1.0
description:
  - Writes timers and services of systemd, or one file of C(/etc/cron.d) where there is no systemd, with a small program
    that runs the jobs. It prevents two runs of a job at once, and two runs that change sets; it writes the log; where
    there is no systemd it catches up what was missed.
  - Works on the machine that the jobs are to run on, which is the control node (C(delegate_to)) or the host itself.
  - Says when each job runs next, and what the schedule can't keep of what is promised. It is set up all the same.
  - Only files that it has written are ever written over or removed.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description: V(absent) ends and removes the schedule; the log stays.
    type: str
    choices: [present, absent]
    default: present
  name:
    description:
      - What units and files are called. Another name is another schedule beside this one, for other installations.
    type: str
    default: mazevault-backup
  manager:
    description: Who starts the jobs. Unset means V(systemd) where it runs, else V(cron).
    type: str
    choices: [systemd, cron]
  scope:
    description:
      - V(system) needs root. V(user) is the account's own systemd, which needs C(loginctl enable-linger).
      - Unset means V(system) for root, else V(user).
    type: str
    choices: [system, user]
  jobs:
    description: What is to run. Needed unless O(state=absent).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The job.
        type: str
        required: true
        choices: [backup, on_change, verify, replicate, drill, verify_keys, prune, status]
      when:
        description:
          - Times of day (V(02:00,14:00)), minutes of each hour (V(:15)), an interval that divides an hour or a day
            (V(15 min)), a weekday (V(Sun 04:00)), V(monthly 05:00), V(quarterly 05:00), or V(never). UTC, unless a zone
            follows.
        type: raw
      playbook:
        description: What C(ansible-playbook) is given, a file or a name such as V(mazevault.backup.backup).
        type: str
        required: true
      variables:
        description: Extra variables of the run; nothing secret.
        type: dict
        default: {}
      unless:
        description: Why the job is left out. Unset takes it in.
        type: str
  program:
    description: C(ansible-playbook). Where it isn't there, it is looked for in the search path.
    type: str
    default: ansible-playbook
  inventory:
    description: Sources of the inventory.
    type: list
    elements: str
    default: []
  arguments:
    description: More arguments of C(ansible-playbook), such as C(--vault-password-file) with its file; nothing secret.
    type: list
    elements: str
    default: []
  environment:
    description: Environment variables of the runs; nothing secret. They don't have others of the caller's.
    type: dict
    default: {}
  directory:
    description: Current folder of the runs. Unset means the account's home.
    type: path
  user:
    description: Account that the jobs run as. Unset means the one that runs this module.
    type: str
  delay:
    description: By how much each run starts late at random, such as V(5 min).
    type: str
    default: 5 min
  after_boot:
    description:
      - How long the machine has to be up before a job begins. What was missed while it was off is caught up as soon as
        it starts, when the network, or MazeVault on the same machine, isn't there yet.
    type: str
    default: 3 min
  timeout:
    description: After how long a run that doesn't end is ended, and has failed.
    type: str
    default: 12 h
  runner:
    description: The text of the program that runs the jobs; it comes with the role C(mazevault_schedule).
    type: str
  notify_playbook:
    description: What C(ansible-playbook) is given to tell somebody that a job failed.
    type: str
  notify_variables:
    description: Its variables; nothing secret, but the names of files that hold secrets. Empty, nobody is told.
    type: dict
    default: {}
  folder:
    description:
      - Folder for the program and what it remembers.
      - Unset means C(/var/lib/mazevault-backup/NAME), and C(~/.mazevault-backup/schedule/NAME) for O(scope=user).
    type: path
  unit_folder:
    description: Folder of units. Unset means C(/etc/systemd/system), and C(~/.config/systemd/user) for O(scope=user).
    type: path
  cron_file:
    description: File with cron's lines. Unset means C(/etc/cron.d/NAME).
    type: path
  log_file:
    description: Unset means C(/var/log/NAME.log), and C(~/.mazevault-backup/NAME.log) for O(scope=user).
    type: path
  logrotate_file:
    description:
      - Rule for logrotate. Unset means C(/etc/logrotate.d/NAME). For O(scope=user) there is none unless one is named,
        and the log is put aside when it has more than 20 MB.
    type: path
  installations:
    description:
      - What is known of each installation, to tell whether the schedule can keep what is promised.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The inventory hostname.
        type: str
        required: true
      runtime:
        description: Where MazeVault runs.
        type: str
      sets:
        description: RV(mazevault.backup.recovery_set_info#module:sets); what a backup takes is read from them.
        type: list
        elements: dict
        default: []
      policy:
        description: RV(mazevault.backup.backup_policy#module:content).
        type: dict
  objectives:
    description: As in M(mazevault.backup.recovery_report).
    type: dict
    default: {}
seealso:
  - module: mazevault.backup.backup_notify
  - module: mazevault.backup.recovery_report
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Back up twice a day, from the control node
  mazevault.backup.backup_schedule:
    jobs:
      - name: backup
        when: 02:00,14:00
        playbook: mazevault.backup.backup
        variables:
          mazevault_reason: scheduled
    inventory: [/srv/mazevault/inventory.yml]
    runner: "{{ lookup('ansible.builtin.file', 'run.py') }}"
  delegate_to: localhost
  register: schedule

- name: When does it run next?
  ansible.builtin.debug:
    msg: "{{ schedule.lines }}"

- name: End it
  mazevault.backup.backup_schedule:
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
manager:
  description: V(systemd) or V(cron).
  type: str
  returned: success
scope:
  description: V(system) or V(user).
  type: str
  returned: success
jobs:
  description: Each job that was given.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: The job.
      type: str
    when:
      description: As it was given.
      type: str
    next:
      description: When it runs next (UTC), without the random delay; null where it is left out.
      type: str
    unit:
      description: The timer; null where it is left out, and for cron.
      type: str
    left_out:
      description: Why it isn't scheduled; empty where it is.
      type: str
lines:
  description: The same for people.
  type: list
  elements: str
  returned: success
problems:
  description: What this schedule can't keep, and what keeps it from running. They are warnings too.
  type: list
  elements: str
  returned: success
files:
  description: The schedule's files.
  type: list
  elements: str
  returned: success
log_file:
  description: The log.
  type: str
  returned: success
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _module
from ansible_collections.mazevault.backup.plugins.module_utils._calendar import parse_calendar
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._jobs import (
    JOBS,
    NAMES,
    Planned,
    command_of,
    problems_of,
)
from ansible_collections.mazevault.backup.plugins.module_utils._policy import seconds_of
from ansible_collections.mazevault.backup.plugins.module_utils._scenarios import parse_objectives
from ansible_collections.mazevault.backup.plugins.module_utils._schedule import (
    Place,
    Texts,
    apply,
    due_by_systemd,
    find_program,
    settle_place,
    texts_of,
)


def _span(params: t.Mapping[str, t.Any], name: str, least: float, most: float) -> float:
    try:
        seconds = seconds_of(params[name])
    except ValueError as exc:
        raise BackupError(f"{name}: {exc}", hint="Write a number of seconds, 10 min or 6 h.") from exc
    if not least <= seconds <= most:
        raise BackupError(f"{name}: {params[name]}: not from {least:.0f} s to {most:.0f} s", hint="Take another one.")
    return seconds


def _planned(params: t.Mapping[str, t.Any], program: str) -> dict[str, Planned | str]:
    """Each job that was given, or why it is left out."""
    by_name, found = {job.name: job for job in JOBS}, {}
    for given in params["jobs"]:
        name = given["name"]
        if name in found:
            raise BackupError(f"jobs: {name}: given twice", hint="Give each job once.")
        calendar = parse_calendar(given["when"], parameter=f"jobs: {name}")
        if given["unless"] or calendar is None:
            found[name] = given["unless"] or "never"
            continue
        argv = command_of(
            program,
            given["playbook"],
            inventory=params["inventory"],
            arguments=params["arguments"],
            variables=given["variables"],
        )
        found[name] = Planned(by_name[name], calendar, argv)
    backup = found.get("backup")
    if isinstance(backup, Planned) and not backup.calendar.daily:
        raise BackupError(
            f"jobs: backup: {backup.calendar.text}: not each day", hint="Give times of day, such as 02:00,14:00."
        )
    return found


def _texts(params: t.Mapping[str, t.Any], place: Place, jobs: list[Planned], program: str, delay: float) -> Texts:
    missing = [name for name in ("runner", "jobs", "inventory") if not params[name]]
    if missing:
        raise BackupError(f"{missing[0]}: missing", hint="schedule.yml gives it; it is needed unless state is absent.")
    notify = {}
    if params["notify_playbook"]:
        notify = {name: value for name, value in params["notify_variables"].items() if value not in (None, "", [], {})}
    return texts_of(
        place,
        jobs,
        runner=params["runner"],
        environment={str(name): str(value) for name, value in params["environment"].items()},
        directory=params["directory"],
        delay=delay,
        after_boot=_span(params, "after_boot", 0, 3600),
        timeout=_span(params, "timeout", 60, 7 * 86400),
        notify=notify,
        notify_argv=[program, "-i", "control-node,", params["notify_playbook"] or ""],
    )


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    params, now = module.params, _clock.now()
    place = settle_place(params)
    delay = _span(params, "delay", 0, 86400)
    if params["state"] == "absent":
        done = apply(place, None, check=module.check_mode)
        return {**_common(place), **done, "jobs": [], "lines": ["removed"], "problems": []}
    program = find_program(params["program"])
    found = _planned(params, program)
    jobs = [one for one in found.values() if isinstance(one, Planned)]
    objectives = parse_objectives(params["objectives"])
    backup = found.get("backup")
    problems = problems_of(
        params["installations"],
        objectives,
        backup.calendar if isinstance(backup, Planned) else None,
        delay=delay,
        now=now,
    )
    problems += place.problems
    next_runs = due_by_systemd(place, jobs, now)
    done = apply(place, _texts(params, place, jobs, program, delay), check=module.check_mode)
    for problem in problems:
        module.warn(f"Schedule: {problem}")
    shown = [_shown(name, one, next_runs, place) for name, one in found.items()]
    lines = [
        f"{one['name']}: left out: {one['left_out']}"
        if one["left_out"]
        else f"{one['name']}: {one['when']}: next run {one['next']}, up to {_clock.human_age(delay)} later"
        for one in shown
    ]
    return {**_common(place), **done, "jobs": shown, "lines": lines, "problems": problems}


def _common(place: Place) -> dict[str, t.Any]:
    return {"manager": place.manager, "scope": place.scope, "log_file": place.log_file}


def _shown(name: str, one: Planned | str, next_runs: t.Mapping[str, str], place: Place) -> dict[str, t.Any]:
    if isinstance(one, str):
        return {"name": name, "when": "never", "next": None, "unit": None, "left_out": one}
    return {
        "name": name,
        "when": one.calendar.text,
        "next": next_runs[name],
        "unit": place.timer_of(name) if place.manager == "systemd" else None,
        "left_out": "",
    }


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "name": {"type": "str", "default": "mazevault-backup"},
            "manager": {"type": "str", "choices": ["systemd", "cron"]},
            "scope": {"type": "str", "choices": ["system", "user"]},
            "jobs": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True, "choices": list(NAMES)},
                    "when": {"type": "raw"},
                    "playbook": {"type": "str", "required": True},
                    "variables": {"type": "dict", "default": {}},
                    "unless": {"type": "str"},
                },
            },
            "program": {"type": "str", "default": "ansible-playbook"},
            "inventory": {"type": "list", "elements": "str", "default": []},
            "arguments": {"type": "list", "elements": "str", "default": []},
            "environment": {"type": "dict", "default": {}},
            "directory": {"type": "path"},
            "user": {"type": "str"},
            "delay": {"type": "str", "default": "5 min"},
            "after_boot": {"type": "str", "default": "3 min"},
            "timeout": {"type": "str", "default": "12 h"},
            "runner": {"type": "str"},
            "notify_playbook": {"type": "str"},
            "notify_variables": {"type": "dict", "default": {}},
            "folder": {"type": "path"},
            "unit_folder": {"type": "path"},
            "cron_file": {"type": "path"},
            "log_file": {"type": "path"},
            "logrotate_file": {"type": "path"},
            "installations": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "runtime": {"type": "str"},
                    "sets": {"type": "list", "elements": "dict", "default": []},
                    "policy": {"type": "dict"},
                },
            },
            "objectives": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
