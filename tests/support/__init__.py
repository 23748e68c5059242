# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test equipment: throwaway servers, odd data, load, damage, and a comparison of the tests' own."""
