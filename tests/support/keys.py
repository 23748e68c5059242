# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The signing key of whatever a test process makes: never the machine's own, whoever runs the tests."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from ansible_collections.mazevault.backup.plugins.module_utils._signature import Signer
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust


@functools.lru_cache(maxsize=1)
def _folder() -> tempfile.TemporaryDirectory[str]:
    # Removed when the process ends.
    return tempfile.TemporaryDirectory(prefix="mazevault-test-key-")


def signing_key() -> str:
    """The path of this process's key; made when it is first used."""
    return str(Path(_folder().name) / "host.key")


def own_trust() -> Trust:
    """What the module code goes by, with this process's key."""
    return Trust(Signer(signing_key()))
