# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The words for MazeVault's containers, and a container as the engine describes it: names, roles, states; no I/O.

The environment of a container holds secrets. It is kept to compare it in memory; only names of variables, and the
database's place, user and name, are ever shown.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field

from ansible_collections.mazevault.backup.plugins.module_utils._address import Address
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
# Any other product's database may be called so.
GENERIC = ("db", "database")
ROLES = tuple(NAMES)
# What the others need first.
STORES = ("postgres", "redis")
# Runs once and ends; that it isn't running is no fault.
ONE_SHOT = ("init_certs",)
APPLICATION = tuple(role for role in ROLES if role not in STORES + ONE_SHOT)
DATABASE_USERS = ("backend", "ocsp")

_ROLE_OF = {word: role for role, words in NAMES.items() for word in words}
GENERATIONS = ("client-", "mazevault-")
_COMPOSE = ("com.docker.compose.", "io.podman.compose.")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
# The sidecars and scratch servers of this collection bear it.
_OURS = "mazevault.backup"
# A container of PostgreSQL's image that runs one of these is somebody's job, not the server.
_JOBS = re.compile(r"(ba|da|a)?sh|pg_[a-z]+|psql|crond?|sleep|tail|init\.sh|backup\.sh")
# Only compose itself writes one of these; its other labels also come with an image that it built.
_MADE_BY_COMPOSE = ("config-hash", "container-number")
# Names that only the networks of a project's own containers have.
_SHARED_BY_ALL = ("bridge", "host", "none", "podman")
UP = ("running", "paused", "restarting")


class NotFound(BackupError):
    """No container of MazeVault is there."""


@dataclass(frozen=True)
class Container:
    """One container, as the engine describes it.

    Attributes:
        why: what told its role.
        ours: whether this collection made it.
        runs: `postgres` for the server, `job` for a tool of its image, empty for anything else.
        links: names that it knows other containers by, from before there were networks.
        names: network -> names and addresses that it has there.
    """

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
    why: str = ""
    ours: bool = False
    runs: str = ""
    links: t.Mapping[str, str] = field(default_factory=dict)
    names: t.Mapping[str, tuple[str, ...]] = field(default_factory=dict)

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

    def reaches(self, other: Container, host: str) -> bool:
        """Whether this container finds the other one under that name or address."""
        if other.id == self.id:
            return False
        if self.project and self.project == other.project and host in (other.service, other.name):
            return True
        if self.links.get(host) == other.name:
            return True
        for network in set(self.names) & set(other.names):
            if host in other.names[network] or (network not in _SHARED_BY_ALL and host == other.name):
                return True
        return False

    def public(self) -> dict[str, t.Any]:
        """What may be shown: names of environment variables, never a value."""
        return {
            "name": self.name,
            "id": self.id,
            "service": self.service,
            "role": self.role,
            "why": self.why,
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
    """The containers of one installation.

    Attributes:
        why: what told that it is MazeVault.
        database: where its application says its database is.
        ask: why it isn't certain which container holds the database, and the variable that decides; else empty.
        notes: what was left aside, one sentence each.
    """

    project: str
    folder: str
    files: tuple[str, ...]
    containers: tuple[Container, ...]
    why: str = ""
    database: Address | None = None
    ask: str = ""
    notes: tuple[str, ...] = ()

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
    made = any(_label(labels, name) for name in _MADE_BY_COMPOSE)
    return Container(
        name=str(said.get("Name", "")).lstrip("/"),
        id=str(said.get("Id", "")),
        created=str(said.get("Created", "")),
        project=_label(labels, "project") if made else "",
        service=_label(labels, "service") if made else "",
        oneoff=_label(labels, "oneoff").lower() == "true",
        folder=_label(labels, "project.working_dir"),
        files=tuple(name for name in _label(labels, "project.config_files").split(",") if name),
        status=_status(state),
        health="" if health == "none" else str(health),
        exit_code=int(state.get("ExitCode") or 0),
        restarts=int(said.get("RestartCount") or 0),
        started=str(state.get("StartedAt") or ""),
        image=str(config.get("Image") or said.get("ImageName") or ""),
        image_id=_with_algorithm(str(said.get("Image") or "")),
        mounts=tuple(_mount(mount) for mount in said.get("Mounts") or ()),
        networks=tuple(sorted(net.get("Networks") or {})),
        ports=tuple(_ports(net.get("Ports") or {})),
        restart_policy=str(policy.get("Name") or "no"),
        environment=environment_of(config.get("Env") or ()),
        ours=any(f"{name}.".startswith(f"{_OURS}.") for name in labels),
        runs=_runs([said.get("Path"), *(said.get("Args") or ())]),
        links=dict(_links(host.get("Links") or ())),
        names={network: tuple(_names(one or {})) for network, one in (net.get("Networks") or {}).items()},
    )


def _runs(words: t.Sequence[t.Any]) -> str:
    """What the command is, in words of ours: what a program is told may be a secret."""
    names = [str(word or "").rpartition("/")[2] for word in words[:2]]
    name = next((name for name in names if not re.search(r"entrypoint|\A(tini|dumb-init)\Z", name)), "")
    return "postgres" if name == "postgres" else "job" if _JOBS.fullmatch(name) else ""


def _links(links: t.Iterable[str]) -> t.Iterator[tuple[str, str]]:
    """`/client-postgres:/client-backend/db`: client-backend finds client-postgres as db."""
    for link in links:
        other, _colon, alias = str(link).partition(":")
        yield alias.rpartition("/")[2], other.lstrip("/")


def _names(network: t.Mapping[str, t.Any]) -> list[str]:
    said = [*(network.get("Aliases") or ()), *(network.get("DNSNames") or ()), network.get("IPAddress")]
    return [str(name) for name in said if name]


def _label(labels: t.Mapping[str, t.Any], name: str) -> str:
    return next((str(labels[start + name]) for start in _COMPOSE if labels.get(start + name)), "")


def _status(state: t.Mapping[str, t.Any]) -> str:
    # The engine also calls a container running while it waits for the next attempt of a restart loop.
    for flag in ("Restarting", "Paused"):
        if state.get(flag):
            return flag.lower()
    status = str(state.get("Status") or "unknown").lower()
    return "exited" if status == "stopped" else status


def _with_algorithm(image_id: str) -> str:
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
    prefixes = [start for start in (f"{project.lower().replace('_', '-')}-", *GENERATIONS) if start != "-"]
    tried = [plain]
    for tail in tried:
        if tail in _ROLE_OF:
            return _ROLE_OF[tail]
        tried += [tail[len(start) :] for start in prefixes if tail.startswith(start)]
    return ""


def role_of_image(image: str) -> str:
    """The role that an image's name tells of: the product's own, or a store."""
    word = split_image(image)[0].lower().rpartition("/")[2]
    role = role_of(word)
    return role if is_product_image(image) or (role in STORES and word not in GENERIC) else ""


def is_product_image(image: str) -> bool:
    """Agents and tools of the product are no part of an installation; a registry's name says nothing."""
    *folders, word = split_image(image)[0].lower().split("/")
    return bool(role_of(word)) and (word.startswith("mazevault-") or "mazevault" in folders)


def rank(role: str) -> int:
    """Where a role stands in the order of all."""
    return ROLES.index(role) if role in ROLES else len(ROLES)


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


def database_of(stack: Stack) -> tuple[str, str, str]:
    """(user, database, what told the database): as the application says, else as the image made them by its own rules.

    Empty is what nothing tells, or only a file in the container.
    """
    found = stack.postgres
    if found is None:
        return "", "", ""
    said = found.environment
    user = "" if "POSTGRES_USER_FILE" in said else said.get("POSTGRES_USER") or "postgres"
    if stack.database and stack.database.database:
        return user or stack.database.user, stack.database.database, stack.database.said_by
    if "POSTGRES_DB_FILE" in said:
        return user, "", ""
    # Where neither is set the image makes `postgres`, which every server has: no proof that anybody uses it.
    name = "POSTGRES_DB" if said.get("POSTGRES_DB") else "POSTGRES_USER" if user != "postgres" else ""
    return user, said.get(name, ""), name


def problems(stack: Stack) -> list[str]:
    """What is wrong or worth knowing about the containers, one sentence each."""
    missing = [role for role in ("postgres", "backend") if not stack.of(role)]
    said = [f"no container for {role}" for role in missing if role != "postgres" or not stack.ask]
    said += stack.notes
    for found in stack.containers:
        what = f"{found.role or found.service or 'container'} ({found.name})"
        if found.status == "restarting":
            said.append(f"{what} starts again and again ({found.restarts} times, last exit status {found.exit_code})")
        elif found.status == "running" and found.health == "unhealthy":
            said.append(f"{what} is unhealthy")
        elif found.status != "running" and found.role and found.role not in ONE_SHOT:
            ended = f" with status {found.exit_code}" if found.status == "exited" else ""
            never = "was made and never started" if found.status == "created" else f"is {found.status}{ended}"
            said.append(f"{what} {never}")
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
        if not database_of(stack)[1] and "POSTGRES_DB_FILE" not in database.environment:
            said.append("nothing tells which database is MazeVault's: set mazevault_database unless it is mazevault")
    return said


@dataclass(frozen=True)
class Step:
    """One call of the engine: `stop`, `start` or `unpause` with these containers."""

    verb: str
    containers: tuple[Container, ...]

    @property
    def names(self) -> list[str]:
        return [found.name for found in self.containers]


def steps_to_stop(stack: Stack, roles: t.Sequence[str]) -> list[Step]:
    up = tuple(found for found in stack.of(*reversed(_ordered(roles))) if found.up)
    return [Step("stop", up)] if up else []


def steps_to_start(containers: t.Iterable[Container], roles: t.Sequence[str]) -> list[Step]:
    """The containers of these roles that are down or paused, in the order of the roles."""
    found = sorted((one for one in containers if one.role in roles), key=lambda one: rank(one.role))
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
