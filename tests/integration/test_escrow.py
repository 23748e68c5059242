# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""escrow: what lies at the places is opened here by openssl and tar alone, damaged, and looked for again."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shutil
import stat
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from support.escrow_site import PEOPLE, Site, made_site
from support.flow import sample
from support.identities import make_identity, schemes


def snapshot(*folders: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below some folders, with the moment that it was written."""
    return {
        str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns, path.read_bytes())
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("MAZEVAULT_STANDIN_PYTHON", sys.executable)
    return made_site(tmp_path, "cms")


@pytest.mark.parametrize("scheme", schemes())
def test_each_half_opens_with_stock_tools_and_by_its_own_people_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("MAZEVAULT_STANDIN_PYTHON", sys.executable)
    site = made_site(tmp_path, scheme)
    found = site.keep()
    assert (found["verdict"], found["changed"], found["new"]) == ("pass", True, True), found["checks"]
    stamp, home = found["made"], tmp_path / "home"
    [vault], [key], [env] = (
        site.copies(half, name)
        for half, name in (("vault", "secrets.vault."), ("key", "vault.key."), ("key", "mazevault-env-"))
    )
    assert [path.name for path in (vault, key, env)] == [
        f"secrets.vault.{stamp}.{scheme}", f"vault.key.{stamp}.{scheme}", f"mazevault-env-{stamp}.{scheme}"
    ]  # fmt: skip
    for who in PEOPLE:
        opened = [site.open(path, who) for path in (vault, key, env)]
        assert [one is not None for one in opened] == [who[0] == "v", who[0] == "k", who[0] == "k"]
        for one, name in zip(opened, ("secrets.vault", "vault.key", ".env"), strict=True):
            if one is not None:
                assert one[name] == (home / name).read_bytes()
                assert json.loads(one["generation.json"])["generation"] == found["generation"]
    assert stat.S_IMODE(vault.stat().st_mode) == 0o600
    # The other half is nowhere at a place.
    assert not site.copies("vault", "vault.key") + site.copies("vault", "mazevault-env")
    assert not site.copies("key", "secrets.vault")


def test_no_secret_lies_anywhere_outside_the_home(site: Site) -> None:
    site.keep()
    site.rotate()
    site.keep()
    written = b"\n".join(
        content for _ino, _time, content in snapshot(site.root, *map(site.place, ("vault", "key"))).values()
    )
    for secret in site.secrets:
        raw = secret.encode()
        forms = [raw, raw.hex().encode(), hashlib.sha256(raw).hexdigest().encode()]
        forms += [base64.b64encode(b"x" * pad + raw)[4:-4] for pad in range(3)]
        assert not [form for form in forms if form in written]


def test_nothing_changed_copies_nothing(site: Site) -> None:
    first = site.keep()
    folders = (site.root, site.place("vault"), site.place("key"))
    before = snapshot(*folders)
    for _run in range(5):
        again = site.keep()
        assert (again["changed"], again["made"], again["verdict"]) == (False, "", "pass")
        assert again["generation"] == first["generation"]
        assert again["diff"]["before"] == again["diff"]["after"] == ""
    assert snapshot(*folders) == before


def test_rotations_are_one_generation_each_and_all_stay(site: Site) -> None:
    ids = [site.keep()["generation"]]
    for _rotation in range(4):
        site.rotate()
        ids.append(site.keep()["generation"])
        assert not site.keep()["changed"]
    assert len(set(ids)) == 5
    assert site.keep()["generations"] == ids
    assert [len(site.copies("vault", "secrets.vault.")), len(site.copies("key", "vault.key."))] == [5, 5]
    opened = [site.open(path, "key-b") or {} for path in site.copies("key", "vault.key.")]
    assert [json.loads(one["generation.json"])["generation"] for one in opened] == ids
    masters = [site.open(path, "key-a") or {} for path in site.copies("key", "mazevault-env-")]
    assert [secret in one[".env"].decode() for secret, one in zip(site.secrets[::3], masters, strict=True)] == [
        True
    ] * 5


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


DAMAGES = [(delete, "missing"), (truncate, "truncated"), (replace, "replaced"), (link, "not a file")]


@pytest.mark.parametrize(("damage", "why"), sample(DAMAGES, 2))
def test_a_damaged_copy_is_healed_and_told(site: Site, damage: t.Callable[[Path], None], why: str) -> None:
    site.keep()
    site.rotate()
    site.keep()
    for half, name in (("vault", "secrets.vault."), ("key", "mazevault-env-"), ("key", "escrow.")):
        victim = site.copies(half, name)[0]
        content = victim.read_bytes()
        damage(victim)
        looked = site.run(check=True).result
        assert looked["changed"]
        assert victim.is_symlink() or not victim.exists() or victim.read_bytes() != content
        told = site.keep()
        [place] = [one for one in told["places"] if one["half"] == half]
        assert (told["changed"], told["verdict"], place["healed"]) == (True, "pass", {victim.name: why})
        assert looked["places"] == told["places"]
        assert f"{victim}: {why}" in told["diff"]["before"]
        assert not victim.is_symlink()
        assert victim.read_bytes() == content
        assert not site.keep()["changed"]


def test_the_backup_roots_own_copy_is_healed_from_a_place(site: Site) -> None:
    found = site.keep()
    own = site.root / "escrow" / found["made"] / f"secrets.vault.{found['made']}.cms"
    content = own.read_bytes()
    own.unlink()
    site.keep()
    assert own.read_bytes() == content
    own.unlink()
    delete(site.copies("vault", "secrets.vault.")[0])
    site.rotate()
    told = site.keep()
    assert told["verdict"] == "fail"
    assert next(check["reason"] for check in told["checks"] if check["verdict"] == "fail") == "no good copy anywhere"


def test_with_one_half_away_the_other_is_kept_up_to_date(site: Site) -> None:
    site.keep()
    away = site.place("vault").rename(site.top / "away")
    site.rotate()
    told = site.keep()
    assert told["verdict"] == "fail"
    assert "is it mounted?" in told["places"][0]["problem"]
    assert len(site.copies("key", "vault.key.")) == 2
    # An empty folder where the mount should be is no place.
    site.place("vault").mkdir()
    assert site.keep()["verdict"] == "fail"
    assert list(site.place("vault").iterdir()) == []
    site.place("vault").rmdir()
    away.rename(site.place("vault"))
    back = site.keep()
    assert (back["verdict"], len(site.copies("vault", "secrets.vault."))) == ("pass", 2)
    assert back["places"][0]["healed"] == {}


def test_a_new_medium_has_to_be_named(site: Site) -> None:
    site.keep()
    shutil.rmtree(site.place("key"))
    site.place("key").mkdir()
    assert site.keep()["verdict"] == "fail"
    told = site.keep(fresh_places=[str(site.place("key"))])
    assert (told["verdict"], len(site.copies("key", "vault.key."))) == ("pass", 1)
    assert not site.keep()["changed"]


@pytest.mark.parametrize("way", ["same", "link", "other name"])
def test_both_halves_in_one_place_are_refused(site: Site, way: str) -> None:
    if way == "other name":
        # As the same export mounted twice would look: a mark of the other half is in it.
        site.keep(places_key=[])
        shutil.copytree(site.place("vault"), site.place("key"), dirs_exist_ok=True)
        told = site.keep()
        assert told["verdict"] == "fail"
        assert "holds the other half" in told["places"][1]["problem"]
        return
    if way == "link":
        site.place("key").rmdir()
        site.place("key").symlink_to(site.place("vault"))
    done = site.run(**({"places_key": [str(site.place("vault"))]} if way == "same" else {}))
    assert done.rc == 1
    assert "both halves in one place" in done.result["msg"]
    assert list(site.root.iterdir()) == []


def certificate_again(site: Site, who: str) -> str:
    """Another certificate of the same key."""
    words = ["openssl", "req", "-x509", "-key", site.people[who].private, "-subj", "/CN=somebody else", "-days", "9"]
    return subprocess.run(words, capture_output=True, check=True, encoding="ascii").stdout


def test_recipients_of_both_halves_are_refused(site: Site) -> None:
    both = [site.people["vault-a"].text, site.people["key-a"].text]
    again = [site.people["key-a"].text, certificate_again(site, "vault-b")]
    for given in (both, again):
        done = site.run(recipients_key=given)
        assert done.rc == 1
        assert "among the recipients of the other half" in done.result["msg"]
    one = site.run(recipients_key=[site.people["key-a"].text, certificate_again(site, "key-a")])
    assert "recipients_key: 1: when one identity is lost" in one.result["msg"]
    assert list(site.root.iterdir()) == []


def test_other_recipients_get_the_generation_in_use(site: Site) -> None:
    first = site.keep()
    site.people["key-c"] = make_identity(site.top / "people", "key-c")
    told = site.keep(recipients_key=[site.people[who].text for who in ("key-a", "key-c")])
    assert (told["generation"], told["new"], told["changed"]) == (first["generation"], False, True)
    assert site.open(site.copies("key", "vault.key.")[-1], "key-c") is not None
    assert site.open(site.copies("key", "vault.key.")[0], "key-b") is not None


def test_a_key_that_does_not_open_the_vault_is_kept_and_told(site: Site) -> None:
    (site.top / "home/vault.key").write_text(secrets.token_hex(32) + "\n")
    told = site.keep()
    assert told["verdict"] == "fail"
    assert len(site.copies("key", "vault.key.")) == 1
    assert site.keep()["verdict"] == "fail"


def test_without_the_tool_it_is_unproven_until_there_is_one(site: Site) -> None:
    assert site.keep(tool="no-such-tool")["verdict"] == "unproven"
    again = site.keep()
    assert (again["verdict"], again["changed"]) == ("pass", False)


def test_a_loss_is_no_change(site: Site) -> None:
    site.keep()
    (site.top / "home/vault.key").unlink()
    done = site.run()
    assert done.rc == 1
    assert done.result["msg"].startswith("keys: vault.key: there last time, and gone now")
    (site.top / "home/secrets.vault").unlink()
    told = site.keep(removed=["vault.key", "secrets.vault"])
    assert (told["new"], told["verdict"]) == (True, "pass")


def test_only_an_env_file(site: Site) -> None:
    for name in ("secrets.vault", "vault.key"):
        (site.top / "home" / name).unlink()
    told = site.keep()
    assert (told["verdict"], told["names"]) == ("pass", ["JWT_SECRET", "MASTER_KEY"])
    assert len(site.copies("key", "mazevault-env-")) == 1


def test_check_mode_writes_nothing(site: Site) -> None:
    looked = site.run(check=True)
    assert looked.rc == 0, looked.result
    assert (looked.result["changed"], looked.result["generation"], looked.result["verdict"]) == (True, "", "unproven")
    assert not list(site.root.iterdir())
    assert not (site.top / "signing").exists()
    assert not list(site.place("key").iterdir())
    site.keep()
    assert not site.run(check=True).result["changed"]
    site.rotate()
    looked = site.run(check=True)
    assert (looked.result["new"], looked.result["changed"]) == (True, True)
    assert len(site.copies("key", "vault.key.")) == 1
