# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Places of the escrow on other hosts, each under an account of its own: kept, damaged, away, and brought back from."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.elsewhere import Elsewhere, elsewhere
from support.escrow_site import TOOL, Site, made_site
from support.modules import Outcome, run_module
from support.plays import TOP, Place, Play

NAMES = (".env", "secrets.vault", "vault.key")
FAR = {"vault": "vault-escrow-1", "key": "key-escrow-1"}
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
    """Runs playbooks against one site with its places elsewhere; no secret and no bundle is ever printed."""

    def __init__(self, site: Site, far: Elsewhere) -> None:
        self._site, self.far, self._place = site, far, Place(site.top / "operator")
        (site.top / "operator/home").mkdir(parents=True)
        self._keep = site.top / "operator/keep.yml"
        self._keep.write_text(KEEP)

    def inventory(self) -> Path:
        people = {name: str(one.public) for name, one in self._site.people.items()}
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "mazevault_home": str(self._site.top / "home"),
            "mazevault_backup_root": str(self._site.root),
            "mazevault_signing_key": str(self._site.top / "signing/host.key"),
            "mazevault_escrow_vault": [{"host": FAR["vault"], "path": str(self.far.folder(FAR["vault"]))}],
            # As a survey gives it.
            "mazevault_escrow_key": f"{FAR['key']}:{self.far.folder(FAR['key'])}",
            "mazevault_keys_recipients_vault": [people["vault-a"], people["vault-b"]],
            "mazevault_keys_recipients_key": f"{people['key-a']},{people['key-b']}",
            "mazevault_keys_tool": str(TOOL),
        }
        path = self._site.top / "operator/inventory.yml"
        path.write_text(
            json.dumps({"mazevault": {"hosts": {"prague": variables}}, "escrow": {"hosts": self.far.variables()}})
        )
        return path

    def run(self, playbook: str, *arguments: str, **extra: t.Any) -> Play:
        env = {"MAZEVAULT_STANDIN_PYTHON": sys.executable}
        if playbook == "keep":
            env["ANSIBLE_COLLECTIONS_PATH"] = str(TOP / "playbooks/collections")
        named: str | Path = self._keep if playbook == "keep" else playbook
        play = self._place.run(named, self.inventory(), "-vvv", "--diff", *arguments, extra=extra, env=env)
        assert not [secret for secret in self._site.secrets if secret in play.output]
        for bundle in self._site.root.glob("escrow/*/*.cms"):
            assert base64.b64encode(bundle.read_bytes()[:30]).decode()[:40] not in play.output
        return play

    def copies(self, half: str, begin: str = "") -> list[Path]:
        """Bundles at a place; other files by how their names begin."""
        folder = self.far.folder(FAR[half])
        return sorted(
            path for path in folder.iterdir() if path.name.startswith(begin or ("secrets.", "vault.", "maze"))
        )


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    monkeypatch.setenv("MAZEVAULT_STANDIN_PYTHON", sys.executable)
    with elsewhere(*FAR.values()) as far:
        yield Operator(made_site(tmp_path, "cms"), far)


def kept(play: Play) -> dict[str, t.Any]:
    """What escrow came to in the end."""
    return play.of("escrow")[-1]


def test_kept_healed_and_at_rest(operator: Operator) -> None:
    """The story of a half on each of two hosts."""
    site = operator._site
    first = operator.run("keep")
    assert first.rc == 0, first.output
    assert kept(first)["verdict"] == "pass", kept(first)["checks"]
    for half, who, others in (("vault", "vault-a", "key-a"), ("key", "key-b", "vault-b")):
        for path in operator.copies(half):
            assert site.open(path, who) is not None and site.open(path, others) is None
            if os.geteuid() == 0:
                assert path.owner() == operator.far.hosts[FAR[half]]
            assert path.stat().st_mode & 0o077 == 0
    names = [[path.name[:10] for path in operator.copies(half)] for half in ("vault", "key")]
    assert names == [["secrets.va"], ["mazevault-", "vault.key."]]
    again = operator.run("keep")
    assert (again.rc, again.changed) == (0, []), again.output
    assert kept(again)["verdict"] == "pass"

    site.rotate()
    assert operator.run("keep").rc == 0
    old, new = operator.copies("key", "vault.key.")
    victims = [operator.copies("vault")[0], operator.copies("key", "mazevault-env-")[0], old, new]
    contents = [path.read_bytes() for path in victims]
    victims[0].unlink()
    os.truncate(victims[1], 100)
    victims[2].write_bytes(os.urandom(len(contents[2])))
    victims[3].rename(victims[3].with_name("elsewhere"))
    victims[3].symlink_to("elsewhere")
    # The backup root's own copy of what is whole there.
    whole = operator.copies("vault")[-1]
    own = site.root / "escrow" / whole.name.split(".")[2] / whole.name
    own.write_bytes(b"nothing")
    healed = operator.run("keep")
    assert healed.rc == 0, healed.output
    told = {name: why for place in kept(healed)["places"] for name, why in place["healed"].items()}
    expected = ("missing", "truncated", "replaced", "not a file")
    assert told == {path.name: why for path, why in zip(victims, expected, strict=True)}
    assert [path.read_bytes() for path in victims] == contents
    assert not victims[3].is_symlink()
    assert own.read_bytes() == whole.read_bytes() != b"nothing"
    # What lay there in their stead is kept: the installation's word removes nothing on another host.
    folder = operator.far.folder(FAR["key"])
    assert len([path for path in folder.iterdir() if ".replaced_" in path.name]) == 3
    assert operator.run("keep").changed == []


def test_verified_and_told_but_not_healed(operator: Operator) -> None:
    assert operator.run("keep", "--check").rc == 0
    assert [list(operator.far.folder(host).iterdir()) for host in FAR.values()] == [[], []]
    assert operator.run("keep").rc == 0
    [victim] = operator.copies("vault")
    victim.unlink()
    seen = operator.run("verify_keys", mazevault_keys_attestations=attested(operator))
    # Questions to identities are new; nothing else is.
    assert seen.rc != 0 and seen.changed == ["Keys | Does each identity still open what is encrypted to it?"]
    assert f"{FAR['vault']}:{victim} was missing" in seen.output
    assert operator.copies("vault") == []
    # Two accounts, each refused at the other's place; but one machine, as a test has no other.
    [apart] = seen.of("escrow_separation")
    verdicts = {check["name"]: check["verdict"] for check in apart["checks"]}
    names = {half: f"{FAR[half]}:{operator.far.folder(FAR[half])}" for half in FAR}
    pair = f"{names['vault']} and {names['key']}"
    assert verdicts.pop(pair) == "fail"
    if os.geteuid() == 0:
        assert verdicts == {
            "recipients": "pass",
            f"the account of {names['vault']} at {names['key']}": "pass",
            f"the account of {names['key']} at {names['vault']}": "pass",
            f"attestation of {names['vault']}": "pass",
            f"attestation of {names['key']}": "pass",
        }
    assert not list(operator.far.top.glob("*/.mazevault-probe-*"))
    # The same account at both.
    operator.far.hosts = dict.fromkeys(FAR.values(), operator.far.hosts[FAR["key"]])
    operator.far.own(FAR["vault"], operator.far.folder(FAR["vault"]))
    [apart] = operator.run("verify_keys").of("escrow_separation")
    reasons = [check["reason"] for check in apart["checks"] if check["name"].startswith("the account of")]
    assert reasons == ["one credential opens both places: it could list, read, delete"] * 2
    assert not list(operator.far.top.glob("*/.mazevault-probe-*"))


def attested(operator: Operator) -> list[dict[str, str]]:
    words = {"by": "J. Novak", "where": "room 12", "valid_until": "2999-12-31"}
    return [{"path": f"{host}:{operator.far.folder(host)}", **words} for host in FAR.values()]


def test_a_host_that_is_down_stops_nothing_else(operator: Operator) -> None:
    site = operator._site
    assert operator.run("keep").rc == 0
    operator.far.down.add(FAR["vault"])
    site.rotate()
    down = operator.run("keep")
    assert down.rc != 0
    assert kept(down)["verdict"] == "fail"
    [problem] = [place["problem"] for place in kept(down)["places"] if place["problem"]]
    assert problem.startswith("its host can't be reached")
    assert [len(operator.copies("key", "vault.key.")), len(operator.copies("vault"))] == [2, 1]
    assert f"fail: half vault: {FAR['vault']}:" in down.output
    operator.far.down.clear()
    # An empty folder where the mount should be is no place.
    place = operator.far.folder(FAR["vault"])
    place.rename(place.with_name("moved"))
    place.mkdir(mode=0o700)
    operator.far.own(FAR["vault"], place)
    refused = operator.run("keep")
    assert refused.rc != 0 and "its mark .mazevault-escrow.json is gone" in refused.output
    assert list(place.iterdir()) == []
    fresh = operator.run("keep", mazevault_keys_fresh_places=f"{FAR['vault']}:{place}")
    assert fresh.rc == 0 and len(operator.copies("vault")) == 2, fresh.output


def test_everything_comes_back_from_other_hosts(operator: Operator) -> None:
    site, home = operator._site, operator._site.top / "home"
    assert operator.run("keep").rc == 0
    contents = {name: (home / name).read_bytes() for name in NAMES}
    card = (site.top / "signing/host.pub").read_text()
    # A new host has nothing but an identity of each half, and the card.
    for folder in (home, site.root, site.top / "signing"):
        shutil.rmtree(folder)
    for folder in (home, site.root):
        folder.mkdir(mode=0o700)
    identities = {
        "mazevault_keys_identity_vault": str(site.people["vault-b"].private),
        "mazevault_keys_identity_key": str(site.people["key-a"].private),
        "mazevault_keys_verification_keys": card,
    }
    back = operator.run("restore_keys", **identities)
    assert back.rc == 0, back.output
    assert {name: (home / name).read_bytes() for name in NAMES} == contents
    for name in NAMES:
        (home / name).unlink()
    operator.far.locked.add(FAR["vault"])
    half = operator.run("restore_keys", **{**identities, "mazevault_keys_identity_vault": ""})
    assert half.rc == 0, half.output
    assert f"{FAR['vault']}:{operator.far.folder(FAR['vault'])}: its host couldn't look" in half.output
    assert {path.name for path in home.iterdir()} == {".env", "vault.key"}


def test_a_host_that_the_inventory_does_not_know_gets_nothing(operator: Operator) -> None:
    play = operator.run("keep", mazevault_escrow_vault="vault-escrw-1:/srv/escrow")
    assert play.rc != 0
    assert "vault-escrw-1: not in the inventory" in play.output
    assert not (operator._site.root / "escrow").exists()


def place(folder: Path, **more: t.Any) -> Outcome:
    params = {"path": str(folder), "half": "key", "installation": "prague", **more}
    return run_module("escrow_place", params)


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "secrets.vault.20261123_020000.cms/../x", "x", ".env"])
def test_no_other_names_are_written_or_looked_at(tmp_path: Path, name: str) -> None:
    """Whoever has taken the installation over tells the other host what has to be there."""
    folder = tmp_path / "place"
    folder.mkdir()
    copy = {"name": name, "bytes": 1, "sha256": "00" * 32}
    for more in ({"copies": [copy]}, {"contents": {name: "eA=="}}):
        done = place(folder, state="healed", **more)
        assert done.rc == 1
        assert "not the name of a bundle or an index" in done.result["msg"]
    assert [path.name for path in tmp_path.iterdir()] == ["place"] and not list(folder.iterdir())


def test_what_arrives_damaged_is_not_taken(tmp_path: Path) -> None:
    copy = {"name": "vault.key.20261123_020000.cms", "bytes": 5, "sha256": "00" * 32}
    done = place(tmp_path, state="healed", copies=[copy], contents={copy["name"]: base64.b64encode(b"other").decode()})
    assert (done.rc, done.result["healed"], done.result["whole"]) == (0, [], {})
    assert "damaged too" in done.result["problem"]
    assert not list(tmp_path.glob("vault.key.*"))


def test_what_was_seen_elsewhere_is_held_against_what_has_to_be_there(tmp_path: Path, monkeypatch: t.Any) -> None:
    """A look that is older than the newest generation, and one that tells of too little."""
    monkeypatch.setenv("MAZEVAULT_STANDIN_PYTHON", sys.executable)
    site = made_site(tmp_path, "cms")
    far = {"half": "vault", "name": "other:/x", "host": "other", "path": "/x"}
    asked = site.keep(places_vault=[], places_away=[far])
    assert asked["verdict"] == "unproven"
    [place] = asked["away"]
    whole = {copy["name"]: copy["sha256"] for copy in place["copies"]}
    answer = {"half": "vault", "name": "other:/x", "problem": "", "place_id": "ab" * 8, "wrong": {}, "healed": []}
    less = dict(list(whole.items())[1:])
    assert site.keep(places_vault=[], places_away=[far], looks=[{**answer, "whole": less}])["verdict"] == "unproven"
    assert site.keep(places_vault=[], places_away=[far], looks=[{**answer, "whole": whole}])["verdict"] == "pass"
    site.rotate()
    assert site.keep(places_vault=[], places_away=[far], looks=[{**answer, "whole": whole}])["verdict"] == "unproven"
    both = [far, {**far, "half": "key"}]
    refused = site.run(places_away=both)
    assert refused.rc == 1 and "is a place of the other half too" in refused.result["msg"]
