# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""Calling ``docker compose``.

The program of the plugin is called itself, not by way of ``docker``: then it is one process, which dies with the module. So a run
that was replaced by an emergency starts no container any more. For the same reason this is not left to another module.
"""

from __future__ import annotations

import json
import os
import re
import typing as t

from ansible_collections.payops.rollback.plugins.module_utils._docker._engine import Connection
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._io import make_dir
from ansible_collections.payops.rollback.plugins.module_utils._module import Cli, Completed

PLUGIN = "docker-compose"
PLACES = ("/usr/local/lib/docker", "/usr/local/libexec/docker", "/usr/lib/docker", "/usr/libexec/docker")
OLDEST = (2, 17)
Spec = t.Dict[str, t.Any]


def find_program(given: str | None, path: str = "") -> str:
    """The program of compose: where it was said to be, else where the docker client looks, else in PATH."""
    if given is not None:
        if not os.access(given, os.X_OK):
            raise RollbackError(
                f"compose_bin {given} is not there, or may not be run by this user. Set it to the full path of docker-compose."
            )
        return given
    config = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")
    places = [os.path.join(place, "cli-plugins") for place in (config, *PLACES)]
    for folder in [*places, *(path or os.environ.get("PATH", "")).split(os.pathsep)]:
        program = os.path.join(folder, PLUGIN)
        if os.access(program, os.X_OK) and os.path.isfile(program):
            return program
    raise RollbackError(
        f"docker compose was not found (looked for {PLUGIN} in {', '.join(places)} and in PATH). "
        "Install it (Docker's package docker-compose-plugin, Debian's docker-compose, Ubuntu's docker-compose-v2), "
        "or set compose_bin (rollback_docker_compose_bin)."
    )


class Compose:
    """One project; its files may be looked at in another folder, as they were once."""

    def __init__(self, cli: Cli, given: str | None, connection: Connection, folder: str, scratch: str, group: str | None) -> None:
        self.cli = cli
        self.given = given
        self.connection = connection
        self.folder = folder
        self.scratch = scratch
        self.group = group

    @property
    def program(self) -> str:
        """Looked for when it is needed: to stop containers it is not."""
        return find_program(self.given)

    def require(self) -> None:
        done = self.cli([self.program, "version", "--short"])
        found = re.match(r"v?(\d+)\.(\d+)", done.stdout.strip())
        if done.rc != 0 or found is None or tuple(int(part) for part in found.groups()) < OLDEST:
            raise RollbackError(
                f"{self.program} is {(done.stdout or done.stderr).strip()[:80] or 'no docker compose'}; expected docker compose "
                f"{OLDEST[0]}.{OLDEST[1]} or newer. Install it, or set compose_bin (rollback_docker_compose_bin) to another one."
            )

    def _env(self) -> dict[str, str]:
        given = self.connection
        env = {"DOCKER_HOST": given.docker_host, "COMPOSE_FILE": "", "COMPOSE_PROFILES": os.environ.get("COMPOSE_PROFILES", "")}
        if given.tls or given.validate_certs:
            env["DOCKER_TLS"] = "1"  # without it compose would talk in clear where nothing is verified
            env["DOCKER_TLS_VERIFY"] = "1" if given.validate_certs else ""
            env["DOCKER_CERT_PATH"] = self._certificates()
        return {key: value for key, value in env.items() if value or key == "DOCKER_TLS_VERIFY"}

    def _certificates(self) -> str:
        """The docker programs take three files of fixed names in one folder, and want the first even where nothing is verified."""
        folder = os.path.join(self.scratch, "docker-certificates")
        make_dir(folder, self.group)
        for name, path in (
            ("ca.pem", self.connection.trusted),
            ("cert.pem", self.connection.client_cert),
            ("key.pem", self.connection.client_key),
        ):
            link = os.path.join(folder, name)
            if os.path.lexists(link):
                os.unlink(link)
            if path:
                os.symlink(path, link)
        return folder

    def call(self, project: str | None, files: t.Sequence[str], env_files: t.Sequence[str], words: t.Sequence[str]) -> Completed:
        if not files:  # compose would look for some in the folders above
            raise RollbackError(f"There is no compose file for the project in {self.folder}.")
        argv = [self.program, "--ansi", "never", "--progress", "quiet", "--project-directory", self.folder]
        argv += [word for path in files for word in ("--file", path)]
        argv += [word for path in env_files for word in ("--env-file", path)]
        argv += ["--project-name", project] if project else []
        return self.cli([*argv, *words], env=self._env(), cwd=self.folder)

    def config(self, project: str | None, files: t.Sequence[str], env_files: t.Sequence[str]) -> Spec:
        """What compose makes of the files. It holds every value of the environment, so it is neither returned nor written to a log."""
        done = self.call(project, files, env_files, ["config", "--format", "json"])
        try:
            spec = json.loads(done.stdout) if done.rc == 0 else None
        except ValueError:
            spec = None
        if not isinstance(spec, dict):
            raise RollbackError(
                f"docker compose cannot read {', '.join(files)}: {_said(done)}. Correct the file, then run the same command again."
            )
        return spec

    def up(
        self,
        project: str,
        files: t.Sequence[str],
        env_files: t.Sequence[str],
        services: t.Mapping[str, int],
        start: bool = True,
        alone: bool = False,
    ) -> None:
        """Recreate what differs and start it: nothing is built, nothing is pulled.

        ``services`` are names with how many containers each has now (0 or 1: as the files say). ``alone`` leaves what they depend on
        unlooked at; it is no default, because then some versions of compose find a difference at the next ``up``.
        """
        words = ["up", "--no-build", "--pull", "never", "--detach" if start else "--no-start", *(["--no-deps"] if alone else [])]
        words += [word for name, number in sorted(services.items()) if number > 1 for word in ("--scale", f"{name}={number}")]
        done = self.call(project, files, env_files, [*words, *sorted(services)])
        if done.rc != 0:
            raise RollbackError(f"docker compose up of {', '.join(sorted(services))} failed: {_said(done)}.")

    def down(self, project: str, files: t.Sequence[str], seconds: float) -> None:
        done = self.call(project, files, (), ["down", "--remove-orphans", "--timeout", str(round(seconds))])
        if done.rc != 0:
            raise RollbackError(f"docker compose down of {project} failed: {_said(done)}.")


def _said(done: Completed) -> str:
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip() and "level=warning" not in line]
    return (" | ".join(lines[-4:]) or f"it ended with {done.rc} and said nothing")[-600:].rstrip(".")
