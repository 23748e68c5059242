# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Which of a host's containers are MazeVault, and which of them holds its database; no I/O.

Nothing is guessed: what two things could be, or what only looks like it, is asked for by the variable that decides.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, replace

from ansible_collections.mazevault.backup.plugins.module_utils._address import Address, address_in
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._stack import (
    DATABASE_USERS,
    GENERATIONS,
    GENERIC,
    ONE_SHOT,
    ROLES,
    STORES,
    Container,
    NotFound,
    Stack,
    is_product_image,
    rank,
    role_of,
    role_of_image,
    split_image,
)

# Only the product's own programs get these; applications that fetch their secrets from it have others.
_SERVER_VARIABLES = (
    "MAZEVAULT_MASTER_KEY",
    "MAZEVAULT_JWT_KEY",
    "MAZEVAULT_LISTEN_ADDR",
    "MAZEVAULT_TLS_ENABLED",
    "MAZEVAULT_SYNC_SECRET",
)
_OTHER_DATABASE = re.compile(r"mysql|mariadb|mongo|mssql|oracle|cassandra|couchdb|influx|cockroach|percona")


@dataclass(frozen=True)
class _Group:
    """Containers that belong together: of one compose project, or made by hand with names of one generation.

    Attributes:
        name: the project's name, `client-*` or `mazevault-*`, or empty for the rest of what was made by hand.
        proof: what shows that it is MazeVault.
        hint: what only looks like it.
    """

    name: str
    containers: tuple[Container, ...]
    proof: str = ""
    hint: str = ""

    @property
    def by_hand(self) -> bool:
        return self.name.endswith("*") or not self.name

    def of(self, *roles: str) -> list[Container]:
        return [found for role in roles for found in self.containers if _guess(found)[0] == role]

    def __str__(self) -> str:
        lasting = [found for found in self.containers if _guess(found)[0] not in ONE_SHOT]
        folder = next((found.folder for found in self.containers if found.folder), "")
        names = f"{', '.join(sorted(found.name for found in self.containers))}; " if self.by_hand else ""
        run = f"{sum(found.up for found in lasting)} of {len(lasting)} run"
        return f"{self.name or 'containers without a project'} ({folder + ': ' if folder else ''}{names}{run})"


def choose(
    containers: t.Iterable[Container],
    *,
    project: str = "",
    services: t.Mapping[str, str] | None = None,
    home: str = "",
) -> Stack:
    """The installation among all containers of a host.

    Args:
        project: name of the compose project; empty means the one that is MazeVault.
        home: folder that MazeVault is installed in; what was made from its files is MazeVault.
        services: role -> name of a service or container, which wins over everything else.
    Raises:
        NotFound: nothing fits.
        BackupError: it isn't certain; the hint names the variable that decides.
    """
    services = services or {}
    everything = [found for found in containers if not found.ours and not found.oneoff and found.status != "removing"]
    groups = _groups(everything, home)
    chosen, why = _chosen(groups, everything, project, services)
    members = _with_roles(chosen.containers, everything, services)
    members, database, ask = _with_database(members, everything, services)
    _one_for_each_role(members, services)
    _backend_is_known(members, services)
    first = next((found for found in members if found.folder), None)
    return Stack(
        project="" if chosen.by_hand else chosen.name,
        folder=first.folder if first else "",
        files=first.files if first else (),
        containers=tuple(sorted(members, key=lambda found: (rank(found.role), found.name))),
        why=why,
        database=database,
        ask=ask,
        notes=tuple(_notes(members, groups, chosen, project)),
    )


# which group


def _groups(everything: t.Sequence[Container], home: str) -> list[_Group]:
    held: dict[str, list[Container]] = {}
    for found in everything:
        name = found.name.lower().replace("_", "-")
        by_hand = next((f"{start}*" for start in GENERATIONS if name.startswith(start) and role_of(name)), "")
        held.setdefault(found.project or by_hand, []).append(found)
    groups = [_Group(name, tuple(group)) for name, group in sorted(held.items())]
    return [replace(group, proof=_proof(group, home), hint=_hint(group)) for group in groups]


def _proof(group: _Group, home: str) -> str:
    """What shows that these containers are MazeVault's; a name alone that others could give shows nothing."""
    keyed = [found for found in group.containers if _server_variable(found)]
    if not group.name or not (group.of("postgres", "backend") or keyed):
        return ""
    for found in group.of(*ROLES):
        if is_product_image(found.image):
            return f"image {split_image(found.image)[0]}"
    for found in keyed:
        return f"variable {_server_variable(found)} of {found.name}"
    if home and any(found.folder.rstrip("/") == home.rstrip("/") for found in group.containers):
        return f"folder {home}"
    for found in group.of("postgres", *DATABASE_USERS):
        named = [found.service] if found.project else []
        named += [] if _name_by_compose(found) else [found.name]
        for name in named:
            if name.lower().replace("_", "-").startswith("mazevault-") and role_of(name, found.project):
                return f"name {name}"
    for found in group.of("postgres"):
        names = [found.environment.get(name, "") for name in ("POSTGRES_DB", "POSTGRES_USER")]
        if "mazevault" in names:
            return f"database or role mazevault in {found.name}"
    if _hint(group) and group.of("ocsp") and group.of("backend"):
        return f"an OCSP responder beside a backend, {_hint(group)}"
    return ""


def _hint(group: _Group) -> str:
    """What only looks like it; the reason to ask."""
    if not group.name:
        own = [found for found in group.containers if _server_variable(found)]
        return f"variable {_server_variable(own[0])} of {own[0].name}" if own else ""
    if not group.of("postgres", "backend"):
        return ""
    if "mazevault" in group.name.lower():
        return f"project {group.name}"
    names = [found.name if not _name_by_compose(found) else found.service for found in group.of(*ROLES)]
    if any(name.lower().replace("_", "-").startswith("client-") for name in names):
        return "names client-*"
    for found in group.containers:
        if any(name.startswith("MAZEVAULT_") for name in found.environment):
            return f"variables MAZEVAULT_* of {found.name}"
    return ""


def _server_variable(found: Container) -> str:
    return next((name for name in _SERVER_VARIABLES if name in found.environment), "")


def _name_by_compose(found: Container) -> bool:
    start = f"{found.project}-{found.service}-".replace("_", "-")
    return bool(found.project) and found.name.replace("_", "-").startswith(start)


def _chosen(
    groups: t.Sequence[_Group], everything: t.Sequence[Container], project: str, services: t.Mapping[str, str]
) -> tuple[_Group, str]:
    """(the group, why)."""
    projects = ", ".join(group.name for group in groups if not group.by_hand)
    if project:
        for group in groups:
            if group.name == project and not group.by_hand:
                return group, "mazevault_project"
        raise NotFound(
            f"project: {project}: no container of this compose project is there",
            hint=f"Set mazevault_project to one of these: {projects}."
            if projects
            else "No compose project is there; start MazeVault, or set mazevault_runtime.",
        )
    proven = _installations([group for group in groups if group.proof], everything)
    if len(proven) == 1:
        return proven[0], proven[0].proof
    named = _named(proven or groups, services)
    if len(named) == 1:
        return named[0], "mazevault_services"
    if proven:
        shown = "; ".join(map(str, proven))
        raise BackupError(
            f"project: {len(proven)} installations look like MazeVault: {shown}",
            hint=f"To say which is meant, {_variables(proven)}.",
        )
    alike = [group for group in groups if group.hint]
    if alike:
        shown = "; ".join(f"{group}, {group.hint}" for group in alike)
        raise BackupError(
            f"project: this looks like MazeVault, but nothing proves it: {shown}",
            hint=f"If it is, {_variables(alike)}; if MazeVault isn't in containers here, set mazevault_runtime: host.",
        )
    raise NotFound(
        f"project: no compose project that looks like MazeVault (projects on this host: {projects or 'none'})",
        hint="Set mazevault_project to its name, mazevault_services to the names of its services,"
        " or mazevault_runtime: host if it isn't in containers.",
    )


def _installations(proven: t.Sequence[_Group], everything: t.Sequence[Container]) -> list[_Group]:
    """Without those that only hold the database of another one."""
    whole = [group for group in proven if group.of(*DATABASE_USERS)]
    held = set()
    for group in whole:
        address, _user, at = _told(group.of(*DATABASE_USERS), everything)
        if address:
            held |= {found.id for found in at}
    return [group for group in proven if group in whole or not held & {found.id for found in group.containers}]


def _named(groups: t.Sequence[_Group], services: t.Mapping[str, str]) -> list[_Group]:
    """The groups of what the user names; the application's say more than a store, which may be elsewhere."""
    for roles in ([role for role in services if role not in STORES], list(services)):
        wanted = {services[role] for role in roles}
        found = [group for group in groups if any({one.name, one.service} & wanted for one in group.containers)]
        if found:
            return found
    return []


def _variables(groups: t.Sequence[_Group]) -> str:
    """What to set for each of these groups."""
    projects = [group.name for group in groups if not group.by_hand]
    said = [f"set mazevault_project to {' or '.join(projects)}"] if projects else []
    for group in groups:
        if group.by_hand:
            found = [*group.of("backend", "postgres"), *group.containers][0]
            role = _guess(found)[0] or "backend"
            said.append(f"set mazevault_services to {{{role}: {found.name}}} for {group.name or 'those'}")
    return ", or ".join(said)


# which role


def _guess(found: Container) -> tuple[str, str]:
    """(role, what tells it) of one container by itself."""
    for what, name in (("service name", found.service), ("container name", found.name)):
        role = role_of(name, found.project)
        if role == "postgres" and _generic(name) and _OTHER_DATABASE.search(split_image(found.image)[0].lower()):
            return "", ""
        if role:
            return role, what
    return _of_image(found)


def _generic(name: str) -> bool:
    return bool(re.search(rf"(\A|[-_])({'|'.join(GENERIC)})([-_]\d+)?\Z", name.lower()))


def _of_image(found: Container) -> tuple[str, str]:
    if _holds_postgres(found):
        return "postgres", "image" if role_of_image(found.image) == "postgres" else "program"
    role = role_of_image(found.image)
    return (role, "image") if role and role != "postgres" else ("", "")


def _holds_postgres(found: Container) -> bool:
    return found.runs == "postgres" or (role_of_image(found.image) == "postgres" and found.runs != "job")


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
        role, why = _guess(found)
        if found.id in given:
            role, why = given[found.id], "mazevault_services"
        elif role in services or why in ("image", "program"):
            role = why = ""
        assigned.append(replace(found, role=role, why=why))
    taken = {found.role for found in assigned}
    # A service with a name of its own is told by what it runs, unless another bears the role's name.
    settled = []
    for found in assigned:
        role, why = ("", "") if found.role else _of_image(found)
        known = not role or role in taken or role in services
        settled.append(found if known else replace(found, role=role, why=why))
    return settled


# which database


def _told(
    users: t.Sequence[Container], everything: t.Sequence[Container]
) -> tuple[Address | None, Container | None, list[Container]]:
    """(where the application says its database is, which container says it, the containers that are there)."""
    for found in users:
        address = address_in(found.environment)
        if address:
            return address, found, [other for other in everything if found.reaches(other, address.host)]
    return None, None, []


def _with_database(
    members: t.Sequence[Container], everything: t.Sequence[Container], services: t.Mapping[str, str]
) -> tuple[list[Container], Address | None, str]:
    """(the containers, where the application says its database is, what has to be asked).

    The application's own word counts: a container that merely is called postgres may be left over.
    """
    users = [found for role in DATABASE_USERS for found in members if found.role == role]
    address, user, at = _told(users, everything)
    if address is None or user is None or "postgres" in services:
        return list(members), address, ""
    ids = {found.id for found in at}
    here = [found for found in members if found.id in ids and (found.role == "postgres" or _holds_postgres(found))]
    said_by = f"{address.said_by} of {user.name}"
    if not here:
        others = [found for found in members if found.role == "postgres"]
        left = [replace(found, role="", why="") if found in others else found for found in members]
        return left, address, _question(address, said_by, at, others, everything)
    chosen = {found.id for found in here}
    settled = []
    for found in members:
        if found.id in chosen and found.role != "postgres":
            found = replace(found, role="postgres", why=said_by)
        elif found.role == "postgres" and found.id not in chosen:
            found = replace(found, role="", why="")
        elif found.role == "postgres" and found.why in ("image", "program"):
            found = replace(found, why=said_by)
        settled.append(found)
    return settled, address, ""


def _question(
    address: Address,
    said_by: str,
    at: t.Sequence[Container],
    others: t.Sequence[Container],
    everything: t.Sequence[Container],
) -> str:
    unused = f" {_listed(others)}, in the project, isn't what it uses." if others else ""
    said = f"The database isn't in this project: {said_by} names {address}."
    outside = [found for found in at if _holds_postgres(found) or _guess(found)[0] == "postgres"]
    if outside:
        where = f"project {outside[0].project}" if outside[0].project else "no project"
        return (
            f"{said} That is {outside[0].name}, in {where}.{unused}"
            f" If it is the one to back up, set mazevault_services.postgres to {outside[0].name}."
        )
    if at:
        return (
            f"{said_by} names {address}: {at[0].name}, which holds no PostgreSQL itself. Set"
            " mazevault_services.postgres to the container behind it, or mazevault_postgres_host if that is elsewhere."
        )
    if address.this_host:
        published = [
            found
            for found in everything
            if any(port["host"] == address.port and port["container"] == "5432/tcp" for port in found.ports)
        ]
        if published:
            return (
                f"{said} {published[0].name} is published there.{unused}"
                f" If it is the one to back up, set mazevault_services.postgres to {published[0].name}."
            )
    host = "localhost" if address.this_host else address.host
    place = "this host" if address.this_host else "no container here"
    return f"{said} That is {place}.{unused} Set mazevault_postgres_host to its address as seen from here ({host})."


def _listed(containers: t.Iterable[Container]) -> str:
    return ", ".join(f"{found.name} ({found.status})" for found in containers)


# what is certain, and what was left aside


def _one_for_each_role(members: t.Sequence[Container], services: t.Mapping[str, str]) -> None:
    for role in ROLES:
        found = [member for member in members if member.role == role]
        # Several containers of one service are its copies, and only what holds data must be one.
        different = len({member.service or member.name for member in found}) > 1
        if len(found) > 1 and (different or role in STORES):
            shown = ", ".join(f"{member.name} ({member.status}, {member.image})" for member in found)
            raise BackupError(
                f"services: {role}: {len(found)} containers could be it: {shown}",
                hint=f"Set mazevault_services.{role} to the name of the container that is meant,"
                " or remove the one that is left over.",
            )


def _backend_is_known(members: t.Sequence[Container], services: t.Mapping[str, str]) -> None:
    """Who stops what uses the database must know it."""
    nameless = [found for found in members if not found.role and _server_variable(found)]
    if nameless and not any(found.role == "backend" for found in members):
        raise BackupError(
            f"services: backend: no service is called so; {_listed(nameless)} has {_server_variable(nameless[0])}",
            hint="Set mazevault_services.backend to the service that is MazeVault's backend, and"
            " mazevault_services.ocsp likewise.",
        )


def _notes(members: t.Sequence[Container], groups: t.Sequence[_Group], chosen: _Group, project: str) -> t.Iterator[str]:
    for found in members:
        if not found.role and _server_variable(found):
            yield f"{found.name} has {_server_variable(found)} and no role: nobody stops it for a restore"
        elif not found.role and _holds_postgres(found) and any(one.role == "postgres" for one in members):
            yield f"{found.name} ({found.status}) holds PostgreSQL too: not MazeVault's, and in no backup"
    if project:
        return
    for group in groups:
        # A monitoring stack with a telling name has no backend, and is nothing to look at each day.
        if group is not chosen and (group.proof or group.hint) and group.of("postgres") and group.of("backend"):
            yield f"left aside: {group}, {group.hint or group.proof}"
