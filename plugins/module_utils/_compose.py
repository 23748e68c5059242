# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""A compose project on this host: its containers, the program that made them, and its files.

What the compose program writes holds secrets: it is parsed in memory, and its messages are passed on without values.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import typing as t
from dataclasses import dataclass

from ansible_collections.mazevault.backup.plugins.module_utils._differences import Wanted, wanted_of_env_file
from ansible_collections.mazevault.backup.plugins.module_utils._discovery import choose
from ansible_collections.mazevault.backup.plugins.module_utils._engine import Engine, EngineAway, Missing
from ansible_collections.mazevault.backup.plugins.module_utils._env_file import Settings, settings_of
from ansible_collections.mazevault.backup.plugins.module_utils._process import Result
from ansible_collections.mazevault.backup.plugins.module_utils._stack import Stack, container_of

# As compose looks for them; the first main file counts, with the override of the same kind.
_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_OVERRIDES = (
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
STACK_SPEC: dict[str, t.Any] = {
    "runtime": {"type": "str", "default": "docker", "choices": ["docker"]},
    "project": {"type": "str"},
    "services": {"type": "dict"},
    "home": {"type": "path", "default": "/opt/mazevault"},
}
DEFAULT_PROJECT = "mazevault"
_PAUSE = 2.0

T = t.TypeVar("T")


@dataclass(frozen=True)
class Project:
    """Where the files of a compose project are."""

    name: str
    folder: str
    files: tuple[str, ...]
    missing: tuple[str, ...] = ()

    @property
    def env_file(self) -> str:
        return os.path.join(self.folder, ".env") if self.folder else ""

    def settings(self) -> Settings:
        """What `.env` says; nothing where there is none."""
        try:
            with open(self.env_file, encoding="utf-8", errors="replace", newline="") as stream:
                return settings_of(stream.read())
        except FileNotFoundError:
            return Settings()
        except OSError as exc:
            return Settings(unreadable=exc.strerror or "unreadable")


def project_of(stack: Stack | None, *, name: str = "", home: str = "") -> Project:
    """The files that the containers were made from; without containers those in `home`."""
    named = [os.path.join(stack.folder, path) for path in stack.files] if stack else []
    there = [path for path in named if os.path.isfile(path)]
    folder = stack.folder if stack and os.path.isdir(stack.folder) else home
    if not there and folder:
        mains = [path for path in (os.path.join(folder, file) for file in _FILES) if os.path.isfile(path)]
        extras = [path for path in (os.path.join(folder, file) for file in _OVERRIDES) if os.path.isfile(path)]
        there = mains[:1] + (extras[:1] if mains else [])
    return Project(
        name=(stack.project if stack else name) or DEFAULT_PROJECT,
        folder=folder,
        files=tuple(there),
        missing=tuple(path for path in named if path not in there),
    )


@dataclass(frozen=True)
class Compose:
    """The compose program of a host.

    Attributes:
        name: what people call it: `docker compose` or `docker-compose`.
        command: the words that start it.
    """

    engine: Engine
    name: str
    command: tuple[str, ...]
    version: str

    def run(self, project: Project, *arguments: str, timeout: float = 60.0) -> Result:
        files = [word for path in project.files for word in ("--file", path)]
        where = ["--project-directory", project.folder] if project.folder else []
        return self.engine.processes.run(
            [*self.command, "--project-name", project.name, *where, *files, *arguments],
            env={"HOME": os.environ.get("HOME", "/")},
            timeout=timeout,
        )

    def services(self, project: Project) -> list[str]:
        """Names of the services in the files; none where they can't be read."""
        result = self.run(project, "config", "--services")
        return result.stdout.split() if result.rc == 0 else []

    def wanted(self, project: Project) -> dict[str, Wanted] | None:
        """What the files want of each service; None: they can't be read by this program."""
        result = self.run(project, "config", "--format", "json")
        if result.rc == 0:
            return wanted_of_json(result.stdout)
        result = self.run(project, "config")
        return wanted_of_yaml(result.stdout) if result.rc == 0 else None

    def up_command(self, services: t.Sequence[str], help_text: str) -> list[str]:
        """Make what isn't there, out of images that are there; leave alone what is."""
        limits = ["--no-recreate", "--no-build"]
        if re.search(r"^\s+--pull\b", help_text, re.MULTILINE):
            limits += ["--pull", "never"]
        return ["up", "--detach", *limits, *services]

    def up(self, project: Project, services: t.Sequence[str], *, timeout: float) -> Result:
        help_text = self.run(project, "up", "--help").stdout
        return self.run(project, *self.up_command(services, help_text), timeout=timeout)


def wanted_of_json(text: str) -> dict[str, Wanted] | None:
    """`docker compose config --format json`."""
    try:
        services = json.loads(text)["services"]
        return {
            str(name): Wanted(
                image=said.get("image") or None,
                environment={
                    key: str(value) for key, value in (said.get("environment") or {}).items() if value is not None
                },
            )
            for name, said in services.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def wanted_of_yaml(text: str) -> dict[str, Wanted] | None:
    """The images in what `docker-compose config` writes: always two spaces a level, and one key a line."""
    found: dict[str, Wanted] = {}
    section = service = ""
    for line in text.splitlines():
        if top := re.match(r"([\w-]+):", line):
            section, service = top[1], ""
        elif section == "services" and (named := re.fullmatch(r"  ['\"]?([\w.-]+)['\"]?:\s*(?:\{\})?", line)):
            service = named[1]
            found[service] = Wanted()
        elif service and (image := re.fullmatch(r"    image:\s*['\"]?([^'\"\s]+)['\"]?\s*", line)):
            found[service] = Wanted(image[1])
    return found or None


def find_compose(engine: Engine) -> Compose | None:
    """The engine's own compose, else the older program; None where there is neither."""
    result = engine.run("compose", "version", "--short")
    version = _version(result)
    if version:
        return Compose(engine, f"{engine.name} compose", (engine.program, "compose"), version)
    older = f"{engine.name}-compose"
    path = shutil.which(older) or shutil.which(older, path="/usr/local/bin:/usr/bin:/bin")
    if path:
        version = _version(engine.processes.run([path, "version", "--short"], timeout=60))
        if version:
            return Compose(engine, older, (path,), version)
    return None


def _version(result: Result) -> str:
    found = re.search(r"\d+\.\d+(?:\.\d+)?", result.stdout) if result.rc == 0 else None
    return found[0] if found else ""


def engine_version(engine: Engine) -> str:
    said = json.loads(engine.call("version", "version", "--format", "{{json .}}") or "{}")
    return str((said.get("Server") or said.get("Client") or {}).get("Version") or "")


def look(engine: Engine, *, project: str = "", services: t.Mapping[str, str] | None = None, home: str = "") -> Stack:
    """The installation among the engine's containers.

    Raises:
        NotFound: none is there.
        BackupError: more than one fits.
    """
    names = engine.call("containers", "ps", "--all", "--quiet", "--no-trunc").split()
    try:
        said = engine.inspect(names)
    except Missing:
        # One of them went away meanwhile.
        said = engine.containers()
    return choose((container_of(entry) for entry in said), project=project, services=services, home=home)


def image_facts(engine: Engine, references: t.Iterable[str]) -> dict[str, dict[str, t.Any]]:
    """Reference: what the engine knows of the image; those that aren't there are left out."""
    found = {}
    for reference in sorted(set(references)):
        try:
            found[reference] = engine.inspect([reference], kind="image")[0]
        except (Missing, IndexError):
            continue
    return found


def wanted_of_files(compose: Compose | None, project: Project, stack: Stack) -> dict[str, Wanted]:
    """What the files want: asked of the compose program, else read from `.env` as far as that goes."""
    asked = compose.wanted(project) if compose and project.files else None
    settings = wanted_of_env_file(stack, project.settings())
    if asked is None:
        return settings
    return {
        service: said if said.environment is not None else Wanted(said.image, settings.get(service, said).environment)
        for service, said in asked.items()
    }


def with_patience(action: t.Callable[[], T], *, timeout: float) -> T:
    """Repeat the action while the engine is away: it may be restarting."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return action()
        except EngineAway:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE)
