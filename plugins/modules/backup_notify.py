#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_notify
short_description: Tell by mail and webhook that a scheduled job failed
version_added: 0.1.0
description:
  - Sends what M(mazevault.backup.backup_schedule)'s program left behind of a job that failed, or a test. It tells the
    job, when, its exit status, the errors and where the log is, and nothing that looks like a secret.
  - Every way is tried; one that fails makes the module fail after the others.
  - Password, token and, where it is a secret, the webhook's address come from files, and are in no result.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
attributes:
  check_mode:
    support: full
    details: Reads the files that it needs, and sends nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
    details: Sending is no change. With O(memory) the same failure is sent once in O(repeat_after).
options:
  job:
    description: The job that failed. Unset sends a test.
    type: str
  report:
    description: File (JSON) that the job left behind.
    type: path
  memory:
    description: File that remembers what was told. Unset, everything is told.
    type: path
  repeat_after:
    description: After how long the same failure is told again.
    type: str
    default: 24 h
  mail_to:
    description: Who gets a mail.
    type: list
    elements: str
    default: []
  mail_from:
    description: Its sender. Unset means C(mazevault-backup) at the machine's name.
    type: str
  mail_host:
    description: The server that takes it.
    type: str
    default: localhost
  mail_port:
    description: Its port. Unset means 587 for V(starttls), 465 for V(tls), 25 for V(none).
    type: int
  mail_security:
    description: Unset means V(none) for the machine itself, else V(starttls). Certificates are checked.
    type: str
    choices: [starttls, tls, none]
  mail_user:
    description: Account on the server. It needs O(mail_password_file).
    type: str
  mail_password_file:
    description: File with its password, which nobody but its owner may read.
    type: path
  mail_ca_file:
    description: File with the CA certificates of the server. Unset means the system's.
    type: path
  webhook_url:
    description: Address that gets the same as JSON (POST).
    type: str
  webhook_url_file:
    description: File with that address instead, which nobody but its owner may read.
    type: path
  webhook_token_file:
    description: File with a token for C(Authorization) (Bearer), which nobody but its owner may read.
    type: path
  webhook_ca_file:
    description: File with the CA certificates of the server. Unset means the system's.
    type: path
  timeout:
    description: Seconds to wait for a server.
    type: float
    default: 30
seealso:
  - module: mazevault.backup.backup_schedule
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Send a test
  mazevault.backup.backup_notify:
    mail_to: [backup-team@example.org]
    mail_host: smtp.example.org
    mail_user: backup
    mail_password_file: /etc/mazevault-backup/smtp-password
    webhook_url: https://chat.example.org/hooks/backup
    webhook_token_file: /etc/mazevault-backup/webhook-token
  delegate_to: localhost
"""

RETURN = r"""
event:
  description: V(failed) or V(test).
  type: str
  returned: success
sent:
  description: Ways by which it was told, or would be, V(mail) and V(webhook).
  type: list
  elements: str
  returned: success
skipped_ways:
  description: Ways by which the same was told not long ago.
  type: list
  elements: str
  returned: success
subject:
  description: What it is about.
  type: str
  returned: success
lines:
  description: What was done, for people.
  type: list
  elements: str
  returned: success
"""

import contextlib
import json
import os
import smtplib
import socket
import ssl
import stat
import typing as t
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from urllib.error import HTTPError
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _module
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import write_json
from ansible_collections.mazevault.backup.plugins.module_utils._notice import Notice, notice_of, told_before
from ansible_collections.mazevault.backup.plugins.module_utils._policy import seconds_of

MAIL = "mail"
WEBHOOK = "webhook"
PORTS = {"starttls": 587, "tls": 465, "none": 25}
HERE = ("localhost", "127.0.0.1", "::1")
_LARGEST = 1 << 20


def _secret(params: t.Mapping[str, t.Any], name: str) -> str:
    """One line out of a file that only its owner may read; unset is empty."""
    path = params[name]
    if not path:
        return ""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            if mode & 0o077:
                raise BackupError(f"{name}: {path}: others may read it (mode {mode:04o})", hint=f"chmod 600 {path}")
            text = stream.read(_LARGEST).rstrip("\r\n")
    except OSError as exc:
        raise BackupError(f"{name}: {path}: {exc.strerror}", hint="Name a file that this account may read.") from exc
    if not text or not text.isprintable():
        what = "not one line" if text else "empty"
        raise BackupError(f"{name}: {path}: {what}", hint="Write the secret alone into it.")
    return text


def _json_of(path: str | None) -> dict[str, t.Any] | None:
    """What lies there, as far as it can be read: a notification doesn't fail for a damaged file."""
    if path:
        with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as stream:
            found = json.loads(stream.read(_LARGEST))
            return found if isinstance(found, dict) else None
    return None


class _Mail:
    """The way by mail, everything settled before anything is sent."""

    def __init__(self, params: t.Mapping[str, t.Any]) -> None:
        self.host = params["mail_host"]
        here = self.host in HERE
        self.security = params["mail_security"] or ("none" if here else "starttls")
        self.port = params["mail_port"] or PORTS[self.security]
        self.to, self.user = params["mail_to"], params["mail_user"]
        self.sender = params["mail_from"] or f"mazevault-backup@{socket.getfqdn()}"
        self.password, self.timeout = _secret(params, "mail_password_file"), params["timeout"]
        self.ca = params["mail_ca_file"]
        if bool(self.user) != bool(self.password):
            missing = "mail_password_file" if self.user else "mail_user"
            raise BackupError(f"{missing}: missing", hint="An account needs its password, and a password its account.")
        if self.password and self.security == "none" and not here:
            raise BackupError(
                "mail_security: none: the password would cross the network in plain", hint="Take starttls or tls."
            )
        for name, value in (("mail_from", self.sender), *(("mail_to", one) for one in self.to)):
            if "@" not in value or not value.isprintable():
                raise BackupError(f"{name}: {value}: no address", hint="Write it as name@example.org.")
        self.secrets = [self.password]

    def send(self, notice: Notice) -> str:
        message = EmailMessage()
        message["Subject"], message["From"], message["To"] = notice.subject, self.sender, ", ".join(self.to)
        message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain="mazevault-backup")
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(notice.body)
        with self._connected() as server:
            if self.user:
                server.login(self.user, self.password)
            refused = server.send_message(message)
        if refused:
            raise OSError(f"the server refused {', '.join(refused)}")
        return f"mail to {', '.join(self.to)} by {self.host}"

    def _connected(self) -> smtplib.SMTP:
        if self.security == "tls":
            return smtplib.SMTP_SSL(self.host, self.port, timeout=self.timeout, context=self._tls())
        server = smtplib.SMTP(self.host, self.port, timeout=self.timeout)
        if self.security == "starttls":
            try:
                server.starttls(context=self._tls())
            except BaseException:
                server.close()
                raise
        return server

    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca)


class _Webhook:
    """The way by HTTP."""

    def __init__(self, params: t.Mapping[str, t.Any]) -> None:
        if params["webhook_url"] and params["webhook_url_file"]:
            raise BackupError("webhook_url: given, and webhook_url_file too", hint="Give one of them.")
        self.url = params["webhook_url"] or _secret(params, "webhook_url_file")
        named = "webhook_url" if params["webhook_url"] else "webhook_url_file"
        self.token, self.timeout = _secret(params, "webhook_token_file"), params["timeout"]
        self.ca = params["webhook_ca_file"]
        parts = urlsplit(self.url)
        self.secrets = [self.token, self.url, parts.path.strip("/"), parts.query]
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise BackupError(f"{named}: not an http or https address", hint="Write it as https://host/path.")
        # Its path is a secret at times.
        self.shown = f"{parts.scheme}://{parts.hostname}"
        if self.token and parts.scheme == "http" and parts.hostname not in HERE:
            raise BackupError(f"{named}: {self.shown}: the token would cross the network in plain", hint="Take https.")

    def send(self, notice: Notice) -> str:
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            open_url(
                self.url,
                method="POST",
                data=json.dumps(notice.as_json()).encode(),
                headers=headers,
                timeout=self.timeout,
                ca_path=self.ca,
                http_agent="mazevault.backup",
                # A redirect would take the token to wherever it leads.
                follow_redirects="none",
            ).close()
        except HTTPError as exc:
            raise OSError(f"{self.shown}: it answered with status {exc.code}") from exc
        return f"webhook at {self.shown}"


def _settled(params: t.Mapping[str, t.Any]) -> dict[str, _Mail | _Webhook]:
    ways: dict[str, _Mail | _Webhook] = {}
    if params["mail_to"]:
        ways[MAIL] = _Mail(params)
    if params["webhook_url"] or params["webhook_url_file"]:
        ways[WEBHOOK] = _Webhook(params)
    if not ways:
        raise BackupError("mail_to: missing, and webhook_url too", hint="Say who is to be told.")
    return ways


def _without(text: str, secrets: t.Iterable[str]) -> str:
    """What a server said, which may have quoted what it got."""
    for secret in secrets:
        text = text.replace(secret, "(left out)") if len(secret) > 3 else text
    return " ".join(text.split())[:300]


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    params, now = module.params, _clock.now()
    try:
        repeat_after = seconds_of(params["repeat_after"])
    except ValueError as exc:
        raise BackupError(f"repeat_after: {exc}", hint="Write it like 24 h.") from exc
    ways = _settled(params)
    notice = notice_of(params["job"], _json_of(params["report"]), node=socket.gethostname(), now=now)
    before = told_before(_json_of(params["memory"]) or {}, notice, now=now, repeat_after=repeat_after)
    lines, failures, sent = [], {}, []
    for name, way in ways.items():
        if name in before:
            lines.append(f"{name}: told not long ago")
            continue
        if module.check_mode:
            sent.append(name)
            lines.append(f"{name}: would be sent")
            continue
        try:
            lines.append(f"sent: {way.send(notice)}")
            sent.append(name)
        except Exception as exc:  # whatever a library throws, the other way is tried, and nothing secret is shown
            failures[name] = _without(f"{type(exc).__name__}: {exc}", way.secrets)
    if params["memory"] and params["job"] and sent and not module.check_mode:
        write_json(
            params["memory"], {"digest": notice.digest, "at": _clock.rfc3339(now), "ways": sorted({*before, *sent})}
        )
    if failures:
        raise BackupError(
            "; ".join(f"{name}: {reason}" for name, reason in failures.items()),
            hint="See to the server and its settings; playbooks/notify.yml sends a test.",
            details={"sent": sent},
        )
    skipped = [name for name in ways if name in before]
    return {
        "changed": False,
        "event": notice.event,
        "sent": sent,
        "skipped_ways": skipped,
        "subject": notice.subject,
        "lines": lines,
    }


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            "job": {"type": "str"},
            "report": {"type": "path"},
            "memory": {"type": "path"},
            "repeat_after": {"type": "str", "default": "24 h"},
            "mail_to": {"type": "list", "elements": "str", "default": []},
            "mail_from": {"type": "str"},
            "mail_host": {"type": "str", "default": "localhost"},
            "mail_port": {"type": "int"},
            "mail_security": {"type": "str", "choices": ["starttls", "tls", "none"]},
            "mail_user": {"type": "str"},
            "mail_password_file": {"type": "path", "no_log": False},
            "mail_ca_file": {"type": "path"},
            "webhook_url": {"type": "str", "no_log": True},
            "webhook_url_file": {"type": "path"},
            "webhook_token_file": {"type": "path", "no_log": False},
            "webhook_ca_file": {"type": "path"},
            "timeout": {"type": "float", "default": 30},
        },
        supports_check_mode=True,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
