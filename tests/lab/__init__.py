# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: real hosts to test on, each a system container with systemd, sshd and its own Docker engine."""
