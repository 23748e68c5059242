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
      - The host's policy is C(policy.json) in C(/etc/mazevault-backup), else (accounts other than root) in
        C(~/.mazevault-backup), else beside this key. See M(mazevault.backup.backup_policy).
    type: path
"""

    WANTED = r"""
options:
  wanted:
    description:
      - What the run goes by where the host's pinned policy has a say, with the keys of the policy, and C(installation).
      - Other recipients or escrow than the pinned ones are refused. Whatever else is weaker makes the result
        V(unproven), with C(policy overridden) and the name.
    type: dict
    default: {}
"""
