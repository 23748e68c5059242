#!/usr/bin/python3
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-playbook, from a folder that nothing else looks into."""

import sys

sys.path.insert(0, "/opt/ansible")

from ansible.cli.playbook import main

sys.exit(main())
