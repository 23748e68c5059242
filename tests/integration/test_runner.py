# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks as AWX runs them: through ansible-runner, with a survey's answers: text, empty text and null."""

from __future__ import annotations

import json
import sys
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import jobs
from support.jobs import Job, public_variables
from support.plays import HOSTNAME, Installation, installed
from support.servers import PgServer, installations

PLAYBOOKS = ("backup", "verify", "restore_database", "rollback_database")
# Where this installation is, who may read its sets, and what it takes to destroy something: not to be left out.
PLACE = {
    "mazevault_encryption",
    "mazevault_encryption_reason",
    "mazevault_signing_key",
    "mazevault_home",
    "mazevault_postgres_host",
    "mazevault_postgres_port",
    "mazevault_postgres_bin_dir",
    "mazevault_api_url",
    "mazevault_api_token_file",
    "mazevault_confirm",
}


def run_job(place: Path, hostvars: dict[str, t.Any], playbook: str, extra: dict[str, t.Any], *options: str) -> Job:
    """On this machine."""
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory = {"mazevault": {"hosts": {HOSTNAME: {**local, **hostvars}}}}
    return jobs.run(place, inventory, playbook, extra, *options)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with PgServer(installations()[0]) as server, installed(server, tmp_path_factory.mktemp("awx")) as found:
        yield found


def place_variables(installation: Installation) -> dict[str, t.Any]:
    return {name: value for name, value in installation.variables().items() if name in PLACE}


@pytest.fixture(scope="module", params=["", None], ids=["empty text", "null"])
def unanswered(request: pytest.FixtureRequest, installation: Installation) -> dict[str, Job]:
    """The four playbooks, everything else than the place unanswered."""
    answers = dict.fromkeys(set(public_variables()) - PLACE, request.param)
    done = {}
    for playbook in PLAYBOOKS:
        confirm = {"mazevault_confirm": HOSTNAME} if playbook.endswith("_database") else {}
        done[playbook] = run_job(installation.folder, place_variables(installation), playbook, {**answers, **confirm})
    return done


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_an_unanswered_question_means_unset(unanswered: dict[str, Job], playbook: str) -> None:
    job = unanswered[playbook]
    assert (job.status, job.failures) == ("successful", []), job.output[-3000:]
    assert job.changed == {"backup": 1, "verify": 0, "restore_database": 2, "rollback_database": 1}[playbook]


def test_an_unanswered_question_takes_the_default(unanswered: dict[str, Job], installation: Installation) -> None:
    dump = unanswered["backup"].arguments("pg_dump")
    assert dump["backup_root"] == str(installation.root)
    shown = ("database", "user", "format", "compression", "block_limit", "jobs", "reserve", "passfile", "sslmode")
    assert [dump[name] for name in shown] == ["mazevault", "mazevault", "custom", "auto", 30.0, None, None, None, None]
    assert unanswered["backup"].arguments("backup_verify")["level"] == "restore"
    sealed = unanswered["backup"].tasks["Recovery set | Publish"]["invocation"]["module_args"]
    everything = ["postgres", "config", "tls", "volumes"]
    assert (sealed["reason"], sealed["components"], sealed["site"]) == ("manual", everything, None)
    probe = unanswered["restore_database"].tasks["Stack | Ask MazeVault for its health and its secrets"]
    assert (probe["secrets_total"], probe["secrets_decrypted"], probe["verdict"]) == (60, 60, "pass")
    restore = unanswered["restore_database"].arguments("pg_restore")
    shown = ("mode", "accept", "application_stop", "application_start", "application_timeout", "scratch_dir")
    assert [restore[name] for name in shown] == ["beside", [], [], [], 300.0, None]


def test_the_place_can_be_left_out_too(tmp_path: Path) -> None:
    """What comes of it depends on this machine, so it is compared with a run that says nothing at all.

    But for the runtime: with an engine on this machine, its stacks would be looked for first.
    """
    said: list[dict[str, t.Any]] = [{}, *(dict.fromkeys(public_variables(), value) for value in ("", None))]
    hostvars = {"mazevault_runtime": "host", "mazevault_encryption": "none", "mazevault_encryption_reason": "a test"}
    jobs = [
        run_job(
            tmp_path,
            hostvars,
            "backup",
            {name: value for name, value in extra.items() if name not in hostvars},
            "--check",
        )
        for extra in said
    ]
    shown = [(job.status, job.failures, sorted(job.tasks)) for job in jobs]
    assert shown[1:] == [shown[0]] * 2
    assert "Preflight | Nothing that this version can't do" in jobs[0].tasks, jobs[0].output[-3000:]
    opened = jobs[0].tasks["Recovery set | Open"]["invocation"]["module_args"]
    assert opened["backup_root"] == "/opt/mazevault/backups"


TEXT = {
    "mazevault_postgres_jobs": "2",
    "mazevault_postgres_block_limit": "45",
    "mazevault_postgres_reserve": "16M",
    "mazevault_postgres_accept": "subscriptions, logical_slots",
    "mazevault_components": "postgres",
    "mazevault_recovery_set_stale_after": "90",
    "mazevault_stack_timeout": "60",
    "mazevault_stack_probe_secrets": "5",
    "mazevault_api_validate_certs": "true",
    "mazevault_verify_level": "restore",
    "mazevault_reason": "scheduled",
    "mazevault_hosts": "all",
}


@pytest.fixture(scope="module")
def answered(installation: Installation) -> dict[str, Job]:
    """The four playbooks with text for everything that is a number, a boolean or a list elsewhere."""
    known = installation.variables()
    answers = {
        **TEXT,
        "mazevault_postgres_port": str(known["mazevault_postgres_port"]),
        "mazevault_api_url": known["mazevault_api_url"],
        "mazevault_api_token_file": known["mazevault_api_token_file"],
        "mazevault_stack_stop_command": " ".join(known["mazevault_stack_stop_command"]),
        "mazevault_stack_start_command": " ".join(known["mazevault_stack_start_command"]),
    }
    hostvars = {name: value for name, value in place_variables(installation).items() if not name.endswith("_port")}
    done = {}
    for playbook in PLAYBOOKS:
        confirm = {"mazevault_confirm": HOSTNAME} if playbook.endswith("_database") else {}
        done[playbook] = run_job(installation.folder, hostvars, playbook, {**answers, **confirm})
    return done


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_text_is_as_good_as_a_number(answered: dict[str, Job], playbook: str) -> None:
    job = answered[playbook]
    assert (job.status, job.failures) == ("successful", []), job.output[-3000:]


def test_text_reaches_the_modules_as_what_it_means(answered: dict[str, Job], installation: Installation) -> None:
    dump = answered["backup"].arguments("pg_dump")
    assert (dump["port"], dump["jobs"], dump["block_limit"], dump["reserve"]) == (
        installation.server.port,
        2,
        45.0,
        "16M",
    )
    swap = answered["restore_database"].tasks["Postgres | Swap it in"]["invocation"]["module_args"]
    assert sorted(swap["accept"]) == ["logical_slots", "subscriptions"]
    assert swap["application_stop"] == installation.variables()["mazevault_stack_stop_command"]
    assert swap["application_timeout"] == 60.0
    probe = answered["restore_database"].tasks["Stack | Ask MazeVault for its health and its secrets"]
    assert (probe["secrets_total"], probe["secrets_decrypted"], probe["verdict"]) == (60, 5, "unproven")


def test_whether_certificates_are_checked(
    installation: Installation, unanswered: dict[str, Job], answered: dict[str, Job]
) -> None:
    asked = [jobs["restore_database"].arguments("mazevault_probe")["validate_certs"] for jobs in (unanswered, answered)]
    assert asked == [True, True]
    extra = {"mazevault_api_validate_certs": "false"}
    job = run_job(installation.folder, place_variables(installation), "restore_database", extra, "--check")
    assert (job.status, job.failures) == ("successful", []), job.output[-3000:]
    assert job.arguments("mazevault_probe")["validate_certs"] is False


def test_results_for_a_workflow_bear_the_result_prefix_and_come_back_harmless(
    unanswered: dict[str, Job], answered: dict[str, Job], installation: Installation
) -> None:
    for found in (unanswered, answered):
        for playbook, job in found.items():
            assert all(name.startswith("mazevault_result_") for name in job.artifacts), playbook
    sets = {path.name for path in (installation.root / "sets").iterdir()}
    artifacts = answered["backup"].artifacts
    assert artifacts["mazevault_result_verdict"] == {HOSTNAME: "pass"}
    assert set(artifacts["mazevault_result_set_id"]) == {HOSTNAME}
    assert artifacts["mazevault_result_set_id"][HOSTNAME] in sets
    variables = place_variables(installation)
    job = run_job(installation.folder, variables, "backup", json.loads(json.dumps(artifacts)), "--check")
    assert (job.status, job.failures) == ("successful", []), "the next node of a workflow gets them as variables"
