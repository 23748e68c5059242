# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What a dead run left behind, before its staging folder is removed."""

from __future__ import annotations

import contextlib
import os

from ansible_collections.mazevault.backup.plugins.module_utils._engine import Engine, EngineAway
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import read_json, write_json
from ansible_collections.mazevault.backup.plugins.module_utils._scratch import end_orphan
from ansible_collections.mazevault.backup.plugins.module_utils._set_keys import forget
from ansible_collections.mazevault.backup.plugins.module_utils._sidecar import reap
from ansible_collections.mazevault.backup.plugins.module_utils._staging import Staging
from ansible_collections.mazevault.backup.plugins.module_utils._swap import unfinished_swap

_SCRATCH = "scratch.json"
_CONTAINERS = "containers.json"


def note_scratch(staging: Staging, folder: str) -> None:
    """Note a scratch server's folder in staging before anything runs in it; it can have several."""
    path = os.path.join(staging.path, _SCRATCH)
    known = read_json(path)["folders"] if os.path.isfile(path) else []
    write_json(path, {"folders": [*known, folder]})


def note_engine(staging: Staging, engine: str) -> None:
    """Note in staging, before any container runs, which engine runs those of this run."""
    write_json(os.path.join(staging.path, _CONTAINERS), {"engine": engine})


def clean(staging: Staging) -> None:
    """End what a dead run left running, and forget its keys.

    Raises:
        BackupError: a swap was broken off in it; its journal is still needed.
    """
    swap = unfinished_swap(staging.path)
    if swap:
        raise BackupError(
            f"backup_root: {staging.root}: {staging.name} was broken off in the middle of a swap of database {swap}",
            hint="Run restore_database.yml or rollback_database.yml again: each finishes it first.",
        )
    forget(staging)
    path = os.path.join(staging.path, _CONTAINERS)
    if os.path.isfile(path):
        # Without its engine no container runs; a later run finds those that come back with it.
        with contextlib.suppress(EngineAway):
            reap(Engine(read_json(path)["engine"]), staging.path)
    path = os.path.join(staging.path, _SCRATCH)
    if os.path.isfile(path):
        for folder in read_json(path)["folders"]:
            end_orphan(folder)
