# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  set_key_file:
    description:
      - File on the target with the key of the encrypted set, as one of its recipients has opened it. Mode 0600, best in
        C(/dev/shm). C(RESTORE.md) of the set has the command.
      - A set in plain needs none.
    type: path
  identity_file:
    description:
      - File on the target with the private key of a recipient, mode 0600, without a passphrase. What it opens stays in
        the memory of this module.
      - It belongs on a machine like this for one restore, or on a host that does nothing but prove sets.
    type: path
"""
