# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import typing as t
from collections.abc import Iterable, Mapping

DOCUMENTATION = r"""
name: escrow_looks
author:
  - The mazevault.backup authors (@mazevault)
version_added: 0.1.0
short_description: What places on other hosts answered
description:
  - From the results of a loop of M(mazevault.backup.escrow_place) over places to what M(mazevault.backup.escrow) takes.
    A host that couldn't be reached, or where the module failed, is a place with a problem.
options:
  _input:
    description: The results, each with its C(item), which has C(half) and C(name), or has such an C(item) itself.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Which places have a problem?
  ansible.builtin.debug:
    msg: "{{ looked.results | mazevault.backup.escrow_looks | selectattr('problem') }}"
"""

RETURN = r"""
_value:
  description: One dictionary a look, with C(half), C(name), C(problem), C(place_id), C(wrong), C(healed) and C(whole).
  type: list
  elements: dict
"""

_TOLD = ("place_id", "wrong", "healed", "whole")


def escrow_looks(results: Iterable[Mapping[str, t.Any]]) -> list[dict[str, t.Any]]:
    found = []
    for result in results or ():
        if result.get("skipped"):
            continue
        place = result["item"]
        place = place.get("item", place)
        said = {key: result[key] for key in _TOLD if key in result}
        problem = str(result.get("problem") or "")
        if "whole" not in result:
            what = "its host can't be reached" if result.get("unreachable") else "its host couldn't look"
            problem = f"{what}: {' '.join(str(result.get('msg') or 'no reason was given').split())[:400]}"
        found.append({"half": place["half"], "name": place["name"], "problem": problem, **said})
    return found


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"escrow_looks": escrow_looks}
