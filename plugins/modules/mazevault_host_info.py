#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: mazevault_host_info
short_description: Whether a host has the programs that backups need
version_added: 0.1.0
description:
  - Looks for the programs that backups start on the host itself, asks each for its version, and says what is missing
    and what to install. It changes nothing.
  - What MazeVault runs there is told by M(mazevault.backup.mazevault_stack_info).
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  encryption:
    description: How sets will be encrypted; V(age) is a program of its own.
    type: str
    default: cms
    choices: [cms, age, none]
  runtime:
    description:
      - Where the database runs. With V(host) PostgreSQL's programs have to be on the host; beside a container those of
        its image are used.
    type: str
    default: docker
    choices: [host, docker, podman]
  bin_dir:
    description: Folder of PostgreSQL's programs. Unset means that they are looked for.
    type: path
seealso:
  - module: mazevault.backup.mazevault_stack_info
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: What does this host lack?
  mazevault.backup.mazevault_host_info:
    runtime: podman
  register: host

- name: Say it
  ansible.builtin.debug:
    var: host.missing
"""

RETURN = r"""
account:
  description: Name of the account that modules run as there.
  type: str
  returned: success
  sample: root
root:
  description: Whether that is root.
  type: bool
  returned: success
system:
  description: What the system calls itself.
  type: str
  returned: success
  sample: Rocky Linux 9.4 (Blue Onyx)
python:
  description: Version of the Python that modules run in.
  type: str
  returned: success
  sample: 3.9.18
programs:
  description: The programs that are needed.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: The program.
      type: str
    path:
      description: Where it is, null where it isn't there.
      type: str
    version:
      description: What it says its version is, empty where it says none.
      type: str
    problem:
      description: What is wrong with it and what to do, empty where nothing is.
      type: str
engines:
  description: Engines of containers that are installed, with their versions.
  type: dict
  returned: success
  sample: {docker: 28.2.2}
missing:
  description: What is missing or too old, one sentence each with what to do.
  type: list
  elements: str
  returned: success
"""

import importlib.util
import os
import platform
import pwd
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _module, _requirements
from ansible_collections.mazevault.backup.plugins.module_utils._engine import KINDS
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._process import TimedOut
from ansible_collections.mazevault.backup.plugins.module_utils._programs import HostRuntime

_PSYCOPG2 = "psycopg2: missing in the Python that runs on this host. Install python3-psycopg2."


def _answer(runtime: HostRuntime, need: _requirements.Requirement) -> tuple[str | None, str | None]:
    """Path, and what it says when it is asked for its version; both None where it isn't there."""
    if not runtime.has(need.name):
        return None, None
    path = runtime.program(need.name)
    try:
        done = runtime.processes.run([path, need.ask], timeout=30)
    except (BackupError, OSError, TimedOut):
        return path, ""
    return path, done.stdout or done.stderr


def _looked(runtime: HostRuntime, need: _requirements.Requirement) -> dict[str, t.Any]:
    path, answer = _answer(runtime, need)
    return {
        "name": need.name,
        "path": path,
        "version": _requirements.version_of(answer or ""),
        "problem": _requirements.problem(need, answer),
    }


def _account() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _system() -> str:
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as stream:
                return _requirements.words_of(stream)
    return platform.system()


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    bin_dir = params["bin_dir"] or ""
    if bin_dir and not os.path.isdir(bin_dir):
        raise BackupError(f"bin_dir: {bin_dir}: no such folder", hint="Name the folder of the PostgreSQL programs.")
    runtime = HostRuntime(bin_dir)
    programs = [
        _looked(runtime, need)
        for need in _requirements.required(encryption=params["encryption"], runtime=params["runtime"])
    ]
    missing = [found["problem"] for found in programs if found["problem"]]
    if params["runtime"] == "host" and importlib.util.find_spec("psycopg2") is None:
        missing.append(_PSYCOPG2)
    engines = [_looked(runtime, _requirements.Requirement(name)) for name in KINDS]
    return {
        "changed": False,
        "account": _account(),
        "root": os.geteuid() == 0,
        "system": _system(),
        "python": platform.python_version(),
        "programs": programs,
        "engines": {found["name"]: found["version"] for found in engines if found["path"]},
        "missing": missing,
    }


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            "encryption": {"type": "str", "default": "cms", "choices": ["cms", "age", "none"]},
            "runtime": {"type": "str", "default": "docker", "choices": ["host", *KINDS]},
            "bin_dir": {"type": "path"},
        },
        supports_check_mode=True,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
