"""docker-compose.yml as real processes: the same commands, environment and order, no containers.

A named volume is a folder, a service's host name is loopback, and the published ports are free
ones. PostgreSQL is the wheel's, set up as the entry point of its image does it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.dockerfile import ROOT, read_stages
from tests.deploy.files import read_yaml
from tests.end_to_end.processes import child_environment
from tests.faults.private_postgres import PrivatePostgres

COMPOSE: dict[str, Any] = read_yaml(ROOT / "docker-compose.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, each in SERVICES.items() if each["image"] == "msgtrace")

IMAGE = read_stages()[-1]


@dataclass(frozen=True)
class Topology:
    """The volumes as folders of `folder`, and the server that stands for the service postgres."""

    folder: Path
    server: PrivatePostgres

    def words(self, service: str) -> list[str]:
        """The command line of a service: its entry point, or the image's, and its command."""
        each = SERVICES[service]
        entry_point = each.get("entrypoint") or IMAGE.words_of("ENTRYPOINT")
        words = [word.replace("$$", "$") for word in [*entry_point, *each["command"]]]
        return [self.place(service, word) for word in words]

    def environment(self, service: str) -> dict[str, str]:
        """What the image and the file set, in the places of this machine."""
        given = SERVICES[service].get("environment", {})
        if service in OURS:
            given = {
                name: value
                for name, value in IMAGE.environment().items()
                if name.startswith("MSGTRACE_")
            } | given
        address = f"@127.0.0.1:{self.server.port}/"
        placed = {name: self.place(service, str(value)) for name, value in given.items()}
        loopback = {"MSGTRACE_HOST": "127.0.0.1"} if service in OURS else {}
        return {k: v.replace("@postgres/", address) for k, v in placed.items()} | loopback

    def place(self, service: str, text: str) -> str:
        """The text with the mount points of a service's volumes as folders of this machine."""
        for volume in SERVICES[service].get("volumes", []):
            source, target, *_ = volume.split(":")
            real = ROOT / source if source.startswith(".") else self.folder / source
            text = re.sub(rf"{re.escape(target)}\b", str(real), text)
        return text

    def run(self, service: str, **changed: str) -> subprocess.CompletedProcess[str]:
        """Run a service that ends by itself."""
        return run(self.words(service), self.environment(service) | changed)

    def check_health(self, service: str, **changed: str) -> subprocess.CompletedProcess[str]:
        """Run the health check of a service of ours."""
        kind, *words = SERVICES[service]["healthcheck"]["test"]
        assert kind == "CMD"
        return run(words, self.environment(service) | changed)

    def prepare_postgres(self) -> None:
        """What the entry point of the image postgres does before its first start."""
        given = self.environment("postgres")
        user, database = given["POSTGRES_USER"], given["POSTGRES_DB"]
        password = Path(given["POSTGRES_PASSWORD_FILE"]).read_text()
        assert password.isalnum()
        self.server.execute(
            f"CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{password}'",
            f"CREATE DATABASE {database} OWNER {user}",
        )
        hba = self.server.data / "pg_hba.conf"
        hba.write_text("host all postgres all trust\nhost all all all scram-sha-256\n")
        self.server.execute("SELECT pg_reload_conf()")
        script = (ROOT / "deploy" / "postgres" / "reader.sql").read_text()
        self.server.psql(self.place("postgres", script), database)


def run(words: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command; programs of ours are the installed scripts."""
    script = Path(sys.executable).with_name(words[0])
    return subprocess.run(
        [str(script) if script.exists() else words[0], *words[1:]],
        env=child_environment(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
