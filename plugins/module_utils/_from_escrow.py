# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Key material back from escrow: which bundles, by whose word, what is in them; and a `.env` with its keys again."""

from __future__ import annotations

import json
import os
import re
import typing as t
from dataclasses import dataclass, field

from ansible_collections.mazevault.backup.plugins.module_utils._bundle import open_bundle, unpack
from ansible_collections.mazevault.backup.plugins.module_utils._env_file import settings_of
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._escrow_looks import decoded
from ansible_collections.mazevault.backup.plugins.module_utils._files import sha256_file, write_file
from ansible_collections.mazevault.backup.plugins.module_utils._material import secret_values
from ansible_collections.mazevault.backup.plugins.module_utils._signature import verify_file

LATEST = "latest"
_INDEX = re.compile(r"escrow\.(\d{8}_\d{6})\.json\Z")
_LINE = re.compile(r"^(?:export[ \t]+)?([A-Za-z_]\w*)=.*$", re.MULTILINE)


@dataclass(frozen=True)
class Index:
    """What one signed index tells, and where copies of its files are.

    Attributes:
        paths: name -> a copy that is what the index says.
        wrong: name -> path of a copy that isn't; names without any copy have an empty path.
        others: ids of the other generations that are whole there too.
    """

    stamp: str
    content: dict[str, t.Any]
    paths: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    @property
    def generation(self) -> str:
        return str(self.content["generation"])


def spread(handed: t.Mapping[str, t.Any], memory: str) -> list[str]:
    """A folder in memory for each place on another host, with what it gave."""
    found = []
    for place, files in handed.items():
        folder = os.path.join(memory, str(place).strip("/").replace("/", "_"))
        os.mkdir(folder, 0o700)
        for name, data in decoded(files, f"handed: {place}").items():
            write_file(os.path.join(folder, name), data)
        found.append(folder)
    return found


def find(folders: t.Sequence[str], keys: t.Iterable[str], *, installation: str, generation: str) -> Index:
    """The newest bundles of a generation.

    Args:
        folders: places of both halves, or copies of them.
        keys: public keys (PEM) of who may have signed.
    Raises:
        BackupError: there is none that was signed by one of them, for this installation.
    """
    found: dict[str, Index] = {}
    refused: list[str] = []
    verified = tuple(keys)
    for folder in folders:
        for name in _names(folder):
            match = _INDEX.match(name)
            path = os.path.join(folder, name)
            if match is None or match[1] in found:
                continue
            if verify_file(path, verified) is None:
                refused.append(path)
                continue
            content = _index(path)
            if content["installation"] == installation and content["stamp"] == match[1]:
                found[match[1]] = Index(match[1], content)
    wanted = [found[stamp] for stamp in sorted(found) if generation in (LATEST, found[stamp].generation)]
    if not wanted:
        known = ", ".join(dict.fromkeys(one.generation for one in found.values())) or "none"
        untrusted = f"; not signed by a key that counts: {', '.join(refused)}" if refused else ""
        raise BackupError(
            f"generation: {generation}: not in escrow for {installation} at {', '.join(folders)}"
            f" (there are: {known}{untrusted})",
            hint="Name the places of both halves, and the former host's public key (verification_keys), from the card.",
        )
    chosen = wanted[-1]
    for index in found.values():
        for entry in index.content["files"]:
            name = entry["name"]
            copies = [path for folder in folders if os.path.isfile(path := os.path.join(folder, name))]
            good = next((path for path in copies if sha256_file(path) == entry["sha256"]), "")
            if good:
                index.paths[name] = good
            else:
                index.wrong[name] = copies[0] if copies else ""
    chosen.others.extend(sorted({one.generation for one in found.values() if not one.wrong} - {chosen.generation}))
    return chosen


def open_all(index: Index, identities: t.Mapping[str, str], *, public: str = "") -> dict[str, bytes]:
    """The files in all bundles that an identity was brought for.

    Args:
        identities: half -> path of a recipient's private key.
    Raises:
        BackupError: a copy is missing, damaged, doesn't open, or holds another generation than its index says.
    """
    contents: dict[str, bytes] = {}
    for entry in index.content["files"]:
        name, half = entry["name"], entry["half"]
        if not identities.get(half):
            continue
        if name in index.wrong:
            raise BackupError(
                f"{index.wrong[name] or name}: {'not what was signed' if index.wrong[name] else 'no copy of it here'}",
                hint="Name another place of this half, or take an older generation.",
            )
        data = open_bundle(index.paths[name], public, identities[half], index.content["scheme"])
        label, files = unpack(data)
        expected = {key: index.content[key] for key in ("generation", "stamp", "installation")}
        if {key: label.get(key) for key in expected} != expected or label.get("half") != half:
            raise BackupError(
                f"{index.paths[name]}: holds generation {label.get('generation')} of {label.get('installation')},"
                f" and its index says {index.generation}",
                hint="Somebody has mixed copies up: take another place's.",
            )
        contents.update(files)
    return contents


def with_keys(target: str, escrowed: str) -> tuple[str, tuple[str, ...]]:
    """(the settings with the escrowed secrets in place of what stands there, names that differ).

    Other settings stay as they are in `target`: they may be newer than the keys.

    Raises:
        BackupError: the outcome wouldn't say what was escrowed.
    """
    wanted = secret_values(settings_of(escrowed))
    have = settings_of(target).values
    names = tuple(sorted(name for name, value in wanted.items() if have.get(name) != value))
    lines = {found[1]: found[0] for found in _LINE.finditer(escrowed)}
    text = target
    for name in names:
        if name not in lines:
            continue
        line, place = lines[name], re.compile(rf"^(?:export[ \t]+)?{re.escape(name)}=.*$", re.MULTILINE)
        if place.search(text):
            text = place.sub(lambda found, line=line: line, text)  # type: ignore[misc]
        else:
            text = f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{line}\n"
    after = settings_of(text).values
    unlike = sorted(name for name, value in wanted.items() if after.get(name) != value)
    if unlike:
        raise BackupError(
            f"env_file: {', '.join(unlike)}: can't be put into this file by itself",
            hint="Move the file away, so that the whole escrowed one is written; then add what is newer by hand.",
        )
    return text, names


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as exc:
        raise BackupError(
            f"places: {folder}: {exc.strerror}", hint="Name folders with copies; are they mounted?"
        ) from exc


def _index(path: str) -> dict[str, t.Any]:
    """It is signed, so it is ours; that it is whole was part of that."""
    with open(path, encoding="utf-8") as stream:
        return t.cast("dict[str, t.Any]", json.load(stream))
