# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import re
import typing as t

from ansible.parsing.dataloader import DataLoader
from ansible.plugins.lookup import LookupBase

from ansible_collections.mazevault.backup.plugins.lookup.unknown_variables import known_variables

# Ansible's markup: C(text), V(text), O(name), M(name), RV(name).
_MARKUP = re.compile(r"\b[A-Z]{1,2}\(([^)]*)\)")


def told(description: str | list[str]) -> str:
    """A description as one plain text."""
    text = description if isinstance(description, str) else " ".join(description)
    return " ".join(_MARKUP.sub(r"\1", text).split())


class LookupModule(LookupBase):
    def run(self, terms: t.Any, variables: t.Any = None, **kwargs: t.Any) -> list[dict[str, t.Any]]:
        known = known_variables((self._loader or DataLoader()).load_from_file)
        return [
            {"name": name, "default": option.get("default"), "description": told(option["description"])}
            for name, option in known.items()
            if name not in {str(term) for term in terms}
        ]
