# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The key material of an installation as it lies on the host: settings, vault, and the vault's key; read once."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass, field

from ansible_collections.mazevault.backup.plugins.module_utils import _generations
from ansible_collections.mazevault.backup.plugins.module_utils._env_file import Settings, settings_of
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._generations import Generation
from ansible_collections.mazevault.backup.plugins.module_utils._key_material import is_key_name, secrets_in
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust

VAULT, KEY, ENV = "secrets.vault", "vault.key", ".env"
MASTER_KEYS = ("MASTER_KEY", "MAZEVAULT_MASTER_KEY")
# Vaults hold some dozens of credentials, settings some dozens of lines.
_LARGEST = 16 << 20


@dataclass(frozen=True)
class Material:
    """What was read.

    Attributes:
        values: the secret settings, by name.
        files: contents of `secrets.vault` and `vault.key`, as far as they are there.
        env: the settings' file as it is; empty without one.
        sources: paths that all this was read from.
    """

    values: t.Mapping[str, str] = field(default_factory=dict, repr=False)
    files: t.Mapping[str, bytes] = field(default_factory=dict, repr=False)
    env: bytes = field(default=b"", repr=False)
    sources: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted([*(name for name, value in self.values.items() if value), *self.files]))


def read(*, env_file: str = "", vault_file: str = "", key_file: str = "") -> Material:
    """Read what is there; an empty path, or a path where nothing is, gives nothing.

    Raises:
        BackupError: a file is there and can't be read, or compose couldn't read it either.
    """
    env = _content(env_file, "env_file")
    settings = settings_of(env.decode("utf-8", "surrogateescape"))
    if settings.refused:
        raise BackupError(
            f"env_file: {env_file}: line {settings.refused} isn't one that docker compose takes",
            hint="Correct that line; until then nobody can tell what the keys are.",
        )
    values = secret_values(settings)
    found = {VAULT: _content(vault_file, "vault_file"), KEY: _content(key_file, "key_file")}
    paths = {env_file: env, vault_file: found[VAULT], key_file: found[KEY]}
    return Material(
        values,
        {name: content for name, content in found.items() if content},
        env,
        tuple(path for path, content in paths.items() if content),
    )


def generation_of(
    root: str, material: Material, trust: Trust, *, removed: t.Iterable[str] = (), write: bool = True
) -> Generation:
    """The generation that this material is.

    Args:
        removed: names that were taken away on purpose.
    Raises:
        BackupError: the vault, its key or the master key was there last time and is gone.
    """
    lost = lost_since(root, material, trust, removed=removed)
    if lost:
        raise BackupError(
            f"keys: {', '.join(lost)}: there last time, and gone now",
            hint="Bring it back from escrow; where it was taken away on purpose, name it in removed.",
        )
    return _generations.current(root, material.values, material.files, trust, sources=material.sources, write=write)


def secret_values(settings: Settings) -> dict[str, str]:
    """What is to be kept secret of some settings, by name."""
    return {
        name: value for name, value in settings.values.items() if value and (is_key_name(name) or secrets_in(value))
    }


def lost_since(root: str, material: Material, trust: Trust, *, removed: t.Iterable[str] = ()) -> list[str]:
    """Names without which data can't be read, that were there last time; a vault may have taken over the master key."""
    last = _generations.latest(root, trust)
    if last is None:
        return []
    wanted = [VAULT, KEY, *(MASTER_KEYS if VAULT not in material.files else ())]
    return [name for name in wanted if name in last["names"] and name not in material.names and name not in removed]


def _content(path: str, parameter: str) -> bytes:
    if not path or not os.path.lexists(path):
        return b""
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > _LARGEST:
            raise BackupError(f"{parameter}: {path}: no file, or larger than 16 MiB", hint="Name MazeVault's own file.")
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as exc:
        raise BackupError(f"{parameter}: {path}: {exc.strerror}", hint="Run with become, as root.") from exc
