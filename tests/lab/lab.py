# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""python3 tests/lab/lab.py COMMAND: the lab's command line."""

from __future__ import annotations

import sys
from pathlib import Path

# In place of this script's own folder, where "lab" would be this file.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from lab.commands import main  # noqa: E402 -- needs the path above

if __name__ == "__main__":
    sys.exit(main())
