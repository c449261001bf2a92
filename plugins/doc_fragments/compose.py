# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the options in ``_docker._project.compose_argument_spec``, except ``probes`` and those of the engine."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  project_dir:
    description: The folder on the host with the compose file.
    type: path
    required: true
    aliases: [project_src]
  project_name:
    description: The name of the project. As compose itself names it if not given.
    type: str
  files:
    description:
      - The compose files, relative to O(project_dir), in the order in which compose gets them.
      - Those that compose finds by itself if not given, C(docker-compose.yml) and C(docker-compose.override.yml) for example.
    type: list
    elements: str
    default: []
  env_files:
    description:
      - Files with environment variables that belong to a release, as C(env_file) of a service names them. C(.env) always is one.
      - Other compose files that C(extends) or C(include) name belong here, too.
      - They go back with the release, unless O(config_from=live).
    type: list
    elements: str
    default: []
  interpolate_from:
    description: The files that fill C(${...}) in the compose files in, if that is not C(.env). They belong to a release, too.
    type: list
    elements: str
    default: []
  compose_bin:
    description: The full path of the program C(docker-compose) (version 2). Looked for where the docker client looks for it if not given.
    type: path
  services:
    description:
      - The services that are rolled back, and stopped by a hold. Name those that have your code; leave databases and proxies out.
      - All services of the project if not given.
    type: list
    elements: str
    default: []
  ports:
    description: Ports of the host on which the services listen without publishing them (C(network_mode=host)), for the responder of a hold.
    type: list
    elements: int
    default: []
  config_from:
    description:
      - Which compose and environment files a release gets, V(point) those of the point, V(live) those that are there now.
      - Use V(live) after passwords were changed since the point.
    type: str
    choices: [point, live]
    default: point
  archive_images:
    description:
      - With O(state=archived), keep the images themselves in the point (C(docker save)), for the day on which neither the host nor the
        registry has them any more. It costs the size of the images for each point.
    type: bool
    default: false
  kept_prefix:
    description: What the tags begin with that keep images from being cleared away. The first 12 digits of the image's ID follow.
    type: str
    default: payops-kept-
  version:
    description: The name of the rollback point.
    type: str
  version_path:
    description:
      - The path in the JSON answer of the first HTTP probe where the application tells its version, for example V(version).
      - With it that probe must show the version in the image's label C(org.opencontainers.image.version), if it has one.
    type: str
  successes:
    description: How many times in a row each probe must succeed.
    type: int
    default: 3
  interval:
    description: How many seconds lie between two attempts of a probe.
    type: float
    default: 0.2
  hold_seconds:
    description: After how many seconds a hold counts as overdue. The deadline is written down and reported; nothing ends a hold by itself.
    type: int
    default: 900
  retry_after:
    description: What the header C(Retry-After) says while the services are held, in seconds.
    type: int
    default: 30
  stable_seconds:
    description: For how many seconds no container may restart before it counts as running.
    type: float
    default: 3.0
  wait_seconds:
    description: How long to wait for each of - all containers running and healthy, all probes succeeding.
    type: float
    default: 60.0
  drain_seconds:
    description: For how many seconds a container that is held may go on answering the requests that it has, after SIGTERM.
    type: float
    default: 10.0
  proxied_ports:
    description:
      - The ports of this host at which a proxy reaches the services now. With them a second project can serve while the services change
        (O(state=beside)), and the plan of O(state=staged) says whether it will.
    type: list
    elements: int
    default: []
  proxied_against:
    description: Why the proxy cannot send everybody elsewhere, for the plan. With anything in it no second project is started.
    type: list
    elements: str
    default: []
  proxies:
    description:
      - The names of the proxies that take part in this run. O(state=beside) remembers them as those that may send customers to the second
        project; O(state=alone) refuses while one of those is missing here, for nobody would send its customers back.
    type: list
    elements: str
    default: []
  next_ports:
    description:
      - The ports of the second project, one for each of O(proxied_ports) in rising order. The proxy must be allowed to reach them.
      - Free ones if not given.
    type: list
    elements: int
    default: []
"""
