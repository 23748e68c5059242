# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of a failed job, by a real SMTP session and a real HTTP request; and what is in none of it."""

from __future__ import annotations

import json
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.canaries import Canary, Search, planted
from support.modules import Outcome, run_module
from support.receivers import (
    Certificate,
    Hook,
    Mailbox,
    certificate_of_localhost,
    http_server,
    mail_server,
    nobodys_port,
)

TO = ["a@example.org", "b@example.org"]
REPORT = {
    "job": "backup",
    "title": "backup",
    "started": "2026-11-23T02:00:00Z",
    "ended": "2026-11-23T02:10:00Z",
    "rc": 2,
    "node": "node1",
    "log": "/var/log/mazevault-backup.log",
    "lines": ["vault1: backup_root: too little space", "vault1 : ok=3 failed=1"],
}


@dataclass(frozen=True)
class Site:
    """Both servers, and the files that hold secrets."""

    folder: Path
    certificate: Certificate
    mail: Mailbox
    hook: Hook
    password: Canary
    token: Canary

    def secret(self, name: str, text: str, mode: int = 0o600) -> str:
        path = self.folder / name
        path.write_text(text + "\n", encoding="utf-8")
        path.chmod(mode)
        return str(path)

    def params(self) -> dict[str, t.Any]:
        return {
            "mail_to": TO,
            "mail_host": "localhost",
            "mail_port": self.mail.port,
            "mail_security": "starttls",
            "mail_ca_file": str(self.certificate.certificate),
            "mail_user": "backup",
            "mail_password_file": self.secret("password", self.password.text),
            "webhook_url": f"{self.hook.url}/hooks/1",
            "webhook_token_file": self.secret("token", self.token.text),
            "webhook_ca_file": str(self.certificate.certificate),
            "timeout": 10,
        }

    def send(self, *, check: bool = False, **params: t.Any) -> Outcome:
        given = {name: value for name, value in {**self.params(), **params}.items() if value is not None}
        return run_module("backup_notify", given, check=check)

    def report(self, **facts: t.Any) -> str:
        path = self.folder / "backup.json"
        path.write_text(json.dumps({**REPORT, **facts}), encoding="utf-8")
        return str(path)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate_of_localhost(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def site(tmp_path: Path, certificate: Certificate) -> Iterator[Site]:
    # A token is one word.
    password, token = planted("password of the mail account"), planted("token of the webhook", awkward="-")
    with mail_server(certificate, password=password.text) as mail, http_server(certificate) as hook:
        yield Site(tmp_path, certificate, mail, hook, password, token)


def test_a_failure_is_told_by_both(site: Site) -> None:
    done = site.send(job="backup", report=site.report())
    assert done.rc == 0 and done.result["sent"] == ["mail", "webhook"] and done.result["changed"] is False, done.result
    (message,) = site.mail.messages
    assert message["Subject"] == "MazeVault backup: FAILED: backup on node1"
    assert message["To"] == "a@example.org, b@example.org" and message["Auto-Submitted"] == "auto-generated"
    body = message.get_content()
    for word in ("vault1: backup_root: too little space", "02:00:00", "exit status 2", "/var/log/mazevault-backup.log"):
        assert word in body
    assert site.mail.secure == [True] and site.mail.accounts == [("backup", site.password.text)]
    assert len(site.mail.recipients[0]) == 2
    (request,) = site.hook.requests
    assert request.path == "/hooks/1" and request.headers["Authorization"] == f"Bearer {site.token.text}"
    sent = json.loads(request.body)
    assert {key: sent[key] for key in ("event", "job", "rc", "node", "lines")} == {
        "event": "failed",
        **{key: REPORT[key] for key in ("job", "rc", "node", "lines")},
    }
    assert "too little space" in sent["text"]


def test_a_test_says_that_it_is_one(site: Site) -> None:
    done = site.send()
    assert done.rc == 0 and done.result["event"] == "test"
    assert "It is a test" in site.mail.messages[0].get_content()
    assert json.loads(site.hook.requests[0].body)["event"] == "test"


def test_a_check_sends_nothing(site: Site) -> None:
    done = site.send(check=True, job="backup", report=site.report(), memory=str(site.folder / "memory"))
    assert done.rc == 0 and done.result["sent"] == ["mail", "webhook"]
    assert site.mail.messages == [] and site.hook.requests == [] and not (site.folder / "memory").exists()


def test_no_secret_is_in_anything(site: Site) -> None:
    """Nor what a plugin or a server of somebody else says."""
    key = planted("value in a job's output")
    lines = [f"MASTER_KEY={key.pieces[0].decode()}", f"connect to postgres://u:{key.pieces[1].decode()}@db/x failed"]
    outcomes = [site.send(job="backup", report=site.report(lines=lines)), site.send()]
    site.mail.password, site.hook.status = "another one", 403
    refused = site.send(job="backup", report=site.report())
    assert refused.rc != 0 and "535" in refused.result["msg"] and "status 403" in refused.result["msg"]
    search = Search([site.password, site.token, key])
    assert search.data(site.password.value, "the file"), "the search sees it where it is"
    for number, done in enumerate([*outcomes, refused]):
        said = json.dumps(done.result) + done.stderr
        assert search.data(said.encode(), f"result {number}") == []
    for message in site.mail.messages:
        assert search.data(message.as_bytes(), "mail") == []
    for request in site.hook.requests:
        assert search.data(request.body, "webhook") == []


def test_an_address_that_is_a_secret_stays_one(site: Site) -> None:
    part = planted("path of the webhook", awkward="-")
    path = site.secret("url", f"{site.hook.url}/services/{part.text}")
    given = {"webhook_url": None, "webhook_url_file": path, "mail_to": []}
    assert site.send(**given).rc == 0 and site.hook.requests[0].path == f"/services/{part.text}"
    site.hook.status = 500
    done = site.send(**given)
    assert done.rc != 0 and "https://localhost: it answered with status 500" in done.result["msg"]
    assert Search([part]).data((json.dumps(done.result) + done.stderr).encode(), "result") == []


def test_one_way_that_fails_keeps_nobody_from_the_other(site: Site) -> None:
    memory, report = str(site.folder / "memory"), site.report()
    done = site.send(job="backup", report=report, memory=memory, mail_port=nobodys_port())
    assert done.rc != 0 and done.result["msg"].startswith("mail: ConnectionRefusedError")
    assert done.result["sent"] == ["webhook"]
    again = site.send(job="backup", report=report, memory=memory)
    assert again.rc == 0 and (again.result["sent"], again.result["skipped_ways"]) == (["mail"], ["webhook"])
    assert len(site.mail.messages) == len(site.hook.requests) == 1


def test_the_same_is_told_once_and_news_at_once(site: Site) -> None:
    memory = str(site.folder / "memory")

    def told(**params: t.Any) -> list[str]:
        facts = params.pop("facts", {})
        done = site.send(job="backup", report=site.report(**facts), memory=memory, **params)
        assert done.rc == 0, done.result
        return t.cast("list[str]", done.result["sent"])

    assert told() == ["mail", "webhook"]
    assert told(facts={"ended": "2026-11-23T14:11:00Z"}) == []
    assert told(facts={"lines": ["vault1: something else"]}) == ["mail", "webhook"]
    assert told(facts={"lines": ["vault1: something else"]}, repeat_after="0 s") == ["mail", "webhook"]
    Path(memory).write_text("damaged", encoding="utf-8")
    assert told() == ["mail", "webhook"]


@pytest.mark.parametrize("left", [None, "no JSON", json.dumps({"job": "backup", "started": "x"}), json.dumps([1])])
def test_a_job_that_left_no_word_is_told_all_the_same(site: Site, left: str | None) -> None:
    path = site.folder / "backup.json"
    if left is not None:
        path.write_text(left, encoding="utf-8")
    done = site.send(job="backup", report=str(path), mail_to=[])
    assert done.rc == 0, done.result
    (line,) = json.loads(site.hook.requests[0].body)["lines"]
    assert "ended without a word" in line


def test_a_certificate_that_nobody_vouches_for_gets_no_password(site: Site) -> None:
    done = site.send(mail_ca_file=None, webhook_ca_file=None)
    assert done.rc != 0 and "mail: SSLCertVerificationError" in done.result["msg"] and "webhook: " in done.result["msg"]
    assert site.mail.accounts == [] and site.hook.requests == []


def test_a_redirect_gets_no_token(site: Site) -> None:
    with http_server() as elsewhere:
        site.hook.status, site.hook.location = 302, f"{elsewhere.url}/x"
        done = site.send(mail_to=[])
        assert done.rc != 0 and "status 302" in done.result["msg"] and elsewhere.requests == []


def test_a_recipient_that_is_refused_is_a_failure(site: Site) -> None:
    site.mail.refuse = "b@example.org"
    done = site.send(webhook_url=None)
    assert done.rc != 0 and "refused b@example.org" in done.result["msg"] and len(site.mail.messages) == 1


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"mail_to": [], "webhook_url": None}, "mail_to: missing, and webhook_url too"),
        ({"mail_password_file": None}, "mail_password_file: missing"),
        ({"mail_user": None}, "mail_user: missing"),
        ({"mail_to": ["nobody"]}, "mail_to: nobody: no address"),
        ({"mail_host": "smtp.example.org", "mail_security": "none"}, "mail_security: none: the password would cross"),
        ({"webhook_url": "http://example.org/x"}, "webhook_url: http://example.org: the token would cross"),
        ({"webhook_url": "ftp://example.org"}, "webhook_url: not an http or https address"),
        ({"webhook_url_file": "/nowhere"}, "webhook_url: given, and webhook_url_file too"),
        ({"webhook_token_file": "/nowhere"}, "webhook_token_file: /nowhere: No such file"),
        ({"repeat_after": "often"}, "repeat_after: often: not a span of time"),
    ],
)
def test_bad_input_is_named_and_nothing_is_sent(site: Site, params: dict[str, t.Any], said: str) -> None:
    done = site.send(**params)
    assert done.rc != 0 and done.result["msg"].startswith(said), done.result["msg"]
    assert site.mail.messages == [] and site.hook.requests == []


def test_a_secret_that_others_may_read_is_refused(site: Site) -> None:
    path = site.secret("loose", "x" * 20, 0o640)
    done = site.send(mail_password_file=path)
    assert done.rc != 0 and "others may read it (mode 0640)" in done.result["msg"]
