# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a schedule asks of systemctl, kept in a file: which timers are enabled and active, and every call.

A test puts it into a folder of its own, and that folder first in PATH.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

BOOK = "FAKE_SYSTEMCTL"


def put_into(folder: Path) -> None:
    """A program of the name systemctl."""
    folder.mkdir(exist_ok=True)
    program = folder / "systemctl"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "$@"\n', encoding="utf-8")
    program.chmod(0o755)


def main(arguments: list[str]) -> int:
    path = Path(os.environ[BOOK])
    book = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"running": [], "calls": []}
    words = [word for word in arguments if not word.startswith("--")]
    verb, units = words[0], words[1:]
    if verb in ("is-enabled", "is-active"):
        return 0 if all(unit in book["running"] for unit in units) else 1
    book["calls"].append(arguments)
    if verb == "enable":
        book["running"] = sorted({*book["running"], *units})
    elif verb == "disable":
        book["running"] = sorted(set(book["running"]) - set(units))
    path.write_text(json.dumps(book), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
