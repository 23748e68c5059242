# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Custodians who open questions where their identities are, with the command that they were given."""

from __future__ import annotations

import subprocess
import tempfile
import typing as t
from pathlib import Path

from support.identities import Identity


def opened(question: t.Mapping[str, t.Any], identity: Identity) -> str:
    """What this person reads on the screen; empty where the identity doesn't open it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "question.pem").write_text(question["text"])
        words = [str(identity.private) if word == "IDENTITY" else word for word in question["command"].split()]
        done = subprocess.run(words, cwd=folder, capture_output=True, check=False, encoding="utf-8")
    return done.stdout.strip() if done.returncode == 0 else ""


def code_of(question: t.Mapping[str, t.Any], identity: Identity) -> str:
    return opened(question, identity).rpartition("proof code ")[2]
