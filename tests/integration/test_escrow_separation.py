# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""escrow_separation: what is shared is found by trying, what can't be known isn't passed."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import typing as t
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils._separation import (
    Attestation,
    Crossing,
    Facts,
    crossing_of,
    judge,
)
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import combine
from support.identities import Identity, make_identity
from support.modules import run_module

VAULT = Facts("/a", "vault", nonce="x", folder=(1, 10), source="nfs a:/vault")
KEY = Facts("/b", "key", nonce="y", folder=(2, 20), source="nfs b:/key", listed=True)
WORDS = [Attestation(path, "J. Novak", "box 12", "2027-03-31") for path in ("/a", "/b")]


def verdict(vault: Facts = VAULT, key: Facts = KEY, words: t.Sequence[Attestation] = WORDS, **more: t.Any) -> str:
    checks = judge([vault, key], words, **{"disjoint": True, "today": "2026-11-23", **more})
    return combine(check.verdict for check in checks)


def test_an_honest_setup_passes() -> None:
    assert verdict() == "pass"
    assert verdict(today="2027-03-31") == "pass"


@pytest.mark.parametrize(
    "shared",
    [
        {"folder": VAULT.folder},
        {"seen": (VAULT.nonce,)},
        {"folder": (VAULT.folder[0], 99)},
        {"source": VAULT.source},
    ],
)
def test_what_is_shared_fails(shared: dict[str, t.Any]) -> None:
    assert verdict(key=replace(KEY, **shared)) == "fail"
    assert verdict(vault=replace(VAULT, listed=True)) == "fail"
    assert verdict(disjoint=False) == "fail"


def test_what_cannot_be_known_is_unproven() -> None:
    assert verdict(key=replace(KEY, away="no folder that this host sees")) == "unproven"
    assert verdict(key=replace(KEY, nonce="")) == "unproven"
    assert verdict(today="2027-04-01") == "unproven"
    assert verdict(words=WORDS[:1]) == "unproven"
    assert verdict(words=[replace(word, by="") for word in WORDS]) == "unproven"
    assert combine(c.verdict for c in judge([VAULT], WORDS, disjoint=True, today="2026-11-23")) == "unproven"
    assert combine(c.verdict for c in judge([], [], disjoint=True, today="2026-11-23")) == "unproven"


FAR = [
    replace(VAULT, listed=True, own=True, host=("id-a", "ssh-ed25519 AAAA")),
    replace(KEY, own=True, host=("id-b", "ssh-ed25519 BBBB")),
]
BOTH_WAYS = (Crossing("/a", "/b"), Crossing("/b", "/a"))


def far(vault: dict[str, t.Any], crossings: t.Sequence[Crossing] = BOTH_WAYS) -> str:
    checks = judge([replace(FAR[0], **vault), FAR[1]], WORDS, crossings, disjoint=True, today="2026-11-23")
    return combine(check.verdict for check in checks)


def test_two_hosts_pass_when_each_account_was_refused_at_the_other() -> None:
    """Numbers of devices and folders may be the same on both, as may a local mount's source."""
    assert far({}) == "pass"
    assert far({"folder": FAR[1].folder}) == "pass"
    assert replace(FAR[0], source="ext4 /dev/sda1").source != FAR[1].source
    same = [replace(one, source="ext4 /dev/sda1") for one in FAR]
    checks = judge(same, WORDS, BOTH_WAYS, disjoint=True, today="2026-11-23")
    assert combine(check.verdict for check in checks) == "pass"


@pytest.mark.parametrize(
    ("vault", "crossings", "expected"),
    [
        ({"source": FAR[1].source}, BOTH_WAYS, "fail"),
        ({"seen": (FAR[1].nonce,)}, BOTH_WAYS, "fail"),
        ({"host": ("id-b",)}, BOTH_WAYS, "fail"),
        ({"host": ("id-a", "ssh-ed25519 BBBB")}, BOTH_WAYS, "fail"),
        ({}, [Crossing("/a", "/b", could=("list",)), BOTH_WAYS[1]], "fail"),
        ({}, [BOTH_WAYS[0], Crossing("/b", "/a", could=("delete",))], "fail"),
        ({}, BOTH_WAYS[:1], "unproven"),
        ({}, [], "unproven"),
        ({}, [Crossing("/a", "/b", unknown="timed out"), BOTH_WAYS[1]], "unproven"),
        ({"away": "its host was not asked"}, BOTH_WAYS, "unproven"),
        ({"nonce": ""}, BOTH_WAYS, "unproven"),
    ],
)
def test_two_hosts_that_are_not_shown_to_be_apart(
    vault: dict[str, t.Any], crossings: list[Crossing], expected: str
) -> None:
    assert far(vault, crossings) == expected


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ("Failed to connect to the host via ssh: escrow@10.0.0.7: Permission denied (publickey).", True),
        ("Invalid/incorrect password: Permission denied, please try again.", True),
        ("Missing sudo password", True),
        ("escrow is not in the sudoers file.", True),
        ("Failed to connect to the host via ssh: ssh: connect to host 10.0.0.7 port 22: Connection refused", False),
        ("Failed to connect to the host via ssh: ssh: connect to host 10.0.0.7 port 22: No route to host", False),
        ("Host key verification failed.", False),
        ("MODULE FAILURE", False),
        ("", False),
    ],
)
def test_only_an_outspoken_refusal_is_one(said: str, refused: bool) -> None:
    """What these programs say: that nobody could be reached proves nothing."""
    found = crossing_of({"credential_of": "/a", "at": "/b", "msg": said})
    assert (found.could, found.unknown == "") == ((), refused)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> list[Identity]:
    folder = tmp_path_factory.mktemp("people")
    return [make_identity(folder, name) for name in ("vault-a", "vault-b", "key-a", "key-b")]


def separation(people: list[Identity], vault: Path | str, key: Path | str, **more: t.Any) -> tuple[str, str]:
    """(verdict, all reasons); nothing may be left where it looked."""
    given = {
        "places_vault": [str(vault)],
        "places_key": [str(key)],
        "recipients_vault": [one.text for one in people[:2]],
        "recipients_key": [one.text for one in people[2:]],
        "attestations": [
            {"path": str(path), "by": "J. Novak", "where": "box 12", "valid_until": "2999-12-31"}
            for path in (vault, key)
        ],
        **more,
    }
    done = run_module("escrow_separation", given)
    assert done.rc == 0, done.result
    for path in (Path(vault), Path(key)):
        assert not list(path.glob(".mazevault-probe-*"))
    return done.result["verdict"], "; ".join(check.get("reason", "") for check in done.result["checks"])


def test_folders_of_one_disk_fail(people: list[Identity], tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    found = separation(people, tmp_path / "a", tmp_path / "b")
    assert found[0] == "fail"
    assert "same file system" in found[1]
    (tmp_path / "c").symlink_to("a")
    found = separation(people, tmp_path / "a", tmp_path / "c")
    assert found[0] == "fail"
    assert "one place by two names" in found[1]


def test_one_account_that_reads_two_disks_fails(people: list[Identity], tmp_path: Path) -> None:
    other = Path("/dev/shm") / f"separation-{os.getpid()}"
    if os.stat("/dev/shm").st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is on the same file system here")
    other.mkdir(mode=0o700)
    try:
        assert separation(people, tmp_path, other) == ("fail", separation(people, tmp_path, other)[1])
        assert "one account reads both" in separation(people, tmp_path, other)[1]
    finally:
        shutil.rmtree(other)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_bind_mount_fails(people: list[Identity], tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    done = subprocess.run(["mount", "--bind", tmp_path / "a", tmp_path / "b"], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("no mounts here")
    try:
        found = separation(people, tmp_path / "a", tmp_path / "b")
        assert found[0] == "fail"
        assert "one place by two names" in found[1]
    finally:
        subprocess.run(["umount", tmp_path / "b"], check=True)


def test_another_host_is_unproven_and_the_same_people_fail(people: list[Identity], tmp_path: Path) -> None:
    assert separation(people, tmp_path, "backup@other:/escrow")[0] == "unproven"
    for one, other in itertools.product(people[:2], repeat=2):
        found = separation(people, tmp_path, "backup@other:/escrow", recipients_key=[one.text, other.text])
        assert found[0] == "fail"
        assert "recipient of both" in found[1]


def test_a_date_that_is_none_is_refused(people: list[Identity], tmp_path: Path) -> None:
    words = {"path": str(tmp_path), "by": "x", "where": "y", "valid_until": "next spring"}
    texts = [one.text for one in people]
    params = {"attestations": [words], "recipients_vault": texts[:2], "recipients_key": texts[2:]}
    done = run_module("escrow_separation", params)
    assert done.rc == 1
    assert "valid_until: next spring: no date" in done.result["msg"]
