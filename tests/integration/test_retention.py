# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets that really go: files on a disk, kills, strangers, people's words; looked at through the ledger's own check."""

from __future__ import annotations

import json
import shutil
import subprocess
import typing as t
from pathlib import Path

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils._clock import rfc3339
from ansible_collections.mazevault.backup.plugins.module_utils._evidence import write_evidence
from ansible_collections.mazevault.backup.plugins.module_utils._records import records_of
from support.dated_sets import days_ago, publish
from support.fake_sets import Site, what_is_seen
from support.flow import HOSTNAME
from support.keys import own_trust, signing_key
from support.modules import run_module
from support.plays import tree_state

AGES = (50, 45, 40, 20, 10, 1)
STEPS = (
    "retention: intent",
    "retention: all said",
    "retention: aside",
    "retention: all aside",
    "retention: recorded",
    "retention: delete 1",
    "retention: delete 3",
    "retention: deleted",
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, list[str]]:
    """Six sets; three of them are older than 30 days."""
    site = Site(tmp_path_factory.mktemp("site"))
    site.root.mkdir(mode=0o700)
    return site, [publish(site.root, days_ago(age)).set_id for age in AGES]


@pytest.fixture
def site(pristine: tuple[Site, list[str]], tmp_path: Path) -> Site:
    shutil.copytree(pristine[0].folder, tmp_path / "site")
    return Site(tmp_path / "site")


@pytest.fixture
def ids(pristine: tuple[Site, list[str]]) -> list[str]:
    return pristine[1]


def prune(site: Site, *, check: bool = False, **params: t.Any) -> dict[str, t.Any]:
    done = run_module("backup_retention", {"backup_root": str(site.root), **params}, check=check, diff=True)
    assert done.rc == 0, (done.result, done.stderr)
    return done.result


def refused(site: Site, **params: t.Any) -> str:
    done = site.try_module("backup_retention", **params)
    assert done.rc != 0, done.result
    return str(done.result["msg"])


def pin(site: Site, state: str, **params: t.Any) -> dict[str, t.Any]:
    return site.module("recovery_set_pin", state=state, by="A. Person", **params)


def here(site: Site) -> list[str]:
    return [path.name for path in site.sets()]


def assert_consistent(site: Site, *, gone: t.Collection[str] = ()) -> None:
    """By sha256sum, and by the check that finds sets which were removed by somebody else."""
    for folder in site.sets():
        subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=folder, check=True)
    examined = site.verify(without_witness=True)
    assert examined["verdict"] == "pass", examined["checks"]
    assert not set(here(site)) & set(gone)


def kinds(site: Site, set_id: str) -> list[str]:
    return [record["kind"] for record in records_of(str(site.root), set_id, own_trust())]


# the plan, and what comes of it


def test_check_then_real_then_again(site: Site, ids: list[str]) -> None:
    before = tree_state(site.root)
    previewed = prune(site, check=True)
    assert tree_state(site.root) == before, "a check leaves nothing behind"
    assert previewed["changed"] and previewed["removed"] == ids[:3]
    done = prune(site)
    assert done == previewed
    assert here(site) == ids[3:]
    assert_consistent(site, gone=ids[:3])
    assert [kinds(site, name) for name in ids] == [["removing", "removed"]] * 3 + [[]] * 3
    assert not (site.root / "staging/.removing").exists()
    lines = done["diff"]["before"].splitlines()
    assert [line for line in lines if line not in done["diff"]["after"].splitlines()] == done["lines"][:3]
    assert done["lines"][0].startswith(f"{ids[0]}, 1.0 kB: goes: 50.0 d old, kept for 30 d")
    assert done["lines"][5].startswith(f"{ids[5]}, 1.0 kB: stays: postgres is kept for 30 d, until ")
    before = tree_state(site.root)
    again = prune(site)
    assert (again["changed"], again["removed"]) == (False, [])
    assert tree_state(site.root) == before
    assert f"Newest proven set: {ids[5]}" in (site.root / "START-HERE.txt").read_text(encoding="utf-8")


def test_a_witness_isnt_alarmed_by_what_was_removed_on_purpose(site: Site, ids: list[str]) -> None:
    ledger = site.module("ledger_verify", without_witness=True)["ledger"]
    for number, name in enumerate(ids, 1):
        sums = subprocess.run(["sha256sum", site.root / "sets" / name / "SHA256SUMS"], capture_output=True, check=True)
        seen = {**ledger, "set_id": name, "sequence": number, "sums_sha256": sums.stdout.decode().split()[0]}
        site.module("recovery_set_witness", installation=HOSTNAME, seen=what_is_seen(seen))
    prune(site)
    found = {check["name"]: check["verdict"] for check in site.verify(site.testimony())["checks"]}
    assert found["sets as witnessed"] == found["ledger as witnessed"] == found["sets entered"] == "pass"
    shutil.rmtree(site.sets()[0])
    found = {check["name"]: check["verdict"] for check in site.verify(site.testimony())["checks"]}
    assert found["sets as witnessed"] == found["sets entered"] == "fail", "the control: one that nobody removed"


def test_an_empty_root_and_none_at_all(tmp_path: Path) -> None:
    nowhere = Site(tmp_path)
    assert prune(nowhere)["changed"] is False
    assert not nowhere.root.exists()
    nowhere.root.mkdir(mode=0o700)
    assert prune(nowhere)["plan"] == []


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_leaves_whole_sets_and_the_next_run_finishes(site: Site, ids: list[str], step: str) -> None:
    done = run_module("backup_retention", {"backup_root": str(site.root)}, kill=(step, "self"))
    assert done.rc < 0 and f'"killed_at": "{step}"' in done.stderr
    assert_consistent(site)
    assert set(ids[3:]) <= set(here(site))
    finished = prune(site)
    assert finished["changed"]
    assert here(site) == ids[3:]
    assert not (site.root / "staging/.removing").exists()
    assert_consistent(site, gone=ids[:3])
    assert [kinds(site, name) for name in ids[:3]] == [["removing", "removed"]] * 3, "each is said once"
    assert prune(site)["changed"] is False


def test_another_plan_after_a_kill_takes_the_word_back(site: Site, ids: list[str]) -> None:
    """Else somebody could remove the set later, and a signed record would say that it was meant to go."""
    run_module("backup_retention", {"backup_root": str(site.root)}, kill=("retention: all said", "self"))
    assert kinds(site, ids[0]) == ["removing"]
    assert prune(site, days=60)["changed"] is False
    assert kinds(site, ids[0]) == ["removing", "staying"]
    (site.root / "staging/.removing").mkdir()
    (site.root / "sets" / ids[0]).rename(site.root / "staging/.removing" / ids[0])
    assert site.verify(without_witness=True)["verdict"] == "fail"
    result = prune(site, days=60)
    assert [ids[0] in alarm for alarm in result["alarms"]] == [True]
    assert (site.root / "staging/.removing" / ids[0] / "manifest.json").exists()


def test_who_moves_a_set_aside_finds_nobody_to_delete_it(site: Site, ids: list[str]) -> None:
    aside = site.root / "staging/.removing"
    aside.mkdir()
    (site.root / "sets" / ids[5]).rename(aside / ids[5])
    (aside / "notes").write_text("mine", encoding="utf-8")
    before = tree_state(aside / ids[5])
    result = prune(site)
    assert tree_state(aside / ids[5]) == before
    assert (aside / ids[5] / "manifest.json").exists() and (aside / "notes").read_text(encoding="utf-8") == "mine"
    assert len(result["alarms"]) == 2 and all("nobody said that it goes" in alarm for alarm in result["alarms"])
    assert site.verify(without_witness=True)["verdict"] == "fail"


# what is never touched


def test_what_isnt_ours_stays(site: Site, ids: list[str], tmp_path: Path) -> None:
    sets = site.root / "sets"
    (sets / "mazevault_20200101_020000.sql.gz").write_bytes(b"the product's own")
    (sets / "notes").mkdir()
    (sets / "notes/text").write_text("mine", encoding="utf-8")
    (sets / "mazevault_20200102_020000").mkdir()
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(sets / ids[0], elsewhere)
    shutil.rmtree(sets / ids[0])
    (sets / ids[0]).symlink_to(elsewhere)
    (sets / ids[1] / "postgres/mine").write_text("mine", encoding="utf-8")
    unsigned = sets / "mazevault_20200103_020000"
    shutil.copytree(sets / ids[2], unsigned)
    text = (unsigned / "manifest.json").read_text(encoding="utf-8").replace(ids[2], unsigned.name)
    (unsigned / "manifest.json").write_text(text, encoding="utf-8")
    for name in ("SHA256SUMS", "SHA256SUMS.sig"):
        (unsigned / name).unlink()
    strange = [path for path in sets.iterdir() if path.name not in (*ids[2:],)]
    before = {path: tree_state(path) for path in [*strange, elsewhere]}
    result = prune(site)
    assert result["removed"] == [ids[2]]
    assert {path: tree_state(path) for path in [*strange, elsewhere]} == before
    alarms = "\n".join(result["alarms"])
    for said in (
        f"{ids[0]}: it is a link",
        f"{ids[1]}: postgres/mine is no file of this set",
        f"{unsigned.name}: signature: ",
        "mazevault_20200102_020000: not readable",
    ):
        assert said in alarms


def test_a_link_isnt_followed_even_by_its_name(site: Site, ids: list[str], tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (site.root / "sets" / ids[0]).rename(elsewhere)
    (site.root / "sets" / ids[0]).symlink_to(elsewhere)
    assert "is a link" in refused(site, sets=[ids[0]], confirm=HOSTNAME, inventory_hostname=HOSTNAME)
    assert (elsewhere / "manifest.json").exists()


def test_without_a_ledger_nothing_goes(site: Site, ids: list[str]) -> None:
    text = site.ledger.read_bytes()
    site.ledger.write_bytes(text.replace(b'"pass"', b'"fail"', 1))
    result = prune(site)
    assert result["removed"] == [] and here(site) == ids


def test_another_run_under_way_stops_it(site: Site, ids: list[str]) -> None:
    opened = site.module("recovery_set", state="open", purpose="restore")["set_id"]
    assert f"another run is under way: {opened}" in refused(site)
    assert here(site) == ids
    site.module("recovery_set", state="aborted", set_id=opened)
    assert prune(site)["removed"] == ids[:3]


def test_clocks_that_differ_remove_nothing(site: Site, ids: list[str]) -> None:
    said = refused(site, clock=rfc3339(days_ago(300)))
    assert "this host's clock is 300 d 0 h ahead" in said
    assert here(site) == ids
    assert prune(site, clock=rfc3339(days_ago(0)))["removed"] == ids[:3]


def test_the_pinned_policy_can_only_be_made_stricter(site: Site, ids: list[str], tmp_path: Path) -> None:
    key = tmp_path / "etc/host.key"
    key.parent.mkdir()
    shutil.copy(signing_key(), key)
    own = {"signing_key": str(key)}
    done = run_module("backup_policy", {"state": "pinned", "content": {"retention": {"days": 42, "keep": 3}}, **own})
    assert done.rc == 0
    assert "days: 30: the policy of this host has 42" in refused(site, days=30, **own)
    assert "keep: 2: the policy" in refused(site, keep=2, **own)
    assert prune(site, check=True, days=60, **own)["removed"] == []
    assert prune(site, **own)["removed"] == ids[:2]


# by name


def test_a_name_takes_a_confirmation_and_nothing_else_goes(site: Site, ids: list[str]) -> None:
    assert f"mazevault_confirm={HOSTNAME}" in refused(site, sets=[ids[5]], inventory_hostname=HOSTNAME)
    confirmed = {"confirm": HOSTNAME, "inventory_hostname": HOSTNAME}
    assert "no such set" in refused(site, sets=["mazevault_20200101_020000"], **confirmed)
    assert here(site) == ids
    done = prune(site, sets=[ids[5]], **confirmed)
    assert done["removed"] == [ids[5]] and here(site) == ids[:5]
    assert_consistent(site, gone=[ids[5]])
    assert done["plan"][0]["why"] == ["not named"]


def test_the_last_one_with_a_certificate_does_not_go_by_its_name_either(site: Site, ids: list[str]) -> None:
    ends = rfc3339(days_ago(-300))
    proof = {"verdict": "pass", "level": "restore", "components": ["tls"], "at": rfc3339(days_ago(0))}
    own = {"components": ["tls"], "certificates": [{"sha256": "a" * 64, "not_after": ends}], "verification": proof}
    first, second = (publish(site.root, days_ago(age), **own).set_id for age in (0.8, 0.7))
    confirmed = {"confirm": HOSTNAME, "inventory_hostname": HOSTNAME}
    why = refused(site, sets=[first, second], **confirmed)
    assert f"sets: {second}: is the last proven set with certificate {'a' * 16}, which is kept until 20" in why
    assert "back up first" in why and here(site) == [*ids, first, second]
    assert prune(site, sets=[first], **confirmed)["removed"] == [first]


def test_all_can_go_by_name_alone(site: Site, ids: list[str]) -> None:
    prune(site, sets=ids, confirm=HOSTNAME, inventory_hostname=HOSTNAME)
    assert here(site) == []
    assert site.verify(without_witness=True)["checks"]


# pins


def test_a_set_from_before_a_change_stays_until_somebody_confirms(site: Site, ids: list[str]) -> None:
    old = publish(site.root, days_ago(0.9), reason="pre_change").set_id
    assert pinned(site)[old][0]["why"] == "pre_change"
    confirmed = {"confirm": HOSTNAME, "inventory_hostname": HOSTNAME}
    assert "nobody has confirmed" in refused(site, sets=[old], **confirmed)
    before = tree_state(site.root)
    previewed = site.module("recovery_set_pin", check=True, state="confirmed", by="A. Person")
    assert previewed["changed"] and previewed["sets"] == [old] and tree_state(site.root) == before
    done = pin(site, "confirmed")
    assert done["changed"] and done["sets"] == [old] and len(done["records"]) == 1
    assert "nobody has confirmed" in done["diff"]["before"] and done["diff"]["after"] == ""
    assert pin(site, "confirmed")["changed"] is False
    assert pinned(site)[old] == []
    assert prune(site, sets=[old], **confirmed)["removed"] == [old]
    assert_consistent(site, gone=[old])


def pinned(site: Site) -> dict[str, list[dict[str, t.Any]]]:
    return {found["set_id"]: found["pinned"] for found in site.module("recovery_set_info")["sets"]}


def test_a_hold_has_an_owner_and_an_end(site: Site, ids: list[str]) -> None:
    for missing in ("reason", "until", "set"):
        params = {"set": ids[0], "reason": "audit", "until": "2099-03-01"}
        del params[missing]
        done = site.try_module("recovery_set_pin", state="held", by="A. Person", **params)
        assert done.rc != 0 and done.result["msg"].startswith(f"{missing}: missing")
    done = site.try_module("recovery_set_pin", state="held", by="A", set=ids[0], reason="x", until="2020-01-01")
    assert done.result["msg"].startswith("until: 2020-01-01: is over")
    hold = {"set": ids[0], "reason": "audit", "until": "2099-03-01"}
    assert pin(site, "held", **hold)["changed"]
    assert pin(site, "held", **hold)["changed"] is False
    (found,) = pinned(site)[ids[0]]
    assert (found["by"], found["reason"], found["until"]) == ("A. Person", "audit", "2099-03-02T00:00:00.000000Z")
    assert prune(site)["removed"] == ids[1:3]
    assert pin(site, "held", **{**hold, "until": "2099-04-01"})["changed"], "a longer one"
    assert pin(site, "released", set=ids[0])["changed"]
    assert pin(site, "released", set=ids[0])["changed"] is False
    assert prune(site)["removed"] == [ids[0]]


def test_a_forged_confirmation_confirms_nothing(site: Site) -> None:
    old = publish(site.root, days_ago(0.9), reason="pre_change")
    folder = Path(old.records_path)
    folder.mkdir(parents=True)
    record = {"schema_version": 1, "set_id": old.set_id, "kind": "pin", "state": "confirmed", "at": "2026-11-23"}
    (folder / "20261123_020000_000000-pin.json").write_text(json.dumps(record), encoding="utf-8")
    assert pinned(site)[old.set_id]


# suspicious sets


def test_far_smaller_sets_raise_an_alarm_until_a_person_accepts_them(site: Site, ids: list[str]) -> None:
    small = publish(site.root, days_ago(0.5), bytes=100, rows=3).set_id
    done = run_module("backup_retention", {"backup_root": str(site.root)}, check=True)
    assert f"{small}: postgres has 100 bytes, after 1000 in {ids[5]}" in done.result["alarms"]
    assert any("Suspicious: " in str(warning) for warning in done.result["warnings"])
    assert not done.result["plan"][-1]["counts"]
    assert pin(site, "accepted", set=small, reason="the audit log was emptied")["changed"]
    done = run_module("backup_retention", {"backup_root": str(site.root)}, check=True)
    assert done.result["alarms"] == [] and done.result["plan"][-1]["counts"]


# evidence


def evidence(site: Site, name: str, days: float, monkeypatch: pytest.MonkeyPatch) -> Path:
    moment = days_ago(days)
    with monkeypatch.context() as patch:
        patch.setattr("ansible_collections.mazevault.backup.plugins.module_utils._clock.now", lambda: moment)
        return Path(write_evidence(str(site.root), name, "restored", {"verdict": "pass"}, own_trust()))


def test_evidence_has_its_own_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    old, young = (evidence(site, f"restore_{days}", days, monkeypatch) for days in (1830, 1800))
    foreign = site.root / "evidence/mine.json"
    foreign.write_text("{}", encoding="utf-8")
    previewed = prune(site, check=True)
    assert previewed["evidence_removed"] == [old.name] and old.exists()
    assert prune(site)["evidence_removed"] == [old.name]
    left = sorted(path.name for path in (site.root / "evidence").iterdir())
    assert left == sorted([young.name, f"{young.name}.sig", foreign.name])
    assert prune(site)["changed"] is False
    foreign.unlink()
    assert_consistent(site)
    young.unlink()
    examined = site.verify(without_witness=True)
    assert examined["verdict"] == "fail", "the control: what nobody removed by the rules"
