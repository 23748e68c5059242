# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""RESTORE.md followed elsewhere: where a set comes back with stock tools, and what came back."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from support.identities import Custodians

from . import hosts, images
from .place import Place
from .process import run, wait_for
from .site import CONTENT_SQL, ROOT, Site, content_of

MARK = "--- that was a block ---"
_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.M | re.S)
_COMMAND = re.compile(r"^```\n(.*IDENTITY.*)\n```$", re.M)
# Whatever is there, how it is and whose; of files, what they hold.
_LISTED = r"""
cd "$1" 2>/dev/null || exit 0
find . -mindepth 1 ! -type f -printf '%P %y %m %U:%G %l\n'
find . -type f -printf '%P %y %m %U:%G ' -exec sha256sum {} \; | cut -d' ' -f1-5
"""


@dataclass(frozen=True)
class Elsewhere:
    """A machine with PostgreSQL's programs, a server that runs, and nothing of this collection."""

    container: str
    """Of this machine's engine."""
    folder: str
    """Of its own, on that machine."""
    server: Mapping[str, str]
    """How libpq finds the server."""
    env: dict[str, str] = field(default_factory=dict)
    """What whoever follows the text has to say."""

    def shell(self, script: str, *words: str, data: bytes | None = None) -> str:
        """As root."""
        return run("docker", "exec", "--interactive", self.container, "bash", "-ec", script, "bash", *words, data=data)

    def take(self, site: Site, name: str) -> None:
        """Bring a set and the host's public key here: the key as from the printed card."""
        there, here = (
            f"ssh -F {shlex.quote(str(site.place.ssh_config))} {site.name}",
            f"docker exec -i {self.container}",
        )
        copied = f"{there} sudo tar -C {ROOT}/sets -c {name} | {here} tar -C {self.folder} -x"
        subprocess.run(["bash", "-euo", "pipefail", "-c", copied], check=True)
        key = site.shell("cat /etc/mazevault-backup/host.pub").encode()
        self.shell('install /dev/stdin "$1"', f"{self.folder}/host.pub", data=key)
        self.shell('install -d -m 0700 "$1"', f"{self.folder}/files")
        self.env.update(MAZEVAULT_HOST_KEY=f"{self.folder}/host.pub", RESTORED=f"{self.folder}/files")

    def text(self, name: str) -> str:
        return self.shell('cat "$1"', f"{self.folder}/{name}/RESTORE.md")

    def open(self, name: str, custodians: Custodians) -> None:
        """Unwrap both keys with the commands of the text; one recipient of each class lends a private key."""
        commands = _COMMAND.findall(self.text(name))
        assert len(commands) == 2, commands
        for command, identity, class_name in zip(
            commands, (custodians.data[0], custodians.keys[1]), ("data", "keys"), strict=True
        ):
            lent = f"/dev/shm/{class_name}.identity"
            self.shell('install -m 0600 /dev/stdin "$1"', lent, data=identity.private.read_bytes())
            self.shell(f'cd "$1" && {command.replace("IDENTITY", lent)}', f"{self.folder}/{name}")
            self.shell('mv "$1" "$2"', f"{self.folder}/{name}/{class_name}.key", f"/dev/shm/{class_name}.key")
            self.env[f"{class_name.upper()}_KEY"] = f"/dev/shm/{class_name}.key"

    def follow(self, name: str) -> str:
        """Type every block, one after the other, into one shell; what they said beside a good signature."""
        blocks = _BLOCK.findall(self.text(name))
        assert len(blocks) > 5, "positive control: there are blocks"
        said = " ".join(f"{key}={shlex.quote(value)}" for key, value in {**self.server, **self.env}.items())
        script = "".join(f"{block}\necho {MARK}\n" for block in blocks)
        output = self.shell(
            f'cd "$1" && export {said} && bash -euo pipefail -c "$2" 2>&1', f"{self.folder}/{name}", script
        )
        assert output.count(MARK) == len(blocks)
        return output.replace(MARK, "").replace("Verified OK", "").strip()

    def content(self) -> dict[str, str]:
        """Of the database, as `Site.content` has it."""
        said = " ".join(f"{key}={shlex.quote(value)}" for key, value in self.server.items())
        return content_of(self.shell(f"{said} psql -XqAt -v ON_ERROR_STOP=1 -d mazevault", data=CONTENT_SQL.encode()))

    def files(self, folder: str) -> list[str]:
        """Everything below a folder of what came back, with type, mode, owner, and hash or target."""
        return sorted(self.shell(_LISTED, f"{self.folder}/files/{folder}").splitlines())


def live_files(site: Site, folder: str) -> list[str]:
    """The same of a folder of the installation."""
    return sorted(site.shell(_LISTED, folder).splitlines())


def differing_files(site: Site, elsewhere: Elsewhere) -> dict[str, list[str]]:
    """What came back of each folder and volume, and isn't so on the host.

    Sets hold less than there is, never other things.
    """
    volumes, layout = site.host.engine.volumes, site.host.layout
    pairs = {
        f"config{layout.home}": layout.home,
        f"tls/volumes/{layout.project}_certs": f"{volumes}/{layout.project}_certs/_data",
        f"volumes/volumes/{layout.project}_backend_data": f"{volumes}/{layout.project}_backend_data/_data",
    }
    found = {}
    for back, live in pairs.items():
        restored, there = elsewhere.files(back), live_files(site, live)
        found[back] = [line for line in restored if line not in there]
        if there and not restored:
            found[back] = ["nothing came back"]
    for folder, start in zip(pairs, (".env f 600 0:0 ", "server.key f 600 70:70 "), strict=False):
        if not any(line.startswith(start) for line in elsewhere.files(folder)):
            found[folder].append(f"nothing like {start}")
    return {name: lines for name, lines in found.items() if lines}


@contextmanager
def container_with_stock_tools(place: Place, major: int) -> Iterator[Elsewhere]:
    """No network, nothing of the host's: coreutils, openssl, tar, zstd, and PostgreSQL with an empty server."""
    (image,) = [image.tag for image in images.SERVERS if image.name == f"mazevault-lab/postgres:{major}"]
    name, folder = f"{place.name}-by-hand", "/var/tmp/restore"
    words = ["--detach", "--rm", "--network", "none", "--name", name, "--label", f"{hosts.LABEL}={place.name}"]
    words += ["--env", "POSTGRES_USER=mazevault", "--env", "POSTGRES_DB=postgres", "--env", "POSTGRES_PASSWORD=unused"]
    run("docker", "run", *words, image)
    try:
        made = Elsewhere(name, folder, {"PGHOST": "/run/postgresql", "PGUSER": "mazevault"})
        made.shell('install -d -m 0700 "$1"', folder)
        for program in ("age", "python3", "ansible", "docker"):
            assert made.shell('command -v "$1" || true', program) == "", "stock tools alone"
        # The entrypoint's temporary server listens on the socket too; the real one is process 1.
        asked = 'test "$(cat /proc/1/comm)" = postgres && psql -XqAt -h /run/postgresql -U mazevault -d postgres'
        wait_for(f"{name}: its server", lambda: _says(made, f'{asked} -c "SELECT 1"') == "1", 60)
        yield made
    finally:
        run("docker", "rm", "--force", "--volumes", name)


def _says(elsewhere: Elsewhere, script: str) -> str:
    return elsewhere.shell(f"{script} 2>/dev/null || true").strip()


@contextmanager
def bare_host(place: Place) -> Iterator[Elsewhere]:
    """The lab's host without Docker: a server for this one use, in a folder that belongs to it alone."""
    host, folder = hosts.named("mv-bare"), "/var/tmp/restore"
    made = Elsewhere(hosts.container(place, host), folder, {"PGHOST": folder, "PGUSER": "mazevault"})
    made.shell(_BARE_SERVER)
    try:
        yield made
    finally:
        made.shell(_BARE_END)


_BARE_SERVER = """
rm -rf /var/tmp/restore && install -d -m 0711 /var/tmp/restore && install -d -o postgres /var/tmp/restore/data
chown postgres /var/tmp/restore
runuser -u postgres -- /usr/lib/postgresql/15/bin/initdb -D /var/tmp/restore/data -U mazevault --auth=trust >/dev/null
runuser -u postgres -- /usr/lib/postgresql/15/bin/pg_ctl -D /var/tmp/restore/data -l /var/tmp/restore/log -w \\
    -o "-k /var/tmp/restore -c listen_addresses='' -c fsync=off" start >/dev/null
"""
_BARE_END = """
runuser -u postgres -- /usr/lib/postgresql/15/bin/pg_ctl -D /var/tmp/restore/data -m immediate stop
rm -rf /var/tmp/restore
"""
