# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A misspelt variable is found, with the name that was meant; what is known comes from the roles."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ansible_collections.mazevault.backup.plugins.lookup.unknown_variables import LookupModule

TOP = Path(__file__).resolve().parents[2]
KNOWN = {
    name
    for path in TOP.glob("roles/*/meta/argument_specs.yml")
    for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values()
    for name in entry.get("options") or {}
}


def unknown(*names: str) -> list[str]:
    return LookupModule().run([], variables=dict.fromkeys(names, "x"))


def test_every_option_of_every_role_is_known() -> None:
    assert len(KNOWN) > 40
    assert unknown(*KNOWN) == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("mazevault_recipient_data", "mazevault_recipients_data"),
        ("mazevault_backuproot", "mazevault_backup_root"),
        ("mazevault_postgres_passfle", "mazevault_postgres_passfile"),
        ("mazevault_Confirm", "mazevault_confirm"),
    ],
)
def test_a_misspelt_name_is_shown_with_what_was_meant(name: str, meant: str) -> None:
    assert unknown("mazevault_home", name) == [f"{name} (did you mean {meant}?)"]


def test_a_name_like_no_other_is_shown_alone() -> None:
    assert unknown("mazevault_zzzzzzzzzzzzzzzzzzzzzzzzz") == ["mazevault_zzzzzzzzzzzzzzzzzzzzzzzzz"]


def test_other_peoples_names_are_nobodys_business() -> None:
    assert unknown("ansible_host", "mazevault", "vault_password", "my_mazevault_home", "__mazevault_set_id") == []


def test_results_of_a_former_run_are_let_through() -> None:
    assert unknown("mazevault_result_set_id", "mazevault_result_anything") == []
    assert unknown("mazevault_results") != []


def test_the_answers_are_sorted() -> None:
    names = [answer.split()[0] for answer in unknown("mazevault_zz_top", "mazevault_aa_top")]
    assert names == ["mazevault_aa_top", "mazevault_zz_top"]


def test_no_variables_are_no_mistakes() -> None:
    assert LookupModule().run([], variables=None) == []
