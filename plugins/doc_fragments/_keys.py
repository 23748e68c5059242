# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection: can change at any time.

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  env_file:
    description: MazeVault's settings (C(.env)), one of the places of its keys. What isn't there is left out.
    type: path
  vault_file:
    description: MazeVault's C(secrets.vault), likewise.
    type: path
  key_file:
    description: MazeVault's C(vault.key), likewise.
    type: path
"""
