# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""Large amounts of data through pipes, with as little work as can be."""

from __future__ import annotations

import fcntl
import os
import time
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._files import CHUNK

# fcntl has a name for it since Python 3.10.
_F_SETPIPE_SZ = 1031
# Seconds in which a quick pg_dump fills most of a wide pipe.
_MOMENT = 0.002


def own(stream: t.IO[bytes]) -> int:
    """A descriptor of one's own for an end of a pipe, to be closed by who asked for it.

    Who works in another thread than the one that ends the program needs it: a number that is closed in between can
    already be another file's.
    """
    return os.dup(stream.fileno())


def widen(pipe: int) -> bool:
    """Whether the pipe holds a whole chunk now; the kernel can refuse."""
    try:
        return fcntl.fcntl(pipe, _F_SETPIPE_SZ, CHUNK) >= CHUNK
    except OSError:
        return False


def chunks(source: int) -> t.Iterator[memoryview]:
    """What comes through a pipe; each piece is good until the next one is asked for.

    pg_dump writes 4 KB at a time. Who takes each of them at once works more than pg_dump does; who first lets the pipe
    fill for a moment doesn't, and keeps nobody waiting.
    """
    wide = widen(source)
    buffer = memoryview(bytearray(CHUNK))
    while size := os.readv(source, [buffer]):
        yield buffer[:size]
        if wide and size < CHUNK // 2:
            time.sleep(_MOMENT)


def write_all(fd: int, data: memoryview) -> None:
    """Write everything, however often it takes."""
    while data:
        data = data[os.write(fd, data) :]
