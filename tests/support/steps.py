# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of the steps at which tests strike, in the order that a run enters them."""

from __future__ import annotations

SWAP = (
    "swap: stop the application",
    "swap: rename",
    "swap: between the renames",
    "swap: before the commit",
    "swap: renamed",
    "swap: start the application",
    "swap: started",
)
