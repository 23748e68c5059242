# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""What a dead run left behind, before its staging folder is removed."""

from __future__ import annotations

import contextlib
import os
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._engine import Engine, EngineAway
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import read_json, remove_tree, write_json
from ansible_collections.mazevault.backup.plugins.module_utils._scratch import end_orphan
from ansible_collections.mazevault.backup.plugins.module_utils._set_keys import noted
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


class Rest(t.NamedTuple):
    """What a run has outside of its staging folder.

    Attributes:
        memory: folder of its keys, empty for none.
        scratch: folders of its scratch servers, with the restored data.
        engine: which engine runs its containers, empty for none.
    """

    memory: str = ""
    scratch: tuple[str, ...] = ()
    engine: str = ""


def rest_of(staging: Staging) -> Rest:
    """What the notes in staging tell of."""
    scratch, containers = (os.path.join(staging.path, name) for name in (_SCRATCH, _CONTAINERS))
    return Rest(
        str(noted(staging).get("memory") or ""),
        tuple(read_json(scratch)["folders"]) if os.path.isfile(scratch) else (),
        str(read_json(containers)["engine"]) if os.path.isfile(containers) else "",
    )


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
    remove_rest(rest_of(staging), staging.path)


def remove_rest(rest: Rest, run: str) -> None:
    """Remove it; `run` is the path of the staging folder, by which the containers are found."""
    if rest.memory:
        remove_tree(rest.memory)
    if rest.engine:
        # Without its engine no container runs; a later run finds those that come back with it.
        with contextlib.suppress(EngineAway):
            reap(Engine(rest.engine), run)
    for folder in rest.scratch:
        end_orphan(folder)
