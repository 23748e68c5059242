# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""A component of files in a published set: its archives, opened with the keys of both classes."""

from __future__ import annotations

import dataclasses
import typing as t
from dataclasses import dataclass, field

from ansible_collections.mazevault.backup.plugins.module_utils._encryption import SetKey, part_name
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._names import from_text
from ansible_collections.mazevault.backup.plugins.module_utils._overlay import Layer, Overlay, overlay
from ansible_collections.mazevault.backup.plugins.module_utils._programs import HostRuntime
from ansible_collections.mazevault.backup.plugins.module_utils._recovery_set import PRIVATE, RecoverySet
from ansible_collections.mazevault.backup.plugins.module_utils._set_keys import opened_key
from ansible_collections.mazevault.backup.plugins.module_utils._set_proof import ArchiveSubject
from ansible_collections.mazevault.backup.plugins.module_utils._subject import published_key, set_of_published
from ansible_collections.mazevault.backup.plugins.module_utils._sums import check_sums
from ansible_collections.mazevault.backup.plugins.module_utils._tar_file import check_archive, opener, record_from
from ansible_collections.mazevault.backup.plugins.module_utils._tree import FOLDER

_VOLUMES = "volumes/"


@dataclass
class Component:
    """One component of a set that was looked at, and its keys.

    Attributes:
        archives: those of class data first.
        keys_key: of class keys; None: the set is in plain.
        classes: whose archives were opened.
        marked: names of files that have marks in place of key material, as that wasn't opened.
        missing: names of key material that wasn't opened.
    """

    found: RecoverySet
    name: str
    archives: tuple[ArchiveSubject, ...]
    keys_key: SetKey | None
    classes: list[str] = field(default_factory=list)
    marked: set[bytes] = field(default_factory=set)
    missing: set[bytes] = field(default_factory=set)

    @property
    def closed(self) -> bool:
        """Whether there is key material that nobody here can open."""
        key = self.keys_key
        return key is not None and not key.is_open and any(archive.of_keys for archive in self.archives)

    def opened(self, *, without_keys: bool, marked: bool) -> Overlay:
        """Every archive read and compared with its record, as one tree.

        Args:
            without_keys: key material that can't be opened is left out.
            marked: with it left out, files with marks in its place are taken as they are.
        Raises:
            BackupError: it can't be opened, and has to be.
            Damaged, Unsafe: of an archive.
        """
        if self.closed and not without_keys:
            raise BackupError(
                f"keys_identity_file: missing: {self.found.set_id} holds key material of {self.name}, encrypted to"
                f" {', '.join(one['name'] for one in self.found.manifest['recipients']['keys'])}",
                hint="Bring an identity of class keys, or let its custodian open the set's key (keys_set_key_file;"
                " RESTORE.md has the command), or accept without_keys.",
            )
        layers, data, keys = [], set(), set()
        for archive in self.archives:
            record = record_from(t.cast("t.Mapping[str, t.Any]", archive.facts), archive.artefact)
            names = {entry.name for entry in record.entries if entry.kind != FOLDER}
            if archive.of_keys:
                keys |= names
                if self.closed:
                    continue
            else:
                data |= names
            stored = dataclasses.replace(archive.stored, key=self.keys_key) if archive.of_keys else archive.stored
            source = opener(stored, HostRuntime())
            layers.append(Layer(source, check_archive(source, record.limits, record=record), record.limits))
        self.classes = [name for name in ("data", "keys") if self._has(name) and not (name == "keys" and self.closed)]
        if self.closed:
            self.missing = keys if not marked else keys - data
            self.marked = keys & data if marked else set()
        if not layers:
            raise BackupError(
                f"set: {self.found.set_id}: of {self.name} it holds key material only, and that is left out",
                hint="Bring an identity of class keys (keys_identity_file).",
            )
        return overlay(layers, without=self.missing)

    def places(self, given: t.Mapping[str, str]) -> dict[bytes, str]:
        """Where names of the archives lie on this host.

        Raises:
            BackupError: of a volume nobody knows where it is.
        """
        places = {from_text(name): path for name, path in given.items()}
        for name, path in given.items():
            if not name or name.startswith("/") or not path.startswith("/"):
                raise BackupError(
                    f"places: {name or 'empty'}: {path}: not a name in the archives and an absolute path",
                    hint="Such as volumes/backend_data: /var/lib/docker/volumes/backend_data/_data.",
                )
        for archive in self.archives:
            for source in (archive.facts or {}).get("sources") or ():
                name, path = str(source["name"]), str(source["path"])
                of_volume = name.startswith(_VOLUMES) and path != f"/{name}"
                if of_volume and not any(name == one or name.startswith(f"{one}/") for one in given):
                    raise BackupError(
                        f"places: {'/'.join(name.split('/')[:2])}: no such volume was found on this host"
                        f" (where the set was made it was {path})",
                        hint="Create it (docker compose create makes all of them), or say in places where it is.",
                    )
        return places

    def _has(self, class_name: str) -> bool:
        return any(archive.artefact["class"] == class_name for archive in self.archives)


def component_of(found: RecoverySet, name: str, params: t.Mapping[str, t.Any]) -> Component:
    """Look at a component of a set whose signature is good.

    Args:
        params: a module's `set_key_file`, `identity_file`, and those for class keys.
    Raises:
        BackupError: a file isn't what SHA256SUMS says, or the key of class data isn't here.
    """
    if name not in found.manifest["components"]:
        raise BackupError(
            f"component: {name}: not in {found.set_id}",
            hint=f"It has {', '.join(found.manifest['components'])}. Name another set.",
        )
    key = published_key(found, params)
    brought = {option: params[f"keys_{option}"] or "" for option in ("set_key_file", "identity_file")}
    keys_key = opened_key(found.path, found.scheme, "keys", records=found.records_path, **brought)
    # A dump beside them that takes an hour to read is nobody's business here.
    private = [part_name(PRIVATE, 0, found.scheme)]
    if problems := check_sums(found.path, only=["manifest.json", *private, "access", name]):
        raise BackupError(
            f"set: {found.set_id}: damaged: {'; '.join(problems[:3])}",
            hint="Nothing was touched. Restore another set, or this one from another copy.",
        )
    found.private(key)  # says what is missing
    subject = set_of_published(found, key, sums=False, wanted=[name])
    archives = tuple(sorted(subject.archives, key=lambda archive: archive.of_keys))
    if not archives or any(archive.facts is None for archive in archives):
        raise BackupError(
            f"set: {found.set_id}: its private manifest doesn't tell what is in the archives of {name}",
            hint="Open them by hand, as RESTORE.md says.",
        )
    return Component(found, name, archives, keys_key)
