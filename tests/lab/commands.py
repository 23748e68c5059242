# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's commands."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from . import engine, hosts, images, inventory, stack
from .hosts import HOSTS, USUAL, Host
from .place import Place
from .process import LabError, say


def up(place: Place, wanted: Sequence[Host]) -> None:
    """Everything that is missing; what is there and runs stays as it is."""
    started = time.monotonic()
    engine.ensure(place)
    images.ensure({host.inner for host in wanted})
    inventory.begin(place)
    hosts.ensure_network(place)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda host: _up_one(place, host), wanted))
    inventory.write(place)
    say(f"lab is up after {time.monotonic() - started:.0f} s; inventory: {place.inventory}")


def _up_one(place: Place, host: Host) -> None:
    hosts.ensure(place, host)
    if host.has_stack:
        stack.ensure(place, host)


def down(place: Place, wanted: Sequence[Host]) -> None:
    engine.require()
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda host: hosts.remove(place, host), wanted))
    if set(wanted) == set(HOSTS):
        hosts.remove_rest(place)
        inventory.remove(place)
    else:
        inventory.write(place)


def status(place: Place) -> bool:
    """One line a host; true when all of it is well."""
    engine.require()
    well = True
    for host in HOSTS:
        word = hosts.state(place, host)
        if word == "absent" and host.on_demand:
            continue
        if word == "running" and host.has_stack:
            word += ", stack healthy" if stack.healthy(place, host) else ", stack not healthy"
            well &= stack.healthy(place, host)
        well &= word.startswith("running")
        print(f"{host.name}\t{place.address(host.number)}\t{word}")
    return well


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="lab.py", description="Real hosts to test on.")
    commands = top.add_subparsers(dest="command", required=True)

    def command(name: str, text: str, nargs: str | None) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text)
        if nargs:
            made.add_argument("hosts", nargs=nargs, metavar="HOST", type=hosts.named)
        return made

    command("engine", "install and start what the hosts need, or say what is missing", None)
    command("images", "build what the hosts are made of", None)
    command("up", "build what is missing and start the hosts (the usual ones, or those named)", "*")
    command("down", "remove the hosts (all, or those named) with everything in them", "*")
    command("status", "one line a host; 1 unless all is well", None)
    command("ssh-config", "print what ssh -F and Ansible use", None)
    sql = command("sql", "run SQL in a stack's database; from stdin without -c", None)
    sql.add_argument("host", metavar="HOST", type=hosts.named)
    sql.add_argument("-c", dest="statement")
    sql.add_argument("-d", dest="database", default=stack.DATABASE)
    seed = command("seed", "fill a stack's database anew with test data", None)
    seed.add_argument("host", metavar="HOST", type=hosts.named)
    seed.add_argument("--size", default="small", help="small (default), or a size like 100MB, 2GB")
    seed.add_argument("--seed", type=int, default=1, help="the same number gives the same data")
    command("clean", "remove the lab's images too; every other lab of this machine shares them", None)
    return top


def main(words: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(words)
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    place = Place.here()
    try:
        if arguments.command == "engine":
            engine.ensure(place)
        elif arguments.command == "images":
            images.ensure()
        elif arguments.command == "up":
            up(place, arguments.hosts or USUAL)
        elif arguments.command == "down":
            down(place, arguments.hosts or HOSTS)
        elif arguments.command == "status":
            return 0 if status(place) else 1
        elif arguments.command == "ssh-config":
            print(place.ssh_config.read_text(encoding="utf-8"), end="")
        elif arguments.command == "sql":
            return stack.sql_by_hand(place, arguments.host, arguments.statement, arguments.database)
        elif arguments.command == "seed":
            stack.seed(place, arguments.host, size=arguments.size, number=arguments.seed)
        elif arguments.command == "clean":
            down(place, HOSTS)
            images.remove_all()
    except (LabError, OSError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0
