# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""As AWX does it: through ansible-runner, with a survey's answers, against a host that is reached by ssh."""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Iterator

import pytest

from lab.site import Site
from support import jobs
from support.jobs import Job, public_variables

NAME = "mv-site-a"
# Text for what is a number, a boolean or a list elsewhere; most questions stay unanswered.
ANSWERS = {
    **dict.fromkeys(public_variables(), ""),
    "mazevault_hosts": NAME,
    "mazevault_encryption": "none",
    "mazevault_encryption_reason": "a lab",
    "mazevault_postgres_jobs": "2",
    "mazevault_postgres_block_limit": "20",
    "mazevault_postgres_cpus": "1.5",
    "mazevault_postgres_memory": "1g",
    "mazevault_postgres_reserve": "16M",
    "mazevault_recovery_set_stale_after": "90",
    "mazevault_stack_timeout": "120",
    "mazevault_stack_probe_secrets": "5",
    "mazevault_api_validate_certs": "false",
    "mazevault_backup_root_limit": "50%",
    "mazevault_confirm": NAME,
}


@pytest.fixture(scope="module")
def target(site: Callable[[str], Site]) -> Iterator[Site]:
    found = site(NAME)
    found.tidy()
    yield found
    found.tidy()


def run(site: Site, playbook: str) -> Job:
    return jobs.run(site.folder, str(site.inventory()), playbook, ANSWERS, env=site.environment())


def test_backup_and_restore_from_a_survey(target: Site, record_property: t.Any) -> None:
    good = target.content("mazevault")
    done = run(target, "backup")
    assert (done.status, done.failures, done.changed) == ("successful", [], 1), done.output[-3000:]
    ((host, name),) = done.artifacts["mazevault_result_set_id"].items()
    assert (host, target.sets()) == (NAME, {name: True})
    target.sql("DELETE FROM secret_versions")
    done = run(target, "restore_database")
    assert (done.status, done.failures) == ("successful", []), done.output[-3000:]
    found = target.content("mazevault")
    assert {key for key in good if good[key] != found.get(key)} <= {"public.audit_logs", "public.audit_logs_id_seq"}
    assert target.leftovers() == []
