# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an installation is on its host, and what its parts are called: the product had three ways."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from string import Template

from .nested import Inner
from .place import HERE

_COMPOSE_FILE = HERE / "stack/docker-compose.yml"
_SETTINGS = HERE / "stack/env.template"


@dataclass(frozen=True)
class Layout:
    """As the product's releases ship it, but for what is given."""

    project: str = "mazevault"
    home: str = "/opt/mazevault"
    services: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Services by their names in the shipped compose file: what they are called here."""
    containers: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Names that the compose file gives to containers; the others get the compose program's."""
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What `.env` says otherwise."""

    def service(self, name: str) -> str:
        return self.services.get(name, name)

    def container(self, engine: Inner, name: str) -> str:
        return self.containers.get(name) or engine.sign.join((self.project, self.service(name), "1"))

    def compose_file(self) -> bytes:
        shipped = _COMPOSE_FILE.read_bytes()
        if not self.services and not self.containers:
            return shipped
        # Only tests have need of this, and their environment has the package.
        import yaml

        said = yaml.safe_load(self._with_hosts(shipped.decode()))
        said["name"] = self.project
        services = {}
        for name, service in said["services"].items():
            if name in self.containers:
                service["container_name"] = self.containers[name]
            service["depends_on"] = {self.service(one): how for one, how in service.get("depends_on", {}).items()}
            services[self.service(name)] = service
        return yaml.safe_dump({**said, "services": services}, sort_keys=False).encode()

    def env_file(self, values: Mapping[str, str]) -> bytes:
        text = self._with_hosts(Template(_SETTINGS.read_text(encoding="utf-8")).substitute(values))
        for name, value in self.settings.items():
            text = re.sub(rf"(?m)^{name}=.*$", f"{name}={value}", text)
        return text.encode()

    def _with_hosts(self, text: str) -> str:
        """Services reach each other by their names."""
        return re.sub(r"(//|@)([a-z-]+):(?=\d)", lambda match: f"{match[1]}{self.service(match[2])}:", text)


SHIPPED = Layout()
