# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proof codes: each identity answers for itself, with stock tools; nobody can answer for another one."""

from __future__ import annotations

import hashlib
import json
import subprocess
import typing as t
from pathlib import Path

import pytest

from support.custodians import code_of, opened
from support.identities import Identity, make_identity, schemes
from support.modules import Outcome, run_module

NAMES = ("data-a", "data-b", "key-a")


class Round:
    """One installation and its custodians."""

    def __init__(self, top: Path, scheme: str = "cms") -> None:
        self.top, self.scheme, self.root = top, scheme, top / "root"
        self.root.mkdir(mode=0o700)
        (top / "people").mkdir()
        self.people = {name: make_identity(top / "people", name, scheme) for name in NAMES}

    def run(self, *codes: str, check: bool = False, **more: t.Any) -> Outcome:
        params = {
            "backup_root": str(self.root),
            "installation": "prague",
            "encryption": self.scheme,
            "recipients": {
                "data": [self.people["data-a"].text, self.people["data-b"].text],
                "key": [self.people["key-a"].text],
                # Who opens two things is asked once.
                "vault": [self.people["data-b"].text],
            },
            "codes": list(codes),
            "signing_key": str(self.top / "signing/host.key"),
            **more,
        }
        return run_module("identity_proof", params, check=check)

    def asked(self, *codes: str, **more: t.Any) -> dict[str, t.Any]:
        done = self.run(*codes, **more)
        assert done.rc == 0, done.result
        return done.result

    def owner(self, question: t.Mapping[str, t.Any]) -> Identity:
        """By whom it is opened; exactly one person can."""
        [found] = [one for one in self.people.values() if opened(question, one)]
        return found

    def events(self) -> list[str]:
        lines = (self.root / "ledger.jsonl").read_text().splitlines() if (self.root / "ledger.jsonl").exists() else []
        return [json.loads(line)["event"] for line in lines]

    def records(self) -> list[Path]:
        return sorted((self.root / "records/identities").glob("*.json"))


@pytest.mark.parametrize("scheme", schemes())
def test_each_identity_answers_for_itself(tmp_path: Path, scheme: str) -> None:
    site = Round(tmp_path, scheme)
    looked = site.asked(check=True)
    assert (looked["changed"], looked["verdict"], len(looked["asked"])) == (True, "unproven", 3)
    assert not (site.root / "identities").exists()
    first = site.asked()
    assert (first["changed"], first["verdict"]) == (True, "unproven")
    assert [one["opens"] for one in first["asked"]] == [["data"], ["data", "vault"], ["key"]]
    again = site.asked()
    assert (again["changed"], again["asked"]) == (False, first["asked"])
    owners = [site.owner(question) for question in first["asked"]]
    assert owners == [site.people[name] for name in NAMES]
    assert opened(first["asked"][0], owners[0]).startswith("prague, ")
    codes = [code_of(question, owner) for question, owner in zip(first["asked"], owners, strict=True)]
    assert len(set(codes)) == 3
    # Nothing on the host tells a code.
    kept = b"".join(path.read_bytes() for path in site.root.rglob("*") if path.is_file())
    assert not [code for code in codes if code.encode() in kept or code.replace("-", "").encode() in kept]

    one = site.asked(codes[1])
    assert (one["changed"], one["verdict"], len(one["asked"]), len(one["answered"])) == (True, "unproven", 2, 1)
    spoken = [codes[0].upper().replace("-", " "), codes[2].replace("-", "")]
    everybody = site.asked(*spoken)
    assert (everybody["verdict"], everybody["asked"]) == ("pass", [])
    assert all(who["proven_at"] for who in everybody["identities"])
    assert site.events().count("record proof") == 3
    public = tmp_path / "signing/host.pub"
    for record in site.records():
        words = ["openssl", "dgst", "-sha384", "-verify", public, "-signature", f"{record}.sig", record]
        assert b"Verified OK" in subprocess.run(words, capture_output=True, check=True).stdout
    told = {json.loads(path.read_text())["code_sha256"] for path in site.records()}
    assert told == {hashlib.sha256(code.encode()).hexdigest() for code in codes}
    rest = site.asked(*codes)
    assert (rest["changed"], rest["verdict"], rest["refused"]) == (False, "pass", [])


def test_a_wrong_code_is_refused_and_the_right_ones_count(tmp_path: Path) -> None:
    site = Round(tmp_path)
    questions = site.asked()["asked"]
    right = code_of(questions[0], site.owner(questions[0]))
    wrong = right[:-1] + ("0" if right[-1] != "0" else "1")
    only = site.asked(wrong, "", "open sesame")
    assert only["verdict"] == "fail" and only["refused"] == [wrong, "", "open sesame"]
    assert only["asked"] == questions and site.records() == []
    both = site.asked(wrong, right)
    assert (both["verdict"], both["refused"], len(both["answered"])) == ("fail", [wrong], 1)
    assert site.events().count("proof code refused") == 2
    assert site.asked()["verdict"] == "unproven"


def test_an_answer_counts_for_its_time_and_its_question_only(tmp_path: Path) -> None:
    site = Round(tmp_path)
    questions = site.asked()["asked"]
    codes = [code_of(question, site.owner(question)) for question in questions]
    assert site.asked(*codes)["verdict"] == "pass"
    late = site.asked(*codes, days=0.000001)
    assert (late["verdict"], len(late["asked"]), late["answered"]) == ("unproven", 3, [])
    assert not {question["text"] for question in late["asked"]} & {question["text"] for question in questions}
    # Nor does a record that somebody has put there, or a question that the host didn't ask.
    for path in site.records():
        path.unlink()
    assert site.asked()["verdict"] == "unproven"
    forged = sorted((site.root / "identities").glob("*.json"))[0]
    content = json.loads(forged.read_text())
    content["code_sha256"] = hashlib.sha256(b"000000-000000-000000-000000").hexdigest()
    forged.write_text(json.dumps(content))
    assert site.asked("000000-000000-000000-000000")["refused"] == ["000000-000000-000000-000000"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"recipients": {}}, "nobody"),
        ({"recipients": {"date": []}}, "date: unknown"),
        ({"days": 0}, "days: 0.0: not above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, more: dict[str, t.Any], said: str) -> None:
    done = Round(tmp_path).run(**more)
    assert done.rc == 1 and said in done.result["msg"]
