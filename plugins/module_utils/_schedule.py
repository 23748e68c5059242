# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""A schedule on a machine: where its files lie, what is there, writing and removing them, telling systemd."""

from __future__ import annotations

import contextlib
import datetime as dt
import glob
import grp
import json
import os
import pwd
import re
import shutil
import stat
import sys
import typing as t
from dataclasses import dataclass, field

from ansible_collections.mazevault.backup.plugins.module_utils import _clock, _units
from ansible_collections.mazevault.backup.plugins.module_utils._errors import BackupError
from ansible_collections.mazevault.backup.plugins.module_utils._files import existing_parent, write_file
from ansible_collections.mazevault.backup.plugins.module_utils._jobs import PATIENCE, Planned
from ansible_collections.mazevault.backup.plugins.module_utils._programs import HostRuntime
from ansible_collections.mazevault.backup.plugins.module_utils._systemd import Systemd

SYSTEM, USER = "system", "user"
SYSTEMD, CRON = "systemd", "cron"
# What the runner leaves behind, besides a log.
_STATE = ("*.lock", "*.stamp", "*.json", "*.notified")
_OWN = ("run.py", "jobs.json", "notify.json")
# What stands above the folders of all schedules, where nobody named another place.
_ABOVE = ("/var/lib/mazevault-backup", "~/.mazevault-backup/schedule")
_LOG_LIMIT = 20_000_000
# Seconds between attempts to tell of a failure.
_PAUSE = 60
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?\Z")
_NEXT = re.compile(r"(?m)^ *Next elapse: \w+ (\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) UTC$")
_HOST = HostRuntime()


@dataclass(frozen=True)
class Place:
    """Where one schedule lies.

    Attributes:
        account: who the jobs run as; owns the log and what the runner remembers.
        problems: what keeps it from running.
    """

    name: str
    manager: str
    scope: str
    account: pwd.struct_passwd
    folder: str
    unit_folder: str
    cron_file: str
    log_file: str
    logrotate_file: str
    problems: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        return os.path.join(self.folder, "state")

    @property
    def user(self) -> str:
        """For a unit of the system; a user's own have no such line."""
        return self.account.pw_name if self.scope == SYSTEM else ""

    @property
    def runner(self) -> list[str]:
        return [sys.executable, os.path.join(self.folder, "run.py")]

    def timer_of(self, job: str) -> str:
        return f"{_units.unit_name(self.name, job)}.timer"


@dataclass(frozen=True)
class File:
    """A file of the schedule; `private` ones belong to the account that the jobs run as."""

    content: str
    mode: int = 0o644
    private: bool = False


Texts = dict[str, File]


def settle_place(params: t.Mapping[str, t.Any]) -> Place:
    """Where everything goes, by what was asked for and who asks.

    Raises:
        BackupError: it can't be there.
    """
    name, root = params["name"], os.geteuid() == 0
    if not _NAME.match(name):
        raise BackupError(f"name: {name}: not a name", hint="Take up to 40 small letters, digits and dashes.")
    scope = params["scope"] or (SYSTEM if root else USER)
    own = pwd.getpwuid(os.geteuid())
    try:
        account = pwd.getpwnam(params["user"]) if params["user"] else own
    except KeyError:
        raise BackupError(f"user: {params['user']}: no such account", hint="Create it, or name another one.") from None
    if scope == USER and account.pw_uid != own.pw_uid:
        raise BackupError(
            f"user: {account.pw_name}: not the account of this run ({own.pw_name})",
            hint="For another account's jobs run this as root, or as that account.",
        )
    manager = params["manager"] or (SYSTEMD if os.path.isdir("/run/systemd/system") else CRON)
    home = os.path.join(os.path.expanduser("~"), ".mazevault-backup")
    usual = {
        "folder": os.path.expanduser(os.path.join(_ABOVE[0] if scope == SYSTEM else _ABOVE[1], name)),
        "unit_folder": "/etc/systemd/system" if scope == SYSTEM else os.path.expanduser("~/.config/systemd/user"),
        "cron_file": f"/etc/cron.d/{name}" if scope == SYSTEM else "",
        "log_file": f"/var/log/{name}.log" if scope == SYSTEM else f"{home}/{name}.log",
        "logrotate_file": f"/etc/logrotate.d/{name}" if scope == SYSTEM else "",
    }
    paths = {option: params[option] or path for option, path in usual.items()}
    for option, path in paths.items():
        if path and (not os.path.isabs(path) or not path.isprintable()):
            raise BackupError(f"{option}: {path}: not an absolute path", hint="Name it from the root folder on.")
    if manager == CRON and not paths["cron_file"]:
        raise BackupError("manager: cron: only root may write to /etc/cron.d", hint="Run as root, or name cron_file.")
    problems = []
    if manager == SYSTEMD and scope == USER and not os.path.exists(f"/var/lib/systemd/linger/{account.pw_name}"):
        problems.append(
            f"jobs of {account.pw_name} run only while that account is logged in: loginctl enable-linger"
            f" {account.pw_name}"
        )
    return Place(name, manager, scope, account, problems=problems, **paths)


def find_program(given: str) -> str:
    """The path of ansible-playbook."""
    found = shutil.which(given) or shutil.which(os.path.basename(given))
    if not found:
        raise BackupError(f"program: {given}: not there", hint="Install ansible-core here, or name its path.")
    return os.path.abspath(found)


def texts_of(
    place: Place,
    jobs: t.Sequence[Planned],
    *,
    runner: str,
    environment: t.Mapping[str, str],
    directory: str | None,
    delay: float,
    after_boot: float,
    timeout: float,
    notify: t.Mapping[str, t.Any],
    notify_argv: t.Sequence[str],
) -> Texts:
    """Every file of the schedule by its path."""
    told = os.path.join(place.folder, "notify.json")
    settings = {
        "jobs": {
            one.job.name: {
                "title": one.job.title,
                "argv": one.argv,
                "calendar": one.calendar.as_dict(),
                "lock": one.job.lock,
                "waits": one.job.waits,
                "patience": PATIENCE if one.job.waits else 0,
            }
            for one in jobs
        },
        "state": place.state,
        "log": place.log_file,
        "log_limit": 0 if place.logrotate_file else _LOG_LIMIT,
        "environment": dict(environment),
        "directory": directory or place.account.pw_dir,
        "delay": delay,
        "after_boot": after_boot,
        "timeout": timeout,
        "pause": _PAUSE,
        "notify": [*notify_argv, "-e", f"@{told}"] if notify else [],
    }
    found: Texts = {
        os.path.join(place.folder, "run.py"): File(runner.rstrip("\n") + "\n"),
        os.path.join(place.folder, "jobs.json"): File(_json(settings)),
    }
    if notify:
        # Addresses of webhooks are secrets at times.
        found[told] = File(_json({"mazevault_hosts": "all", **notify}), 0o600, private=True)
    if place.manager == SYSTEMD:
        for one in jobs:
            stem = os.path.join(place.unit_folder, _units.unit_name(place.name, one.job.name))
            text = _units.service(place.name, one, place.runner, place.user, notify=bool(notify))
            found[f"{stem}.service"] = File(text)
            found[f"{stem}.timer"] = File(_units.timer(place.name, one, delay))
        if notify:
            path = os.path.join(place.unit_folder, f"{place.name}-notify@.service")
            found[path] = File(_units.notifier(place.name, place.runner, place.user))
    else:
        found[place.cron_file] = File(_units.crontab(place.name, place.runner, place.account.pw_name))
    if place.logrotate_file:
        group = grp.getgrgid(place.account.pw_gid).gr_name
        folder = existing_parent(os.path.dirname(place.log_file))
        own_folder = os.stat(folder).st_uid == place.account.pw_uid != 0
        text = _units.logrotate(place.name, place.log_file, place.account.pw_name, group, own_folder=own_folder)
        found[place.logrotate_file] = File(text)
    return found


def _json(value: t.Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def due_by_systemd(place: Place, jobs: t.Sequence[Planned], now: dt.datetime) -> dict[str, str]:
    """When each job runs next; where there is systemd, by its own reckoning.

    Raises:
        BackupError: systemd doesn't understand a time.
    """
    found = {one.job.name: _clock.rfc3339(one.calendar.next_run(now)) for one in jobs}
    if place.manager != SYSTEMD or not shutil.which("systemd-analyze"):
        return found
    for one in jobs:
        argv = [_HOST.program("systemd-analyze"), "calendar", *one.calendar.on_calendar()]
        done = _HOST.processes.run(argv, env={"TZ": "UTC"}, timeout=30)
        done.check(f"jobs: {one.job.name}: {one.calendar.text}", hint="systemd doesn't understand it; write it in UTC.")
        moments = [f"{day}T{time}Z" for day, time in _NEXT.findall(done.stdout)]
        if moments:
            found[one.job.name] = _clock.rfc3339(_clock.parse(min(moments)))
    return found


def apply(place: Place, texts: Texts | None, *, check: bool) -> dict[str, t.Any]:
    """Make the machine's files and timers what they should be; None is no schedule at all.

    Returns:
        `changed`, `files` and `diff`.
    """
    wanted = texts or {}
    before = _present(place)
    for path in wanted:
        _refuse_foreign(place, path, before)
    written = {path: file for path, file in wanted.items() if _differs(place, path, file)}
    removed = {path: content for path, content in before.items() if path not in wanted}
    timers = [os.path.basename(path) for path in wanted if path.endswith(".timer")]
    gone = [os.path.basename(path) for path in removed if path.endswith(".timer")]
    systemd = Systemd(own=place.scope == USER) if place.manager == SYSTEMD or gone else None
    moved = _moved(place, before, wanted)
    started = [timer for timer in timers if systemd and not systemd.runs(timer)]
    folders = _missing_folders(place) if texts is not None else []
    left = _left(place) if texts is None else []
    changed = bool(written or removed or started or folders or left)
    if changed and not check:
        if systemd and gone:
            systemd.ask("disable", "--now", *gone)
            systemd.forget_runs(*gone)
        for path in [*removed, *left]:
            os.unlink(path)
        for job in moved:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(place.state, f"{job}.stamp"))
        if texts is None:
            above = os.path.dirname(place.folder)
            for path in (place.state, place.folder, *([above] if above in map(os.path.expanduser, _ABOVE) else [])):
                # Not where somebody laid something into it.
                with contextlib.suppress(OSError):
                    os.rmdir(path)
        else:
            _make_folders(place)
        for path, file in written.items():
            write_file(path, file.content, mode=file.mode)
            _give(place, path, file)
        if systemd:
            again = [
                timer for timer in timers if timer not in started and os.path.join(place.unit_folder, timer) in written
            ]
            if any(path.endswith((".timer", ".service")) for path in [*written, *removed]):
                systemd.ask("daemon-reload")
            systemd.forget_failures(*(os.path.basename(path) for path in removed if path.endswith(".service")))
            if started:
                systemd.ask("enable", "--now", *started)
            others = [timer for timer in again if timer in map(place.timer_of, moved)]
            if others:
                systemd.ask("stop", *others)
                systemd.forget_runs(*others)
            if again:
                systemd.ask("restart", *again)
    names = [*written, *removed]
    return {
        "changed": changed,
        "files": sorted(wanted),
        "diff": [
            {
                "before_header": path,
                "after_header": path,
                "before": before.get(path, ""),
                "after": wanted[path].content if path in wanted else "",
            }
            for path in sorted(names)
            if not (path in wanted and wanted[path].private)
        ]
        + [{"before": "", "after": f"{timer}: enabled and started\n"} for timer in started],
    }


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def _present(place: Place) -> dict[str, str]:
    """Files of this schedule that are there, by path."""
    stem = os.path.join(glob.escape(place.unit_folder), glob.escape(place.name))
    paths = [*glob.glob(f"{stem}-*.timer"), *glob.glob(f"{stem}-*.service"), place.cron_file, place.logrotate_file]
    found = {path: _read(path) for path in paths if path}
    own = {path: text for path, text in found.items() if text.startswith(_units.banner(place.name))}
    ours = {os.path.join(place.folder, name) for name in _OWN}
    return {**own, **{path: _read(path) for path in sorted(ours) if os.path.isfile(path)}}


def _moved(place: Place, before: t.Mapping[str, str], wanted: Texts) -> list[str]:
    """Jobs that had other times before, or some at all: a run by those that come now wasn't missed."""
    path = os.path.join(place.folder, "jobs.json")
    new = _calendars(wanted[path].content if path in wanted else "")
    return [job for job, calendar in _calendars(before.get(path, "")).items() if new.get(job) != calendar]


def _calendars(settings: str) -> dict[str, t.Any]:
    """By job, as far as the file can be read."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        return {job: said["calendar"] for job, said in json.loads(settings)["jobs"].items()}
    return {}


def _refuse_foreign(place: Place, path: str, before: t.Container[str]) -> None:
    if os.path.islink(path) or (os.path.lexists(path) and path not in before):
        raise BackupError(
            f"{path}: is there, and isn't this schedule's",
            hint=f"Nothing was written. Move it away, or give the schedule another name than {place.name}.",
        )


def _differs(place: Place, path: str, file: File) -> bool:
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return True
    owner = place.account.pw_uid if file.private else os.geteuid()
    return stat.S_IMODE(info.st_mode) != file.mode or info.st_uid != owner or _read(path) != file.content


def _give(place: Place, path: str, file: File) -> None:
    if file.private and place.account.pw_uid != os.geteuid():
        os.chown(path, place.account.pw_uid, place.account.pw_gid)


def _missing_folders(place: Place) -> list[str]:
    return [path for path in (place.folder, place.state, place.log_file) if not os.path.lexists(path)]


def _make_folders(place: Place) -> None:
    """The folder that nobody else may write to, the account's own, the log, and folders of units."""
    mode = 0o755 if place.scope == SYSTEM else 0o700
    for path in (place.folder, place.unit_folder, os.path.dirname(place.log_file)):
        missing = []
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for one in reversed(missing):
            os.mkdir(one)
            os.chmod(one, mode)
    others = (place.account.pw_uid, place.account.pw_gid)
    if not os.path.isdir(place.state):
        os.mkdir(place.state, 0o700)
        os.chown(place.state, *others)
    if not os.path.lexists(place.log_file):
        os.close(os.open(place.log_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640))
        os.chmod(place.log_file, 0o640)
        os.chown(place.log_file, *others)
    info = os.lstat(place.folder)
    if info.st_mode & 0o022 or info.st_uid not in (0, os.geteuid()):
        raise BackupError(
            f"folder: {place.folder}: others may write here", hint="What runs by itself has to be safe: chmod go-w it."
        )


def _left(place: Place) -> list[str]:
    """What the runner remembers."""
    return [path for pattern in _STATE for path in glob.glob(os.path.join(glob.escape(place.state), pattern))]
