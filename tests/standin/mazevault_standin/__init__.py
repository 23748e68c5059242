# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test equipment: a stand-in that keeps MazeVault's documented behaviour. Not the vendor's software."""
