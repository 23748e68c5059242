# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""init.yml as a new user meets it: empty folder, starter files, custodians, and from there to the first backup.

The commands that custodians run, and the steps that the user takes, are those that were printed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import typing as t
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from ansible_collections.mazevault.backup.plugins.module_utils._encryption import read_recipient
from support import jobs
from support.fake_docker import FakeDocker, container
from support.flow import FULL
from support.identities import schemes
from support.plays import HOSTNAME, TOP, Installation, Place, Play, installed, tree_state
from support.servers import PgServer, installations

FILES = ("inventory.yml", "policy.yml")
WRITE, SAY = "Init | Write what isn't there", "Init | Say what became of the files"
NAMES = ("data-a", "data-b", "keys-a", "keys-b")
EXAMPLE = "vault1.example.org"
PASSPHRASE = "a passphrase of custodians"


def init(place: Place, inventory: Path | None = None, *arguments: str, **extra: t.Any) -> Play:
    place.folder.mkdir(parents=True, exist_ok=True)
    # Nothing of what this machine calls its inventory.
    none = {"ANSIBLE_INVENTORY": str(place.folder / "none")}
    return place.run("init", inventory, *arguments, extra=extra, env=none)


def files(folder: Path) -> dict[str, tuple[t.Any, ...]]:
    return {name: tree_state(folder / name)[name] for name in FILES if (folder / name).exists()}


def lines_of(play: Play, task: str, host: str = "localhost") -> list[str]:
    (found,) = [task_.result["msg"] for task_ in play.tasks if task_.name == task and task_.host == host]
    return t.cast("list[str]", found)


def steps_of(play: Play) -> list[str]:
    return lines_of(play, "Init | Recovery identities and the next steps")


def found_of(play: Play, host: str = HOSTNAME) -> str:
    return "\n".join(lines_of(play, "Init | What was found", host))


# the starter files


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_check_writes_nothing_and_shows_both_files(place: Place) -> None:
    done = init(place, None, "--check", "--diff")
    assert (done.rc, done.changed) == (0, [WRITE]), done.output
    assert files(place.folder) == {}
    assert f"+    {EXAMPLE}:" in done.output and f"+  - {EXAMPLE}" in done.output
    assert [line.rpartition(": ")[2] for line in lines_of(done, SAY)[:2]] == ["would be written"] * 2


def test_a_second_run_changes_nothing_and_an_edited_file_stays(place: Place) -> None:
    done = init(place)
    assert (done.rc, done.changed) == (0, [WRITE]), done.output
    first = files(place.folder)
    assert [state[0] for state in first.values()] == ["0o100640"] * 2
    (place.folder / "policy.yml").write_text("verify_level: read\n", encoding="utf-8")
    (place.folder / "inventory.yml").unlink()
    done = init(place)
    assert done.changed == [WRITE]
    assert (place.folder / "policy.yml").read_text(encoding="utf-8") == "verify_level: read\n"
    assert lines_of(done, SAY)[:2] == [
        f"{place.folder}/policy.yml: was there, and is left as it is",
        f"{place.folder}/inventory.yml: written",
    ]
    before = files(place.folder)
    for arguments in (["--check", "--diff"], []):
        done = init(place, None, *arguments)
        assert (done.rc, done.changed) == (0, [])
    assert files(place.folder) == before


@pytest.mark.parametrize("value", ["", None] if FULL else [None])
def test_an_unset_folder_is_the_current_one(place: Place, value: str | None) -> None:
    done = init(place, mazevault_init_folder=value)
    assert done.rc == 0 and files(place.folder).keys() == set(FILES)


def test_another_folder_is_made(place: Place) -> None:
    for arguments in (["--check"], []):
        done = init(place, None, *arguments, mazevault_init_folder="a folder/below")
        assert (done.rc, done.changed) == (0, ["Init | Make it", WRITE]), done.output
    assert files(place.folder / "a folder/below").keys() == set(FILES) and files(place.folder) == {}
    quoted = shlex.quote(f"{place.folder}/a folder/below/inventory.yml")
    assert f"    4. ansible-playbook -i {quoted} mazevault.backup.pin_policy" in steps_of(done)


def test_everything_else_stands_there_with_its_default(place: Place) -> None:
    init(place)
    text = (place.folder / "inventory.yml").read_text(encoding="utf-8")
    specs = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in TOP.glob("roles/*/meta/argument_specs.yml")]
    options = {
        name: option
        for spec in specs
        for entry in spec["argument_specs"].values()
        for name, option in (entry.get("options") or {}).items()
    }
    own = yaml.safe_load((TOP / "roles/mazevault_init/vars/main.yml").read_text(encoding="utf-8"))
    left_out = {*own["__mazevault_init_of_a_run"], *own["__mazevault_init_said_already"]}
    left_out |= {name for name, option in options.items() if "Refused in this version" in str(option["description"])}
    # As somebody would who takes the mark of a comment away.
    shown = yaml.safe_load(re.sub(r"(?m)^    # (mazevault_\w+:)", r"    \1", text))["mazevault"]["vars"]
    assert {name: shown[name] for name in shown.keys() - left_out - {"ansible_become"}} == {
        name: option["default"] for name, option in options.items() if name not in left_out
    }
    active = yaml.safe_load(text)["mazevault"]["vars"]
    assert active.keys() == {
        "ansible_become",
        "mazevault_policy_file",
        "mazevault_recipients_data",
        "mazevault_recipients_keys",
    }
    assert max(map(len, text.splitlines())) < 140


def test_a_variable_that_nobody_reads_is_refused(place: Place) -> None:
    done = init(place, mazevault_init_make_identities=True)
    assert done.rc == 2 and "mazevault_init_make_identities" in done.failures[0].msg
    assert files(place.folder) == {}


def test_a_pattern_that_matches_nothing_is_refused(place: Place) -> None:
    done = init(place, mazevault_hosts="vaults")
    assert done.rc == 2 and done.failures[0].msg.startswith("mazevault_hosts: vaults: no host of the inventory matches")
    assert files(place.folder) == {}


def test_an_unedited_policy_is_refused(place: Place) -> None:
    init(place)
    inventory = place.write_inventory({EXAMPLE: {"mazevault_signing_key": str(place.folder / "host/host.key")}})
    done = place.run("pin_policy", inventory, extra={"mazevault_policy_file": "policy.yml"})
    assert done.rc == 2 and "FINGERPRINT-OF-recovery-data-a: not a SHA-256 fingerprint" in done.failures[0].msg
    assert not (place.folder / "host").exists()


# a look at hosts


def test_one_host_that_is_away_is_named_and_the_others_are_looked_at(place: Place) -> None:
    local = {"mazevault_runtime": "host", "mazevault_home": str(place.folder / "opt"), "mazevault_backup_root": ""}
    local["mazevault_signing_key"] = str(place.folder / "host.key")
    no_sudo = {"ansible_become_user": "nobody", "ansible_become_exe": str(place.folder / "sudo")}
    hosts: dict[str, dict[str, t.Any]] = {
        "away": {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1},
        "no-python": {**local, "ansible_python_interpreter": str(place.folder / "python3")},
        "no-become": {**local, "ansible_become": True, **no_sudo},
        HOSTNAME: local,
        "misspelt": {**local, "mazevault_recipient_data": "x"},
    }
    done = init(place, place.write_inventory(hosts))
    assert done.rc == 2
    judged = {task.host: task.msg for task in done.failures if task.name == "Init | Nobody could look at this host"}
    assert judged.keys() == {"away", "no-python", "no-become"}
    assert judged["away"].startswith("away: not reached: ") and "-m ansible.builtin.ping away" in judged["away"]
    assert judged["no-python"].startswith("no-python: Python does not run there: ")
    assert judged["no-become"].startswith("no-become: the account may log in, but not become what the inventory says: ")
    assert found_of(done, "away").startswith("Host      away: not reached: ")
    for said in (
        "Python ",
        "Programs  openssl 3.",
        "tar 1.",
        "Runs on   the host",
        "Newest    none",
        "Policy    none is pinned",
    ):
        assert said in found_of(done), said
    assert "mazevault_recipients_data: fewer than two recipients" in found_of(done)
    misspelt = "nobody reads the variable mazevault_recipient_data (did you mean mazevault_recipients_data?)"
    assert misspelt in found_of(done, "misspelt")
    assert any("openssl req -x509" in line for line in steps_of(done)), "the next steps come whoever is away"
    assert done.changed == [WRITE] and files(place.folder).keys() == {"inventory.yml", "policy.yml"}
    shown = yaml.safe_load((place.folder / "policy.yml").read_text(encoding="utf-8"))
    assert sorted(shown["installations"]) == sorted(hosts)
    # The inventory there is the test's own.
    assert "mazevault" in json.loads((place.folder / "inventory.yml").read_text(encoding="utf-8"))


def test_what_runs_in_containers_is_shown_and_what_is_asked_for_is_passed_on(place: Place) -> None:
    secret = "canary-of-a-database-password"
    environment = {"POSTGRES_USER": "owner", "POSTGRES_DB": "data", "POSTGRES_PASSWORD": secret}
    database = {"environment": environment, "destination": "/var/lib/postgresql/data", "health": "healthy"}
    stack = [
        container("postgres", "postgres:15-alpine", **database),
        container("backend", "ghcr.io/axiemirror/mazevault-backend:1.0.17", environment={"DB": secret}),
    ]
    fake = FakeDocker(place.folder / "bin", stack)
    fake.state["compose"]["services"] = {}
    fake.write()
    (place.folder / "opt").mkdir()
    local = {"mazevault_home": str(place.folder / "opt"), "mazevault_signing_key": str(place.folder / "host.key")}
    plain = {"mazevault_encryption": "none"}
    hosts = {HOSTNAME: local, "other": {**local, "mazevault_project": "other"}, "plain": {**local, **plain}}
    path = {"PATH": f"{fake.folder}:{os.environ['PATH']}"}
    done = place.run("init", place.write_inventory(hosts), env=path)
    assert done.rc == 0, done.output
    assert secret not in done.output
    said = found_of(done)
    for shown in (
        "Runs in   docker 28.2.1, project mazevault",
        "postgres    running, healthy",
        "Database  data as owner in",
    ):
        assert shown in said, said
    assert "Programs  openssl" in said and "pg_dump" not in said, "PostgreSQL's programs are in the container"
    asked = "Missing   project: other: no container of this compose project is there -> Set mazevault_project to"
    assert asked in found_of(done, "other"), found_of(done, "other")
    assert "pg_dump" not in found_of(done, "other"), "nobody knows yet whether the host needs it"
    assert "Next      See to what is missing, then this playbook again." in found_of(done, "other")
    assert "mazevault_encryption_reason: missing" in found_of(done, "plain")


def test_a_host_alone(place: Place) -> None:
    """With --limit the control node's part is left out, and red is red."""
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    done = init(place, place.write_inventory({HOSTNAME: away}), "--limit", HOSTNAME)
    assert done.rc == 2 and done.failures[-1].msg.startswith(f"{HOSTNAME}: not reached: ")
    assert not (place.folder / "policy.yml").exists()


@pytest.mark.parametrize("value", ["", None] if FULL else [None])
@pytest.mark.parametrize("options", [("--check",), ()] if FULL else [()], ids=lambda words: "check" if words else "run")
def test_as_a_job_with_unanswered_questions(tmp_path: Path, value: str | None, options: tuple[str, ...]) -> None:
    folder = tmp_path / "starter"
    hostvars = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "mazevault_runtime": "host",
        "mazevault_home": str(tmp_path / "opt"),
        "mazevault_signing_key": str(tmp_path / "host.key"),
    }
    answers = {name: value for name in jobs.public_variables() if name not in hostvars}
    answers["mazevault_init_folder"] = str(folder)
    inventory = {"mazevault": {"hosts": {HOSTNAME: hostvars}}}
    for expected in (2, 2 if options else 0):
        job = jobs.run(tmp_path, inventory, "init", answers, *options)
        assert (job.status, job.failures, job.changed) == ("successful", [], expected), job.output[-3000:]
    assert (folder / "policy.yml").exists() != bool(options) and not (folder / "inventory.yml").exists()
    assert not (tmp_path / "opt").exists() and not (tmp_path / "host.key").exists()


# from the first step to the first backup


@dataclass
class Story:
    """What a user and the custodians did, one after the other."""

    installation: Installation
    place: Place
    custodians: Path
    plays: dict[str, Play] = field(default_factory=dict)

    @property
    def inventory(self) -> Path:
        return self.place.folder / "inventory.yml"

    def ceremony(self, way: str, custodians: Path) -> None:
        """Custodians type what was printed for them; only public halves come back."""
        custodians.mkdir(mode=0o700)
        lines = steps_of(self.plays["init"])
        begin = next(number for number, line in enumerate(lines) if line.startswith(way))
        for line in lines[begin + 1 :]:
            if not line.startswith("    "):
                break
            assert f'"{line}"' in self.plays["init"].output, "it can be copied from the screen"
            self.typed(line.strip(), custodians)
        for path in custodians.iterdir():
            if path.suffix in (".crt", ".txt"):
                shutil.copy(path, self.place.folder)

    def typed(self, command: str, custodians: Path) -> str:
        # In a session of its own openssl finds no terminal and asks for the passphrase on its input.
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=custodians,
            input=f"{PASSPHRASE}\n{PASSPHRASE}\n",
            start_new_session=True,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def edit(self) -> None:
        """The host's name and place into the inventory, the labels' fingerprints into the policy."""
        known = {**self.installation.variables(), "mazevault_signing_key": str(self.place.folder / "host/host.key")}
        known = {name: value for name, value in known.items() if "encryption" not in name}
        known |= {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False}
        text = self.inventory.read_text(encoding="utf-8").replace(EXAMPLE, HOSTNAME)
        of_the_host = "".join(f"      {name}: {json.dumps(value)}\n" for name, value in known.items())
        self.inventory.write_text(text.replace("      # ansible_host: 192.0.2.10\n", of_the_host), encoding="utf-8")
        policy = self.place.folder / "policy.yml"
        text = policy.read_text(encoding="utf-8").replace(EXAMPLE, HOSTNAME)
        labels = [line.strip() for line in steps_of(self.plays["init"]) if "-fingerprint" in line]
        for name, label in zip(NAMES, labels):
            text = text.replace(
                f"FINGERPRINT-OF-recovery-{name}", self.typed(label, self.custodians).strip().partition("=")[2]
            )
        policy.write_text(text, encoding="utf-8")

    def step(self, number: int, key: str) -> Play:
        """Take the step that was printed: the same playbook, inventory and options."""
        (line,) = [line for line in steps_of(self.plays["init"]) if line.startswith(f"    {number}. ansible-playbook")]
        words = shlex.split(line)[1:]
        assert words[:3] == ["ansible-playbook", "-i", str(self.inventory)] and words[3].startswith("mazevault.backup.")
        playbook = words[3].rpartition(".")[2]
        self.plays[key] = self.place.run(playbook, self.inventory, *words[4:])
        return self.plays[key]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("first")
    with PgServer(installations()[0]) as server, installed(server, folder) as installation:
        told = Story(installation, Place(folder / "control"), folder / "custodians")
        told.plays["init"] = init(told.place)
        told.ceremony("P-384", told.custodians)
        told.edit()
        told.step(3, "look")
        told.step(4, "pin_policy")
        told.step(5, "backup --check")
        told.step(6, "backup")
        told.step(3, "look again")
        told.plays["verify"] = told.place.run("verify", told.inventory, "-e", "mazevault_verify_level=checksum")
        yield told


def test_every_step_is_green(story: Story) -> None:
    for name, play in story.plays.items():
        assert play.rc == 0, f"{name}: {[task.msg for task in play.failures]}\n{play.output[-3000:]}"
    assert story.plays["look"].changed == [] and story.plays["look again"].changed == []
    assert story.plays["pin_policy"].changed == ["Policy | Pin it"]
    assert story.plays["backup"].changed == ["Recovery set | Publish"]


def test_each_look_says_what_to_type_next(story: Story) -> None:
    run = f"ansible-playbook -i {story.inventory} mazevault.backup."
    assert "Missing" not in found_of(story.plays["look"]), found_of(story.plays["look"])
    assert "Openers   cms, 2 for data, 2 for key material" in found_of(story.plays["look"])
    assert f"Next      {run}pin_policy --limit {HOSTNAME}" in found_of(story.plays["look"])
    again = found_of(story.plays["look again"])
    assert f"Policy    {story.place.folder}/host/policy.json, sha256 " in again
    assert "pass (restore); 1 set in all" in again
    assert f"Next      {run}verify --limit {HOSTNAME} -e mazevault_verify_level=checksum" in again


def test_the_set_was_made_under_the_policy_and_opens_with_each_identity(story: Story, tmp_path: Path) -> None:
    (folder,) = (story.installation.root / "sets").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    pinned = subprocess.run(["sha256sum", story.place.folder / "host/policy.json"], capture_output=True, check=True)
    assert manifest["policy_sha256"] == pinned.stdout.split()[0].decode()
    for name in NAMES:
        words = ["openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-passin", f"pass:{PASSPHRASE}"]
        wrapped, identity = folder / f"access/{name[:4]}.key.cms", story.custodians / f"recovery-{name}.key"
        opened = subprocess.run([*words, "-in", wrapped, "-inkey", identity], capture_output=True, check=False)
        assert b"PRIVATE KEY" in opened.stdout, (name, opened.stderr)
    assert not list(story.place.folder.rglob("recovery-*.key")), "no identity came to the control node"


def test_the_steps_name_playbooks_that_are_there(story: Story) -> None:
    named = re.findall(r"mazevault\.backup\.([a-z_]+)", "\n".join(steps_of(story.plays["init"])))
    assert set(named) == {"init", "pin_policy", "backup", "schedule"}
    assert all((TOP / f"playbooks/{name}.yml").is_file() for name in named)


def test_it_says_why_it_makes_no_identity(story: Story) -> None:
    assert "This playbook makes none" in "\n".join(steps_of(story.plays["init"])[:3])
    assert "logs of jobs" in "\n".join(steps_of(story.plays["init"])[:3])
    for name, play in story.plays.items():
        assert "PRIVATE KEY" not in play.output and "AGE-SECRET-KEY" not in play.output, name


def test_the_commands_for_rsa_work_too(story: Story, tmp_path: Path) -> None:
    lines = steps_of(story.plays["init"])
    begin = next(number for number, line in enumerate(lines) if line.startswith("RSA"))
    # Two of the four: such keys take their time.
    for name, line in zip(NAMES[::3], lines[begin + 1 : begin + 5 : 3]):
        story.typed(line.strip(), tmp_path)
        read = read_recipient((tmp_path / f"recovery-{name}.crt").read_text(), "cms", parameter="here")
        assert (read.kind, read.name) == ("rsa", f"CN=MazeVault recovery {name}")
        assert (tmp_path / f"recovery-{name}.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("scheme", [one for one in schemes() if one.values[0] == "age"])
def test_the_commands_for_age_work_too(story: Story, scheme: str, tmp_path: Path) -> None:
    custodians = tmp_path / "custodians"
    story.ceremony(scheme, custodians)
    recipients = {name: (story.place.folder / f"recovery-{name}.txt").read_text().strip() for name in NAMES}
    assert all(value.startswith("age1") for value in recipients.values()) and len(set(recipients.values())) == 4
    policy = tmp_path / "policy.yml"
    text = (story.place.folder / "policy.yml").read_text(encoding="utf-8").replace("[cms]", "[age]")
    content = {**yaml.safe_load(text), "recipients": {"data": [], "keys": []}}
    for name, value in recipients.items():
        content["recipients"][name[:4]].append(value)
    policy.write_text(yaml.safe_dump(content), encoding="utf-8")
    extra = {
        "mazevault_encryption": "age",
        "mazevault_signing_key": str(tmp_path / "host/host.key"),
        "mazevault_backup_root": str(tmp_path / "backups"),
        "mazevault_witness_folder": str(tmp_path / "witness"),
        # Files beside the inventory, by their names alone.
        "mazevault_recipients_data": "recovery-data-a.txt, recovery-data-b.txt",
        "mazevault_recipients_keys": ["recovery-keys-a.txt", "recovery-keys-b.txt"],
        "mazevault_policy_file": str(policy),
        "mazevault_verify_level": "restore",
    }
    for playbook in ("pin_policy", "backup"):
        done = story.place.run(playbook, story.inventory, extra=extra)
        assert done.rc == 0, done.output
    (folder,) = (tmp_path / "backups/sets").iterdir()
    words = ["age", "-d", "-i", custodians / "recovery-data-b.key", folder / "access/data.key.age"]
    assert b"AGE-SECRET-KEY" in subprocess.run(words, capture_output=True, check=True).stdout
