# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
# PRIVATE to the collection: can change at any time.
"""The texts of a schedule: units of systemd, a crontab, a rule for logrotate. Pure."""

from __future__ import annotations

import shlex
import typing as t

from ansible_collections.mazevault.backup.plugins.module_utils._jobs import Planned


def banner(name: str) -> str:
    """The first line of each file; only files that bear it are ever written over or removed."""
    return f"# schedule {name} of mazevault.backup; schedule.yml writes this file anew\n"


def unit_name(name: str, job: str) -> str:
    return f"{name}-{job.replace('_', '-')}"


def _word(text: str) -> str:
    """One word of ExecStart=."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'


def _service(name: str, title: str, argv: t.Sequence[str], user: str, on_failure: str) -> str:
    lines = [banner(name), "[Unit]", f"Description=MazeVault: {title}"]
    if user:
        lines += ["Wants=network-online.target", "After=network-online.target"]
    if on_failure:
        lines.append(f"OnFailure={on_failure}")
    lines += ["", "[Service]", "Type=oneshot"]
    if user:
        lines.append(f"User={user}")
    lines += [
        f"ExecStart={' '.join(_word(word) for word in argv)}",
        f"SyslogIdentifier={name}",
        "StandardOutput=journal",
        "StandardError=journal",
        "UMask=0077",
    ]
    return "\n".join(lines).replace("\n\n[Unit]", "\n[Unit]") + "\n"


def service(name: str, planned: Planned, runner: t.Sequence[str], user: str, *, notify: bool) -> str:
    """One run of a job. A oneshot service that is active isn't started a second time.

    Args:
        user: the account; empty in a user's own systemd.
    """
    failed = f"{name}-notify@{planned.job.name}.service" if notify else ""
    return _service(name, planned.job.title, [*runner, planned.job.name], user, failed)


def notifier(name: str, runner: t.Sequence[str], user: str) -> str:
    """A template: the instance is the job that failed."""
    text = _service(name, "tell that %i failed", [*runner, "--notify", "INSTANCE"], user, "")
    return text.replace('"INSTANCE"', "%i")


def timer(name: str, planned: Planned, delay: float) -> str:
    lines = [banner(name), "[Unit]", f"Description=MazeVault: when to run: {planned.job.title}", "", "[Timer]"]
    lines += [f"OnCalendar={text}" for text in planned.calendar.on_calendar()]
    lines += [
        f"RandomizedDelaySec={delay:.0f}",
        "AccuracySec=1s",
        # What was missed while the machine was off is caught up.
        "Persistent=true",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]
    return "\n".join(lines).replace("\n\n[Unit]", "\n[Unit]") + "\n"


def crontab(name: str, runner: t.Sequence[str], user: str) -> str:
    """A file of /etc/cron.d. Cron knows neither UTC nor what it missed, so every five minutes the runner looks."""
    command = " ".join(shlex.quote(word) for word in (*runner, "--due")).replace("%", "\\%")
    return (
        f'{banner(name)}SHELL=/bin/sh\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nMAILTO=""\n'
        f"*/5 * * * * {user} {command}\n"
    )


def logrotate(name: str, log_file: str, user: str, group: str, *, own_folder: bool) -> str:
    """The runner opens the log anew where it was renamed, so nothing is copied and no line is lost.

    Args:
        own_folder: the log's folder is the account's, and logrotate touches nothing there as root.
    """
    switch = f"    su {user} {group}\n" if own_folder else ""
    quoted = log_file.replace("\\", "\\\\").replace('"', '\\"')
    return (
        f'{banner(name)}"{quoted}" {{\n    weekly\n    rotate 52\n    maxsize 50M\n    missingok\n    notifempty\n'
        f"    compress\n    delaycompress\n    create 0640 {user} {group}\n{switch}}}\n"
    )
