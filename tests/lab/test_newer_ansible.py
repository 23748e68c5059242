# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection under versions of ansible-core that want a newer Python than this machine may have."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import yaml

from lab.conftest import Lab
from lab.control import CHECKOUT, Control, Ended
from lab.images import ANSIBLE
from lab.place import TOP
from support.flow import FULL

NAME = "mv-site-a"
PLAYBOOKS = ("backup", "restore_database", "rollback_database", "verify")


@dataclass(frozen=True)
class Ansible:
    """One version, with the built collection installed."""

    control: Control
    version: str
    inventory: str

    @property
    def root(self) -> str:
        """A backup root of its own on the host."""
        return f"/opt/mazevault/ansible-{self.version}"

    @property
    def collections(self) -> str:
        return f"/root/collections-{self.version}"

    def run(self, program: str, *words: str) -> Ended:
        return self.control.run(self.version, program, *words, ANSIBLE_COLLECTIONS_PATH=self.collections)

    def play(self, playbook: str, *words: str, **extra: str) -> Ended:
        return self.run("ansible-playbook", f"mazevault.backup.{playbook}", *self._words(words, extra))

    def play_from_checkout(self, playbook: str, *words: str, **extra: str | None) -> Ended:
        argv = [f"playbooks/{playbook}.yml", *self._words(words, extra)]
        return self.control.run(self.version, "ansible-playbook", *argv, folder=CHECKOUT)

    def _words(self, words: tuple[str, ...], extra: dict[str, str] | dict[str, str | None]) -> list[str]:
        """The small proof: what a version of Ansible could break doesn't depend on the level."""
        # Each version has backups of its own, so it needs a witness of its own.
        own = {"mazevault_backup_root": self.root, "mazevault_witness_folder": f"/root/witness-{self.version}"}
        variables = {**extra, **own}
        variables.setdefault("mazevault_verify_level", "checksum")
        return ["-i", self.inventory, "--limit", NAME, *words, "-e", json.dumps(variables)]


@pytest.fixture(scope="module")
def control(one_site: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    export = tmp_path_factory.mktemp("export") / "collection"
    subprocess.run([TOP / "scripts/export-tree.sh", export], check=True)
    node = Control(one_site.place)
    node.start()
    try:
        node.give(export, "/root/export")
        yield node
    finally:
        node.remove()


@pytest.fixture(scope="module", params=ANSIBLE)
def ansible(control: Control, request: pytest.FixtureRequest) -> Ansible:
    found = Ansible(control, request.param, str(control.place.inventory))
    out = f"/root/built-{found.version}"
    steps = (
        ("build", "/root/export", "--output-path", out),
        ("install", f"{out}/mazevault-backup-{_version()}.tar.gz", "-p", found.collections, "--offline"),
    )
    for step in steps:
        done = found.run("ansible-galaxy", "collection", *step)
        assert (done.rc, done.complaints()) == (0, []), done.output
    return found


def _version() -> str:
    return str(yaml.safe_load((TOP / "galaxy.yml").read_text(encoding="utf-8"))["version"])


def options() -> set[str]:
    specs = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in TOP.glob("roles/*/meta/argument_specs.yml")]
    return {option for spec in specs for entry in spec["argument_specs"].values() for option in entry["options"]}


def published(one_site: Lab, ansible: Ansible) -> set[str]:
    return {*one_site.host(NAME).check_output(f"ls {ansible.root}/sets 2>/dev/null || true").split()}


def well(ended: Ended) -> bool:
    """Nothing failed, and nobody was warned of anything."""
    print(ended.output)
    return ended.rc == 0 and ended.complaints() == []


# What takes longest; all the rest is met by each version.
ON_SOME = pytest.mark.parametrize("ansible", ANSIBLE if FULL else ANSIBLE[-1:], indirect=True)


def test_it_is_that_version(ansible: Ansible) -> None:
    shown = ansible.run("ansible", "--version").output
    assert shown.startswith(f"ansible [core {ansible.version}.")
    assert "python version = 3.13." in shown


def test_the_documentation_can_be_read(ansible: Ansible) -> None:
    modules = yaml.safe_load((TOP / "meta/runtime.yml").read_text(encoding="utf-8"))["action_groups"]["backup"]
    assert well(ansible.run("ansible-doc", *(f"mazevault.backup.{module}" for module in modules)))


def test_the_installed_playbooks_parse(ansible: Ansible) -> None:
    names = [f"mazevault.backup.{playbook}" for playbook in PLAYBOOKS]
    parsed = ansible.run("ansible-playbook", "-i", ansible.inventory, *names, "--syntax-check")
    assert well(parsed)
    assert re.findall(r"^playbook: .*/(\w+)\.yml$", parsed.output, re.MULTILINE) == [*PLAYBOOKS]


def test_what_cannot_work_is_refused(ansible: Ansible) -> None:
    refused = ansible.play("backup", mazevault_verify_levle="read")
    assert refused.rc == 2
    assert "Unknown variables: mazevault_verify_levle" in refused.output
    refused = ansible.play("backup", mazevault_verify_level="deep")
    assert refused.rc == 2
    assert "mazevault_verify_level: deep: unknown. Take toc, checksum, read or restore." in refused.output


@ON_SOME
def test_a_failure_says_where_and_why(one_site: Lab, ansible: Ansible) -> None:
    before = published(one_site, ansible)
    failed = ansible.play("backup", mazevault_runtime="host")  # which has no PostgreSQL
    print(failed.output)
    assert failed.rc == 2
    assert "Backup failed at 'Postgres | Dump the database': " in failed.output
    assert not any("WARNING" in complaint for complaint in failed.complaints())
    assert failed.recap(NAME)["rescued"] == 1
    assert published(one_site, ansible) == before


def test_check_mode_from_the_checkout_with_a_survey_that_nobody_answered(one_site: Lab, ansible: Ansible) -> None:
    given = {"mazevault_backup_root", "mazevault_encryption", "mazevault_encryption_reason"}
    unanswered = dict.fromkeys(options() - given)
    before = published(one_site, ansible)
    checked = ansible.play_from_checkout("backup", "--check", **unanswered)
    assert well(checked)
    assert "Validating arguments against arg spec 'main'" in checked.output
    assert "Would publish" in checked.output
    assert checked.recap(NAME)["changed"] == 1
    assert published(one_site, ansible) == before


@ON_SOME
def test_backup_restore_and_verify(one_site: Lab, ansible: Ansible) -> None:
    before = published(one_site, ansible)
    backup = ansible.play("backup")
    assert well(backup)
    assert backup.recap(NAME)["changed"] == 1
    (made,) = published(one_site, ansible) - before
    assert f"Published {ansible.root}/sets/{made}: " in backup.output

    one_site.sql(NAME, "DROP TABLE audit_logs CASCADE")
    restored = ansible.play("restore_database", mazevault_confirm=NAME)
    assert well(restored)
    assert one_site.sql(NAME, "SELECT count(*) > 0 FROM audit_logs") == "t"
    assert one_site.client(NAME).get("/secrets/1")[0] == 200
    kept = re.search(r'DROP DATABASE \\"(mazevault_before_\w+)\\"', restored.output)
    assert kept
    one_site.sql(NAME, f"DROP DATABASE {kept[1]}", database="postgres")

    verified = ansible.play("verify")
    assert well(verified)
    assert verified.recap(NAME)["changed"] == 0
    assert f"{made}: pass: proven to level checksum" in verified.output
