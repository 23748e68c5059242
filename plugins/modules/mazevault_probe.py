#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: mazevault_probe
short_description: Ask a running MazeVault whether it is healthy and its secrets decrypt
version_added: 0.1.0
description:
  - Waits until the health endpoint says C(healthy) or C(ok), then reads secrets through the API. A secret counts only
    when MazeVault decrypted it.
  - Keeps to the API's rate limit. A value is never returned, logged or compared, only that it was there.
  - MazeVault writes an audit event for each secret that is read.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
attributes:
  check_mode:
    support: full
    details: Asks for the health once, and reads no secret, as that is audited.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  api_url:
    description: Address of MazeVault without C(/api/v1).
    type: str
    required: true
  token_file:
    description:
      - File on the target that holds an API token, mode 0600.
      - Without it only the health is asked for, and the verdict on secrets is V(unproven).
    type: path
  secrets:
    description:
      - How many secrets to read, V(all) or a number. A sample leaves the rest V(unproven).
      - The API allows 100 requests a minute, so all of 1,000 secrets take 10 minutes.
    type: str
    default: all
  timeout:
    description: Seconds to wait for the application to become healthy. It may migrate its schema first.
    type: float
    default: 300
  validate_certs:
    description: Check the certificate of the API.
    type: bool
    default: true
  ca_path:
    description: File with the certificate authorities that the API's certificate is checked against.
    type: path
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Is MazeVault up?
  mazevault.backup.mazevault_probe:
    api_url: https://localhost

- name: Does every secret decrypt?
  mazevault.backup.mazevault_probe:
    api_url: https://localhost
    ca_path: /opt/mazevault/certs/ca.crt
    token_file: /etc/mazevault-backup/api-token
  register: probe
"""

RETURN = r"""
verdict:
  description: V(pass) when it is healthy and all secrets decrypt, V(fail), or V(unproven).
  type: str
  returned: success
healthy:
  description: Whether the health endpoint said so.
  type: bool
  returned: success
app_version:
  description: The version that MazeVault names.
  type: str
  returned: success
waited_seconds:
  description: Seconds until it was healthy.
  type: float
  returned: success
secrets_total:
  description: Number of secrets that the API lists, null where it was not asked.
  type: int
  returned: success
secrets_decrypted:
  description: Number of secrets that came back decrypted.
  type: int
  returned: success
failures:
  description: Ids of secrets that did not decrypt, with the status of the answer.
  type: list
  elements: str
  returned: success
summary:
  description: All of it in one line.
  type: str
  returned: success
"""

import json
import os
import stat
import time
import typing as t
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ansible_collections.mazevault.backup.plugins.module_utils import _module
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, UNPROVEN

_PAGE = 100
_LONGEST_PAUSE = 70.0
# Longer than two windows of the rate limit: an API that still refuses then will go on refusing.
_PATIENCE = 180.0


class Api:
    """The few calls that a probe makes."""

    def __init__(self, url: str, token: str, *, validate_certs: bool, ca_path: str | None) -> None:
        if not url.startswith(("http://", "https://")):
            raise BackupError(f"api_url: {url}: not an http or https address", hint="Write it as https://host[:port].")
        self._base = url.rstrip("/") + "/api/v1"
        self._token, self._validate, self._ca = token, validate_certs, ca_path

    def get(self, path: str) -> tuple[int, t.Any]:
        """(status, parsed body); waits where the API asks for it. Status 0: no connection, the body says why."""
        patience = _PATIENCE
        while True:
            headers = {"Accept": "application/json"}
            if self._token:
                headers["Authorization"] = f"Bearer {self._token}"
            try:
                answer = open_url(
                    self._base + path,
                    headers=headers,
                    timeout=30,
                    validate_certs=self._validate,
                    ca_path=self._ca,
                    http_agent="mazevault.backup",
                    use_proxy=False,
                    # A redirect would take the token to wherever it leads.
                    follow_redirects="none",
                )
                return answer.getcode(), _parsed(answer.read())
            except HTTPError as exc:
                if exc.code != 429 or patience <= 0:
                    return exc.code, _parsed(exc.read())
                pause = _pause(exc.headers.get("Retry-After"))
                patience -= pause
                time.sleep(pause)
            except (HTTPException, OSError, ValueError) as exc:
                return 0, str(getattr(exc, "reason", exc))


def _pause(text: str | None) -> float:
    try:
        return min(_LONGEST_PAUSE, max(1.0, float(text or 1)))
    except ValueError:
        return 5.0


def _parsed(body: bytes) -> t.Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace").strip()[:200]


def healthy(status: int, body: t.Any) -> bool:
    """Both spellings are in the field."""
    word = body.get("status") if isinstance(body, dict) else body
    return status == 200 and str(word).lower() in ("healthy", "ok")


def _answer(status: int, body: t.Any) -> str:
    """An unhealthy answer in a few words."""
    if not status:
        return f"no answer: {body}"
    word = body.get("status") if isinstance(body, dict) else None
    return f"status {status}{f' {word}' if isinstance(word, str) else ''}"


def items_of(body: t.Any) -> tuple[list[dict[str, t.Any]], int | None]:
    """(entries, total where it is named) of a list answer in any of the documented shapes."""
    if isinstance(body, list):
        return [entry for entry in body if isinstance(entry, dict)], None
    if isinstance(body, dict):
        for key in ("data", "items", "secrets"):
            if isinstance(body.get(key), list):
                total = body.get("total")
                entries = [entry for entry in body[key] if isinstance(entry, dict)]
                return entries, (total if isinstance(total, int) else None)
    raise BackupError("api_url: the list of secrets isn't in a shape that is known", hint="Is this MazeVault's API?")


def list_secrets(api: Api) -> list[str]:
    """Ids of all secrets that the token may see."""
    found: dict[str, None] = {}
    offset = 0
    while True:
        status, body = api.get(f"/secrets?limit={_PAGE}&offset={offset}")
        if status in (401, 403):
            raise BackupError(
                f"token_file: the API refuses the token (status {status})",
                hint="Make a new API token in MazeVault; tokens live in the database,"
                " so a restore brings older ones back.",
            )
        if status != 200:
            raise BackupError(
                f"api_url: the list of secrets answered with status {status}", hint="Look at MazeVault's log."
            )
        entries, total = items_of(body)
        before = len(found)
        found.update(dict.fromkeys(str(entry.get("id")) for entry in entries))
        offset += len(entries)
        # An API without pages answers the same list again.
        if not entries or len(found) == before or (total is not None and len(found) >= total):
            return list(found)


def read_token(path: str | None) -> str:
    if not path:
        return ""
    try:
        info = os.stat(path)
        if info.st_mode & 0o077:
            raise BackupError(
                f"token_file: {path}: others may read it (mode {stat.S_IMODE(info.st_mode):04o})",
                hint=f"chmod 600 {path}",
            )
        with open(path, encoding="utf-8", errors="replace") as stream:
            token = stream.read().strip()
    except OSError as exc:
        raise BackupError(f"token_file: {path}: {exc.strerror}", hint="Name a file with an API token.") from exc
    if not token or any(char <= " " or char > "~" for char in token):
        raise BackupError(
            f"token_file: {path}: {'not one token' if token else 'empty'}",
            hint="Write the API token and nothing else into the file.",
        )
    return token


def _wanted(text: str) -> int | None:
    if text.strip().lower() == "all":
        return None
    if not text.strip().isdigit() or int(text) < 1:
        raise BackupError(f"secrets: {text}: neither all nor a number above 0", hint="Write all, or how many to read.")
    return int(text)


def _wait(api: Api, timeout: float) -> tuple[int, t.Any, float]:
    started = time.monotonic()
    while True:
        status, body = api.get("/health")
        waited = time.monotonic() - started
        if healthy(status, body) or waited >= timeout:
            return status, body, round(waited, 3)
        time.sleep(0.5)


def _probe(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    wanted = _wanted(params["secrets"])
    token = read_token(params["token_file"])
    api = Api(params["api_url"], token, validate_certs=params["validate_certs"], ca_path=params["ca_path"])
    status, body, waited = _wait(api, 0 if module.check_mode else params["timeout"])
    well = healthy(status, body)
    result: dict[str, t.Any] = {
        "changed": False,
        "verdict": UNPROVEN if well else FAIL,
        "healthy": well,
        "app_version": str(body.get("version", "")) if isinstance(body, dict) else "",
        "waited_seconds": waited,
        "secrets_total": None,
        "secrets_decrypted": 0,
        "failures": [],
        "summary": "healthy, secrets not asked for"
        if well
        else f"not healthy after {waited:.0f} s: {_answer(status, body)}",
    }
    if not well or not token or module.check_mode:
        return result
    ids = list_secrets(api)
    # Evenly spread, so that old and new ones are among them.
    chosen = ids if wanted is None or wanted >= len(ids) else [ids[i * len(ids) // wanted] for i in range(wanted)]
    failures = []
    for secret in chosen:
        status, answer = api.get(f"/secrets/{quote(secret, safe='')}")
        if status != 200 or not isinstance(answer, dict) or not isinstance(answer.get("value"), str):
            failures.append(f"{secret}: status {status}")
    decrypted = len(chosen) - len(failures)
    verdict = UNPROVEN
    if failures:
        verdict = FAIL
    elif ids and len(chosen) == len(ids):
        verdict = PASS
    return {
        **result,
        "verdict": verdict,
        "secrets_total": len(ids),
        "secrets_decrypted": decrypted,
        "failures": failures,
        "summary": f"healthy, {decrypted} of {len(ids)} secrets decrypt"
        + (f", {len(failures)} don't" if failures else ""),
    }


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            "api_url": {"type": "str", "required": True},
            # A path, not a secret: the token never comes near a module's parameters.
            "token_file": {"type": "path", "no_log": False},
            # How many, not which.
            "secrets": {"type": "str", "default": "all", "no_log": False},
            "timeout": {"type": "float", "default": 300},
            "validate_certs": {"type": "bool", "default": True},
            "ca_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    _module.run(module, _probe)


if __name__ == "__main__":
    main()
