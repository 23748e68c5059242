# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pinned policy: what it may say, what is weaker than it, and that a run with weaker wishes is no `pass`."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import stat
import typing as t
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.mazevault.backup.plugins.module_utils import _policy
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._records import write_record
from ansible_collections.mazevault.backup.plugins.module_utils._signature import Signer
from ansible_collections.mazevault.backup.plugins.module_utils._trust import Trust
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import LEVELS
from support.fake_sets import Site
from support.flow import HOSTNAME
from support.identities import make_custodians, make_identity
from support.keys import signing_key

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
GIVEN: dict[str, t.Any] = {
    "installations": [HOSTNAME, "vault2"],
    "recipients": {"data": [B, A], "keys": [A, C]},
    "escrow": {"vault": ["ssh://a/vault"], "key": ["ssh://b/key"]},
    "verify_level": "read",
    "encryption": ["cms", "age"],
    "objectives": {"database_corruption": {"rpo": "24 h", "rto": "4 h"}},
    "retention": {"days": 30, "keep": 2},
    "witness": True,
}
POLICY = _policy.settle(GIVEN)


# what it may say


def test_one_meaning_is_one_text() -> None:
    other = {key: GIVEN[key] for key in reversed(GIVEN)}
    other["recipients"] = {"keys": [C.upper(), A], "data": [":".join(A[i : i + 2] for i in range(0, 64, 2)), B]}
    other["objectives"] = {"database_corruption": {"rto": 14400, "rpo": "1 d"}}
    other["encryption"] = "age, cms"
    other["few_recipients_because"] = ""
    assert _policy.canonical(_policy.settle(other)) == _policy.canonical(POLICY)
    assert _policy.settle(json.loads(_policy.canonical(POLICY))) == POLICY


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recipient": {}}, "recipient: unknown"),
        ({"recipients": {"data": ["x"]}}, "recipients: x: not a SHA-256 fingerprint"),
        ({"recipients": {"date": [A, B]}}, "recipients: date: not one of data, keys"),
        ({"recipients": {"data": [A]}}, "recipients.data: 1; with fewer than 2"),
        ({"recipients": {"data": [A, A]}}, "recipients.data: 1; with fewer than 2"),
        ({"recipients": "x"}, "recipients: "),
        ({"verify_level": "checksums"}, "verify_level: checksums: not one of"),
        ({"encryption": ["rot13"]}, "encryption: rot13: not one of"),
        ({"objectives": {"flood": {"rpo": 1}}}, "objectives: flood: not one of"),
        ({"objectives": {"ransomware": {"rpo": "soon"}}}, "objectives: soon: not a span of time"),
        ({"retention": {"days": -1}}, "retention: a number below 0"),
        ({"verification_keys": ["x"]}, "verification_keys: public key: not one in PEM"),
        ({"witness": "yes"}, "witness: yes: neither true nor false"),
        ({"version": 2}, "version: 2"),
    ],
)
def test_what_cant_be_is_refused(change: dict[str, t.Any], said: str) -> None:
    with pytest.raises(BackupError) as refused:
        _policy.settle({**GIVEN, **change})
    assert refused.value.msg.startswith("policy: ") and said in refused.value.msg


def test_a_recipient_of_age_is_its_own_fingerprint() -> None:
    one, other = (f"age1{letter * 58}" for letter in "qz")
    pinned = _policy.settle({"recipients": {"data": [other, one]}})
    assert pinned["recipients"] == {"data": [one, other]}
    assert _policy.compare(pinned, {"recipients": {"data": [one, other]}}).refusals == ()
    assert _policy.compare(pinned, {"recipients": {"data": [one, one[:-1] + "z"]}}).refusals != ()
    with pytest.raises(BackupError):
        _policy.settle({"recipients": {"data": [one, other[:-1]]}})


def test_one_recipient_needs_a_reason() -> None:
    given = {"recipients": {"data": [A]}, "few_recipients_because": "a demo"}
    assert _policy.settle(given)["recipients"] == {"data": [A]}


def test_the_documented_policy_can_be_pinned() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/trust.md").read_text(encoding="utf-8")
    (shown,) = [
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "verify_level:" in block
    ]
    settled = _policy.settle(shown)
    assert "recipients" not in settled, "empty lists say nothing"
    assert settled.keys() >= {"installations", "verify_level", "encryption", "objectives", "retention", "witness"}


# what is weaker


@pytest.mark.parametrize(
    ("wanted", "refusals", "overrides"),
    [
        ({}, [], []),
        (GIVEN | {"installation": HOSTNAME, "encryption": "cms"}, [], []),
        ({"recipients": {"data": [A, B, C]}}, [f"recipients.data: {C} isn't pinned"], []),
        ({"recipients": {"data": [A, C]}}, [f"recipients.data: {C} isn't pinned, {B} is left out"], []),
        ({"recipients": {"keys": [A]}}, [f"recipients.keys: {C} is left out"], []),
        ({"recipients": {"data": f"{A.upper()},{B}", "keys": []}}, [], []),
        (
            {"escrow": {"key": ["ssh://evil/key"]}},
            ["escrow.key: ssh://evil/key isn't pinned, ssh://b/key is left out"],
            [],
        ),
        ({"verify_level": "toc"}, [], ["verify_level"]),
        ({"verify_level": "everything"}, [], ["verify_level"]),
        ({"verify_level": "restore"}, [], []),
        ({"encryption": "none"}, [], ["encryption"]),
        ({"encryption": ["age", "none"]}, [], ["encryption"]),
        ({"objectives": {"database_corruption": {"rpo": "25 h"}}}, [], ["objectives.database_corruption.rpo"]),
        (
            {"objectives": {"database_corruption": {"rpo": "12 h", "rto": "4.5 h"}}},
            [],
            ["objectives.database_corruption.rto"],
        ),
        ({"objectives": {"database_corruption": {"rto": "soon"}}}, [], ["objectives.database_corruption.rto"]),
        ({"objectives": {"ransomware": {"rpo": "90 d"}}}, [], []),
        ({"retention": {"days": 29, "keep": "5"}}, [], ["retention.days"]),
        ({"retention": {"days": "no"}}, [], ["retention.days"]),
        ({"witness": False}, [], ["witness"]),
        ({"installation": "vault9"}, [], ["installations"]),
    ],
)
def test_compare(wanted: dict[str, t.Any], refusals: list[str], overrides: list[str]) -> None:
    found = _policy.compare(POLICY, wanted)
    assert (list(found.refusals), list(found.overrides)) == (refusals, overrides)
    assert _policy.against(None, wanted) == _policy.Comparison()
    assert _policy.compare({}, wanted) == _policy.Comparison()


spans = st.integers(0, 10**6)


@given(
    st.sampled_from(LEVELS), st.sampled_from(LEVELS), spans, spans, st.integers(0, 99), st.integers(0, 99),
    st.sets(st.sampled_from([A, B, C]), min_size=2), st.sets(st.sampled_from([A, B, C]), min_size=1),
)  # fmt: skip
def test_nothing_weaker_passes_and_nothing_stricter_is_marked(
    least: str, level: str, rpo: int, target: int, days: int, kept: int, pinned: set[str], used: set[str]
) -> None:
    policy = _policy.settle(
        {
            "verify_level": least,
            "objectives": {"ransomware": {"rpo": rpo}},
            "retention": {"days": days},
            "recipients": {"data": sorted(pinned)},
        }
    )
    before = copy.deepcopy(policy)
    wanted = {
        "verify_level": level,
        "objectives": {"ransomware": {"rpo": target}},
        "retention": {"days": kept},
        "recipients": {"data": sorted(used)},
    }
    found = _policy.compare(policy, wanted)
    assert ("verify_level" in found.overrides) == (LEVELS.index(level) < LEVELS.index(least))
    assert ("objectives.ransomware.rpo" in found.overrides) == (target > rpo)
    assert ("retention.days" in found.overrides) == (kept < days)
    assert bool(found.refusals) == (pinned != used)
    assert policy == before


# pinned


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def key(tmp_path: Path) -> str:
    """A key in a folder of its own: the policy lies beside it."""
    return str(tmp_path / "etc/host.key")


def pin(site: Site, key: str, content: dict[str, t.Any], *, check: bool = False, **params: t.Any) -> dict[str, t.Any]:
    params = {"state": "pinned", "inventory_hostname": HOSTNAME, **params}
    return site.module("backup_policy", check=check, signing_key=key, content=content, **params)


def test_a_policy_is_pinned_once_and_replaced_with_a_word(site: Site, key: str) -> None:
    path = Path(key).with_name("policy.json")
    predicted = pin(site, key, GIVEN, check=True)
    assert (predicted["changed"], path.exists()) == (True, False)
    done = pin(site, key, GIVEN)
    assert done["changed"] and done["path"] == str(path)
    assert done["sha256"] == predicted["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert json.loads(path.read_bytes()) == POLICY
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert not pin(site, key, GIVEN)["changed"]
    weaker = {**GIVEN, "verify_level": "toc"}
    before = path.read_bytes()
    refused = site.try_module(
        "backup_policy", state="pinned", signing_key=key, content=weaker, inventory_hostname=HOSTNAME
    )
    assert refused.rc and "confirm" in refused.result["msg"] and path.read_bytes() == before
    assert pin(site, key, weaker, confirm=HOSTNAME)["changed"]
    assert path.read_bytes() != before


def test_the_hosts_own_key_is_among_those_that_count(site: Site, key: str, tmp_path: Path) -> None:
    other = Signer(str(tmp_path / "other.key"))
    other.ensure()
    done = pin(site, key, {"verification_keys": [other.public()]})
    assert set(done["content"]["verification_keys"]) == {other.public(), Signer(key).public()}
    assert not pin(site, key, {"verification_keys": [other.public()]})["changed"]


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_policy_that_others_can_write_is_none(site: Site, key: str, mode: int) -> None:
    path = Path(pin(site, key, GIVEN)["path"])
    os.chmod(path, mode)
    refused = site.try_module("backup_policy", signing_key=key)
    assert refused.rc and f"policy: {path}: no file that only root" in refused.result["msg"]


def test_other_recipients_stop_the_run_before_it_begins(site: Site, key: str, tmp_path: Path) -> None:
    custodians = make_custodians(tmp_path / "custodians")
    stranger = make_identity(tmp_path / "custodians", "stranger")
    recipients = {name: [one.fingerprint for one in getattr(custodians, name)] for name in ("data", "keys")}
    pin(site, key, {**GIVEN, "recipients": recipients})
    good = {"state": "open", "signing_key": key, **custodians.protection}
    other = {**good, "recipients_data": [*good["recipients_data"][:1], stranger.text]}
    for check in (True, False):
        refused = site.try_module("recovery_set", check=check, **other)
        assert refused.rc and f"recipients.data: {stranger.fingerprint} isn't pinned" in refused.result["msg"]
        assert not site.root.exists()
    wanted = {"recipients": {"data": [recipients["data"][0], stranger.fingerprint]}}
    refused = site.try_module("backup_policy", signing_key=key, wanted=wanted)
    assert refused.rc and f"{stranger.fingerprint} isn't pinned" in refused.result["msg"]
    sealed = site.publish(opening=good, signing_key=key)
    manifest = json.loads((Path(sealed["path"]) / "manifest.json").read_bytes())
    assert [one["fingerprint"] for one in manifest["recipients"]["data"]] == recipients["data"]
    # The stand-in for a dump is in plain; that the set has recipients doesn't hide it.
    assert manifest["policy_overridden"] == ["encryption"]


def test_plain_sets_are_weaker_than_pinned_recipients(site: Site, key: str) -> None:
    pin(site, key, {"recipients": GIVEN["recipients"]})
    sealed = site.publish(opening={"signing_key": key}, signing_key=key)
    manifest = json.loads((Path(sealed["path"]) / "manifest.json").read_bytes())
    assert manifest["policy_overridden"] == ["encryption"]


def test_a_set_of_weaker_rules_says_so_and_is_unproven(site: Site, key: str) -> None:
    pin(site, key, {**GIVEN, "recipients": {}, "escrow": {}})
    sealed = site.publish(opening={"signing_key": key}, signing_key=key, wanted={"witness": False})
    manifest = json.loads((Path(sealed["path"]) / "manifest.json").read_bytes())
    pinned = hashlib.sha256(Path(key).with_name("policy.json").read_bytes()).hexdigest()
    assert (manifest["policy_sha256"], sealed["policy_sha256"]) == (pinned, pinned)
    # Its artefacts aren't encrypted, whatever was wished for.
    assert manifest["policy_overridden"] == ["encryption", "witness"]
    (found,) = site.module("recovery_set_info", signing_key=key)["sets"]
    assert found["verdict"] == "unproven"
    assert found["doubts"] == ["policy: policy overridden: encryption, witness"]


def test_a_level_that_was_too_low_can_be_made_up_for(site: Site, key: str) -> None:
    pin(site, key, {"verify_level": "read"})
    low = {"verdict": "pass", "level": "toc", "wanted": "toc"}
    sealed = site.publish(opening={"signing_key": key}, signing_key=key, verification=low)
    listed = site.module("recovery_set_info", signing_key=key)["sets"][0]
    assert (listed["verdict"], listed["doubts"]) == ("unproven", ["policy: policy overridden: verify_level"])
    proof = {"verdict": "pass", "level": "restore", "wanted": "restore"}
    write_record(str(site.root), sealed["set_id"], "verify", proof, Trust(Signer(key), _policy.find(key)))
    listed = site.module("recovery_set_info", signing_key=key)["sets"][0]
    assert (listed["verdict"], listed["doubts"]) == ("pass", [])
    (record,) = (site.root / "records" / sealed["set_id"]).glob("*.json")
    assert json.loads(record.read_bytes())["policy_sha256"] == listed["policy_sha256"]


def test_verification_tells_of_the_policy(site: Site, key: str) -> None:
    site.publish(opening={"signing_key": key}, signing_key=key)
    assert site.verify(signing_key=key, without_witness=True)["summary"].endswith("without a pinned policy")
    pin(site, key, {"verify_level": "read", "witness": True})

    def verdict(**params: t.Any) -> tuple[str, str]:
        done = site.verify(signing_key=key, **params)
        return done["checks"][0]["verdict"], done["checks"][0].get("reason", "")

    assert verdict()[0] == "pass"
    assert verdict(without_witness=True) == ("unproven", "policy overridden: witness")
    assert verdict(wanted={"verify_level": "toc"}) == ("unproven", "policy overridden: verify_level")


def test_a_policy_that_leaves_the_host_out_is_said_to(site: Site, key: str, tmp_path: Path) -> None:
    other = Signer(str(tmp_path / "other.key"))
    other.ensure()
    path = Path(pin(site, key, GIVEN)["path"])
    path.write_bytes(_policy.canonical(_policy.settle({"verification_keys": [other.public()]})))
    site.publish(opening={"signing_key": key}, signing_key=key)
    checks = {check["name"]: check["verdict"] for check in site.verify(signing_key=key)["checks"]}
    assert (checks["policy"], checks["signatures"]) == ("fail", "fail")


def test_a_key_elsewhere_doesnt_lead_past_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = tmp_path / "etc"
    usual.mkdir()
    (usual / "policy.json").write_bytes(_policy.canonical(POLICY))
    (tmp_path / "policy.json").write_bytes(_policy.canonical({"version": 1}))
    monkeypatch.setattr(_policy, "default_folder", lambda: str(usual))
    found = _policy.find(str(tmp_path / "host.key"))
    assert found is not None and found.path == str(usual / "policy.json")


def test_without_a_policy_a_manifest_says_null(site: Site) -> None:
    sealed = site.publish()
    manifest = json.loads((Path(sealed["path"]) / "manifest.json").read_bytes())
    assert (manifest["policy_sha256"], manifest["policy_overridden"]) == (None, [])
    assert not Path(signing_key()).with_name("policy.json").exists()
