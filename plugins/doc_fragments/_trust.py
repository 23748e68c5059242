# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# PRIVATE to the collection: can change at any time.

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  signing_key:
    description:
      - Path of the host's private key (EC P-384, PEM, mode 0600) on the target. It is made when it is needed and isn't
        there, with the public half beside it (C(.pub)).
      - Unset means C(/etc/mazevault-backup/host.key) for root, and C(~/.mazevault-backup/host.key) for other accounts.
    type: path
"""
