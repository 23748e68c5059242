#!/usr/bin/python
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: escrow_page
short_description: A page to print for each half of the escrow, for the deposit box or the sealed envelope
version_added: 0.1.0
description:
  - Writes for each half of the escrow a plain text and an HTML page that needs nothing else. It says what lies there,
    every generation with its id, date and the SHA-256 of each file in groups of four, who can open it, and how by hand.
    It ends with a checksum of its own lines. Nothing on it is secret.
  - Where it is asked for, the newest encrypted C(vault.key) is on the page of the half V(key) as QR codes. They hold
    what a medium holds, which only its recipients can open.
  - It usually runs on the control node. A page changes when a generation does, and not otherwise.
extends_documentation_fragment:
  - mazevault.backup._attributes
  - mazevault.backup._attributes.actiongroup
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - segno, a Python package without dependencies of its own, for O(codes) only
options:
  folder:
    description: Where the pages are written, C(INSTALLATION-escrow-HALF.txt) and C(.html). It is made if need be.
    type: path
    required: true
  installation:
    description: Name of the installation.
    type: str
    required: true
  indexes:
    description: Of all generations, as M(mazevault.backup.escrow_bundles) returns them.
    type: list
    elements: dict
    required: true
  host_key:
    description: The public key (PEM) of the host that signed them.
    type: str
    default: ""
  codes:
    description: Encrypted bundles in base64 by name, which the page of the half V(key) shows as QR codes.
    type: dict
    default: {}
seealso:
  - module: mazevault.backup.escrow_bundles
author:
  - The mazevault.backup authors (@mazevault)
"""

EXAMPLES = r"""
- name: Read the indexes
  mazevault.backup.escrow_bundles:
    backup_root: /opt/mazevault/backups
  register: bundles

- name: A page for each envelope
  mazevault.backup.escrow_page:
    folder: /home/operator/escrow-pages
    installation: "{{ inventory_hostname }}"
    indexes: "{{ bundles.indexes }}"
    host_key: "{{ bundles.host_key }}"
  delegate_to: localhost
"""

RETURN = r"""
pages:
  description: Paths of the pages.
  type: list
  elements: str
  returned: success
codes:
  description: How many QR codes there are.
  type: int
  returned: success
"""

import importlib
import io
import os
import sys
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mazevault.backup.plugins.module_utils import _escrow_looks, _escrow_page, _module
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._escrow_place import HALVES
from ansible_collections.mazevault.backup.plugins.module_utils._files import write_file


def _drawing() -> t.Any:
    """The package segno; None where it isn't installed."""
    try:
        return importlib.import_module("segno")
    except ImportError:
        return None


def _pictures(contents: t.Mapping[str, bytes], indexes: list[dict[str, t.Any]]) -> list[tuple[str, str]]:
    """(caption, SVG) of each code."""
    segno = _drawing()
    if contents and segno is None:
        raise BackupError(
            f"codes: QR codes need the Python package segno, and {sys.executable} doesn't have it",
            hint=f"Install it there ({sys.executable} -m pip install segno), or leave the codes out.",
        )
    of_key = {entry["name"] for one in indexes for entry in one["files"] if entry["half"] == "key"}
    found = []
    for name, content in sorted(contents.items()):
        if name not in of_key:
            raise BackupError(f"codes: {name}: isn't of the half key", hint="Each half's page has its own files only.")
        texts = _escrow_page.code_texts(name, content)
        for number, text in enumerate(texts, 1):
            out = io.BytesIO()
            code = segno.make_qr(text, error="m", mode="byte", encoding="ascii", boost_error=False)
            code.save(out, kind="svg", xmldecl=False, omitsize=True, border=4)
            found.append((f"{name} {number}/{len(texts)}", out.getvalue().decode()))
    return found


def _act(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    name = params["installation"]
    if not name or name.startswith(".") or "/" in name:
        raise BackupError(f"installation: {name!r}: can't be a file's name", hint="Give the inventory hostname.")
    if not params["indexes"]:
        raise BackupError(
            f"indexes: empty: nothing of {name} is in escrow, so there is nothing to print",
            hint="Run backup.yml with places for both halves first.",
        )
    pictures = _pictures(_escrow_looks.decoded(params["codes"], "codes"), params["indexes"])
    pages: dict[str, str] = {}
    for half in HALVES:
        text = _escrow_page.page_text(half, name, params["indexes"], params["host_key"])
        path = os.path.join(params["folder"], f"{name}-escrow-{half}")
        pages[f"{path}.txt"] = text
        title = f"MazeVault key escrow, {name}, half {half}"
        pages[f"{path}.html"] = _escrow_page.page_html(text, title, pictures if half == "key" else [])
    before = {path: _content(path) for path in pages}
    changed = [path for path, content in pages.items() if before[path] != content]
    if changed and not module.check_mode:
        os.makedirs(params["folder"], mode=0o700, exist_ok=True)
        for path in changed:
            write_file(path, pages[path], mode=0o644)
    texts = [path for path in changed if path.endswith(".txt")]
    return {
        "changed": bool(changed),
        "pages": sorted(pages),
        "codes": len(pictures),
        "diff": [{"before": before[path], "after": pages[path], "before_header": path} for path in texts],
    }


def _content(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def main() -> t.NoReturn:
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "installation": {"type": "str", "required": True},
            "indexes": {"type": "list", "elements": "dict", "required": True},
            # A public key.
            "host_key": {"type": "str", "default": "", "no_log": False},
            # Encrypted, but nobody needs it in a log.
            "codes": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    _module.run(module, _act)


if __name__ == "__main__":
    main()
