# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks of a checkout on a running installation: backup, proof, damage, restore, rollback, and their previews.

What happened is judged from outside: by SQL, by files, and by what the application answers.
"""

from __future__ import annotations

import base64
import json
import subprocess
import typing as t
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support import compare
from support.flow import FULL
from support.identities import Custodians, Identity, make_custodians
from support.plays import HOSTNAME, Installation, Play, content_of, databases, installed, server_state, tree_state
from support.servers import PgServer, installations

PLAYBOOKS = ("backup", "verify", "restore_database", "rollback_database")
PASSWORD = "ch1ld-of'the moon+7"
STACK = "Stack | Is MazeVault healthy, and do its secrets decrypt?"
DAMAGE = """
DELETE FROM secret_versions WHERE secret_id % 3 = 0;
UPDATE secret_versions SET ciphertext = wrapped_dek WHERE secret_id % 3 = 1;
DROP TABLE certificates CASCADE;
CREATE TABLE only_in_the_damaged_one (id integer);
"""


def untouched(installation: Installation) -> dict[str, t.Any]:
    """All that a preview must leave alone: the host's files and the server."""
    return {"files": tree_state(installation.folder / "opt"), "server": server_state(installation.server)}


@dataclass
class Story:
    """One installation's life, told by what its playbooks did and how things were before and after."""

    installation: Installation
    values: dict[str, str]
    custodians: Custodians
    plays: dict[str, Play] = field(default_factory=dict)
    before: dict[str, dict[str, t.Any]] = field(default_factory=dict)
    after: dict[str, dict[str, t.Any]] = field(default_factory=dict)
    seen: dict[str, t.Any] = field(default_factory=dict)

    def play(self, name: str, playbook: str, *arguments: str, **extra: t.Any) -> None:
        self.before[name] = untouched(self.installation)
        self.plays[name] = self.installation.play(playbook, *arguments, **extra)
        self.after[name] = untouched(self.installation)

    def preview_and_do(self, playbook: str, *, identity: Identity | None = None, **extra: t.Any) -> None:
        """The preview without a confirmation, then the thing itself, as talkative as it gets."""
        opening = {"mazevault_identity_file": str(identity.private)} if identity else {}
        self.play(f"{playbook} preview", playbook, "--check", "--diff", "-vvv", **opening)
        self.play(playbook, playbook, "-vvv", **opening, **extra)


@pytest.fixture(scope="module", params=installations() if FULL else installations()[:1], ids=str)
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("installation")
    with PgServer(request.param, auth="scram", password=PASSWORD) as server, installed(server, folder) as installation:
        custodians = make_custodians(folder / "custodians")
        installation.protection = {
            "recipients_data": [str(one.public) for one in custodians.data],
            "recipients_keys": ",".join(str(one.public) for one in custodians.keys),
        }
        told = Story(installation, installation.secret_values(), custodians)
        server.query("COMMENT ON DATABASE mazevault IS 'the live one'")
        for playbook in PLAYBOOKS:
            told.play(f"{playbook} on a fresh host", playbook, "--check", "--diff")
        told.preview_and_do("backup")
        told.preview_and_do("verify", identity=custodians.data[1])
        told.seen["good"] = content_of(server)
        server.query(DAMAGE)
        told.seen["damaged"] = content_of(server)
        told.seen["damaged oid"] = databases(server)["mazevault"]
        told.preview_and_do("restore_database", identity=custodians.data[0], mazevault_confirm=HOSTNAME)
        told.seen["verify-secrets after restore"] = installation.verify_secrets()
        told.seen["restored"] = told.after["restore_database"]["server"]["mazevault"]
        told.seen["values after restore"] = installation.secret_values()
        told.preview_and_do("rollback_database", mazevault_confirm=HOSTNAME)
        yield told


def test_backup_publishes_one_set_and_reports_one_change(story: Story) -> None:
    done = story.plays["backup"]
    assert done.rc == 0, done.output
    assert done.changed == ["Recovery set | Publish"]
    root = story.installation.root
    (published,) = (root / "sets").iterdir()
    assert oct(root.stat().st_mode & 0o7777) == "0o700"
    dump = list(published.glob("postgres/*"))
    assert dump and all(path.stat().st_size > 0 for path in dump)
    assert list((root / "staging").glob("[!.]*")) == []


def test_backup_does_not_touch_the_database(story: Story) -> None:
    assert compare.difference(story.before["backup"]["server"], story.after["backup"]["server"]) == []


def cms(name: str, *words: str | Path, folder: Path) -> bytes:
    argv = ["openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-in", name, *words]
    return subprocess.run(argv, cwd=folder, check=True, capture_output=True).stdout


def test_what_backup_published_restores_with_stock_tools(story: Story, tmp_path: Path) -> None:
    server, root = story.installation.server, story.installation.root
    manifest = json.loads(next((root / "sets").glob("*/manifest.json")).read_text(encoding="utf-8"))
    (artefact,) = [entry for entry in manifest["artefacts"] if entry["path"].endswith((".dump", ".zst"))]
    folder, key = root / "sets" / manifest["set_id"], tmp_path / "key"
    opened = cms("access/data.key.cms", "-inkey", story.custodians.data[1].private, folder=folder)
    key.write_bytes(opened)
    parts = [cms(name, "-recip", "access/data.crt", "-inkey", key, folder=folder) for name in artefact["files"]]
    plain = tmp_path / "plain"
    unpack = ["zstd", "-q", "-d", "-c"] if artefact["compression"] == "zstd" else ["cat"]
    with plain.open("wb") as out:
        subprocess.run(unpack, input=b"".join(parts), stdout=out, check=True)
    server.create_database_like("mazevault", "by_hand")
    try:
        server.run("pg_restore", "--exit-on-error", "--dbname", "by_hand", plain)
        restored = content_of(server, "by_hand")
        assert compare.difference(story.seen["good"]["tables"], restored["tables"]) == []
    finally:
        server.drop_database("by_hand")


def test_verify_is_green_and_changes_nothing_but_its_record(story: Story) -> None:
    done = story.plays["verify"]
    assert (done.rc, done.changed) == (0, []), done.output
    assert compare.difference(story.before["verify"]["server"], story.after["verify"]["server"]) == []
    files = [story.before["verify"]["files"], story.after["verify"]["files"]]
    sets = [{path: state for path, state in found.items() if "/backups/sets" in path} for found in files]
    assert sets[0] == sets[1]
    new = set(files[1]) - set(files[0])
    assert new and all("/records/" in path for path in new), new


def test_restore_brings_everything_back(story: Story) -> None:
    done = story.plays["restore_database"]
    assert done.rc == 0, done.output
    assert compare.difference(story.seen["damaged"], story.seen["good"]), "positive control: the damage shows"
    # Reading every secret is audited by the application, after the swap.
    ignore = (r"^tables / public\.audit", r"^sequences / public\.audit")
    assert compare.difference(story.seen["good"], story.seen["restored"], ignore=ignore) == []
    checked = story.seen["verify-secrets after restore"]
    assert checked.returncode == 0, checked.stderr
    assert story.seen["values after restore"] == story.values


def test_restore_keeps_the_damaged_database(story: Story) -> None:
    found = story.after["restore_database"]["server"]
    kept = [name for name, oid in found["databases"].items() if oid == story.seen["damaged oid"]]
    assert len(kept) == 1 and kept[0].startswith("mazevault_before_")
    assert compare.difference(story.seen["damaged"]["tables"], found[kept[0]]["tables"]) == []


def test_rollback_brings_the_damaged_one_back_and_says_that_it_is_broken(story: Story) -> None:
    done = story.plays["rollback_database"]
    found = story.after["rollback_database"]["server"]
    assert found["databases"]["mazevault"] == story.seen["damaged oid"]
    ignore = (r"^tables / public\.audit", r"^sequences / public\.audit")
    assert compare.difference(story.seen["damaged"], found["mazevault"], ignore=ignore) == []
    assert [name for name in found["databases"] if name.startswith("mazevault_")] == [
        name for name in found["databases"] if name.startswith("mazevault_rolledback_")
    ], "the restored one is kept in its turn"
    assert done.rc == 2, "the application can't decrypt what was put back"
    assert [task.name for task in done.failures] == [STACK]


@pytest.mark.parametrize("playbook", ["restore_database", "rollback_database"])
def test_the_way_back_is_shown_whatever_the_application_says(story: Story, playbook: str) -> None:
    (swap,) = [found for found in story.plays[playbook].of("pg_swap") if found["incoming"]]
    assert f"Kept: {swap['kept']}. Back to it: " in story.plays[playbook].output
    assert (story.installation.root / "evidence" / Path(swap["evidence"]).name).is_file()


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_preview_on_a_fresh_host_makes_nothing(story: Story, playbook: str) -> None:
    name = f"{playbook} on a fresh host"
    assert story.before[name]["files"] == story.after[name]["files"]
    assert not any("backups" in path for path in story.after[name]["files"])
    assert compare.difference(story.before[name]["server"], story.after[name]["server"]) == []


def test_previews_on_a_fresh_host_say_what_the_runs_would(story: Story) -> None:
    assert story.plays["backup on a fresh host"].rc == 0, story.plays["backup on a fresh host"].output
    expected = {
        "verify": "no recovery set is there",
        "restore_database": "set: latest: no usable set with postgres under",
        "rollback_database": "kept: no database mazevault_before_... is there",
    }
    for playbook, said in expected.items():
        done = story.plays[f"{playbook} on a fresh host"]
        assert done.rc == 2, done.output
        assert [said in task.msg for task in done.failures] == [True], [task.msg for task in done.failures]


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_preview_changes_no_file_and_no_row(story: Story, playbook: str) -> None:
    name = f"{playbook} preview"
    assert story.plays[name].rc == 0, story.plays[name].output
    assert story.before[name]["files"] == story.after[name]["files"]
    assert compare.difference(story.before[name]["server"], story.after[name]["server"]) == []


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_the_positive_control_sees_what_the_run_did(story: Story, playbook: str) -> None:
    assert story.before[playbook]["files"] != story.after[playbook]["files"]
    changes = compare.difference(story.before[playbook]["server"], story.after[playbook]["server"])
    assert bool(changes) == (playbook in ("restore_database", "rollback_database"))


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_preview_predicts_what_the_run_does(story: Story, playbook: str) -> None:
    predicted, done = story.plays[f"{playbook} preview"], story.plays[playbook]
    assert predicted.changed == done.changed
    run = [{task.name: task.changed for task in play.tasks if task.outcome == "ok"} for play in (predicted, done)]
    both = run[0].keys() & run[1].keys()
    assert {name: run[0][name] for name in both} == {name: run[1][name] for name in both}
    only = (run[0].keys() ^ run[1].keys()) - {STACK}
    assert not any(run[0].get(name) or run[1].get(name) for name in only), "what one mode leaves out changes nothing"


@pytest.mark.parametrize("playbook", ["restore_database", "rollback_database"])
def test_a_preview_ends_with_the_command_to_type(story: Story, playbook: str) -> None:
    (published,) = (path.name for path in (story.installation.root / "sets").iterdir())
    opening = f" -e mazevault_identity_file={story.custodians.data[0].private}"
    chosen = f" -e mazevault_restore_set={published}{opening}" if playbook == "restore_database" else ""
    inventory = story.installation.folder / "inventory.yml"
    command = f"ansible-playbook -i {inventory} mazevault.backup.{playbook} --limit {HOSTNAME}{chosen}"
    assert f"{command} -e mazevault_confirm={HOSTNAME}" in story.plays[f"{playbook} preview"].output


def spellings(secret: str) -> set[str]:
    """A secret as it would look in other clothes."""
    data = secret.encode()
    return {
        secret,
        json.dumps(secret)[1:-1],
        urllib.parse.quote(secret),
        urllib.parse.quote_plus(secret),
        data.hex(),
        base64.b64encode(data).decode().rstrip("="),
        base64.urlsafe_b64encode(data).decode().rstrip("="),
    }


def leaked(story: Story, output: str) -> list[str]:
    site = story.installation.site
    secrets = {"API token": site.token, "database password": PASSWORD, "master key": site.master_key}
    secrets |= {f"secret {number}": value for number, value in story.values.items()}
    for one in (*story.custodians.data, *story.custodians.keys):
        # A line out of the middle of the key.
        secrets[one.private.name] = one.private.read_text(encoding="ascii").splitlines()[2]
    return [name for name, secret in secrets.items() if any(text in output for text in spellings(secret))]


def test_no_output_holds_a_secret(story: Story) -> None:
    assert len(story.values) >= 20 and all(len(value) >= 8 for value in story.values.values())
    assert leaked(story, f"x{base64.b64encode(PASSWORD.encode()).decode()}y") == ["database password"], "the control"
    for name, play in story.plays.items():
        assert leaked(story, play.output) == [], name
        assert leaked(story, json.dumps([task.result for task in play.tasks])) == [], name
    assert "invocation" in story.plays["backup"].output, "the control: -vvv shows the modules' arguments"


def test_no_file_of_the_backup_holds_a_password_or_a_key(story: Story) -> None:
    site = story.installation.site
    secrets = [site.token, PASSWORD, site.master_key]
    files = [path for path in story.installation.root.rglob("*") if path.is_file()]
    texts = {path: path.read_bytes() for path in files}
    found = {
        str(path)
        for path, content in texts.items()
        for secret in secrets
        if any(text.encode() in content for text in spellings(secret))
    }
    assert len(files) > 5 and not found
