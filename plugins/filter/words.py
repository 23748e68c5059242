# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import re
import shlex
import typing as t

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: words
author:
  - The mazevault.backup authors (@mazevault)
version_added: 0.1.0
short_description: A list from what an inventory or a survey gives
description:
  - Surveys send lists as text. A list stays as it is; text is split at commas and line ends; empty and null give no
    words.
  - With O(command=true) text is split as a shell would split it, and nothing is expanded.
options:
  _input:
    description: A list, text, or null.
    type: raw
    required: true
  command:
    description: The text is a command line.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Both give the same list
  ansible.builtin.assert:
    that:
      - ('postgres,vault' | mazevault.backup.words) == ['postgres', 'vault']
      - (['postgres', 'vault'] | mazevault.backup.words) == ['postgres', 'vault']
"""

RETURN = r"""
_value:
  description: The words.
  type: list
  elements: str
"""


def words(value: t.Any, command: bool = False) -> list[str]:
    """The words of a list or of text; None and blanks are none."""
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return [str(entry) for entry in value if str(entry).strip()]
    if not isinstance(value, str):
        raise AnsibleFilterError(f"a list or text is wanted, not {type(value).__name__}: {value}")
    if command:
        try:
            return shlex.split(value)
        except ValueError as exc:
            raise AnsibleFilterError(f"not a command line ({exc}): {value}") from exc
    return [word.strip() for word in re.split(r"[,\n]", value) if word.strip()]


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"words": words}
