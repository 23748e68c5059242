# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""A folder that holds one half of the escrow: looked through at each run, and healed.

A mark in it tells it from an empty folder where something should have been mounted, and from a place of the other half.
It may be on the installation's host or on another one: what has to be there is handed over, not looked up.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import stat
import typing as t
from dataclasses import dataclass, field

from ansible_collections.mazevault.backup.plugins.module_utils import _clock
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import CHUNK, write_file, write_json
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Progress

MARK = ".mazevault-escrow.json"
HALVES = ("vault", "key")
_PLACE_ID = re.compile(r"[0-9a-f]{16}\Z")
_LEFT_BY_A_CRASH = re.compile(r"(?P<name>.+)\.tmp\d+\Z")
# What lies at a place by our doing, and its stamp.
_OURS = re.compile(
    r"(?:(?:secrets\.vault\.|vault\.key\.|mazevault-env-)(?P<bundle>\d{8}_\d{6})\.(?:cms|age)"
    r"|escrow\.(?P<index>\d{8}_\d{6})\.json(?:\.sig)?)\Z"
)


@dataclass(frozen=True)
class Copy:
    """What has to be at a place: a file by name, size and hash."""

    name: str
    bytes: int
    sha256: str


@dataclass
class Look:
    """What a look at a place came to.

    Attributes:
        place_id: of its mark; empty where it has none yet.
        wrong: name -> why the copy isn't what it has to be.
        healed: names that were written.
        problem: why the place can't be used at all; then nothing was looked at or written.
    """

    path: str
    half: str
    place_id: str = ""
    wrong: dict[str, str] = field(default_factory=dict)
    healed: list[str] = field(default_factory=list)
    problem: str = ""

    @property
    def whole(self) -> bool:
        return not self.problem and not set(self.wrong) - set(self.healed)


# None: nobody has handed it over yet.
Contents = t.Callable[[str], t.Optional[bytes]]


def stamp_in(name: str) -> str:
    """Of a bundle's or an index's name; empty for every other one, a path among them."""
    found = _OURS.match(name)
    return (found["bundle"] or found["index"]) if found else ""


def is_index(name: str) -> bool:
    found = _OURS.match(name)
    return bool(found and found["index"])


def is_there(path: str) -> bool:
    """Whether a folder with a mark is here: a medium that is plugged in."""
    return os.path.lexists(os.path.join(path, MARK))


def look(
    path: str, half: str, copies: t.Sequence[Copy], *, installation: str, known_as: str = "", fresh: bool = False
) -> Look:
    """Compare what is at a place with what has to be there.

    Args:
        known_as: the id that this place had last time; empty for a place that is used for the first time.
        fresh: a new folder or medium has taken the place of the one that was known.
    """
    found = Look(path, half)
    try:
        found.place_id = _known(path, half, installation, known_as, fresh)
        for copy in copies:
            why = _why_not(os.path.join(path, copy.name), copy)
            if why:
                found.wrong[copy.name] = why
    except BackupError as exc:
        found.problem = exc.msg
    except OSError as exc:
        found.problem = f"{exc.filename or path}: {exc.strerror or exc}"
    return found


def heal(
    found: Look,
    contents: Contents,
    copies: t.Sequence[Copy],
    *,
    installation: str,
    progress: Progress,
    aside: bool = False,
) -> None:
    """Write what is wrong at a place anew, each file whole or not at all, and look at it again.

    Args:
        aside: what lies there in a copy's stead is kept under another name. Who asks for it is another host, and might
            have been taken over: no bundle goes because it says so.
    """
    by_name = {copy.name: copy for copy in copies}
    try:
        if not found.place_id:
            progress.step(f"mark {found.half}")
            found.place_id = secrets.token_hex(8)
            mark = {"place": found.place_id, "half": found.half, "installation": installation}
            write_json(os.path.join(found.path, MARK), mark)
        for name in found.wrong:
            progress.step(f"copy {found.half}")
            data = contents(name)
            if data is None:
                continue
            if hashlib.sha256(data).hexdigest() != by_name[name].sha256:
                raise BackupError(f"{name}: the copy that it would be healed with is damaged too")
            if aside:
                _set_aside(os.path.join(found.path, name))
            write_file(os.path.join(found.path, name), data)
            if why := _why_not(os.path.join(found.path, name), by_name[name]):
                raise BackupError(f"{name}: {why}, right after it was written")
            found.healed.append(name)
        _clean(found.path, by_name)
    except BackupError as exc:
        found.problem = exc.msg
    except OSError as exc:
        found.problem = f"{exc.filename or found.path}: {exc.strerror or exc}"


def _known(path: str, half: str, installation: str, known_as: str, fresh: bool) -> str:
    """The place's id; empty where it is to get one."""
    if not os.path.isabs(path) or not os.path.isdir(path):
        raise BackupError(f"{path}: no such folder; is it mounted?")
    try:
        with open(os.path.join(path, MARK), encoding="utf-8") as stream:
            mark = json.load(stream)
        place, said = str(mark["place"]), (mark["half"], mark["installation"])
        if not _PLACE_ID.match(place):
            raise ValueError
    except FileNotFoundError:
        if known_as and not fresh:
            raise BackupError(
                f"{path}: isn't the folder that it was: its mark {MARK} is gone; is it mounted?"
                " A new medium has to be named in fresh_places"
            ) from None
        return ""
    except (ValueError, KeyError, TypeError):
        raise BackupError(f"{path}: its mark {MARK} can't be read") from None
    if said[0] != half:
        raise BackupError(f"{path}: holds the other half ({said[0]}) already: both halves in one place are none")
    if said[1] != installation:
        raise BackupError(f"{path}: belongs to the escrow of {said[1]}; each installation has places of its own")
    if known_as and place != known_as and not fresh:
        raise BackupError(
            f"{path}: isn't the place that it was (its mark is another one); a new medium has to be named in"
            " fresh_places"
        )
    return place


def _why_not(path: str, copy: Copy) -> str:
    """Why a file isn't this copy; empty where it is."""
    try:
        info = os.lstat(path)
        if not stat.S_ISREG(info.st_mode):
            return "not a file"
        if info.st_size != copy.bytes:
            return "truncated" if info.st_size < copy.bytes else "replaced"
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return "missing"
    digest = hashlib.sha256()
    with os.fdopen(fd, "rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return "" if digest.hexdigest() == copy.sha256 else "replaced"


def _set_aside(path: str) -> None:
    if os.path.lexists(path):
        moment = _clock.now()
        os.rename(path, f"{path}.replaced_{_clock.stamp(moment)}_{moment.microsecond:06d}")


def _clean(path: str, ours: t.Container[str]) -> None:
    """Remove what a run that was killed left of its writing; nothing else is ever removed here."""
    for name in os.listdir(path):
        left = _LEFT_BY_A_CRASH.match(name)
        if left and (left["name"] in ours or left["name"] == MARK):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(path, name))
