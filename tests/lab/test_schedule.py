# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The daily work of a host by real timers: they fire, nothing runs twice, missed runs are caught up, failures are told.

One story in the order of the tests: minutes are waited for, so each of them is used for all that it can show.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import time
import typing as t
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from lab import hosts
from lab.own_control import HOLD, INVENTORY, SETTINGS, OwnControl
from lab.process import run, wait_for
from lab.site import ROOT, Site
from support.canaries import Canary, Search, planted
from support.flow import IN_PLAIN
from support.receivers import Hook, Mailbox, certificate_of_localhost, http_server, mail_server

NAME = "mv-site-b"
LOG = "/var/log/mazevault-backup.log"
HOME = "/var/lib/mazevault-backup/mazevault-backup"
JOBS = ("backup", "prune", "verify")
UNITS = {f"mazevault-backup-{job}.{kind}" for job in JOBS for kind in ("service", "timer")}
# Seconds that the stack has to come up again with the host.
AFTER_BOOT = 20


@dataclass
class Node:
    """A site that is its own control node, and who is told of its failures."""

    site: Site
    control: OwnControl
    mail: Mailbox
    hook: Hook
    secrets: tuple[Canary, ...]
    times: list[dt.datetime] = field(default_factory=list)
    """When backups are due."""
    others: str = "00:00"
    """When everything else is."""
    takes: float = 0.0
    """Seconds that it took to set these."""

    def schedule(self, *, state: str = "present") -> int:
        """Run the playbook, which has to work; the changes that it made."""
        began = time.monotonic()
        done = self.control.play(
            "schedule",
            mazevault_schedule_state=state,
            mazevault_schedule_backup=",".join(f"{one:%H:%M}" for one in self.times),
            mazevault_schedule_prune=self.others,
            mazevault_schedule_verify=self.others,
        )
        self.takes = time.monotonic() - began
        assert done.rc == 0, done.output
        # Such times can't keep what is promised, and it says so.
        assert [line for line in done.complaints() if "Schedule: " not in line] == [], done.output
        return done.recap(NAME)["changed"]

    def due(self, least: float, *, all_jobs: bool = False) -> dt.datetime:
        """Set the next backup to a minute that begins in `least` seconds at the soonest."""
        self.times = []
        while not self.times or (self.times[0] - now()).total_seconds() < least:
            self.times = [next_minute(least + 2 * self.takes)]
            self.others = f"{self.times[0]:%H:%M}" if all_jobs else self.others
            assert self.schedule() == 1
        return self.times[0]

    def logged(self, job: str) -> list[str]:
        """What a job said, without the times."""
        return re.findall(rf"(?m)^\S+ {job}: (.*)$", self.control.shell(f"cat {LOG}"))

    def runs(self, job: str) -> tuple[int, int]:
        """How many began, how many ended well."""
        said = self.logged(job)
        ends = [line for line in said if line.startswith("ended: exit status 0 ")]
        return len([line for line in said if line.startswith("started: ")]), len(ends)

    def wait_runs(self, job: str, began: int, ended: int, seconds: float = 180) -> None:
        wait_for(f"{job}: {began} runs, {ended} of them ended well", lambda: self.runs(job) == (began, ended), seconds)

    def start(self, job: str, *words: str) -> int:
        """By hand; the exit status of systemctl, which waits for the end unless it is told not to."""
        return self.control.rc("systemctl", "start", *words, f"mazevault-backup-{job}.service")

    def timers(self) -> dict[str, dict[str, t.Any]]:
        """By job, as systemd has them."""
        said = self.control.shell("systemctl list-timers --all --output=json 'mazevault-backup-*'")
        return {one["unit"].removeprefix("mazevault-backup-").removesuffix(".timer"): one for one in json.loads(said)}

    def fired(self, job: str) -> float:
        return float(self.timers()[job]["last"] or 0) / 1e6

    def told(self) -> tuple[int, int]:
        return len(self.mail.messages), len(self.hook.requests)


def now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)


def next_minute(least: float) -> dt.datetime:
    """The first that begins in so many seconds or more."""
    return (now() + dt.timedelta(seconds=least + 60)).replace(second=0, microsecond=0)


def wait_until(moment: dt.datetime) -> None:
    time.sleep(max(0.0, (moment - now()).total_seconds()))


@pytest.fixture(scope="module")
def node(site: Callable[[str], Site], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    target = site(NAME)
    target.tidy()
    control = OwnControl(target.place, target.host)
    control.shell(f"rm -f {LOG}")
    # The machine's own address in the network of the hosts.
    address = str(target.place.address(1))
    folder = tmp_path_factory.mktemp("receivers")
    certificate = certificate_of_localhost(folder, address)
    password, token = planted("password"), planted("token", awkward="-")
    with (
        mail_server(certificate, password=password.text, address=address) as mail,
        http_server(certificate, address=address) as hook,
    ):
        variables = {
            **{f"mazevault_{name}": value for name, value in IN_PLAIN.items()},
            # What timers could break doesn't depend on the level.
            "mazevault_verify_level": "checksum",
            "mazevault_schedule_on": "host",
            "mazevault_schedule_inventory": INVENTORY,
            "mazevault_schedule_delay": 0,
            "mazevault_schedule_after_boot": AFTER_BOOT,
            "mazevault_schedule_on_change": "never",
            "mazevault_schedule_status": "never",
            "mazevault_notify_mail_to": "team@example.org",
            "mazevault_notify_mail_host": address,
            "mazevault_notify_mail_port": mail.port,
            "mazevault_notify_mail_user": "backup",
            "mazevault_notify_mail_password_file": f"{SETTINGS}/password",
            "mazevault_notify_mail_ca_file": f"{SETTINGS}/ca.pem",
            "mazevault_notify_webhook_url": f"{hook.url}/hook",
            "mazevault_notify_webhook_token_file": f"{SETTINGS}/token",
            "mazevault_notify_webhook_ca_file": f"{SETTINGS}/ca.pem",
        }
        found = Node(target, control, mail, hook, (password, token))
        control.install(tmp_path_factory.mktemp("export"), variables)
        try:
            for name, secret in zip(("password", "token"), found.secrets):
                control.write(f"{SETTINGS}/{name}", secret.text)
            control.write(f"{SETTINGS}/ca.pem", certificate.certificate.read_text(encoding="utf-8"))
            yield found
        finally:
            if hosts.state(target.place, target.host) != "running":
                hosts.ensure(target.place, target.host)
            if control.rc("test", "-e", HOME) == 0:
                found.schedule(state="absent")
            control.remove()
            control.shell(f"rm -f {LOG}")
            target.wait_healthy()
            target.tidy()


def test_systemd_takes_the_schedule(node: Node) -> None:
    """Root's, of the system: units, program, log and rule for logrotate where the documentation has them."""
    first = next_minute(12 * 3600)
    node.times, node.others = [first], f"{first:%H:%M}"
    assert node.schedule() == 1
    units = node.control.shell("cd /etc/systemd/system && stat -c '%n %a %U' mazevault-backup-*").splitlines()
    assert {*units} == {f"{unit} 644 root" for unit in (*UNITS, "mazevault-backup-notify@.service")}
    paths = " ".join(f"/etc/systemd/system/{unit}" for unit in sorted(UNITS))
    notifier = "/etc/systemd/system/mazevault-backup-notify@verify.service"
    said = node.control.shell(
        f"systemd-analyze --man=no --recursive-errors=one verify {paths} {notifier} 2>&1 || echo bad"
    )
    assert [line for line in said.splitlines() if "mazevault" in line or line == "bad"] == [], said
    timers = node.timers()
    assert {job: one["next"] / 1e6 for job, one in timers.items()} == dict.fromkeys(JOBS, first.timestamp())
    modes = node.control.shell(
        f"stat -c '%n %a %U' {LOG} {HOME} {HOME}/state {HOME}/notify.json /etc/logrotate.d/maze*"
    )
    assert [line.rpartition("/")[2] for line in modes.splitlines()] == [
        "mazevault-backup.log 640 root",
        "mazevault-backup 755 root",
        "state 700 root",
        "notify.json 600 root",
        "mazevault-backup 644 root",
    ]


def test_a_job_is_run_now(node: Node) -> None:
    """As documented, by the name of its service; a second set-up changes nothing."""
    assert node.start("backup") == 0
    assert node.runs("backup") == (1, 1) and list(node.site.sets().values()) == [True]
    journal = node.control.shell("journalctl --no-pager --output=cat -t mazevault-backup")
    assert "started: backup" in journal.splitlines() and "PLAY RECAP" in journal
    assert node.schedule() == 0


def test_no_run_begins_beside_another(node: Node, record_property: t.Any) -> None:
    """Its own next time and a second start leave a run alone that is at work; so does a job that changes sets too."""
    node.control.shell(f"touch {HOLD}")
    assert node.start("backup", "--no-block") == 0
    node.wait_runs("backup", 2, 1, 30)
    damage(node)
    due = node.due(3, all_jobs=True)
    wait_until(due)
    wait_for("the timers", lambda: min(map(node.fired, JOBS)) >= due.timestamp(), 20)
    late = max(map(node.fired, JOBS)) - due.timestamp()
    record_property("seconds late", round(late, 3))
    assert late < 10
    assert node.start("backup", "--no-block") == 0
    said = node.control.shell(f"/usr/bin/python3 {HOME}/run.py backup")
    assert said == "its last run is still at work; nothing was started\n"
    assert node.runs("backup") == (2, 1)
    wait_for("prune", lambda: bool(node.logged("prune")), 20)
    assert node.logged("prune") == ["another run is at work on the sets; the next one does the same"]


def damage(node: Node) -> None:
    """Of the first set, which nothing but its sums can tell."""
    node.control.shell(f"printf x >>{artefact(node)}")


def mend(node: Node) -> None:
    node.control.shell(f"truncate --size=-1 {artefact(node)}")


def artefact(node: Node) -> str:
    return node.control.shell(f"ls {ROOT}/sets/*/postgres/*.zst | head -n 1").strip()


def test_a_timer_fires_and_its_failure_is_told(node: Node) -> None:
    """Verification, at the same minute, of a set that somebody damaged."""
    wait_for("the mail and the webhook", lambda: node.told() == (1, 1), 120)
    assert node.runs("verify") == (1, 0)
    (message,), (request,) = node.mail.messages, node.hook.requests
    set_id = artefact(node).split("/")[-3]
    for text in (message.get_content(), json.loads(request.body)["text"]):
        assert "Job: verify" in text and set_id in text, text
    assert "FAILED: verification" in message["Subject"] and NAME in message["Subject"]
    sent = json.loads(request.body)
    assert (sent["event"], sent["job"], sent["rc"], request.path) == ("failed", "verify", 2, "/hook")
    assert node.mail.secure == [True] and node.mail.accounts == [("backup", node.secrets[0].text)]
    assert request.headers["Authorization"] == f"Bearer {node.secrets[1].text}"


def test_the_same_failure_is_not_told_again(node: Node) -> None:
    node.control.shell(f"rm {HOLD}")
    assert node.start("verify") != 0
    wait_for("nothing to tell", lambda: "told not long ago" in " ".join(node.logged("verify notify")), 120)
    assert node.told() == (1, 1)
    node.wait_runs("backup", 2, 2)


def test_what_was_missed_while_the_host_was_off_is_caught_up_once(node: Node, record_property: t.Any) -> None:
    """And begins when the host is up for long enough that MazeVault is, too."""
    container = hosts.container(node.control.place, node.control.host)
    due = node.due(8)
    # The first thing that ends is the timers.
    run("docker", "stop", "--time", "20", container)
    record_property("seconds that it was off before the run was due", round((due - now()).total_seconds(), 1))
    assert hosts.state(node.control.place, node.control.host) == "exited"
    wait_until(due + dt.timedelta(seconds=1))
    began = time.monotonic()
    run("docker", "start", container)
    wait_for("the host", lambda: node.control.rc("test", "-e", LOG) == 0, 30)
    node.wait_runs("backup", 3, 3)
    record_property("seconds from the start of the host to the end of the run", round(time.monotonic() - began, 1))
    assert node.fired("backup") >= due.timestamp()
    assert any(line.endswith(f"begins after {AFTER_BOOT} s") for line in node.logged("backup"))
    assert len(node.site.sets()) == 3
    assert node.runs("verify") == (2, 0) and len(node.logged("prune")) == 1, "what wasn't missed isn't caught up"


def test_after_a_success_a_failure_is_news_again(node: Node) -> None:
    mend(node)
    assert node.start("verify") == 0
    damage(node)
    assert node.start("verify") != 0
    wait_for("the mail and the webhook", lambda: node.told() == (2, 2), 120)
    mend(node)
    assert node.runs("verify") == (4, 1) and node.runs("backup") == (3, 3)


def test_nobody_reads_the_secrets_anywhere(node: Node) -> None:
    """Units, program, state, log, journal, messages; the files themselves are the positive control."""
    search = Search(node.secrets)
    read = node.control.shell(f"cat {SETTINGS}/password {SETTINGS}/token")
    assert {find.canary for find in search.text(read, "files")} == {"password", "token"}
    places = f"/etc/systemd/system/mazevault-backup-* {HOME} {LOG} /etc/logrotate.d/mazevault-backup"
    seen = node.control.shell(f"find {places} -type f -exec cat {{}} +; journalctl --no-pager")
    assert "told not long ago" in seen and search.text(seen, "host") == []
    for data in (*(one.as_bytes() for one in node.mail.messages), *(one.body for one in node.hook.requests)):
        assert search.data(data, "message") == []


def test_the_end_leaves_nothing_but_the_log(node: Node) -> None:
    assert node.schedule(state="absent") == 1
    apart = "-path /usr/share/ansible -o -path /root -o -path /etc/mazevault-backup"
    found = node.control.shell(rf"find / -xdev \( {apart} \) -prune -o -name '*mazevault-backup*' -print")
    assert found.split() == [LOG]
    assert node.timers() == {}
    assert node.control.shell("systemctl list-units --all --plain --no-legend 'mazevault-backup-*'") == ""
    assert node.schedule(state="absent") == 0
