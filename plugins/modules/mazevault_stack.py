#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: mazevault_stack
short_description: Start or stop MazeVault's containers
version_added: 0.1.0
description:
  - Containers that exist are stopped and started by the engine itself. That needs neither files nor a compose program,
    and makes no container anew.
  - O(state=started) starts postgres and redis first and waits until they are healthy, then the rest. Services of the
    compose files that have no container yet are brought up by the compose program, out of images that are there.
  - While the engine doesn't answer, which it doesn't while it is restarted, the module tries again until O(timeout).
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
  - mazevault.backup._stack
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description: What is wanted of the containers.
    type: str
    required: true
    choices: [started, stopped]
  roles:
    description:
      - Roles to start or stop. Unset means the application, that is all but postgres, redis and what runs once; V(all)
        takes in postgres and redis.
      - What is started needs postgres and redis, so these are started with it.
    type: list
    elements: str
  timeout:
    description: Seconds that all of it may take.
    type: float
    default: 300
seealso:
  - module: mazevault.backup.mazevault_stack_info
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Stop the application, the database runs on
  mazevault.backup.mazevault_stack:
    state: stopped

- name: Start all of it
  mazevault.backup.mazevault_stack:
    state: started
    roles: all
"""

RETURN = r"""
project:
  description: Name of the compose project.
  type: str
  returned: success
  sample: mazevault
actions:
  description: What was done, or would be in check mode, one line each.
  type: list
  elements: str
  returned: success
  sample: [start mazevault-backend-1]
states:
  description: State by name of container, of the roles that were asked for. In check mode what it would be.
  type: dict
  returned: success
  sample: {mazevault-backend-1: running}
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _compose, _module, _stack
from ansible_collections.mazevault.backup.plugins.module_utils._engine import PATIENCE, Engine, EngineAway
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError

# Seconds after which a container that has to be started again and again is given up; an engine that is being stopped
# takes down what runs, or refuses to start it, for a while.
_FAILING = 20.0


class Work:
    """One run of the module; what was done survives an engine that goes away in between."""

    def __init__(self, module: AnsibleModule) -> None:
        self.params, self.check = module.params, module.check_mode
        self.engine = Engine(self.params["runtime"])
        self.services = _stack.overrides_of(self.params["services"] or {})
        self.roles = _stack.wanted_roles(self.params["roles"])
        self.deadline: float = time.monotonic() + self.params["timeout"]
        self.actions: list[str] = []
        self.before: dict[str, str] | None = None
        self.planned: dict[str, str] = {}

    @property
    def left(self) -> float:
        return max(1.0, self.deadline - time.monotonic())

    def look(self) -> _stack.Stack | None:
        """The containers; None where there are none yet, but files to make them from."""
        name, home = self.params["project"] or "", self.params["home"]
        try:
            return _compose.look(self.engine, project=name, services=self.services, home=home)
        except _stack.NotFound:
            if self.params["state"] == "started" and _compose.project_of(None, name=name, home=home).files:
                return None
            raise

    def run(self) -> dict[str, t.Any]:
        stack = self.look()
        again = self.before is not None
        self.before = self.before if self.before is not None else self.states(stack)
        if self.params["state"] == "stopped" and stack:
            self.do(_stack.steps_to_stop(stack, self.roles), "exited")
        else:
            stack = self.start(stack)
        after = {**self.states(stack), **self.planned} if self.check else self.states(self.look())
        return {
            # A call that the engine's end broke off may have done its work.
            "changed": bool(self.actions) or (again and after != self.before),
            "project": stack.project if stack else self.params["project"] or _compose.DEFAULT_PROJECT,
            "actions": self.actions,
            "states": after,
            "diff": {"before": _lines(self.before), "after": _lines(after)},
        }

    def states(self, stack: _stack.Stack | None) -> dict[str, str]:
        return {found.name: found.status for found in stack.of(*self.roles)} if stack else {}

    def start(self, stack: _stack.Stack | None) -> _stack.Stack | None:
        first = [role for role in _stack.STORES if role in self.roles or set(self.roles) - set(_stack.STORES)]
        then = [role for role in self.roles if role not in _stack.STORES]
        missing = self.missing(stack, first + then)
        if stack is None and not missing:
            raise BackupError(
                f"home: {self.params['home']}: no container is there, and nothing to make one from",
                hint="Install a compose program, or start MazeVault once the way that it was installed.",
            )
        self.up([name for name, role in missing.items() if role in _stack.STORES])
        # Half of the time is for what the others need: an application must not stay down for a sick neighbour.
        late = self.converge(first, lambda found: found.ready, time.monotonic() + self.left / 2)
        down = self.converge(then, lambda found: found.up, self.deadline)
        self.up([name for name, role in missing.items() if role not in _stack.STORES])
        if late or down:
            raise t.cast("BackupError", late or down)
        return stack

    def converge(
        self, roles: t.Sequence[str], good: t.Callable[[_stack.Container], bool], deadline: float
    ) -> BackupError | None:
        """Start what isn't up until all of it is good, and stays so for a moment; the error is for the end."""
        began, settled = time.monotonic(), True
        while True:
            found = self.found(roles)
            steps = _stack.steps_to_start(found, roles)
            error = self.attempt(steps)
            bad = [one for one in found if not good(one)]
            if self.check or (settled and not steps and not bad):
                return error
            settled = not steps and not bad
            now = time.monotonic()
            if bad and (now >= deadline or (steps and now - began > _FAILING)):
                return error or _late(bad, now - began)
            time.sleep(1)

    def attempt(self, steps: t.Sequence[_stack.Step]) -> BackupError | None:
        try:
            self.do(steps, "running")
        except EngineAway:
            raise
        except BackupError as exc:
            return exc
        return None

    def found(self, roles: t.Sequence[str]) -> list[_stack.Container]:
        stack = self.look()
        return stack.of(*roles) if stack else []

    def project(self) -> tuple[_stack.Stack | None, _compose.Project]:
        stack = self.look()
        return stack, _compose.project_of(stack, name=self.params["project"] or "", home=self.params["home"])

    def missing(self, stack: _stack.Stack | None, roles: t.Sequence[str]) -> dict[str, str]:
        """Services of these roles that have no container, in the order of the roles: name -> role."""
        have = {found.service for found in stack.containers} if stack else set()
        held = set(stack.roles) if stack else set()
        project = _compose.project_of(stack, name=self.params["project"] or "", home=self.params["home"])
        if not project.files or not set(roles) - held:
            return {}
        compose = _compose.find_compose(self.engine)
        if compose is None:
            return {}
        named = {name: role for role, name in self.services.items()}
        found = {
            name: named.get(name) or _stack.role_of(name, project.name)
            for name in compose.services(project)
            if name not in have
        }
        return {name: role for role in roles for name, its in found.items() if its == role and role not in held}

    def do(self, steps: t.Sequence[_stack.Step], state: str) -> None:
        for step in steps:
            if not self.check:
                # An engine waits ten seconds for each container before it kills.
                patience = max(PATIENCE, self.left)
                self.engine.call(f"{step.verb}: {', '.join(step.names)}", step.verb, *step.names, timeout=patience)
            self.note(step.verb, step.names, state)

    def note(self, verb: str, names: t.Sequence[str], state: str) -> None:
        for name in names:
            if f"{verb} {name}" not in self.actions:
                self.actions.append(f"{verb} {name}")
            self.planned[name] = state

    def up(self, names: list[str]) -> None:
        if not names:
            return
        if not self.check:
            stack, project = self.project()
            compose = _compose.find_compose(self.engine)
            if compose is None:
                raise BackupError("home: no compose program", hint="Install the engine's compose program.")
            result = compose.up(project, names, timeout=self.left)
            if result.rc != 0:
                # The engine may have gone away: then it is asked again later.
                self.engine.call("engine", "version")
                environments = [found.environment for found in (stack.containers if stack else ())]
                secrets = [project.settings().secrets, *environments]
                said = _stack.redacted(result.stderr, secrets).strip().splitlines()[-5:]
                raise BackupError(
                    f"{compose.name}: up {' '.join(names)} failed (exit status {result.rc}): {' '.join(said)}",
                    hint=f"Try by hand in {project.folder}: {compose.name} --project-name {project.name} up --detach",
                )
        self.note("up", names, "running")


def _late(bad: t.Sequence[_stack.Container], waited: float) -> BackupError:
    shown = ", ".join(f"{one.name} is {one.health if one.status == 'running' else one.status}" for one in bad)
    return BackupError(f"timeout: after {waited:.0f} s {shown}", hint=f"Look at it: docker logs {bad[0].name}")


def _lines(states: t.Mapping[str, str]) -> str:
    return "".join(f"{name}: {state}\n" for name, state in sorted(states.items()))


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    if module.params["timeout"] <= 0:
        raise BackupError(f"timeout: {module.params['timeout']}: not above 0", hint="Give a number of seconds.")
    work = Work(module)
    return _compose.with_patience(work.run, timeout=module.params["timeout"])


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            **_compose.STACK_SPEC,
            "state": {"type": "str", "required": True, "choices": ["started", "stopped"]},
            "roles": {"type": "list", "elements": "str"},
            "timeout": {"type": "float", "default": 300},
        },
        supports_check_mode=True,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
