# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the backup root may take at most: refused before anything starts, and nothing is removed for it."""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils import _ceiling
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from support.flow import IN_PLAIN
from support.modules import Outcome, run_module
from support.plays import tree_state

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("", None),
        (None, None),
        ("  ", None),
        ("200 GB", 200 << 30),
        ("1.5G", 3 << 29),
        ("1000", 1000),
        ("60%", 600),
        (" 12.5 % ", 125),
        ("100%", 1000),
    ],
)
def test_limits(text: str | None, limit: int | None) -> None:
    assert _ceiling.parse_limit(text, 1000, parameter="root_limit") == limit


@pytest.mark.parametrize("text", ["0%", "101%", "-1%", "much", "0", "5 %%", "50% of it"])
def test_bad_limits(text: str) -> None:
    with pytest.raises(BackupError, match=r"^root_limit: "):
        _ceiling.parse_limit(text, 1000, parameter="root_limit")


def filled(root: Path) -> Path:
    """Two sets of 2 and 3 MiB, a staging folder, a record, a foreign file, and one file with two names."""
    for number, size in enumerate((2, 3), start=1):
        folder = root / f"sets/mazevault_2026110{number}_020000"
        (folder / "postgres").mkdir(parents=True)
        (folder / "postgres/database.dump").write_bytes(os.urandom(size * MIB))
        manifest = {
            "schema_version": 1,
            "verification": {},
            "installation": "vault1",
            "reason": "manual",
            "recovery_point": "2026-11-01T00:00:00.000000Z",
            "components": ["postgres"],
            "not_covered": [],
            "missing_protection": [],
            "sequence": number,
            "artefacts": [{"bytes": size * MIB}],
        }
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (root / "staging").mkdir()
    for name, size in (("staging/.lock", 0), ("records/x/y.json", 4096), ("old_dump.sql.gz", MIB)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.urandom(size))
    (root / "old_dump_again.sql.gz").hardlink_to(root / "old_dump.sql.gz")
    (root / "gone").symlink_to("nowhere")
    root.chmod(0o700)
    return root


def test_usage_by_kind(tmp_path: Path) -> None:
    used = _ceiling.usage(str(filled(tmp_path / "backups")))
    assert list(used) == ["sets", "staging", "records", "evidence", "other files"]
    assert 5 * MIB <= used["sets"] < 5.1 * MIB
    assert MIB <= used["other files"] < 1.1 * MIB
    assert used["staging"] == used["evidence"] == 0 and 4096 <= used["records"] <= 8192
    assert set(_ceiling.usage(str(tmp_path / "nothing")).values()) == {0}


def opened(root: Path, limit: str | None, *, check: bool = False, **params: t.Any) -> Outcome:
    return run_module(
        "recovery_set",
        {"state": "open", "backup_root": str(root), "root_limit": limit, **IN_PLAIN, **params},
        check=check,
    )


@pytest.mark.parametrize("check", [False, True])
def test_a_set_over_the_limit_is_refused(tmp_path: Path, check: bool) -> None:
    root = filled(tmp_path / "backups")
    before = tree_state(root)
    said = opened(root, "8 MB", check=check)
    assert said.rc != 0 and tree_state(root) == before
    for words in (
        "root_limit: 8 MB: a new set of about 3.1 MB would take",
        "MB are in use (2 sets 5.",
        ", other files 1.",
        "mazevault_backup_root_limit",
        "nothing removed",
    ):
        assert words in said.result["msg"]
    said = opened(root, "0.000001%", check=check)
    assert said.rc != 0 and "root_limit: 0.000001% (" in said.result["msg"]


@pytest.mark.parametrize("limit", ["10 MB", "99%", "", None])
def test_a_set_below_the_limit_is_opened(tmp_path: Path, limit: str | None) -> None:
    assert opened(filled(tmp_path / "backups"), limit).rc == 0


def test_the_first_set_and_restores(tmp_path: Path) -> None:
    """Nothing is known of a first set's size; a restore makes no set, and is never held up."""
    assert opened(tmp_path / "new", "1 MB").rc == 0
    root = filled(tmp_path / "backups")
    assert opened(root, "1 MB", purpose="restore").rc == 0
    assert opened(tmp_path / "new2", "nonsense", check=True).rc != 0
