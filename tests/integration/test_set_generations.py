# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A set is as good as the keys that open it: what isn't in escrow is neither proven nor restored, nor what doesn't fit.

Refusals come before a server is asked for, so these restores name one that isn't there.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import typing as t
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils._staging import Staging
from support.escrow_site import Site, made_site
from support.fake_sets import stage
from support.flow import IN_PLAIN, count
from support.modules import Outcome, run_module

# What a restore says when its keys are right: nothing listens there.
REACHED = "127.0.0.1"
BECAUSE = "the auditor has seen it"


class Life:
    """One installation: its keys, its sets, and attempts to restore them."""

    def __init__(self, site: Site, good: t.Mapping[str, t.Any] | None = None) -> None:
        self.site, self.good = site, dict(good or {})
        self.wanted: dict[str, t.Any] = {"escrow": {half: [str(site.place(half))] for half in ("vault", "key")}}

    @property
    def home(self) -> Path:
        return self.site.top / "home"

    def module(self, name: str, *, check: bool = False, **params: t.Any) -> Outcome:
        own = {"backup_root": str(self.site.root), "signing_key": str(self.site.top / "signing/host.key")}
        done = run_module(name, {**own, **params}, check=check)
        told = json.dumps(done.result) + done.stderr
        assert not [secret for secret in self.site.secrets if secret in told]
        return done

    def must(self, name: str, **params: t.Any) -> dict[str, t.Any]:
        done = self.module(name, **params)
        assert done.rc == 0, done.result
        return done.result

    def files(self) -> dict[str, str]:
        names = {"env_file": ".env", "vault_file": "secrets.vault", "key_file": "vault.key"}
        return {option: str(self.home / name) for option, name in names.items()}

    def publish(
        self, *, keep: bool = True, meanwhile: Callable[[], t.Any] | None = None, **opening: t.Any
    ) -> dict[str, t.Any]:
        """One set as backup.yml takes it; what sealing returned, with the manifest."""
        params = {"wanted": self.wanted, **self.files(), **IN_PLAIN, **opening}
        set_id = self.must("recovery_set", state="open", **params)["set_id"]
        if keep:
            self.site.run()
        stage(Staging(str(self.site.root), set_id), secrets.token_bytes(20))
        if meanwhile:
            meanwhile()
        proof = {"verdict": "pass", "level": "restore", "wanted": "restore"}
        about = {"installation": "prague", "verification": proof, "wanted": self.wanted}
        sealed = self.must("recovery_set", state="sealed", set_id=set_id, **about)
        manifest = json.loads((self.site.root / "sets" / set_id / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["verification"]["verdict"] == sealed["verdict"]
        assert manifest["key_generations"] == sealed["key_generations"]
        return {**sealed, "manifest": manifest}

    def restore(self, sealed: t.Mapping[str, t.Any], **params: t.Any) -> str:
        """What a restore of this set says; it never comes to a server."""
        own = {"set": sealed["set_id"], "installation": "prague", "host": REACHED, "port": 1, "wanted": self.wanted}
        done = self.module("pg_restore", check=not params.get("set_id"), **{**own, **self.files(), **params})
        assert done.rc == 1
        return str(done.result["msg"])

    def fits(self, sealed: t.Mapping[str, t.Any], **params: t.Any) -> bool:
        return REACHED in self.restore(sealed, **params)

    def known(self, sealed: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        """What everybody else is told of a set."""
        sets = self.must("recovery_set_info")["sets"]
        return next(one for one in sets if one["set_id"] == sealed["set_id"])

    def env(self, old: str, new: str) -> None:
        path = self.home / ".env"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def master(self) -> str:
        return (self.home / ".env").read_text(encoding="utf-8").split("MASTER_KEY=")[1].splitlines()[0]

    def ledger(self) -> str:
        return (self.site.root / "ledger.jsonl").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Life, Path]]:
    """An installation with one good set, and a copy of all of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAZEVAULT_STANDIN_PYTHON", sys.executable)
        top = tmp_path_factory.mktemp("life") / "top"
        top.mkdir()
        one = Life(made_site(top, "cms"))
        one.good = one.publish()
        kept = top.with_name("kept")
        shutil.copytree(top, kept, symlinks=True)
        yield one, kept


@pytest.fixture
def life(begun: tuple[Life, Path]) -> Life:
    """As it was after that set."""
    one, kept = begun
    shutil.rmtree(one.site.top)
    shutil.copytree(kept, one.site.top, symlinks=True)
    site = Site(one.site.top, one.site.scheme, dict(one.site.people), list(one.site.secrets))
    return Life(site, one.good)


def test_keys_come_into_escrow_before_the_set_is_proven(life: Life) -> None:
    first = life.good
    assert (first["verdict"], first["keys_missing"]) == ("pass", [])
    assert first["key_generations"] == life.site.keep()["generations"]
    assert first["manifest"]["escrow"] == {"expected": True, "verdict": "pass", "reasons": []}
    assert first["manifest"]["missing_protection"] == ["encryption"]
    assert life.fits(first)
    told = life.known(first)
    assert (told["verdict"], told["doubts"], told["key_generations"]) == ("pass", [], first["key_generations"])


def test_what_is_not_in_escrow_is_neither_proven_nor_restored(life: Life) -> None:
    life.site.rotate()
    alone = life.publish(keep=False)
    generation = alone["key_generations"][0]
    assert alone["verdict"] == "unproven"
    assert alone["keys_missing"][0].startswith(f"key generation {generation}: isn't in escrow; backup.yml brings it")
    assert alone["manifest"]["missing_protection"] == ["escrow", "encryption"]
    assert any(generation in doubt for doubt in life.known(alone)["doubts"])
    refused = life.restore(alone)
    assert f"key generation {generation}: isn't in escrow" in refused and "accept not_in_escrow" in refused
    assert life.restore(alone, accept=["not_in_escrow"]).startswith("accept_because: missing")
    before = life.ledger()
    assert life.fits(alone, accept=["not_in_escrow"], accept_because=BECAUSE)
    assert life.ledger() == before, "a check writes nothing"
    staged = life.must("recovery_set", state="open", purpose="restore")["set_id"]
    assert life.fits(alone, accept=["not_in_escrow"], accept_because=BECAUSE, set_id=staged)
    assert BECAUSE in life.ledger()
    life.site.keep()
    assert life.fits(alone)
    # It was proven when nobody could know that its keys would last; a later proof makes up for that.
    assert life.known(alone)["verdict"] == "unproven"
    assert life.known(alone)["doubts"] == []


def test_one_half_is_no_escrow(life: Life) -> None:
    life.site.place("vault").rename(life.site.top / "away")
    life.site.rotate()
    half = life.publish()
    assert half["verdict"] == "unproven"
    generation = half["key_generations"][0]
    assert half["keys_missing"] == [
        f"key generation {generation}: hasn't arrived at any place of the half vault; see to these places, then run"
        " backup.yml again"
    ]
    assert "the half vault" in life.restore(half)
    (life.site.top / "away").rename(life.site.place("vault"))
    whole = life.publish()
    assert (whole["verdict"], whole["key_generations"][0]) == ("pass", generation)


def test_an_older_generation_is_refused_and_says_which_is_which(life: Life) -> None:
    old = life.good
    life.site.rotate()
    new = life.publish()
    was, now = old["key_generations"][0], new["key_generations"][0]
    refused = life.restore(old)
    assert f"its data need key generation {was}, and this host uses {now}" in refused
    assert "MASTER_KEY (other), secrets.vault (other)" in refused and "restore_keys.yml" in refused
    assert life.fits(new)
    assert life.fits(old, accept=["other_generation"], accept_because=BECAUSE)
    # A generation that nobody has looked at yet is another one all the same.
    life.site.rotate()
    assert "this host uses one that was never seen" in life.restore(new)


def test_other_secrets_may_change(life: Life) -> None:
    """Yesterday's set is restored although the token for mails was changed this morning."""
    old = life.good
    life.env("LOG_LEVEL=info", f"LOG_LEVEL=info\nSMTP_PASSWORD={secrets.token_hex(20)}")
    new = life.publish()
    assert old["key_generations"] != new["key_generations"]
    assert len(new["key_generations"]) == 1, "its rows are encrypted under the same master key"
    assert life.fits(old) and life.fits(new)


def test_the_application_runs_with_other_keys_than_the_files_have(life: Life) -> None:
    said = "client-backend was made with another MASTER_KEY than .env has now"
    wrong = life.publish(other_keys=[said])
    assert (wrong["verdict"], wrong["keys_missing"]) == ("fail", [said])
    assert life.known(wrong)["verdict"] == "fail"


def another_key(life: Life) -> None:
    (life.home / "vault.key").write_text(secrets.token_hex(32) + "\n")


def flipped_vault(life: Life) -> None:
    path = life.home / "secrets.vault"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [another_key, flipped_vault])
def test_keys_that_do_not_fit_each_other_prove_nothing(life: Life, spoil: Callable[[Life], None]) -> None:
    good = life.good
    spoil(life)
    wrong = life.publish()
    assert wrong["verdict"] == "fail"
    assert any("its keys don't fit each other" in said for said in wrong["keys_missing"])
    assert "its keys don't fit each other" in life.restore(wrong)
    if spoil is flipped_vault:
        assert "secrets.vault (other)" in life.restore(good)


def flipped_master(life: Life) -> None:
    master = life.master()
    life.env(master, master[:-1] + ("1" if master[-1] == "0" else "0"))
    life.site.secrets.append(life.master())


def another_installation(life: Life) -> None:
    (life.site.top / "elsewhere").mkdir()
    other = Site(life.site.top / "elsewhere", "cms", life.site.people)
    other.rotate()
    life.site.secrets += other.secrets
    for path in (other.top / "home").iterdir():
        shutil.copy(path, life.home / path.name)


@pytest.mark.parametrize(("spoil", "seen"), [(flipped_master, True), (another_installation, False)])
def test_the_hosts_keys_are_others(life: Life, spoil: Callable[[Life], None], seen: bool) -> None:
    good = life.good
    spoil(life)
    if seen:
        life.site.keep()
    refused = life.restore(good)
    assert good["key_generations"][0] in refused and "MASTER_KEY (other)" in refused


def test_the_right_name_with_wrong_content(life: Life) -> None:
    """Somebody put other bundles under the names of those that were signed, everywhere."""
    good = life.good
    for folder in (*(life.site.root / "escrow").iterdir(), life.site.place("key")):
        for path in folder.glob("mazevault-env-*.cms"):
            path.write_bytes(secrets.token_bytes(path.stat().st_size))
    assert "its escrowed copy isn't what was signed (mazevault-env-" in life.restore(good)
    assert life.known(good)["verdict"] == "unproven"
    again = life.publish()
    assert again["verdict"] == "unproven"
    assert "isn't what was signed" in again["keys_missing"][0]


def test_a_bundle_by_somebody_else_is_none(life: Life) -> None:
    good = life.good
    (index,) = (life.site.root / "escrow").glob("*/escrow.*.json")
    index.write_text(index.read_text(encoding="utf-8").replace("prague", "vienna"), encoding="utf-8")
    assert "isn't in escrow" in life.restore(good)


def test_keys_that_change_while_a_set_is_made(life: Life) -> None:
    """Its rows may be of both; the second isn't in escrow yet."""
    mixed = life.publish(meanwhile=life.site.rotate)
    new, old = mixed["key_generations"]
    assert mixed["verdict"] == "unproven"
    assert [said.split(":")[0] for said in mixed["keys_missing"]] == [f"key generation {new}"]
    assert new in life.restore(mixed) and old not in life.restore(mixed)
    life.site.keep()
    assert life.fits(mixed)


def test_two_generations_in_one_dump_need_both(life: Life) -> None:
    """After a rotation rows are encrypted anew for days; a generation that was never in escrow spoils the set."""
    life.site.rotate()
    lost, first = life.publish(keep=False)["key_generations"]
    life.site.rotate()
    mixed = life.publish()
    assert mixed["key_generations"][1:] == [lost, first]
    assert mixed["verdict"] == "unproven"
    assert mixed["keys_missing"][0].startswith(f"key generation {lost}: isn't in escrow")
    refused = life.restore(mixed)
    assert f"key generation {lost}" in refused and first not in refused


def test_both_in_escrow_is_proven(life: Life) -> None:
    one = life.good["key_generations"]
    life.site.rotate()
    two = life.publish()
    assert (two["verdict"], two["key_generations"][1:]) == ("pass", one)


def test_a_loss_stops_no_backup(life: Life) -> None:
    good = life.good
    (life.home / "vault.key").unlink()
    without = life.publish()
    assert (without["verdict"], without["key_generations"]) == ("unproven", good["key_generations"])
    assert "vault.key: there last time, and gone now" in without["keys_missing"][0]
    for path in list(life.home.iterdir()):
        path.unlink()
    assert "this host has no keys" in life.restore(good)
    brought = {"places": [str(life.site.place(half)) for half in ("vault", "key")], "installation": "prague"}
    people = {f"identity_{half}": str(life.site.people[f"{half}-a"].private) for half in ("vault", "key")}
    tool = life.site.params()["tool"]
    life.must("escrow_restore", inventory_hostname="prague", tool=tool, **brought, **people, **life.files())
    assert life.fits(good)
    assert life.publish(keep=False)["key_generations"] == good["key_generations"]


def test_without_an_escrow_nothing_is_demanded_but_the_keys_still_have_to_fit(life: Life) -> None:
    life.wanted = {}
    (life.site.root / "ledger.jsonl").rename(life.site.root / "as if there never had been an escrow")
    plain = life.publish(keep=False)
    assert (plain["verdict"], plain["keys_missing"]) == ("pass", [])
    assert plain["manifest"]["missing_protection"] == ["escrow", "encryption"]
    assert life.fits(plain)
    life.site.rotate()
    assert "MASTER_KEY (other)" in life.restore(plain)
    assert life.fits(plain, env_file=None, vault_file=None, key_file=None)


def test_the_policy_demands_what_the_inventory_forgets(life: Life) -> None:
    pinned = {"content": {"escrow": life.wanted["escrow"]}, "confirm": "prague", "inventory_hostname": "prague"}
    signing = {"signing_key": str(life.site.top / "signing/host.key")}
    done = run_module("backup_policy", {"state": "pinned", **pinned, **signing})
    assert done.rc == 0, done.result
    life.wanted = {}
    life.site.rotate()
    assert life.publish(keep=False)["verdict"] == "unproven"
    life.site.keep()
    assert life.publish(keep=False)["verdict"] == "pass"


def staged(life: Life) -> dict[str, str]:
    """New keys, whole, where MazeVault doesn't look for them; a password that a person chose is among them."""
    folder = life.site.top / "new"
    folder.mkdir(exist_ok=True)
    other = Site(folder, "cms", life.site.people)
    other.rotate()
    life.site.secrets += other.secrets
    env = folder / "home/.env"
    env.write_text(env.read_text(encoding="utf-8") + "POSTGRES_PASSWORD=mazevault-prague\n", encoding="utf-8")
    return {option: str(folder / "home" / Path(path).name) for option, path in life.files().items()}


def test_a_rotation_is_one_generation_in_escrow_before_it_is_used(life: Life) -> None:
    sets, masters = [life.good], [life.master()]
    for _rotation in range(count(2, 20)):
        new = staged(life)
        coming = life.site.keep(**new)
        assert (coming["new"], coming["verdict"]) == (True, "pass")
        # MazeVault works on with the former ones, which are nothing new.
        still = life.site.keep()
        assert (still["new"], still["changed"], still["generation"]) == (False, False, sets[-1]["key_generations"][0])
        assert life.fits(sets[-1])
        for option, path in life.files().items():
            Path(new[option]).replace(path)
        masters.append(life.master())
        used = life.site.keep()
        assert (used["new"], used["changed"], used["generation"]) == (False, False, coming["generation"])
        sets.append(life.publish(keep=False))
        assert (sets[-1]["verdict"], sets[-1]["key_generations"][0]) == ("pass", coming["generation"])
        assert not life.fits(sets[-2])
    ids = [one["key_generations"][0] for one in sets]
    listed = json.loads((life.site.root / "generations.json").read_text(encoding="utf-8"))["generations"]
    assert [one["id"] for one in listed] == ids and len(set(ids)) == len(sets)
    # Each set finds its own keys in escrow, by openssl and tar alone.
    opened = [life.site.open(path, "key-b") or {} for path in life.site.copies("key", "mazevault-env-")]
    found = {json.loads(one["generation.json"])["generation"]: one[".env"].decode() for one in opened}
    assert [f"MASTER_KEY={master}\n" in found[id_] for id_, master in zip(ids, masters, strict=True)] == [True] * len(
        ids
    )


@pytest.mark.parametrize("in_escrow", [True, False])
def test_the_vault_is_in_no_set_where_there_is_an_escrow(life: Life, in_escrow: bool) -> None:
    """As where a container mounts it: without an escrow it is key material, like all else that is to be kept secret."""
    mounted = life.home / "config"
    mounted.mkdir()
    (mounted / "nginx.conf").write_text("server {}\n", encoding="utf-8")
    for name in ("secrets.vault", "vault.key"):
        shutil.copy(life.home / name, mounted / name)
    set_id = life.must("recovery_set", state="open", **IN_PLAIN)["set_id"]
    vault, key = mounted / "secrets.vault", mounted / "vault.key"
    about = {"set_id": set_id, "component": "config", "paths": [{"path": str(mounted)}, {"path": str(key)}]}
    found = life.must("key_material", vault_file=str(vault), key_file=str(key), vault_in_escrow=in_escrow, **about)
    assert {str(vault), str(key)} <= set(found["excludes"]), "neither is among the data"
    assert [entry["path"] for entry in found["data"]] == [str(mounted)]
    kept = {entry["path"] for entry in found["keys"]}
    assert kept == (set() if in_escrow else {str(vault), str(key)})
    life.must("recovery_set", state="aborted", set_id=set_id)


def test_a_new_host_knows_what_its_escrow_has(life: Life) -> None:
    """It has the sets and the places, and neither ledger nor bundles of its own; rows may be of two generations."""
    life.site.rotate()
    new = life.publish()
    assert len(new["key_generations"]) == 2
    for name in ("ledger.jsonl", "generations.json", "escrow"):
        (life.site.root / name).rename(life.site.top / name)
    for path in list(life.home.iterdir()):
        path.unlink()
    assert "isn't in escrow" in life.restore(new)
    brought = {"places": [str(life.site.place(half)) for half in ("vault", "key")], "installation": "prague"}
    people = {f"identity_{half}": str(life.site.people[f"{half}-b"].private) for half in ("vault", "key")}
    about = {**brought, **people, **life.files(), "inventory_hostname": "prague", "tool": life.site.params()["tool"]}
    life.must("escrow_restore", **about)
    assert life.fits(new)
    # One whose copies are gone isn't there, whatever else is.
    (life.site.root / "ledger.jsonl").unlink()
    life.site.copies("key", "mazevault-env-")[0].unlink()
    (life.home / "vault.key").unlink()
    life.must("escrow_restore", **about)
    assert f"key generation {new['key_generations'][1]}: isn't in escrow" in life.restore(new)
