# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs scheduled jobs of mazevault.backup. schedule.yml copies it beside jobs.json, which says what each job is.

    run.py JOB             one run, now; its exit status is that of ansible-playbook
    run.py --due           every job whose time has come since it last ran; for cron
    run.py --notify JOB    tell that this job failed

Two runs of a job, or of jobs that share a lock, are never at work at once. What is printed goes to stdout (the journal)
and, each line with its time, to the log. Needs Python 3.9 or newer and nothing else.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import json
import os
import pwd
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import typing as t

Settings = dict[str, t.Any]
# EX_TEMPFAIL and EX_CONFIG of sysexits.h; 124 is what timeout(1) ends with.
BUSY, BAD, LATE = 75, 78, 124
LINES, WIDTH = 30, 500
_FATAL = re.compile(r"(?:fatal|failed): \[([^\]]*)\].*? => (\{.*)")
_RECAP = re.compile(r"\S+\s*: ok=\d+ ")


def utc() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)


def stamp(moment: dt.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class Log:
    """Lines to stdout and to a file, which is opened anew when somebody has renamed it."""

    def __init__(self, path: str, job: str, *, echo: bool, limit: int = 0) -> None:
        self._path, self._job, self._echo = path, job, echo
        self._stream: t.IO[str] | None = None
        self._failed = False
        # Where no logrotate looks after it.
        with contextlib.suppress(OSError):
            if limit and os.stat(path).st_size > limit:
                os.replace(path, path + ".1")

    def line(self, text: str) -> None:
        if self._echo:
            with contextlib.suppress(OSError):
                print(text, flush=True)
        try:
            stream = self._open()
            stream.write(f"{stamp(utc())} {self._job}: {text}\n")
            stream.flush()
        except OSError as exc:
            # A full disk or a missing folder doesn't end a backup.
            if not self._failed and self._echo:
                print(f"{self._path}: {exc.strerror or exc}", flush=True)
            self._failed = True

    def _open(self) -> t.IO[str]:
        if self._stream is not None:
            with contextlib.suppress(OSError):
                there, here = os.stat(self._path), os.fstat(self._stream.fileno())
                if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                    return self._stream
            self._stream.close()
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        self._stream = os.fdopen(fd, "a", encoding="utf-8", errors="replace")
        return self._stream


@contextlib.contextmanager
def locked(path: str, patience: float) -> t.Iterator[bool]:
    """Whether this process has the lock. Programs that it starts don't inherit it, nor keep it when it ends."""
    deadline = time.monotonic() + patience
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    yield False
                    return
                time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
            else:
                yield True
                return
    finally:
        os.close(fd)


def up() -> float:
    """Seconds since the machine was started, or the container that stands for one."""
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/1/stat", encoding="utf-8") as stream:
        # After the name, which may hold anything, the twentieth field: when the first process started (proc(5)).
        return now - int(stream.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return now


def write(path: str, value: t.Any) -> None:
    temporary = f"{path}.{os.getpid()}"
    # Who removes the schedule doesn't make the run fail that is at work.
    with contextlib.suppress(FileNotFoundError):
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            json.dump(value, stream)
        os.replace(temporary, path)


def told(lines: t.Iterable[str]) -> list[str]:
    """What a notification says of a failed run: its errors and the recap, never results or whole outputs."""
    every = list(lines)
    found = []
    for line in every:
        fatal = _FATAL.match(line)
        if fatal:
            try:
                message = str(json.loads(fatal[2]).get("msg", ""))
            except ValueError:
                message = "failed"
            found.append(f"{fatal[1]}: {message}")
        elif line.startswith(("ERROR", "[ERROR]")) or _RECAP.match(line):
            found.append(line)
    # Where even Ansible wasn't reached.
    return [" ".join(line.split())[:WIDTH] for line in (found or every[-10:])][-LINES:]


def environment(settings: Settings) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("LANG", "TMPDIR", "XDG_RUNTIME_DIR") if name in os.environ}
    account = pwd.getpwuid(os.geteuid())
    return {
        "LANG": "C.UTF-8",
        **kept,
        "HOME": os.environ.get("HOME") or account.pw_dir,
        "USER": account.pw_name,
        "LOGNAME": account.pw_name,
        "ANSIBLE_NOCOLOR": "true",
        "ANSIBLE_FORCE_COLOR": "false",
        # Its lines are read for notifications.
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_CALLBACK_FORMAT_PRETTY": "false",
        **settings["environment"],
    }


def execute(argv: t.Sequence[str], settings: Settings, say: t.Callable[[str], None], timeout: float) -> int:
    """Run a program to its end, or to the end of its time; each line that it prints is handed to `say`."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(settings),
            cwd=settings["directory"],
            start_new_session=True,
        )
    except OSError as exc:
        say(f"ERROR: {argv[0]}: {exc.strerror or exc}")
        return 127

    def read() -> None:
        for line in t.cast("t.IO[bytes]", process.stdout):
            say(line.decode("utf-8", "replace").rstrip("\r\n"))

    def end(number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda got, _frame: end(got))
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    late = False
    try:
        rc = process.wait(timeout)
    except subprocess.TimeoutExpired:
        late = True
        end(signal.SIGTERM)
        try:
            rc = process.wait(30)
        except subprocess.TimeoutExpired:
            end(signal.SIGKILL)
            rc = process.wait()
    # Not for ever: what it left in the background may hold the pipe open.
    reader.join(5)
    if late:
        say(f"ERROR: ended after {timeout:.0f} s, the longest that a run may take")
        return LATE
    return rc if rc >= 0 else 128 - rc


def run(name: str, settings: Settings, *, due: dt.datetime | None = None, delay: float = 0.0, echo: bool = True) -> int:
    """One run of a job.

    Args:
        due: leave it alone if it ran since.
        delay: seconds to wait at most before it starts, at random.
    """
    job, state = settings["jobs"][name], settings["state"]
    log = Log(settings["log"], name, echo=echo, limit=settings["log_limit"])
    with contextlib.ExitStack() as held:
        if not held.enter_context(locked(os.path.join(state, f"{name}.lock"), 0)):
            log.line("its last run is still at work; nothing was started")
            return 0
        mark = os.path.join(state, f"{name}.stamp")
        if due is not None and (last_run(mark) or utc()) >= due:
            return 0
        write(mark, {"started": stamp(utc())})
        # Whatever ends it from here on, nobody takes the report of its last run for this one's.
        begun = os.path.join(state, f"{name}.json")
        write(begun, {"job": name, "title": job["title"], "started": stamp(utc())})
        time.sleep(random.uniform(0, delay) if delay else 0)
        since = up()
        if since < settings["after_boot"]:
            log.line(f"the machine is up for {since:.0f} s; begins after {settings['after_boot']:.0f} s")
            time.sleep(settings["after_boot"] - since)
        if job["lock"] and not held.enter_context(locked(os.path.join(state, f"{job['lock']}.lock"), job["patience"])):
            if not job["waits"]:
                log.line("another run is at work on the sets; the next one does the same")
                return 0
            lines = [f"ERROR: another run was at work on the sets for {job['patience']:.0f} s; nothing was started"]
            log.line(lines[0])
            return finish(name, settings, log, utc(), BUSY, lines)
        started, lines = utc(), []

        def say(line: str) -> None:
            lines.append(line)
            del lines[:-5000]
            log.line(line)

        write(begun, {"job": name, "title": job["title"], "started": stamp(started)})
        log.line(f"started: {job['title']}")
        rc = execute(job["argv"], settings, say, settings["timeout"])
        return finish(name, settings, log, started, rc, lines)


def finish(name: str, settings: Settings, log: Log, started: dt.datetime, rc: int, lines: list[str]) -> int:
    """Leave word of how it ended; a job that works again is told of at once when it fails the next time."""
    ended = utc()
    facts = {
        "job": name,
        "title": settings["jobs"][name]["title"],
        "started": stamp(started),
        "ended": stamp(ended),
        "rc": rc,
        "node": socket.gethostname(),
        "log": settings["log"],
        "lines": told(lines) if rc else [],
    }
    write(os.path.join(settings["state"], f"{name}.json"), facts)
    log.line(f"ended: exit status {rc} after {(ended - started).total_seconds():.0f} s")
    if rc == 0:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(settings["state"], f"{name}.notified"))
    return rc


def notify(name: str, settings: Settings, *, echo: bool = True) -> int:
    log = Log(settings["log"], f"{name} notify", echo=echo)
    if not settings["notify"]:
        log.line("nobody is to be told")
        return 0
    state = settings["state"]
    extra = {
        "mazevault_notify_report": os.path.join(state, f"{name}.json"),
        "mazevault_notify_memory": os.path.join(state, f"{name}.notified"),
        "mazevault_notify_job": name,
    }
    rc = 1
    # A network that was away with the host comes back; what was told by one way isn't told by it again.
    for pause in (0, 1, 2):
        time.sleep(pause * settings["pause"])
        rc = execute([*settings["notify"], "-e", json.dumps(extra)], settings, log.line, 900)
        if rc == 0:
            break
    return rc


def last_run(path: str) -> dt.datetime | None:
    try:
        with open(path, encoding="utf-8") as stream:
            return dt.datetime.fromisoformat(str(json.load(stream)["started"]).replace("Z", "+00:00"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def latest(calendar: t.Mapping[str, t.Any], now: dt.datetime) -> dt.datetime:
    """The last moment at or before `now` at which it was due."""
    zone: dt.tzinfo = dt.timezone.utc
    if calendar["zone"] != "UTC":
        import zoneinfo

        zone = zoneinfo.ZoneInfo(calendar["zone"])
    today = now.astimezone(zone).date()
    for number in range(370):
        day = today - dt.timedelta(days=number)
        if calendar["months"] and (day.day != 1 or day.month not in calendar["months"]):
            continue
        if calendar["weekday"] is not None and day.weekday() != calendar["weekday"]:
            continue
        for hour, minute in sorted(calendar["times"], reverse=True):
            moment = dt.datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
            if moment <= now:
                return moment
    return now - dt.timedelta(days=370)


def run_due(settings: Settings) -> int:
    """What is due, one after the other; what takes long doesn't keep the next call from doing the rest."""
    worst = 0
    for name, job in settings["jobs"].items():
        mark, due = os.path.join(settings["state"], f"{name}.stamp"), latest(job["calendar"], utc())
        last = last_run(mark)
        if last is None:
            # New in the schedule: its first run is the next one.
            write(mark, {"started": stamp(utc())})
        elif last < due:
            rc = run(name, settings, due=due, delay=settings["delay"], echo=False)
            if rc:
                notify(name, settings, echo=False)
            worst = max(worst, rc)
    return worst


def main(arguments: t.Sequence[str]) -> int:
    os.umask(0o077)
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "jobs.json")
    try:
        with open(path, encoding="utf-8") as stream:
            settings = json.load(stream)
    except (OSError, ValueError) as exc:
        print(f"{path}: {exc}: run schedule.yml again", file=sys.stderr)
        return BAD
    if list(arguments) == ["--due"]:
        return run_due(settings)
    telling = len(arguments) == 2 and arguments[0] == "--notify"
    if not (telling or len(arguments) == 1) or arguments[-1] not in settings["jobs"]:
        print(f"usage: run.py [--notify] {'|'.join(settings['jobs'])}, or run.py --due", file=sys.stderr)
        return BAD
    return notify(arguments[1], settings) if telling else run(arguments[0], settings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
