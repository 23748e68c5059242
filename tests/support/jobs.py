# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks as AWX runs them: through ansible-runner."""

from __future__ import annotations

import os
import tempfile
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import ansible_runner
import yaml

from support.plays import TOP, Place


def public_variables() -> list[str]:
    """Every option of every entry point of every role."""
    names: set[str] = set()
    for path in TOP.glob("roles/*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            names.update(entry.get("options") or {})
    return sorted(names)


@dataclass(frozen=True)
class Job:
    """What a job in AWX shows of a run."""

    status: str
    events: list[dict[str, t.Any]] = field(repr=False)
    output: str = field(repr=False)

    def of(self, kind: str) -> list[dict[str, t.Any]]:
        return [event["event_data"] for event in self.events if event["event"] == kind]

    @property
    def tasks(self) -> dict[str, dict[str, t.Any]]:
        """Results by task; of a loop the whole."""
        done = [*self.of("runner_on_ok"), *self.of("runner_on_failed")]
        return {data["task"]: data["res"] for data in done}

    @property
    def failures(self) -> list[str]:
        return [str(data["res"].get("msg")) for data in self.of("runner_on_failed")]

    @property
    def changed(self) -> int:
        return sum(int(count) for count in self.of("playbook_on_stats")[0]["changed"].values())

    @property
    def artifacts(self) -> dict[str, t.Any]:
        return t.cast("dict[str, t.Any]", self.of("playbook_on_stats")[0].get("artifact_data", {}))

    def arguments(self, module: str) -> dict[str, t.Any]:
        """What a module of the collection was called with."""
        action = f"mazevault.backup.{module}"
        for data in self.of("runner_on_ok"):
            if data["task_action"] == action:
                return t.cast("dict[str, t.Any]", data["res"]["invocation"]["module_args"])
        raise AssertionError(f"{action} didn't run: {self.output}")


def run(
    place: Path,
    inventory: dict[str, t.Any] | str,
    playbook: str,
    extra: dict[str, t.Any],
    *options: str,
    env: Mapping[str, str] | None = None,
) -> Job:
    """One job: the checkout is the project, extra variables are the survey's answers."""
    (place / "home").mkdir(exist_ok=True)
    (place / "home/ansible.cfg").touch()
    hidden = {name: value for name, value in os.environ.items() if name.startswith(("ANSIBLE_", "PYTHONPATH"))}
    environment = {**Place(place).environment(), **(env or {})}
    for name in ("ANSIBLE_CALLBACKS_ENABLED", "ANSIBLE_CALLBACK_PLUGINS", "ANSIBLE_PIPELINING"):
        del environment[name]
    for name in hidden:
        del os.environ[name]
    try:
        done = ansible_runner.run(
            # It remembers options in files there.
            private_data_dir=tempfile.mkdtemp(dir=place),
            project_dir=str(TOP),
            playbook=f"playbooks/{playbook}.yml",
            inventory=inventory,
            extravars=extra,
            envvars=environment,
            cmdline=" ".join(options) or None,
            verbosity=3,
            quiet=True,
        )
    finally:
        os.environ.update(hidden)
    events = list(done.events)
    return Job(str(done.status), events, "\n".join(event["stdout"] for event in events))
