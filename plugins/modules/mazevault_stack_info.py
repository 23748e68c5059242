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
engine_version:
  description: Version of the engine.
  type: str
  returned: success
project:
  description: Name of the compose project.
  type: str
  returned: success
  sample: mazevault
why:
  description: What tells that it is MazeVault, such as an image, a variable's name, or V(mazevault_project).
  type: str
  returned: success
  sample: image ghcr.io/axiemirror/mazevault-backend
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
      description: What it is called, V(docker compose) or V(docker-compose).
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
    why:
      description:
        - What tells its role, V(service name), V(container name), V(image), V(program), V(mazevault_services), or the
          variable by which the application finds its database.
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
      description: Name of the database, empty where nothing tells it, or only a file in the container.
      type: str
    said_by:
      description: The variable that tells the database. The application's own word wins.
      type: str
database:
  description: Where the application says its database is, null where it doesn't, or not clearly. Never the password.
  type: dict
  returned: success
  contains:
    host:
      description: Name or address, as the application knows it.
      type: str
    port:
      description: Port.
      type: str
    user:
      description: Role that the application connects as.
      type: str
    database:
      description: Name of the database.
      type: str
    said_by:
      description: The variable that says it.
      type: str
ask:
  description:
    - Why it isn't certain which container holds the database, and which variable decides; empty where it is certain.
      RV(postgres) is null then.
  type: str
  returned: success
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

from ansible_collections.mazevault.backup.plugins.module_utils import _compose, _differences, _module, _stack
from ansible_collections.mazevault.backup.plugins.module_utils._engine import Engine
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError

_NONE: dict[str, t.Any] = {
    "changed": False,
    "found": False,
    "reason": "",
    "runtime": "",
    "engine_version": "",
    "project": "",
    "why": "",
    "home": "",
    "compose": None,
    "containers": [],
    "roles": {},
    "postgres": None,
    "database": None,
    "ask": "",
    "stop": [],
    "start": [],
    "differences": [],
    "ready": False,
    "problems": [],
}


def _found(engine: Engine, params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    stack = _look(engine, params)
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
    differing = _differences.differences(stack, wanted, {name: str(facts.get("Id")) for name, facts in now.items()})
    worth = _stack.problems(stack) + [_differences.said_of(entry) for entry in differing]
    worth += _of_settings(project, stack, compared=compose is None)
    if project.missing:
        worth.append(f"compose files that the containers were made from are gone: {', '.join(project.missing)}")
    users = stack.of(*_stack.DATABASE_USERS)
    names = [found.name for found in users]
    return {
        **_NONE,
        "found": True,
        "runtime": engine.name,
        "engine_version": _compose.engine_version(engine),
        "project": stack.project,
        "why": stack.why,
        "home": project.folder,
        "compose": {"program": compose.name, "version": compose.version, "files": list(project.files)}
        if compose
        else None,
        "containers": [found.public() for found in stack.containers],
        "roles": stack.roles,
        "postgres": _postgres(stack),
        "database": _database(stack),
        "ask": stack.ask,
        "stop": [engine.program, "stop", *names] if names else [],
        "start": [engine.program, "start", *names] if names else [],
        "differences": differing,
        "ready": bool(users) and all(found.ready for found in users),
        "problems": worth,
    }


def _of_settings(project: _compose.Project, stack: _stack.Stack, *, compared: bool) -> list[str]:
    """What is wrong with `.env`, and which names nobody could compare with it."""
    settings = project.settings()
    if settings.unreadable:
        return [f"{project.env_file} can't be read: {settings.unreadable}"]
    if settings.refused:
        return [f"{project.env_file}: line {settings.refused} is no setting, and compose refuses the whole file"]
    used = {name for found in stack.containers for name in found.environment}
    names = sorted(used & set(settings.unknown)) if compared else []
    return [f"{project.env_file} takes these from elsewhere, they aren't compared: {', '.join(names)}"] if names else []


def _database(stack: _stack.Stack) -> dict[str, t.Any] | None:
    said = stack.database
    if said is None:
        return None
    return {
        "host": said.host,
        "port": said.port,
        "user": said.user,
        "database": said.database,
        "said_by": said.said_by,
    }


def _postgres(stack: _stack.Stack) -> dict[str, t.Any] | None:
    found = stack.postgres
    if found is None:
        return None
    user, database, said_by = _stack.database_of(stack)
    return {
        "container": found.name,
        "state": found.status,
        "image": found.image,
        "user": user,
        "database": database,
        "said_by": said_by,
    }


def _look(engine: Engine, params: t.Mapping[str, t.Any]) -> _stack.Stack:
    services = _stack.overrides_of(params["services"] or {})
    return _compose.look(engine, project=params["project"] or "", services=services, home=params["home"])


def _wait(engine: Engine, params: t.Mapping[str, t.Any]) -> None:
    deadline = time.monotonic() + params["wait"]
    while time.monotonic() < deadline:
        stack = _compose.with_patience(lambda: _look(engine, params), timeout=params["timeout"])
        users = stack.of(*_stack.DATABASE_USERS)
        if users and all(found.ready for found in users):
            return
        time.sleep(1)


def _absent(engine: Engine) -> str:
    try:
        return "" if engine.program else "no engine"
    except BackupError as exc:
        return exc.msg


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    engine = Engine(params["runtime"])
    if not params["required"]:
        reason = _absent(engine)
        if reason:
            return {**_NONE, "reason": reason}
    try:
        if params["wait"] > 0 and not module.check_mode:
            _wait(engine, params)
        return _compose.with_patience(lambda: _found(engine, params), timeout=params["timeout"])
    except _stack.NotFound as exc:
        if params["required"]:
            raise
        files = _compose.project_of(None, home=params["home"]).files
        # It isn't on the host: it is down.
        if files:
            raise BackupError(
                f"home: {files[0]} is there, but no container that was made from it",
                hint="Start MazeVault, or set mazevault_runtime: host if it isn't in containers.",
            ) from exc
        return {**_NONE, "reason": exc.msg}


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
