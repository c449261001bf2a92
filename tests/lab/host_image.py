# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image of a host: a small Debian with sshd, sudo, Python, PostgreSQL, HAProxy, Node and PM2. One for every role."""

from __future__ import annotations

import os
import pathlib
import shutil
import tarfile
import tempfile

from tests.lab import images
from tests.lab.docker import Engine
from tests.lab.node import cache_dir, find_node, install_pm2

IMAGE = "payops-test/host"
PACKAGES = ("haproxy", "openssh-server", "postgresql", "procps", "python3", "python3-psycopg2", "sudo")
PAYMENTS = (1500, 1500)
HERE = pathlib.Path(__file__).resolve().parent / "host"
# Nobody logs in with a password. PM2 belongs to `payments`, the server to `postgres`; both share the store of the collection.
SET_UP = (
    "useradd -m -s /bin/bash -p '*' deploy && useradd -u 1500 -m -s /bin/bash payments && groupadd payops"
    " && usermod -aG payops payments && usermod -aG payops postgres"
    " && echo 'deploy ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/deploy && chmod 440 /etc/sudoers.d/deploy"
    " && ln -s /opt/pm2/node_modules/.bin /opt/pm2/bin && install -d -o payments -g payments /srv/payments"
    " && printf '%s\\n' 'UseDNS no' 'PasswordAuthentication no' 'MaxStartups 100' 'UsePAM no' > /etc/ssh/sshd_config.d/fleet.conf"
)


def make(engine: Engine) -> str:
    """The image, from the cache but for the first time; its name."""
    node, pm2 = find_node(), install_pm2()
    name = f"{IMAGE}:{node.version}"
    if engine.names(name) is not None:
        return name
    base = images.base(engine, PACKAGES)
    with tempfile.TemporaryDirectory(prefix="host-image-", dir=cache_dir()) as folder:
        root = pathlib.Path(folder)
        (root / "usr/local/bin").mkdir(parents=True)
        (root / "usr/local/sbin").mkdir()
        shutil.copyfile(node.bin.resolve(), root / "usr/local/bin/node")
        shutil.copyfile(HERE / "init", root / "usr/local/sbin/init")
        for program in ("bin/node", "sbin/init"):
            (root / "usr/local" / program).chmod(0o755)
        images.libraries(node.bin, root, _files(base_tar=images.base_tar(PACKAGES)))
        shutil.copytree(pm2.bin.parents[2], root / "opt/pm2", symlinks=True)
        images.build(
            engine, name, root, [f"FROM {base}", "COPY usr /usr", "COPY opt /opt", f"RUN {SET_UP}", 'CMD ["/usr/local/sbin/init"]']
        )
    return name


def _files(base_tar: pathlib.Path) -> set[str]:
    with tarfile.open(base_tar) as archive:
        return {f"/{os.path.normpath(member)}" for member in archive.getnames()}
