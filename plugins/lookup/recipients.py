# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import re
import typing as t
from pathlib import Path

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

_CERTIFICATE = re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?-----END [A-Z0-9 ]+-----", re.DOTALL)
# Where one name ends and another begins in text.
_GAP = re.compile(r"[,\n]")


class LookupModule(LookupBase):
    def run(self, terms: list[t.Any], variables: t.Any = None, **kwargs: t.Any) -> list[str]:
        return [found for term in terms for found in self._of(term, variables)]

    def _of(self, given: t.Any, variables: t.Any) -> t.Iterator[str]:
        if given is None:
            return
        if isinstance(given, (list, tuple)):
            for entry in given:
                yield from self._of(entry, variables)
            return
        if not isinstance(given, str):
            raise AnsibleLookupError(f"recipients: a list or text is wanted, not {type(given).__name__}: {given}")
        yield from (found[0] for found in _CERTIFICATE.finditer(given))
        for name in map(str.strip, _GAP.split(_CERTIFICATE.sub("\n", given))):
            if name.startswith("age1"):
                yield name
            elif name:
                yield from self._in_file(name, variables)

    def _in_file(self, name: str, variables: t.Any) -> t.Iterator[str]:
        find: t.Any = self.find_file_in_search_path
        path = find(variables, "files", name, ignore_missing=True) or _beside(name, variables or {})
        if not path:
            raise AnsibleLookupError(
                f"recipients: {name}: no such file on the control node. Give a certificate's file, or the certificate."
            )
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        found = [match[0] for match in _CERTIFICATE.finditer(text)]
        found += [line.strip() for line in text.splitlines() if line.strip().startswith("age1")]
        if not found:
            raise AnsibleLookupError(f"recipients: {path}: holds neither a certificate nor one of age's recipients")
        yield from found


def _beside(name: str, variables: t.Mapping[str, t.Any]) -> Path | None:
    """The file of this name beside the inventory, else in the current folder."""
    folders = [Path(str(variables["inventory_dir"]))] if variables.get("inventory_dir") else []
    return next((path for folder in [*folders, Path.cwd()] if (path := folder / name).is_file()), None)
