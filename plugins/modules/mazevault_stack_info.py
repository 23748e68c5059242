#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: mazevault_stack_info
short_description: What a host runs of MazeVault in containers
version_added: 0.1.0
description:
  - Finds the compose project, its services by role, their images, volumes and states, and what differs from the files.
    It changes nothing.
  - It returns names of environment variables and never a value, but for the database's user and name.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
  - mazevault.backup._stack
attributes:
  check_mode:
    support: full
    details: It doesn't wait for anything then.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  required:
    description:
      - Whether it is an error that there is no MazeVault in containers, or no engine.
      - An engine that is installed and doesn't answer is an error either way, as nobody knows what it would run.
    type: bool
    default: true
  timeout:
    description: Seconds to wait for an engine that doesn't answer; it may be restarting.
    type: float
    default: 30
  wait:
    description:
      - Seconds to wait until what uses the database (backend and ocsp) runs, and is healthy where that is checked.
      - What isn't ready then is no error; see RV(ready).
    type: float
    default: 0
seealso:
  - module: mazevault.backup.mazevault_stack
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: What runs here?
  mazevault.backup.mazevault_stack_info:
    home: /opt/mazevault
  register: stack

- name: Show the database's container
  ansible.builtin.debug:
    msg: "{{ stack.postgres.container }} holds {{ stack.postgres.database }}"

- name: Names that nobody could guess
  mazevault.backup.mazevault_stack_info:
    project: secrets
    services:
      postgres: pg-main
      backend: api
"""

RETURN = r"""
found:
  description: Whether a stack was found. False only with O(required=false); the other values are then empty.
  type: bool
  returned: success
reason:
  description: Why none was found.
  type: str
  returned: success
runtime:
  description: The engine, empty where no stack was found.
  type: str
  returned: success
  sample: docker
engines:
  description: The engines that were asked.
  type: list
  elements: str
  returned: success
  sample: [docker, podman]
engine_version:
  description: Version of the engine.
  type: str
  returned: success
project:
  description: Name of the compose project.
  type: str
  returned: success
  sample: mazevault
home:
  description: Folder of the compose files.
  type: str
  returned: success
  sample: /opt/mazevault
compose:
  description: The compose program, null where there is none.
  type: dict
  returned: success
  contains:
    program:
      description: What it is called, V(docker compose), V(docker-compose), V(podman-compose) or V(podman compose).
      type: str
    version:
      description: Its version.
      type: str
    files:
      description: Files of the project.
      type: list
      elements: str
containers:
  description: The project's containers.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: Its name.
      type: str
    id:
      description: Its id.
      type: str
    service:
      description: Name of its service.
      type: str
    role:
      description: Its role, empty for a service that isn't MazeVault's.
      type: str
    state:
      description: V(running), V(paused), V(restarting), V(exited), V(created) or V(dead).
      type: str
    health:
      description: V(healthy), V(unhealthy), V(starting), or empty where that isn't checked.
      type: str
    exit_code:
      description: Status that it ended with.
      type: int
    restarts:
      description: How often the engine started it again.
      type: int
    started:
      description: When it was started.
      type: str
    image:
      description: The image as it was asked for.
      type: str
    image_tag:
      description: Its tag.
      type: str
    image_id:
      description: Id of the image that it runs.
      type: str
    repo_digests:
      description: Digests by which registries know the image.
      type: list
      elements: str
    mounts:
      description: Volumes (by name) and folders, each with V(type), V(name), V(source), V(destination), V(read_only).
      type: list
      elements: dict
    networks:
      description: Names of its networks.
      type: list
      elements: str
    ports:
      description: Published ports, each with V(container), V(host_ip), V(host).
      type: list
      elements: dict
    restart_policy:
      description: What the engine does when it ends.
      type: str
    environment_names:
      description: Names of its environment variables.
      type: list
      elements: str
roles:
  description: Names of containers by role.
  type: dict
  returned: success
  sample: {postgres: [mazevault-postgres-1], backend: [mazevault-backend-1]}
postgres:
  description: The database's container, null where the stack has none.
  type: dict
  returned: success
  contains:
    container:
      description: Name of the container.
      type: str
    state:
      description: Its state.
      type: str
    image:
      description: Its image.
      type: str
    user:
      description: Role that owns the server, empty where only a file in the container says it.
      type: str
    database:
      description: Name of the database, empty where only a file in the container says it.
      type: str
stop:
  description: Command that stops what uses the database, a list of words. It needs neither files nor a compose program.
  type: list
  elements: str
  returned: success
  sample: [/usr/bin/docker, stop, mazevault-backend-1, mazevault-ocsp-1]
start:
  description: Command that starts it again, without making any container anew.
  type: list
  elements: str
  returned: success
  sample: [/usr/bin/docker, start, mazevault-backend-1, mazevault-ocsp-1]
differences:
  description: What is in use and isn't what the files say.
  type: list
  elements: dict
  returned: success
  contains:
    service:
      description: Name of the service.
      type: str
    container:
      description: Name of the container.
      type: str
    what:
      description: V(image), V(image_id) (the tag stands for another image now), or V(environment).
      type: str
    in_use:
      description: The image in use, null for V(environment).
      type: str
    files:
      description: The image that the files want, null for V(environment).
      type: str
    names:
      description: Names of environment variables that differ.
      type: list
      elements: str
ready:
  description: Whether what uses the database runs, and is healthy where that is checked.
  type: bool
  returned: success
problems:
  description: What is wrong or worth knowing, one sentence each.
  type: list
  elements: str
  returned: success
"""

import time
import typing as t
from dataclasses import replace

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _compose, _module, _stack
from ansible_collections.mazevault.backup.plugins.module_utils._engine import Engine
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError

_NONE: dict[str, t.Any] = {
    "changed": False,
    "found": False,
    "reason": "",
    "runtime": "",
    "engines": [],
    "engine_version": "",
    "project": "",
    "home": "",
    "compose": None,
    "containers": [],
    "roles": {},
    "postgres": None,
    "stop": [],
    "start": [],
    "differences": [],
    "ready": False,
    "problems": [],
}


def _found(engines: list[Engine], params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    found = _look(engines, params)
    engine, stack = found.engine, found.stack
    images = _compose.image_facts(engine, [found.image_id for found in stack.containers])
    stack = replace(
        stack,
        containers=tuple(
            replace(found, repo_digests=tuple(images.get(found.image_id, {}).get("RepoDigests") or ()))
            for found in stack.containers
        ),
    )
    project = _compose.project_of(stack, home=params["home"])
    compose = _compose.find_compose(engine)
    wanted = _compose.wanted_of_files(compose, project, stack)
    now = _compose.image_facts(engine, [said.image for said in wanted.values() if said.image])
    ids = {name: _stack.with_algorithm(str(facts.get("Id"))) for name, facts in now.items()}
    differing = _stack.differences(stack, wanted, ids)
    worth = [f"{said}; what it runs is not known" for said in found.unknown]
    worth += _stack.problems(stack) + [_stack.said_of(entry) for entry in differing]
    if project.missing:
        worth.append(f"compose files that the containers were made from are gone: {', '.join(project.missing)}")
    users = stack.of(*_stack.DATABASE_USERS)
    names = [found.name for found in users]
    return {
        **_NONE,
        "found": True,
        "runtime": engine.name,
        "engines": [one.name for one in engines],
        "engine_version": _compose.engine_version(engine),
        "project": stack.project,
        "home": project.folder,
        "compose": {"program": compose.name, "version": compose.version, "files": list(project.files)}
        if compose
        else None,
        "containers": [found.public() for found in stack.containers],
        "roles": stack.roles,
        "postgres": _postgres(stack.postgres),
        "stop": [engine.program, "stop", *names] if names else [],
        "start": [engine.program, "start", *names] if names else [],
        "differences": differing,
        "ready": bool(users) and all(found.ready for found in users),
        "problems": worth,
    }


def _postgres(found: _stack.Container | None) -> dict[str, t.Any] | None:
    if found is None:
        return None
    user, database = _stack.database_of(found)
    return {
        "container": found.name,
        "state": found.status,
        "image": found.image,
        "user": user,
        "database": database,
    }


def _look(engines: list[Engine], params: t.Mapping[str, t.Any]) -> _compose.Found:
    return _compose.find(
        engines, project=params["project"] or "", services=_stack.overrides_of(params["services"] or {})
    )


def _wait(engines: list[Engine], params: t.Mapping[str, t.Any]) -> None:
    deadline = time.monotonic() + params["wait"]
    while time.monotonic() < deadline:
        stack = _compose.with_patience(lambda: _look(engines, params), timeout=params["timeout"]).stack
        users = stack.of(*_stack.DATABASE_USERS)
        if users and all(found.ready for found in users):
            return
        time.sleep(1)


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    try:
        engines = _compose.engines_of(params["runtime"])
    except BackupError as exc:
        if params["required"]:
            raise
        return {**_NONE, "reason": exc.msg}
    try:
        if params["wait"] > 0 and not module.check_mode:
            _wait(engines, params)
        return _compose.with_patience(lambda: _found(engines, params), timeout=params["timeout"])
    except _stack.NotFound as exc:
        if params["required"]:
            raise
        return {**_NONE, "engines": [engine.name for engine in engines], "reason": exc.msg}


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            **_compose.STACK_SPEC,
            "required": {"type": "bool", "default": True},
            "timeout": {"type": "float", "default": 30},
            "wait": {"type": "float", "default": 0},
        },
        supports_check_mode=True,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
