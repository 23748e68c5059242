# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What files_backup and files_restore take and return is what their documentation says."""

from __future__ import annotations

import ast
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from support.files import Files, place
from support.trees import ROOT

TOP = Path(__file__).resolve().parents[2]
# What Ansible adds, the last ones to a result with the path of something that exists.
ADDED = {"changed", "diff", "invocation", "warnings", "uid", "gid", "owner", "group", "mode", "state", "size"}


def documented(module: str, part: str) -> dict[str, t.Any]:
    for node in ast.parse((TOP / f"plugins/modules/{module}.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == part:
            return t.cast("dict[str, t.Any]", yaml.safe_load(ast.literal_eval(node.value)))
    raise AssertionError(f"{module} has no {part}")


@pytest.fixture
def mine() -> Iterator[Files]:
    with place(ordinary=not ROOT) as found:
        yield found


def test_returned_is_what_is_documented(mine: Files) -> None:
    top = mine.folder / "source"
    top.mkdir()
    (top / "f").write_text("x")
    calls = {
        "files_backup": {"dest": str(mine.folder / "a"), "paths": [{"path": str(top)}]},
        "files_restore": mine.restoring("a", "back"),
    }
    for module, params in calls.items():
        for check in (True, False):
            if check and module == "files_restore":
                assert (mine.folder / "a").exists()
            result = mine.must(module, params, check=check, diff=True)
            returned = documented(module, "RETURN")
            assert result.keys() - ADDED == returned.keys()
            for key, value in result.items():
                kind = {"str": str, "int": int, "list": list, "dict": dict, "bool": bool}.get(
                    returned.get(key, {}).get("type", ""), object
                )
                assert value is None or isinstance(value, kind), key
            if module == "files_backup":
                assert result["files"].keys() == returned["files"]["contains"].keys()
            assert result["invocation"]["module_args"].keys() == documented(module, "DOCUMENTATION")["options"].keys()
