# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backs up a small MazeVault, breaks it and restores it, on this machine: no root, no Docker, about two minutes."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
import typing as t
from collections import Counter
from pathlib import Path

import account
import processes
from ansible_run import Playbooks
from client import Watch
from installation import TOP, DemoError, Installation, check_folder
from screen import Screen

DAMAGE = (
    "DELETE FROM secrets WHERE id % 2 = 0",
    "UPDATE secret_versions SET ciphertext = sha256(ciphertext) WHERE secret_id % 3 = 0",
    "DROP TABLE certificates",
)
UNHARMED = 1
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Demo:
    """The story, one method for each step."""

    def __init__(self, site: Installation, screen: Screen) -> None:
        self._site, self._screen = site, screen
        self._playbooks = Playbooks(site.folder, screen)
        self._watch = Watch(site.client, UNHARMED)
        self._before: dict[int, str] = {}
        self._key: tuple[str, ...] = ()
        self.downtime = 0.0

    def tell(self) -> None:
        step = self._screen.step
        with step("Start a small MazeVault"):
            self._start()
        with step("Back it up, while it is used"):
            self._back_up()
        with step("What a recovery set looks like"):
            self._show_set()
        with step("Something terrible happens"):
            self._break()
        with step("A custodian opens the key of this one set"):
            self._open_key()
        with step("What would a restore do?"):
            self._playbooks.run("restore_database", "--check", *self._key, log="restore_preview")
        with step("Restore"):
            self._restore()
        with step("Is everything back?"):
            self._prove()
        with step("If the restore was a mistake: the way back, as a preview"):
            self._playbooks.run("rollback_database", "--check", log="rollback_preview")
        with step("Are the sets still good? (on a prover, which has an identity for data)"):
            identity = self._site.identity("data-b")
            self._playbooks.run("verify", "-e", f"mazevault_identity_file={identity}", log="verify")

    def stop(self) -> None:
        self._watch.stop()

    def _start(self) -> None:
        site, say = self._site, self._screen.say
        site.make()
        self._before = {secret: site.client.read(secret) for secret in site.client.secret_ids()}
        self._watch.start()
        say(f"PostgreSQL {site.version()} and a stand-in for MazeVault (test equipment, not the vendor's software)")
        say(f"run as processes without special rights, in {site.folder}")
        say(f"{len(self._before)} secrets, encrypted under a master key; the API is at {site.client.url}")
        say("From now on a client reads one of them ten times a second.")

    def _back_up(self) -> None:
        begun = time.monotonic()
        self._playbooks.run("backup", log="backup")
        gap = self._watch.longest_gap(begun)
        self._screen.say(f"The client went on reading; its longest wait for an answer was {gap:.1f} s.")

    def _show_set(self) -> None:
        newest = self._site.newest_set()
        files = sorted(path for path in newest.rglob("*") if path.is_file())
        self._screen.say(f"{newest}/")
        self._screen.show("\n".join(f"{path.stat().st_size:>9,}  {path.relative_to(newest)}" for path in files))
        self._screen.say("START-HERE.txt, for the night when it is needed:")
        self._screen.show((self._site.backups / "START-HERE.txt").read_text(encoding="utf-8"))

    def _break(self) -> None:
        with contextlib.closing(self._site.connect()) as session, session.cursor() as cursor:
            for statement in DAMAGE:
                self._screen.command(f'psql -c "{statement}"')
                cursor.execute(statement)
        answers = Counter(answer if " " in answer else "200" for answer in self._read_all().values())
        for answer, count in sorted(answers.items()):
            self._screen.say(f"GET /api/v1/secrets/ID: {answer} ({count} of {len(self._before)})")
        self._screen.say(f"GET /api/v1/certificates: {self._site.client.get('/certificates')[0]}")
        if set(answers) != {"200", "404 not found", "500 decryption failed"}:
            raise DemoError("the damage did not do what it should")
        self._standin("verify-secrets", good=False)

    def _open_key(self) -> None:
        """As RESTORE.md of the set says; the private key of the custodian goes nowhere."""
        wrapped, key = self._site.newest_set() / "access/data.key.cms", self._site.folder / "data.key"
        words = ["openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-in", str(wrapped)]
        words += ["-inkey", str(self._site.identity("data-a")), "-out", str(key)]
        self._screen.command(*words)
        subprocess.run(words, check=True)
        self._screen.show("\n".join(key.read_text(encoding="ascii").splitlines()[:2]))
        self._key = ("-e", f"mazevault_set_key_file={key}")

    def _restore(self) -> None:
        begun = time.monotonic()
        self._playbooks.run("restore_database", *self._key, "-e", "mazevault_confirm=demo", log="restore")
        self.downtime = self._watch.longest_gap(begun)
        self._screen.say(f"The client that kept reading was without an answer for {self.downtime:.1f} s.")

    def _prove(self) -> None:
        after = self._read_all()
        same = sum(after[secret] == value for secret, value in self._before.items())
        self._screen.say(f"{same} of {len(self._before)} secrets, read through the API, have the value they had before")
        self._screen.say(f"GET /api/v1/certificates: {self._site.client.get('/certificates')[0]}")
        if after != self._before:
            raise DemoError("the restored secrets are not what they were")
        self._standin("verify-secrets", "--all-versions")
        self._standin("verify-audit")

    def _read_all(self) -> dict[int, str]:
        return {secret: self._site.client.read(secret) for secret in self._before}

    def _standin(self, *words: str, good: bool = True) -> None:
        """The stand-in's own check, which knows nothing of backups."""
        done = self._site.standin(*words)
        self._screen.command("mazevault_standin", *words)
        self._screen.show(done.stdout + done.stderr)
        if (done.returncode == 0) is not good:
            raise DemoError(f"mazevault_standin {' '.join(words)}: exit status {done.returncode}")


def report(demo: Demo, site: Installation, screen: Screen) -> None:
    print(f"\nDone in {sum(screen.seconds.values()):.0f} s: backed up, broken, restored and proven.\n")
    for title, seconds in screen.seconds.items():
        screen.say(f"{seconds:6.1f} s  {title}")
    screen.say(f"{demo.downtime:6.1f} s  Downtime for the reading client during the restore (stop, swap and start)")
    print()
    screen.say(f"Recovery sets and START-HERE.txt: {site.backups}")
    screen.say(f"What the playbooks printed: {site.folder / 'logs'}")
    screen.say("The same, left running for a look around: make demo ARGS=--keep")
    print()
    screen.say("This was a demo, not a drill: nothing was isolated or measured against objectives.")


def stay(site: Installation, screen: Screen) -> None:
    ansible = Path(sys.executable).parent / "ansible-playbook"
    print("\nEverything is still running. Look around from another terminal:\n")
    screen.show(
        "# a secret, as the client reads it\n"
        f'curl -H @- {site.client.url}/api/v1/secrets/1 <<<"Authorization: Bearer $(cat {site.client.token_file})"\n'
        f"# the database\n{site.psql}\n"
        "# another recovery set\n"
        f"ANSIBLE_CONFIG={site.folder / 'ansible.cfg'} {ansible} {TOP / 'playbooks/backup.yml'}"
    )
    print("\nCtrl-C stops it.", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo.py", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, help="where it happens (default: demo/ here, for root a new one in /tmp)"
    )
    parser.add_argument("--keep", action="store_true", help="leave it running at the end, until Ctrl-C")
    parser.add_argument("--programs", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    given = arguments()
    screen = Screen()
    try:
        return run(given, screen)
    except (DemoError, account.CantLeaveRoot, OSError) as error:
        screen.fail(f"\nThe demo failed: {error}")
        return 1
    except KeyboardInterrupt:
        screen.fail("\nInterrupted.")
        return 130
    finally:
        if given.programs:
            account.remove_programs(given.programs)


def run(given: argparse.Namespace, screen: Screen) -> int:
    for number in STOPPING:
        signal.signal(number, _interrupt)
    folder = given.folder.resolve() if given.folder else None
    if folder is not None:
        check_folder(folder)
    if given.programs is None:
        print("mazevault.backup, a demo: back up a small MazeVault, break it, restore it.", flush=True)
    if os.geteuid() == 0:
        print(f"PostgreSQL does not run as root: this goes on as {account.NAME}, with copied programs.", flush=True)
        account.go_on_without_root(TOP, folder, ["--keep"] if given.keep else [])
    processes.adopt_orphans()
    site = Installation(folder or TOP / "demo")
    demo = Demo(site, screen)
    done = False
    try:
        demo.tell()
        report(demo, site, screen)
        if given.keep:
            stay(site, screen)
        done = True
    finally:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)
        demo.stop()
        processes.end_all(spare=site.server_pid)
        site.stop(remove=done)
    return 0


def _interrupt(_number: int, _frame: object) -> t.NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
