# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What is in use and isn't what the files say, no I/O.

Both sides hold secrets: variables are told by name, never by value.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from ansible_collections.mazevault.backup.plugins.module_utils._env_file import Settings
from ansible_collections.mazevault.backup.plugins.module_utils._stack import (
    Stack,
    is_product_image,
    same_image,
    split_image,
)

# `.env` names that the compose file hands over under another name.
_HANDED_OVER = {"MASTER_KEY": "MAZEVAULT_MASTER_KEY", "JWT_SECRET": "MAZEVAULT_JWT_KEY"}


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


def wanted_of_env_file(stack: Stack, settings: Settings) -> dict[str, Wanted]:
    """What `.env` alone says of the running containers, where no compose program can be asked."""
    if settings.refused:
        return {}
    said = settings.values
    renamed = dict(said)
    for name, other in _HANDED_OVER.items():
        if name in said:
            renamed[other] = said[name]
        elif name in settings.unknown:
            renamed.pop(other, None)
    wanted = {}
    for found in stack.containers:
        image = None
        repository, tag = split_image(found.image)
        # An image that is given by its digest has no tag that could differ.
        if tag and is_product_image(found.image) and said.get("IMAGE_TAG") not in (None, "", tag):
            image = f"{repository}:{said['IMAGE_TAG']}"
        if found.role == "postgres" and said.get("POSTGRES_IMAGE"):
            image = said["POSTGRES_IMAGE"]
        if found.service:
            wanted[found.service] = Wanted(image, renamed)
    return wanted


def said_of(difference: t.Mapping[str, t.Any]) -> str:
    """One difference in plain words."""
    container = difference["container"]
    if difference["what"] == "image":
        return f"{container} runs {difference['in_use']}, the files say {difference['files']}"
    if difference["what"] == "image_id":
        return f"{container} runs an older image than the one that its tag stands for now"
    return f"{container} was made with other values than the files have now: {', '.join(difference['names'])}"
