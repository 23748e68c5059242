# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Which containers are MazeVault, and what each of them is: decided from what the engine says, no I/O.

The environment of a container holds secrets. It is kept to compare it in memory; only names of variables, and the
database's user and name, ever leave this file.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field, replace

from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError

# Role: the words that services and containers of that role are called by, in all generations of names.
NAMES: dict[str, tuple[str, ...]] = {
    "postgres": ("postgres", "postgresql", "db", "database"),
    "redis": ("redis",),
    "backend": ("backend",),
    "ocsp": ("ocsp", "ocsp-responder"),
    "frontend": ("frontend",),
    "docs": ("docs",),
    "init_certs": ("init-certs",),
}
ROLES = tuple(NAMES)
# What the others need first.
STORES = ("postgres", "redis")
# Runs once and ends; that it isn't running is no fault.
ONE_SHOT = ("init_certs",)
APPLICATION = tuple(role for role in ROLES if role not in STORES + ONE_SHOT)
DATABASE_USERS = ("backend", "ocsp")

_ROLE_OF = {word: role for role, words in NAMES.items() for word in words}
_GENERATIONS = ("client-", "mazevault-")
_COMPOSE = ("com.docker.compose.", "io.podman.compose.")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
# `.env` names that the compose file hands over under another name.
_HANDED_OVER = {"MASTER_KEY": "MAZEVAULT_MASTER_KEY", "JWT_SECRET": "MAZEVAULT_JWT_KEY"}
UP = ("running", "paused", "restarting")


class NotFound(BackupError):
    """No container of MazeVault is there."""


@dataclass(frozen=True)
class Container:
    """One container, as the engine describes it."""

    name: str
    id: str
    created: str
    project: str
    service: str
    oneoff: bool
    folder: str
    files: tuple[str, ...]
    status: str
    health: str
    exit_code: int
    restarts: int
    started: str
    image: str
    image_id: str
    mounts: tuple[dict[str, t.Any], ...]
    networks: tuple[str, ...]
    ports: tuple[dict[str, t.Any], ...]
    restart_policy: str
    environment: t.Mapping[str, str] = field(repr=False)
    role: str = ""
    repo_digests: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        return split_image(self.image)[1]

    @property
    def up(self) -> bool:
        return self.status in UP

    @property
    def ready(self) -> bool:
        """Running, and healthy where that is checked."""
        return self.status == "running" and self.health in ("", "healthy")

    def public(self) -> dict[str, t.Any]:
        """What may be shown: names of environment variables, never a value."""
        return {
            "name": self.name,
            "id": self.id,
            "service": self.service,
            "role": self.role,
            "state": self.status,
            "health": self.health,
            "exit_code": self.exit_code,
            "restarts": self.restarts,
            "started": self.started,
            "image": self.image,
            "image_tag": self.tag,
            "image_id": self.image_id,
            "repo_digests": list(self.repo_digests),
            "mounts": [dict(mount) for mount in self.mounts],
            "networks": list(self.networks),
            "ports": [dict(port) for port in self.ports],
            "restart_policy": self.restart_policy,
            "environment_names": sorted(self.environment),
        }


@dataclass(frozen=True)
class Stack:
    """The containers of one installation."""

    project: str
    folder: str
    files: tuple[str, ...]
    containers: tuple[Container, ...]

    def of(self, *roles: str) -> list[Container]:
        """Containers of these roles, in the order of the roles."""
        return [found for role in roles for found in self.containers if found.role == role]

    @property
    def roles(self) -> dict[str, list[str]]:
        """Role: names of its containers."""
        return {role: [found.name for found in self.of(role)] for role in ROLES if self.of(role)}

    @property
    def postgres(self) -> Container | None:
        found = self.of("postgres")
        return found[0] if found else None


def container_of(said: t.Mapping[str, t.Any]) -> Container:
    """One entry of `docker container inspect`, or of podman's."""
    config, host = said.get("Config") or {}, said.get("HostConfig") or {}
    state, net = said.get("State") or {}, said.get("NetworkSettings") or {}
    labels = config.get("Labels") or {}
    health = (state.get("Health") or state.get("Healthcheck") or {}).get("Status") or ""
    policy = host.get("RestartPolicy") or {}
    return Container(
        name=str(said.get("Name", "")).lstrip("/"),
        id=str(said.get("Id", "")),
        created=str(said.get("Created", "")),
        project=_label(labels, "project"),
        service=_label(labels, "service"),
        oneoff=_label(labels, "oneoff").lower() == "true",
        folder=_label(labels, "project.working_dir"),
        files=tuple(name for name in _label(labels, "project.config_files").split(",") if name),
        status=_status(state),
        health="" if health == "none" else str(health),
        exit_code=int(state.get("ExitCode") or 0),
        restarts=int(said.get("RestartCount") or 0),
        started=str(state.get("StartedAt") or ""),
        image=str(config.get("Image") or said.get("ImageName") or ""),
        image_id=with_algorithm(str(said.get("Image") or "")),
        mounts=tuple(_mount(mount) for mount in said.get("Mounts") or ()),
        networks=tuple(sorted(net.get("Networks") or {})),
        ports=tuple(_ports(net.get("Ports") or {})),
        restart_policy=str(policy.get("Name") or "no"),
        environment=environment_of(config.get("Env") or ()),
    )


def _label(labels: t.Mapping[str, t.Any], name: str) -> str:
    return next((str(labels[start + name]) for start in _COMPOSE if labels.get(start + name)), "")


def _status(state: t.Mapping[str, t.Any]) -> str:
    # The engine also calls a container running while it waits for the next attempt of a restart loop.
    for flag in ("Restarting", "Paused"):
        if state.get(flag):
            return flag.lower()
    status = str(state.get("Status") or "unknown").lower()
    return {"stopped": "exited", "configured": "created"}.get(status, status)


def with_algorithm(image_id: str) -> str:
    return f"sha256:{image_id}" if _ANONYMOUS.fullmatch(image_id) else image_id


def _mount(mount: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    return {
        "type": str(mount.get("Type") or ""),
        "name": str(mount.get("Name") or ""),
        "source": str(mount.get("Source") or ""),
        "destination": str(mount.get("Destination") or ""),
        "read_only": not mount.get("RW", True),
    }


def _ports(ports: t.Mapping[str, t.Any]) -> t.Iterator[dict[str, t.Any]]:
    for inside, bindings in sorted(ports.items()):
        for binding in bindings or ():
            yield {"container": inside, "host_ip": binding.get("HostIp", ""), "host": binding.get("HostPort", "")}


def environment_of(entries: t.Iterable[str]) -> dict[str, str]:
    """`NAME=value` entries as a mapping; what has no proper name is left out, it could be the rest of a value."""
    found = {}
    for entry in entries:
        name, equals, value = str(entry).partition("=")
        if equals and _VARIABLE.fullmatch(name):
            found[name] = value
    return found


def split_image(image: str) -> tuple[str, str]:
    """(repository, tag) of an image reference; a digest is no tag."""
    plain = image.partition("@")[0]
    start, colon, tag = plain.rpartition(":")
    if not colon or "/" in tag:
        return plain, "" if "@" in image else "latest"
    return start, tag


def same_image(one: str, other: str) -> bool:
    """Whether two references mean the same; podman writes them in full."""
    return _short(one) == _short(other)


def _short(image: str) -> str:
    repository, tag = split_image(image)
    for start in ("docker.io/library/", "docker.io/", "library/", "localhost/"):
        if repository.startswith(start):
            repository = repository[len(start) :]
    return f"{repository}:{tag}@{image.partition('@')[2]}"


def role_of(name: str, project: str = "") -> str:
    """The role that a service's or container's name tells of, in any generation; else an empty string."""
    plain = re.sub(r"-\d+\Z", "", name.lower().replace("_", "-"))
    prefixes = [start for start in (f"{project.lower().replace('_', '-')}-", *_GENERATIONS) if start != "-"]
    tried = [plain]
    for tail in tried:
        if tail in _ROLE_OF:
            return _ROLE_OF[tail]
        tried += [tail[len(start) :] for start in prefixes if tail.startswith(start)]
    return ""


def _role_of_image(image: str) -> str:
    word = split_image(image)[0].rpartition("/")[2].lower()
    return role_of(word) if word.startswith("mazevault-") or word in ("postgres", "redis") else ""


def looks_like_mazevault(group: t.Sequence[Container]) -> bool:
    """Many applications have a `backend` and a `postgres`; something has to bear the product's name."""
    roles = {role_of(found.service, found.project) or role_of(found.name, found.project) for found in group}
    if not roles & {"postgres", "backend"}:
        roles |= {_role_of_image(found.image) for found in group}
    return bool(roles & {"postgres", "backend"}) and any(_sign(found) for found in group)


def _sign(found: Container) -> bool:
    named = [found.name.replace("_", "-"), found.service]
    return (
        "mazevault" in found.project.lower()
        or "mazevault" in split_image(found.image)[0].rpartition("/")[2].lower()
        or any(name.startswith("MAZEVAULT_") for name in found.environment)
        or any(name.startswith(_GENERATIONS) and role_of(name) for name in named)
    )


def overrides_of(services: t.Mapping[str, t.Any] | None) -> dict[str, str]:
    """The mapping role -> name as users give it; empty values are unset.

    Raises:
        BackupError: a role that nobody knows.
    """
    found = {}
    for role, name in (services or {}).items():
        key = str(role).replace("-", "_")
        if key not in ROLES:
            raise BackupError(
                f"services: {role}: no such role", hint=f"mazevault_services takes the roles {', '.join(ROLES)}."
            )
        if name not in (None, ""):
            found[key] = str(name)
    return found


def choose(
    containers: t.Iterable[Container], *, project: str = "", services: t.Mapping[str, str] | None = None
) -> Stack:
    """The installation among all containers of a host.

    Args:
        project: name of the compose project; empty means the one that looks like MazeVault.
        services: role -> name of a service or container, which wins over every guess.
    Raises:
        NotFound: nothing fits.
        BackupError: more than one thing fits.
    """
    services = services or {}
    everything = [found for found in containers if not found.oneoff and found.status != "removing"]
    groups: dict[str, list[Container]] = {}
    for found in everything:
        # Containers that no compose program made belong together when they bear a name of ours.
        if found.project or (found.name.startswith(_GENERATIONS) and role_of(found.name)):
            groups.setdefault(found.project, []).append(found)
    chosen = _group(groups, everything, project, services)
    members = _with_roles(groups.get(chosen, []), everything, services)
    _one_for_each_role(members, services)
    first = next((found for found in members if found.folder), None)
    return Stack(
        project=chosen,
        folder=first.folder if first else "",
        files=first.files if first else (),
        containers=tuple(sorted(members, key=lambda found: (_rank(found.role), found.name))),
    )


def _group(
    groups: t.Mapping[str, t.Sequence[Container]],
    everything: t.Sequence[Container],
    project: str,
    services: t.Mapping[str, str],
) -> str:
    if project:
        if project not in groups:
            raise NotFound(
                f"project: {project}: no container of this compose project is there",
                hint=f"Set mazevault_project to one of these: {', '.join(_named(groups))}."
                if _named(groups)
                else "No compose project is there; start MazeVault, or set mazevault_runtime.",
            )
        return project
    likely = [name for name, group in sorted(groups.items()) if looks_like_mazevault(group)]
    if not likely:
        # Names that the user gave are sign enough.
        named = set(services.values())
        likely = sorted({found.project for found in everything if {found.name, found.service} & named})
    if not likely:
        seen = ", ".join(_named(groups)) or "none"
        raise NotFound(
            f"project: no compose project that looks like MazeVault (projects on this host: {seen})",
            hint="Set mazevault_project to its name, mazevault_services to the names of its services,"
            " or mazevault_runtime: host if it isn't in containers.",
        )
    if len(likely) > 1:
        shown = "; ".join(f"{name or 'containers without a project'} {_about(groups.get(name, ()))}" for name in likely)
        raise BackupError(
            f"project: {len(likely)} compose projects look like MazeVault: {shown}",
            hint=f"Set mazevault_project to the one that is meant, for example {max(likely)}.",
        )
    return likely[0]


def _named(groups: t.Mapping[str, t.Any]) -> list[str]:
    return sorted(name for name in groups if name)


def _about(group: t.Sequence[Container]) -> str:
    folder = next((found.folder for found in group if found.folder), "")
    names = ", ".join(sorted(found.name for found in group))
    return f"({folder + ': ' if folder else ''}{names}; {sum(found.up for found in group)} of {len(group)} run)"


def _rank(role: str) -> int:
    return ROLES.index(role) if role in ROLES else len(ROLES)


def _with_roles(
    group: t.Sequence[Container], everything: t.Sequence[Container], services: t.Mapping[str, str]
) -> list[Container]:
    given: dict[str, str] = {}
    for role, name in services.items():
        matches = [found for found in group if name in (found.service, found.name)]
        # What is named may be elsewhere: a database of its own project, or made by hand.
        matches = matches or [found for found in everything if found.name == name]
        if not matches:
            seen = ", ".join(sorted(found.service or found.name for found in group)) or "none"
            raise BackupError(
                f"services: {role}: {name}: neither a service of this project nor a container (services: {seen})",
                hint=f"Set mazevault_services.{role} to the name of one of them.",
            )
        for found in matches:
            if given.setdefault(found.id, role) != role:
                raise BackupError(
                    f"services: {name}: named for two roles, {given[found.id]} and {role}",
                    hint="Give each role of mazevault_services a service of its own.",
                )
    ids = {found.id for found in group}
    members = [*group, *(found for found in everything if found.id in given and found.id not in ids)]
    assigned = []
    for found in members:
        guess = role_of(found.service, found.project) or role_of(found.name, found.project)
        role = given.get(found.id) or ("" if guess in services else guess)
        assigned.append(replace(found, role=role))
    taken = {found.role for found in assigned}
    # A service with a name of its own is told by its image, unless another bears the role's name.
    return [
        replace(found, role=guess)
        if not found.role and (guess := _role_of_image(found.image)) and guess not in taken and guess not in services
        else found
        for found in assigned
    ]


def _one_for_each_role(members: t.Sequence[Container], services: t.Mapping[str, str]) -> None:
    for role in ROLES:
        found = [member for member in members if member.role == role]
        # Several containers of one service are its copies, and only what holds data must be one.
        different = len({member.service or member.name for member in found}) > 1
        if len(found) > 1 and (different or role in STORES):
            shown = ", ".join(f"{member.name} ({member.status})" for member in found)
            raise BackupError(
                f"services: {role}: {len(found)} containers could be it: {shown}",
                hint=f"Set mazevault_services.{role} to the name of the container that is meant,"
                " or remove the one that is left over.",
            )


def database_of(found: Container) -> tuple[str, str]:
    """(user, database) that the image made, by its own rules; empty where a file in the container holds the name."""
    user = "" if "POSTGRES_USER_FILE" in found.environment else found.environment.get("POSTGRES_USER") or "postgres"
    database = "" if "POSTGRES_DB_FILE" in found.environment else found.environment.get("POSTGRES_DB") or user
    return user, database


def problems(stack: Stack) -> list[str]:
    """What is wrong or worth knowing about the containers, one sentence each."""
    said = [f"no container for {role}" for role in ("postgres", "backend") if not stack.of(role)]
    for found in stack.containers:
        what = f"{found.role or found.service or 'container'} ({found.name})"
        if found.status == "restarting":
            said.append(f"{what} starts again and again ({found.restarts} times, last exit status {found.exit_code})")
        elif found.status == "running" and found.health == "unhealthy":
            said.append(f"{what} is unhealthy")
        elif found.status != "running" and found.role and found.role not in ONE_SHOT:
            ended = f" with status {found.exit_code}" if found.status == "exited" else ""
            said.append(f"{what} is {found.status}{ended}")
        elif found.status == "exited" and found.exit_code and found.role in ONE_SHOT:
            said.append(f"{what} failed with status {found.exit_code}")
    database = stack.postgres
    if database:
        # Alpine and Debian images up to 17 keep it in .../data, newer ones one folder up.
        kept = [mount for mount in database.mounts if mount["destination"].startswith("/var/lib/postgresql")]
        if not kept or all(mount["type"] == "volume" and _ANONYMOUS.fullmatch(mount["name"]) for mount in kept):
            said.append(
                f"postgres ({database.name}) keeps its data in no named volume: removing the container loses it"
            )
    return said


@dataclass(frozen=True)
class Wanted:
    """What the files want of one service; None: not known."""

    image: str | None = None
    environment: t.Mapping[str, str] | None = field(default=None, repr=False)


def differences(stack: Stack, wanted: t.Mapping[str, Wanted], ids: t.Mapping[str, str]) -> list[dict[str, t.Any]]:
    """What is in use against what the files say; variables by name, never by value.

    Args:
        wanted: service -> what its files want.
        ids: image reference -> id that it stands for on this host now.
    """
    said: list[dict[str, t.Any]] = []
    for found in stack.containers:
        files = wanted.get(found.service)
        if files is None:
            continue
        entry: dict[str, t.Any] = {"service": found.service, "container": found.name}
        if files.image and not same_image(files.image, found.image):
            said.append({**entry, "what": "image", "in_use": found.image, "files": files.image, "names": []})
        elif files.image and ids.get(files.image, found.image_id) != found.image_id:
            now = ids[files.image]
            said.append({**entry, "what": "image_id", "in_use": found.image_id, "files": now, "names": []})
        names = sorted(
            name
            for name, value in (files.environment or {}).items()
            if name in found.environment and found.environment[name] not in (value, value.replace("$$", "$"))
        )
        if names:
            said.append({**entry, "what": "environment", "in_use": None, "files": None, "names": names})
    return said


def wanted_of_env_file(stack: Stack, settings: t.Mapping[str, str]) -> dict[str, Wanted]:
    """What `.env` alone says of the running containers, where no compose program can be asked."""
    renamed = dict(settings)
    for name, other in _HANDED_OVER.items():
        if name in settings:
            renamed[other] = settings[name]
    wanted = {}
    for found in stack.containers:
        image = None
        repository, tag = split_image(found.image)
        if "mazevault-" in repository.rpartition("/")[2] and settings.get("IMAGE_TAG") not in (None, "", tag):
            image = f"{repository}:{settings['IMAGE_TAG']}"
        if found.role == "postgres" and settings.get("POSTGRES_IMAGE"):
            image = settings["POSTGRES_IMAGE"]
        if found.service:
            wanted[found.service] = Wanted(image, renamed)
    return wanted


def env_file(text: str) -> dict[str, str]:
    """The settings of a `.env`; one that refers to another variable is left out, as its value isn't known."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        name = re.sub(r"\Aexport\s+", "", name).strip()
        value = value.strip()
        if not equals or not _VARIABLE.fullmatch(name):
            continue
        quote = value[:1] if value[:1] in ("'", '"') else ""
        value = value[1:].partition(quote)[0] if quote else re.split(r"\s#", value, maxsplit=1)[0].rstrip()
        if quote == "'" or not re.search(r"[$\\]", value):
            found[name] = value
    return found


def said_of(difference: t.Mapping[str, t.Any]) -> str:
    """One difference in plain words."""
    container = difference["container"]
    if difference["what"] == "image":
        return f"{container} runs {difference['in_use']}, the files say {difference['files']}"
    if difference["what"] == "image_id":
        return f"{container} runs an older image than the one that its tag stands for now"
    return f"{container} was made with other values than the files have now: {', '.join(difference['names'])}"


@dataclass(frozen=True)
class Step:
    """One call of the engine: `stop`, `start` or `unpause` with these containers."""

    verb: str
    containers: tuple[Container, ...]

    @property
    def names(self) -> list[str]:
        return [found.name for found in self.containers]


def steps_to_stop(stack: Stack, roles: t.Sequence[str]) -> list[Step]:
    up = tuple(found for found in stack.of(*reversed(_ordered(roles))) if found.up or found.status == "stopping")
    return [Step("stop", up)] if up else []


def steps_to_start(containers: t.Iterable[Container], roles: t.Sequence[str]) -> list[Step]:
    """The containers of these roles that are down or paused, in the order of the roles."""
    found = sorted((one for one in containers if one.role in roles), key=lambda one: _rank(one.role))
    paused = tuple(one for one in found if one.status == "paused")
    down = tuple(one for one in found if not one.up)
    return [Step(verb, which) for verb, which in (("unpause", paused), ("start", down)) if which]


def _ordered(roles: t.Sequence[str]) -> list[str]:
    return [role for role in ROLES if role in roles]


def wanted_roles(given: t.Sequence[str] | None) -> list[str]:
    """The roles that a user names; nothing means the application's, `all` everything but what runs once.

    Raises:
        BackupError: a role that nobody knows.
    """
    if not given:
        return list(APPLICATION)
    words = [word.strip().replace("-", "_") for word in given if word.strip()]
    if "all" in words:
        return [*STORES, *APPLICATION]
    unknown = [word for word in words if word not in ROLES]
    if unknown:
        raise BackupError(
            f"roles: {', '.join(unknown)}: no such role", hint=f"Take all, or some of {', '.join(ROLES)}."
        )
    return _ordered(words)


def redacted(text: str, environments: t.Iterable[t.Mapping[str, str]]) -> str:
    """The text without any value of these variables; very short ones are words of every message."""
    values = {value for environment in environments for value in environment.values() if len(value) > 5}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "***")
    return text
