# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/architecture.md says what may import what; this holds the code to it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UTILS = ROOT / "plugins" / "module_utils"
PREFIX = "ansible_collections.mazevault.backup.plugins.module_utils"


def layers() -> dict[str, int]:
    """File name (without .py) to its layer, counted from the ground up."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.split("### module_utils, from the ground up", 1)[1].split("\n\n", 3)[2]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    return {name: number for number, row in enumerate(rows) for name in re.findall(r"`(_[a-z_]+)`", row)}


def imports(path: Path) -> set[str]:
    """Names of the module_utils files that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == PREFIX:
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PREFIX}."):
            found.add((node.module or "").rsplit(".", 1)[1])
    return found


def test_every_file_has_its_layer() -> None:
    files = {path.stem for path in UTILS.glob("_*.py") if path.stem != "__init__"}
    assert files
    assert set(layers()) == files


def test_nothing_imports_upwards() -> None:
    order = layers()
    wrong = [
        f"{path.stem} imports {name}"
        for path in sorted(UTILS.glob("_*.py"))
        for name in sorted(imports(path))
        if order[name] > order[path.stem]
    ]
    assert not wrong
    assert any(imports(path) for path in UTILS.glob("_*.py")), "the test itself sees no import"


def test_programs_are_started_in_one_place() -> None:
    users = {
        path.stem
        for path in UTILS.glob("_*.py")
        if re.search(r"^import subprocess|^from subprocess", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert users == {"_process"}
