# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What init.yml prints is what the documents say, and what it leaves out is left out for a reason."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
import yaml

from ansible_collections.mazevault.backup.plugins.lookup.known_variables import LookupModule, told

TOP = Path(__file__).resolve().parents[2]
VARS = yaml.safe_load((TOP / "roles/mazevault_init/vars/main.yml").read_text(encoding="utf-8"))
CLASSES = ("data", "keys")


def shown_in(document: str) -> set[str]:
    """Commands of a document's console blocks, each as one line."""
    text = (TOP / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```console\n(.*?)^ *```", text, re.M | re.S)
    return {line.strip() for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()}


def printed() -> list[str]:
    """Every command for the identity data-a."""
    commands = [command for way in VARS["__mazevault_init_ways"] for command in way["commands"]]
    return [command.replace("NAME", "data-a") for command in [*commands, VARS["__mazevault_init_label"]]]


@pytest.mark.parametrize("command", printed())
def test_the_ceremony_has_the_commands_that_are_printed(command: str) -> None:
    assert command in shown_in("docs/ceremony.md")


def test_every_way_and_every_class_is_there() -> None:
    assert len(printed()) == 5 and any("ec_paramgen_curve:P-384" in command for command in printed())
    names = VARS["__mazevault_init_names"]
    assert {name: sum(one.startswith(f"{name}-") for one in names) for name in CLASSES} == {"data": 2, "keys": 2}


def test_no_character_of_a_command_is_changed_by_printing_it() -> None:
    """Ansible prints text as JSON: what it would escape couldn't be copied."""
    assert [command for command in printed() if re.search(r'["\\]', command)] == []


def known() -> dict[str, dict[str, t.Any]]:
    return {one["name"]: one for one in LookupModule().run([])}


def test_names_that_are_left_out_are_names() -> None:
    for group in ("__mazevault_init_of_a_run", "__mazevault_init_said_already"):
        assert [name for name in VARS[group] if name not in known()] == []


def test_the_lookup_knows_every_option_and_leaves_out_what_it_is_told_to() -> None:
    specs = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in TOP.glob("roles/*/meta/argument_specs.yml")]
    entries = [entry for spec in specs for entry in spec["argument_specs"].values()]
    options = {name: option for entry in entries for name, option in (entry.get("options") or {}).items()}
    assert {name: one["default"] for name, one in known().items()} == {
        name: option.get("default") for name, option in options.items()
    }
    left = {one["name"] for one in LookupModule().run(["mazevault_home"])}
    assert known().keys() - left == {"mazevault_home"}


def test_descriptions_are_plain() -> None:
    assert told(["Unset means C(backups) under O(mazevault_home).", "See RV(ready) of M(a.b.c), I/O (x)"]) == (
        "Unset means backups under mazevault_home. See ready of a.b.c, I/O (x)"
    )
    assert [name for name, one in known().items() if re.search(r"\b[A-Z]{1,2}\(", one["description"])] == []


def test_no_variable_has_identities_made() -> None:
    about = [name for name in known() if re.search(r"identit|ceremony|generate|make_|create_", name)]
    # Each says where one is that somebody lends.
    assert sorted(about) == [
        "mazevault_files_keys_identity_file",
        "mazevault_identity_file",
        "mazevault_keys_identity_key",
        "mazevault_keys_identity_vault",
    ]
