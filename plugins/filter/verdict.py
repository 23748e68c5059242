# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import typing as t
from collections.abc import Iterable, Mapping

from ansible.errors import AnsibleFilterError

from ansible_collections.mazevault.backup.plugins.module_utils._verdict import FAIL, PASS, UNPROVEN, combine

DOCUMENTATION = r"""
name: verdict
author:
  - The mazevault.backup authors (@mazevault)
version_added: 0.1.0
short_description: One verdict out of many
description:
  - V(fail) beats V(unproven) beats V(pass). What is required and has no verdict is V(unproven), so a check that
    somebody left out never makes a run green. Nothing required and nothing given is V(unproven) too.
options:
  _input:
    description: Verdicts by the name of what they are about.
    type: dict
    required: true
  required:
    description: Names that have to have a verdict.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Red unless both are proven
  ansible.builtin.assert:
    that: "{'ledger': ledger.verdict, 'dump': dump.verdict} | mazevault.backup.verdict(['ledger', 'dump']) == 'pass'"
"""

RETURN = r"""
_value:
  description: V(pass), V(fail) or V(unproven).
  type: str
"""


def verdict(given: Mapping[str, t.Any], required: Iterable[str]) -> str:
    """The combined verdict; a word that is none of the three proves nothing."""
    if not isinstance(given, Mapping) or isinstance(required, str):
        raise AnsibleFilterError("a dictionary of verdicts and a list of names are wanted")
    seen = [word if word in (PASS, FAIL) else UNPROVEN for word in given.values()]
    return combine([*seen, *(UNPROVEN for name in required if name not in given)])


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"verdict": verdict}
