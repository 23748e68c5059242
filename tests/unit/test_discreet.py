# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What PostgreSQL's programs said is shown without the rows they quote, and still says what went wrong."""

from __future__ import annotations

import sys

import pytest

from ansible_collections.mazevault.backup.plugins.module_utils._process import (
    STDERR_TAIL,
    HostProcesses,
    discreet,
    failure,
)

# Said by PostgreSQL 18; the row's word is CANARY.
SAID = {
    "foreign key": (
        'pg_restore: error: could not execute query: ERROR:  insert or update on table "b" violates foreign key'
        ' constraint "b_v_fkey"\nDETAIL:  Key (v)=(CANARY) is not present in table "a".\n'
        "Command was: ALTER TABLE ONLY public.b\n    ADD CONSTRAINT b_v_fkey FOREIGN KEY (v) REFERENCES public.a(v);\n",
        ["b_v_fkey", "Key (v)", "ALTER TABLE ONLY public.b"],
    ),
    "of several lines": (
        'psql:<stdin>:2: ERROR:  insert or update on table "b" violates foreign key constraint "b_v_fkey"\n'
        'DETAIL:  Key (v)=(CANARY one\nCANARY two) is not present in table "a".\nHINT:  See to it.\n',
        ["b_v_fkey", "HINT:  See to it."],
    ),
    "check": (
        'psql:<stdin>:3: ERROR:  new row for relation "a" violates check constraint "a_c_check"\n'
        'DETAIL:  Failing row contains (CANARY, -4).\nCONTEXT:  COPY a, line 1: "CANARY\t-4"\n',
        ["a_c_check", "COPY a, line 1"],
    ),
    "syntax of a value": (
        'psql:<stdin>:3: ERROR:  invalid input syntax for type integer: "CANARY"\n'
        'CONTEXT:  COPY a, line 1, column c: "CANARY"\npg_restore: error: more\n',
        ["invalid input syntax for type integer", "COPY a, line 1", "pg_restore: error: more"],
    ),
    "a statement": (
        "psql:<stdin>:1: ERROR:  column \"x\" does not exist\nLINE 1: insert into a values ('CANARY', x)\n"
        "                                        ^\n",
        ['column "x" does not exist', "LINE 1"],
    ),
    "a comment": (
        'pg_restore: error: could not execute query: ERROR:  relation "b" does not exist\n'
        "Command was: COMMENT ON TABLE public.b IS 'CANARY it''s';\n\n",
        ['relation "b" does not exist', "COMMENT ON TABLE public.b"],
    ),
    "somebody's own words": (
        "psql:<stdin>:1: ERROR:  x\nDETAIL:  CANARY\nCONTEXT:  PL/pgSQL function inline_code_block line 1 at RAISE\n",
        ["ERROR:  x"],
    ),
    "the library's": (
        'insert or update on table "b" violates foreign key constraint "b_v_fkey"\n'
        'DETAIL:  Key (v)=(CANARY) is not present in table "a".\n',
        ["b_v_fkey", "Key (v)"],
    ),
}
# Nothing of these may go.
OTHERS = (
    'pg_dump: error: connection to server on socket "/tmp/s" failed: FATAL:  database "x" does not exist\n',
    "pg_dump: detail: Error message from server: ERROR:  invalid page in block 7 of relation base/5/16390\n",
    "pg_dump: error: query failed: ERROR:  permission denied for table secrets\npg_dump: hint: Try again.\n",
    "zstd: /*stdin*\\: Data corruption detected\n",
    "tar: /x: file changed as we read it\n",
)


@pytest.mark.parametrize("case", SAID)
def test_rows_are_left_out_and_causes_are_not(case: str) -> None:
    said, kept = SAID[case]
    assert "CANARY" in said
    shown = discreet(said)
    assert "CANARY" not in shown
    assert [words for words in kept if words not in shown] == [], shown


@pytest.mark.parametrize("said", OTHERS)
def test_everything_else_is_said_as_it_is(said: str) -> None:
    assert discreet(said) == said


def test_a_long_row_is_left_out_of_a_programs_end() -> None:
    """Its beginning, which tells what it is, is no longer in what is shown."""
    said = f"ERROR:  x violates y\nDETAIL:  Key (v)=({'CANARY ' * 1000}) already exists.\nHINT:  z\n"
    words = [sys.executable, "-c", "import sys; sys.stderr.write(sys.argv[1]); sys.exit(1)", said]
    done = HostProcesses().run(words)
    assert len(said) > STDERR_TAIL
    error = failure("x", done)
    assert "CANARY" not in done.stderr + str(error.details) + error.msg
    assert "x violates y" in error.msg and "HINT:  z" in done.stderr
