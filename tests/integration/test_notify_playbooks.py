# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From schedule.yml to somebody's mailbox: a promise that is missed, a broken inventory, a test by hand."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import fake_systemctl
from support.canaries import Canary, Search, planted
from support.keys import signing_key
from support.plays import Place, Play
from support.receivers import Certificate, Hook, Mailbox, certificate_of_localhost, http_server, mail_server


@dataclass(frozen=True)
class Told:
    """A node whose schedule names a mail server and a webhook; its one installation has no set at all."""

    folder: Path
    mail: Mailbox
    hook: Hook
    secrets: tuple[Canary, ...]
    certificate: Certificate

    @property
    def node(self) -> Path:
        return self.folder / "node"

    @property
    def log(self) -> Path:
        return self.node / "log"

    def variables(self) -> dict[str, t.Any]:
        return {
            "mazevault_backup_root": str(self.folder / "empty"),
            "mazevault_signing_key": signing_key(),
            "mazevault_witness_folder": str(self.folder / "witness"),
            "mazevault_monitoring_folder": str(self.folder / "reports"),
            "mazevault_schedule_manager": "systemd",
            "mazevault_schedule_scope": "user",
            "mazevault_schedule_unit_folder": str(self.node / "units"),
            "mazevault_schedule_folder": str(self.node / "lib"),
            "mazevault_schedule_log_file": str(self.log),
            "mazevault_schedule_logrotate_file": str(self.node / "logrotate"),
            "mazevault_notify_mail_to": "team@example.org",
            "mazevault_notify_mail_from": "backup@example.org",
            "mazevault_notify_mail_port": self.mail.port,
            "mazevault_notify_mail_security": "starttls",
            "mazevault_notify_mail_user": "backup",
            "mazevault_notify_mail_password_file": str(self.folder / "password"),
            "mazevault_notify_mail_ca_file": str(self.certificate.certificate),
            "mazevault_notify_webhook_url": f"{self.hook.url}/hook",
            "mazevault_notify_webhook_token_file": str(self.folder / "token"),
            "mazevault_notify_webhook_ca_file": str(self.certificate.certificate),
        }

    def play(self, playbook: str, *arguments: str, **extra: t.Any) -> Play:
        programs = self.folder / "programs"
        fake_systemctl.put_into(programs)
        env = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            fake_systemctl.BOOK: str(self.folder / "book.json"),
            "USER": "",
            "LOGNAME": "",
        }
        inventory = Place(self.folder).write_inventory({"vault1": self.variables()})
        return Place(self.folder).run(playbook, inventory, *arguments, extra=extra, env=env)

    def start(self, unit: str, instance: str = "") -> subprocess.CompletedProcess[str]:
        """A unit's command line, as systemd starts it."""
        lines = (self.node / "units" / unit).read_text(encoding="utf-8").splitlines()
        (line,) = [line for line in lines if line.startswith("ExecStart=")]
        argv = [instance if word == "%i" else word for word in shlex.split(line.partition("=")[2])]
        env = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder / "home")}
        return subprocess.run(argv, env=env, capture_output=True, encoding="utf-8", check=False, timeout=120)

    def fail(self, job: str) -> list[subprocess.CompletedProcess[str]]:
        """A job that fails, and what its OnFailure= names."""
        unit = f"mazevault-backup-{job}.service"
        done = self.start(unit)
        assert done.returncode != 0, done.stdout
        text = (self.node / "units" / unit).read_text(encoding="utf-8")
        assert f"OnFailure=mazevault-backup-notify@{job}.service" in text.splitlines()
        return [done, self.start("mazevault-backup-notify@.service", job)]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("told")
    certificate = certificate_of_localhost(folder)
    secrets = (planted("password"), planted("token", awkward="-"))
    for name, canary in zip(("password", "token"), secrets):
        (folder / name).write_text(canary.text, encoding="utf-8")
        (folder / name).chmod(0o600)
    with mail_server(certificate, password=secrets[0].text) as mail, http_server(certificate) as hook:
        site = Told(folder, mail, hook, secrets, certificate)
        done = site.play("schedule")
        assert done.rc == 0, done.output
        yield site


def test_a_promise_that_is_missed_is_told(told: Told) -> None:
    job, notice = told.fail("status")
    assert notice.returncode == 0, notice.stdout
    message = told.mail.messages[-1]
    assert "FAILED: status" in message["Subject"]
    assert "Database corruption: RPO: there is no recovery set" in " ".join(message.get_content().split())
    sent = json.loads(told.hook.requests[-1].body)
    assert (sent["job"], sent["rc"], told.hook.requests[-1].path) == ("status", job.returncode, "/hook")
    assert any("there is no recovery set" in line for line in sent["lines"])
    assert "status notify: " in told.log.read_text(encoding="utf-8")


def test_a_broken_inventory_is_told_too(told: Told) -> None:
    (told.folder / "inventory.yml").unlink()
    _job, notice = told.fail("prune")
    assert notice.returncode == 0, notice.stdout
    assert "FAILED: removal of sets" in told.mail.messages[-1]["Subject"]
    before = len(told.mail.messages)
    again = told.fail("prune")[1]
    assert again.returncode == 0 and "told not long ago" in again.stdout
    assert len(told.mail.messages) == before


def test_a_test_by_hand(told: Told) -> None:
    check = told.play("notify", "--check")
    before = len(told.mail.messages)
    assert check.rc == 0 and "would be sent" in check.output
    done = told.play("notify")
    assert (done.rc, done.changed, len(told.mail.messages)) == (0, [], before + 1), done.output
    assert json.loads(told.hook.requests[-1].body)["event"] == "test"
    refused = told.play("notify", mazevault_notify_mail_to="", mazevault_notify_webhook_url="")
    assert refused.rc != 0 and "mail_to: missing" in refused.failures[0].msg


def test_nobody_reads_the_secrets_anywhere(told: Told) -> None:
    """Units, settings, log, messages, and all that -vvv shows; the files themselves are the positive control."""
    done = told.play("notify", "-vvv")
    assert done.rc == 0, done.output
    search = Search(told.secrets)
    assert len({find.canary for find in search.tree(told.folder / "password", told.folder / "token")}) == 2
    assert search.text(done.output, "output") == []
    assert search.tree(told.node, told.folder / "tasks.jsonl", told.folder / "reports") == []
    for message in told.mail.messages:
        assert search.data(message.as_bytes(), "mail") == []
    for request in told.hook.requests:
        assert search.data(request.body, "webhook") == []
