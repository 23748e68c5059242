# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Separation on hosts with accounts and mounts of their own: an honest setup passes, one key for both doesn't."""

from __future__ import annotations

import json
import sys
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.far_hosts import FarHosts, far_hosts, missing
from support.identities import make_identity
from support.plays import TOP, Place

HOSTS = ("vault-escrow-1", "key-escrow-1")
TRY = """
- hosts: mazevault
  gather_facts: false
  tasks:
    - ansible.builtin.import_role:
        name: mazevault.backup.mazevault
    - ansible.builtin.include_role:
        name: mazevault.backup.mazevault_keys
        tasks_from: separation
"""
pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "it can")


@pytest.fixture
def far() -> Iterator[FarHosts]:
    with far_hosts(*HOSTS) as found:
        yield found


def separation(top: Path, far: FarHosts, *, valid_until: str = "2999-12-31") -> tuple[str, dict[str, str]]:
    """(verdict, what isn't passed and why)."""
    (top / "people").mkdir(exist_ok=True)
    people = [str(make_identity(top / "people", name).public) for name in ("vault-a", "vault-b", "key-a", "key-b")]
    places = [f"{host}:{far.folder}" for host in HOSTS]
    words = {"by": "J. Novak", "where": "room 12", "valid_until": valid_until}
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "mazevault_home": str(top),
        "mazevault_escrow_vault": places[0],
        "mazevault_escrow_key": places[1],
        "mazevault_keys_recipients_vault": people[:2],
        "mazevault_keys_recipients_key": people[2:],
        "mazevault_keys_attestations": [{"path": place, **words} for place in places],
    }
    inventory, playbook = top / "inventory.yml", top / "try.yml"
    groups = {"mazevault": {"hosts": {"prague": variables}}, "escrow": {"hosts": far.variables()}}
    inventory.write_text(json.dumps(groups))
    playbook.write_text(TRY)
    env = {"ANSIBLE_COLLECTIONS_PATH": str(TOP / "playbooks/collections"), "ANSIBLE_HOST_KEY_CHECKING": "false"}
    play = Place(top).run(playbook, inventory, env=env)
    assert (play.rc, play.changed) == (0, []), play.output
    found: dict[str, t.Any] = play.of("escrow_separation")[-1]
    wrong = {check["name"]: check["reason"] for check in found["checks"] if check["verdict"] != "pass"}
    return found["verdict"], wrong


def test_an_honest_setup_passes_and_expires(tmp_path: Path, far: FarHosts) -> None:
    assert separation(tmp_path, far) == ("pass", {})
    verdict, wrong = separation(tmp_path, far, valid_until="2026-01-01")
    assert verdict == "unproven" and set(wrong.values()) == {"it was valid until 2026-01-01"}


def test_one_key_for_both_fails(tmp_path: Path, far: FarHosts) -> None:
    far.let_in(HOSTS[1], key_of=HOSTS[0])
    verdict, wrong = separation(tmp_path, far)
    assert verdict == "fail"
    assert wrong == {
        f"the account of {HOSTS[0]}:{far.folder} at {HOSTS[1]}:{far.folder}":
            "one credential opens both places: it could list, read, delete"
    }  # fmt: skip


def test_a_host_that_does_not_answer_has_refused_nobody(tmp_path: Path, far: FarHosts) -> None:
    far.disconnect(HOSTS[1])
    verdict, wrong = separation(tmp_path, far)
    assert verdict == "unproven"
    assert "Connection timed out" in wrong[f"{HOSTS[0]}:{far.folder} and {HOSTS[1]}:{far.folder}"]
    assert wrong[f"the account of {HOSTS[0]}:{far.folder} at {HOSTS[1]}:{far.folder}"] == "nobody tried"
