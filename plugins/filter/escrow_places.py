# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import re
import typing as t
from collections.abc import Mapping

from ansible.errors import AnsibleFilterError

from ansible_collections.mazevault.backup.plugins.filter.words import words

DOCUMENTATION = r"""
name: escrow_places
author:
  - The mazevault.backup authors (@mazevault)
version_added: 0.1.0
short_description: Where the places of an escrow half are, from what an inventory or a survey gives
description:
  - A place is a folder on the installation's host (V(/mnt/escrow)), or on another host of the inventory, as a
    dictionary with C(host) and C(path), or as text, V(vault-escrow-1:/srv/escrow).
options:
  _input:
    description: A list of places, text with commas between them, or null.
    type: raw
    required: true
  here:
    description: The installation's own host. A place that names it is one of its folders.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Three ways to name a place
  ansible.builtin.debug:
    msg: "{{ ['/mnt/escrow', 'vault-escrow-1:/srv/escrow', {'host': 'vault-escrow-2', 'path': '/srv/escrow'}]
             | mazevault.backup.escrow_places('prague') }}"
"""

RETURN = r"""
_value:
  description: One dictionary a place, with C(name), C(path), and C(host), which is empty for a folder of O(here).
  type: list
  elements: dict
"""

_FAR = re.compile(r"(?P<host>[A-Za-z0-9][A-Za-z0-9._-]*):(?P<path>/.*)\Z")
_ASK = 'Write /folder, or host:/folder, or {"host": ..., "path": ...} with the host\'s name in the inventory.'


def escrow_places(value: t.Any, here: str) -> list[dict[str, str]]:
    """Each place once, in order."""
    given = value if isinstance(value, (list, tuple)) else [value] if isinstance(value, Mapping) else words(value)
    found = [_place(one, here) for one in given if one is not None and str(one).strip()]
    return list({one["name"]: one for one in found}.values())


def _place(one: t.Any, here: str) -> dict[str, str]:
    if isinstance(one, Mapping):
        if set(one) - {"host", "path"} or not one.get("path"):
            raise AnsibleFilterError(f"escrow place: {dict(one)}: {_ASK}")
        host, path = str(one.get("host") or ""), str(one["path"]).strip()
    else:
        far = _FAR.match(str(one).strip())
        host, path = (far["host"], far["path"]) if far else ("", str(one).strip())
    if not path.startswith("/") or (host and not _FAR.match(f"{host}:{path}")):
        raise AnsibleFilterError(f"escrow place: {one}: {_ASK} The account is the host's own variable (ansible_user).")
    if host == here:
        host = ""
    return {"name": f"{host}:{path}" if host else path, "host": host, "path": path}


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"escrow_places": escrow_places}
