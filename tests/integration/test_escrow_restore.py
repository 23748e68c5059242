# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""escrow_restore: keys come back whole, onto the same host or another; nothing mixed up, damaged or foreign does."""

from __future__ import annotations

import ast
import json
import os
import shutil
import stat
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml

from support.escrow_site import TOOL, TOP, Site, made_site
from support.identities import make_identity, schemes
from support.modules import Outcome, run_module

NAMES = (".env", "secrets.vault", "vault.key")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("MAZEVAULT_STANDIN_PYTHON", sys.executable)
    (tmp_path / "one").mkdir()
    return made_site(tmp_path / "one", "cms")


def restore(site: Site, home: Path | None = None, *, check: bool = False, **more: t.Any) -> Outcome:
    home = home or site.top / "home"
    params = {
        "backup_root": str(site.root),
        "installation": "prague",
        "places": [str(site.place(half)) for half in ("vault", "key")],
        "identity_vault": str(site.people["vault-a"].private),
        "identity_key": str(site.people["key-b"].private),
        "env_file": str(home / ".env"),
        "vault_file": str(home / "secrets.vault"),
        "key_file": str(home / "vault.key"),
        "inventory_hostname": "prague",
        "signing_key": str(site.top / "signing/host.key"),
        "tool": str(TOOL),
        **more,
    }
    done = run_module("escrow_restore", params, check=check, diff=True)
    told = json.dumps(done.result) + done.stderr
    for secret in site.secrets:
        assert secret not in told
    return done


def contents(home: Path) -> dict[str, bytes]:
    return {name: (home / name).read_bytes() for name in NAMES if (home / name).exists()}


def listed(home: Path) -> list[str]:
    """By the tool itself."""
    words = [TOOL, "list", "--vault-file", home / "secrets.vault", "--key-file", home / "vault.key"]
    return subprocess.run(words, capture_output=True, check=True, encoding="utf-8").stdout.split()


@pytest.mark.parametrize("scheme", schemes())
def test_all_that_was_deleted_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("MAZEVAULT_STANDIN_PYTHON", sys.executable)
    site = made_site(tmp_path, scheme)
    kept = site.keep()
    before = contents(tmp_path / "home")
    shutil.rmtree(tmp_path / "home")
    (tmp_path / "home").mkdir()
    looked = restore(site, check=True)
    assert (looked.rc, looked.result["changed"], contents(tmp_path / "home")) == (0, True, {})
    done = restore(site)
    assert (done.rc, done.result["verdict"], done.result["kept"]) == (0, "pass", [])
    assert done.result["generation"] == kept["generation"]
    assert done.result["written"] == looked.result["written"]
    assert contents(tmp_path / "home") == before
    assert {stat.S_IMODE((tmp_path / "home" / name).stat().st_mode) for name in NAMES} == {0o600}
    assert listed(tmp_path / "home") == ["MAZEVAULT_MASTER_KEY"]
    again = restore(site)
    assert (again.rc, again.result["changed"]) == (0, False)
    assert not site.keep()["changed"]


def test_another_host_gets_them_and_knows_them_by_the_same_id(site: Site, tmp_path: Path) -> None:
    site.secrets.clear()
    (site.top / "home/.env").open("a").write("POSTGRES_PASSWORD=changeme\n")
    kept = site.keep()
    card = (site.top / "signing/host.pub").read_text()
    before = contents(site.top / "home")
    new = Site(tmp_path / "two", "cms", site.people, site.secrets)
    for name in ("home", "root"):
        (new.top / name).mkdir(parents=True, mode=0o700)
    for half in ("vault", "key"):
        shutil.copytree(site.place(half), new.place(half))
    shutil.rmtree(site.top / "home")
    shutil.rmtree(site.top / "signing")
    stranger = restore(new)
    assert stranger.rc == 1
    assert "not signed by a key that counts" in stranger.result["msg"]
    done = restore(new, verification_keys=[card])
    assert (done.rc, done.result["generation"]) == (0, kept["generation"]), done.result
    assert contents(new.top / "home") == before
    found = new.keep()
    assert (found["generation"], found["new"], found["verdict"]) == (kept["generation"], False, "pass")


def test_each_generation_comes_back_by_its_id(site: Site) -> None:
    states = {}
    for _rotation in range(3):
        site.rotate()
        states[site.keep()["generation"]] = contents(site.top / "home")
    for generation, state in states.items():
        done = restore(site, generation=generation, confirm="prague")
        assert (done.rc, done.result.get("generation")) == (0, generation), done.result
        assert contents(site.top / "home") == state
    assert restore(site, generation="latest").result["changed"] is False
    unknown = restore(site, generation="00" * 8)
    assert unknown.rc == 1
    assert all(generation in unknown.result["msg"] for generation in states)


def test_what_is_there_is_replaced_only_with_a_confirmation_and_kept(site: Site) -> None:
    site.keep()
    home = site.top / "home"
    old = contents(home)
    site.rotate()
    other = contents(home)
    for confirm in (None, "brno"):
        done = restore(site, confirm=confirm)
        assert done.rc == 1
        assert "confirm" in done.result["msg"]
        assert contents(home) == other
    done = restore(site, confirm="prague")
    assert contents(home) == old
    kept = [Path(path) for path in done.result["kept"]]
    assert sorted(path.read_bytes() for path in kept) == sorted(other.values())
    assert all(path.name.partition(".before_")[0] in NAMES for path in kept)


def test_only_the_secrets_of_an_env_file_are_put_back(site: Site) -> None:
    site.keep()
    env = site.top / "home/.env"
    lines = dict(line.split("=", 1) for line in env.read_text().splitlines())
    env.write_text("# newer\nLOG_LEVEL=debug\nMASTER_KEY=@generation:0123456789abcdef\nIMAGE_TAG=1.0.17\n")
    os.chmod(env, 0o640)
    done = restore(site, confirm="prague")
    assert done.rc == 0, done.result
    assert done.result["written"] == [{"path": str(env), "names": ["JWT_SECRET", "MASTER_KEY"]}]
    assert env.read_text() == (
        f"# newer\nLOG_LEVEL=debug\nMASTER_KEY={lines['MASTER_KEY']}\nIMAGE_TAG=1.0.17\n"
        f"JWT_SECRET={lines['JWT_SECRET']}\n"
    )
    assert stat.S_IMODE(env.stat().st_mode) == 0o640


def test_one_half_alone_brings_back_its_part(site: Site) -> None:
    site.keep()
    before = contents(site.top / "home")
    for name in NAMES:
        (site.top / "home" / name).unlink()
    done = restore(site, identity_vault=None, places=[str(site.place("key"))])
    assert (done.rc, set(contents(site.top / "home"))) == (0, {".env", "vault.key"})
    done = restore(site, identity_key=None, places=[str(site.place("vault"))])
    assert (done.rc, contents(site.top / "home")) == (0, before)
    nobody = restore(site, identity_key=None, identity_vault=None)
    assert nobody.rc == 1
    assert "none is given" in nobody.result["msg"]


def test_the_wrong_person_opens_nothing(site: Site) -> None:
    site.keep()
    shutil.rmtree(site.top / "home")
    (site.top / "home").mkdir()
    stranger = make_identity(site.top / "people", "stranger")
    for more in (
        {"identity_key": str(stranger.private)},
        {"identity_vault": str(site.people["key-a"].private)},
    ):
        done = restore(site, **more)
        assert done.rc == 1
        assert "doesn't open" in done.result["msg"]
        assert contents(site.top / "home") == {}
    os.chmod(site.people["key-b"].private, 0o644)
    assert "others may read it" in restore(site).result["msg"]


def test_no_damaged_or_mixed_up_copy_is_put_back(site: Site) -> None:
    """A flipped bit, another generation's bundle under this one's name, an index that somebody edited."""
    site.keep()
    site.rotate()
    site.keep()
    home = site.top / "home"
    for name in NAMES:
        (home / name).unlink()
    old, new = site.copies("key", "vault.key.")
    good = new.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    for content in (bytes(flipped), old.read_bytes(), good[:-9]):
        new.write_bytes(content)
        done = restore(site)
        assert (done.rc, contents(home)) == (1, {})
        assert f"{new}: not what was signed" in done.result["msg"]
    new.unlink()
    assert "no copy of it here" in restore(site).result["msg"]
    new.write_bytes(good)
    index = site.copies("key", "escrow.")[-2]
    assert index.suffix == ".json"
    for half in ("vault", "key"):
        path = site.place(half) / index.name
        path.write_text(path.read_text().replace('"installation": "prague"', '"installation": "brno"'))
    done = restore(site, generation=json.loads(index.read_text())["generation"])
    assert done.rc == 1
    assert f"not signed by a key that counts: {site.place('vault') / index.name}" in done.result["msg"]
    assert contents(home) == {}


def test_another_installations_keys_are_not_put_back(site: Site) -> None:
    site.keep(installation="brno")
    done = restore(site)
    assert done.rc == 1
    assert "not in escrow for prague" in done.result["msg"]


def test_a_key_that_does_not_open_the_vault_is_not_put_back(site: Site) -> None:
    (site.top / "home/vault.key").write_text("another-passphrase-of-somebody\n")
    assert site.keep()["verdict"] == "fail"
    for name in NAMES:
        (site.top / "home" / name).unlink()
    done = restore(site)
    assert (done.rc, contents(site.top / "home")) == (1, {})
    assert "its key doesn't open its vault" in done.result["msg"]


def documented(module: str) -> dict[str, t.Any]:
    """RETURN of a module."""
    tree = ast.parse((TOP / f"plugins/modules/{module}.py").read_text(encoding="utf-8"))
    texts = [node.value for node in tree.body if isinstance(node, ast.Assign) and names(node) == ["RETURN"]]
    return t.cast("dict[str, t.Any]", yaml.safe_load(ast.literal_eval(texts[0])))


def names(node: ast.Assign) -> list[str]:
    return [target.id for target in node.targets if isinstance(target, ast.Name)]


def test_returned_is_what_is_documented(site: Site) -> None:
    files = {name: str(site.top / "home" / path) for name, path in (("vault_file", NAMES[1]), ("key_file", NAMES[2]))}
    site.keep()
    site.rotate()
    results = {
        "escrow": [site.run(check=True), site.run()],
        "escrow_restore": [restore(site, check=True), restore(site, confirm="prague")],
        "vault_verify": [run_module("vault_verify", {**files, "tool": str(TOOL)})],
    }
    for module, outcomes in results.items():
        told = documented(module)
        for outcome in outcomes:
            assert outcome.rc == 0, outcome.result
            assert outcome.result.keys() - {"changed", "diff", "invocation"} == told.keys()
            for key, entry in told.items():
                inner = [set(one) for one in outcome.result[key]] if "contains" in entry else []
                assert all(one <= entry["contains"].keys() for one in inner), key
