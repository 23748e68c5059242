# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""verify_keys.yml and restore_keys.yml, as an operator runs them; escrow itself is looked at in test_escrow.py."""

from __future__ import annotations

import json
import sys
import typing as t
from pathlib import Path

import pytest

from support.custodians import code_of
from support.escrow_site import TOOL, Site, made_site
from support.plays import TOP, Place, Play

NAMES = (".env", "secrets.vault", "vault.key")
KEEP = """
- hosts: mazevault
  gather_facts: false
  tasks:
    - ansible.builtin.import_role:
        name: mazevault.backup.mazevault
    - ansible.builtin.include_role:
        name: mazevault.backup.mazevault_keys
        tasks_from: backup
"""


class Operator:
    """Runs playbooks against one site, and sees to it that no secret is ever printed."""

    def __init__(self, site: Site) -> None:
        self._site, self._place = site, Place(site.top / "operator")
        (site.top / "operator/home").mkdir(parents=True)
        (site.top / "operator/home/ansible.cfg").write_text("")
        people = {name: str(one.public) for name, one in site.people.items()}
        self._inventory = self._place.write_inventory(
            {
                "prague": {
                    "mazevault_home": str(site.top / "home"),
                    "mazevault_backup_root": str(site.root),
                    "mazevault_signing_key": str(site.top / "signing/host.key"),
                    "mazevault_escrow_vault": [str(site.place("vault"))],
                    # As a survey gives it.
                    "mazevault_escrow_key": str(site.place("key")),
                    "mazevault_keys_recipients_vault": [people["vault-a"], people["vault-b"]],
                    "mazevault_keys_recipients_key": f"{people['key-a']},{people['key-b']}",
                    "mazevault_keys_tool": str(TOOL),
                }
            }
        )
        self._keep = site.top / "operator/keep.yml"
        self._keep.write_text(KEEP)

    def run(self, playbook: str, *arguments: str, **extra: t.Any) -> Play:
        env = {"MAZEVAULT_STANDIN_PYTHON": sys.executable}
        if playbook == "keep":
            env["ANSIBLE_COLLECTIONS_PATH"] = str(TOP / "playbooks/collections")
        named: str | Path = self._keep if playbook == "keep" else playbook
        play = self._place.run(named, self._inventory, "-vvv", "--diff", *arguments, extra=extra, env=env)
        told = play.output + json.dumps([task.result for task in play.tasks])
        assert not [secret for secret in self._site.secrets if secret in told]
        return play


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("MAZEVAULT_STANDIN_PYTHON", sys.executable)
    return made_site(tmp_path, "cms")


def test_kept_verified_lost_and_brought_back(site: Site) -> None:
    operator, home = Operator(site), site.top / "home"
    before = operator.run("verify_keys")
    assert before.rc != 0, "nothing was in escrow yet"
    assert not (site.root / "escrow").exists()
    kept = operator.run("keep")
    assert kept.rc == 0, kept.output
    assert len(kept.changed) == 1
    assert operator.run("keep").changed == []
    asked = operator.run("verify_keys")
    assert asked.rc != 0 and "each identity has shown that it works: unproven" in asked.output
    questions = asked.of("identity_proof")[0]["asked"]
    codes = [code for one in questions for who in site.people.values() if (code := code_of(one, who))]
    assert len(codes) == 4 and all(one["text"].split("\n")[1] in asked.output for one in questions)
    # As a survey gives them.
    verified = operator.run("verify_keys", mazevault_keys_proof_codes=", ".join(codes))
    assert verified.rc == 0, verified.output
    assert "separation: fail" in verified.output, "both places are on the test's own disk"
    misheard = operator.run("verify_keys", mazevault_keys_proof_codes=codes[0][::-1])
    assert misheard.rc != 0 and "answers none of the open questions" in misheard.output
    site.copies("vault", "secrets.vault.")[0].unlink()
    wrong = operator.run("verify_keys")
    assert (wrong.rc != 0, wrong.changed) == (True, [])
    assert "missing" in wrong.output
    assert operator.run("keep").rc == 0

    contents = {name: (home / name).read_bytes() for name in NAMES}
    for name in NAMES:
        (home / name).unlink()
    lost = operator.run("keep")
    assert lost.rc != 0
    assert "there last time, and gone now" in lost.output
    identities = {
        "mazevault_keys_identity_vault": str(site.people["vault-b"].private),
        "mazevault_keys_identity_key": str(site.people["key-a"].private),
    }
    looked = operator.run("restore_keys", "--check", **identities)
    assert looked.rc == 0, looked.output
    assert "-e mazevault_confirm=prague" in looked.output
    assert not list(home.iterdir())
    back = operator.run("restore_keys", **identities)
    assert back.rc == 0, back.output
    assert {name: (home / name).read_bytes() for name in NAMES} == contents
    again = operator.run("restore_keys", **identities)
    assert (again.rc, again.changed) == (0, []), again.output
    assert operator.run("verify_keys").rc == 0


def test_what_is_there_needs_the_confirmation(site: Site) -> None:
    operator, env = Operator(site), site.top / "home/.env"
    assert operator.run("keep").rc == 0
    old = env.read_bytes()
    site.rotate()
    new = env.read_bytes()
    identities = {"mazevault_keys_identity_key": str(site.people["key-a"].private)}
    refused = operator.run("restore_keys", **identities)
    assert refused.rc != 0
    assert "-e mazevault_confirm=prague" in refused.output
    assert env.read_bytes() == new
    assert operator.run("restore_keys", **identities, mazevault_confirm="prague").rc == 0
    assert env.read_bytes() == old


def test_pages_to_print(site: Site) -> None:
    operator, folder = Operator(site), site.top / "pages"
    nothing = operator.run("print_escrow", mazevault_keys_page_folder=str(folder))
    assert nothing.rc != 0 and "nothing of prague is in escrow" in nothing.output
    assert operator.run("keep").rc == 0
    printed = operator.run("print_escrow", mazevault_keys_page_folder=str(folder), mazevault_keys_page_codes="")
    assert printed.rc == 0, printed.output
    assert sorted(path.name for path in folder.iterdir()) == [
        f"prague-escrow-{half}.{kind}" for half in ("key", "vault") for kind in ("html", "txt")
    ]
    coded = operator.run("print_escrow", mazevault_keys_page_folder=str(folder), mazevault_keys_page_codes="true")
    assert (coded.rc, len(coded.changed)) == (0, 1), coded.output


def test_a_misspelt_variable_is_refused(site: Site) -> None:
    play = Operator(site).run("restore_keys", mazevault_keys_identity_vualt="x")
    assert play.rc != 0
    assert "mazevault_keys_identity_vualt (did you mean mazevault_keys_identity_vault?)" in play.output
