#!/bin/sh
# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# ansible-playbook, from a folder that nothing else looks into: programs that it starts don't inherit the path either.
exec /usr/bin/python3 -P -c '
import sys

sys.path.insert(0, "/opt/ansible")
sys.argv[0] = "ansible-playbook"

from ansible.cli.playbook import main

sys.exit(main())
' "$@"
