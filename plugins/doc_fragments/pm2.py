# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the options in ``_pm2.options.pm2_argument_spec``, except ``probes``."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  app:
    description: The name of the application in PM2.
    type: str
    required: true
  pm2_home:
    description:
      - The folder of the PM2 daemon (E(PM2_HOME)). C(.pm2) in the home of the user that the task runs as if not given.
    type: path
  pm2_bin:
    description: The full path of C(pm2). Looked for in E(PATH), and beside O(node_bin), if not given.
    type: path
  node_bin:
    description: The full path of C(node). Looked for in E(PATH) if not given.
    type: path
  user:
    description:
      - The operating system user that PM2 must belong to. The module refuses if it runs as another user.
    type: str
  port:
    description: The port that the application listens on. Taken from O(port_variable) in its environment if not given.
    type: int
  port_variable:
    description: The environment variable by which the application is told its port.
    type: str
    default: PORT
  instances:
    description: How many instances to run. As many as run now if not given.
    type: int
  exec_mode:
    description: How PM2 runs the application. As recorded in the point if not given.
    type: str
    choices: [cluster, fork]
  script:
    description: The script to run, relative to O(app_dir). As recorded in the point if not given.
    type: str
  env_from:
    description:
      - Which environment the release gets, V(point) the one that PM2 held when the point was taken, V(live) the one that it holds now.
      - Use V(live) after passwords were changed since the point.
    type: str
    choices: [point, live]
    default: point
  env:
    description: Environment variables that win over those of O(env_from).
    type: dict
    default: {}
  version_path:
    description:
      - The path in the JSON answer of the first HTTP probe where the application tells its version, for example V(version).
      - With it that probe must show the version that C(package.json) of the release names.
    type: str
  successes:
    description: How many times in a row each probe must succeed.
    type: int
    default: 3
  interval:
    description: How many seconds lie between two attempts of a probe.
    type: float
    default: 0.2
  singletons:
    description:
      - Other PM2 applications that run from the same folder and must not run twice, such as workers and cron jobs.
      - Those that run are stopped first, and start from the new release at the end.
      - PM2 starts what has a C(cron_restart) at its times even while it is stopped. Those times are taken away as well, and given back at the
        end; a job that only waited for its time is not run before it.
      - They must run from the path of O(app_dir), as the application does. One in the folder of a release itself (C(releases/2.0.0)) is refused,
        because PM2 would start it again from there.
      - All that PM2 runs from the release must be listed; O(state=staged) refuses otherwise. A switch after which any process still runs
        the release that was left is reported as failed, and the same call finishes it.
    type: list
    elements: str
    default: []
  preflight:
    description:
      - With O(state=staged), boot the release alone on a spare port, with E(PAYOPS_PREFLIGHT=1) in its environment, and probe it there.
    type: bool
    default: true
  preflight_env:
    description: Environment variables for the preflight only, for example the address of a staged database.
    type: dict
    default: {}
  hold_seconds:
    description: After how many seconds a hold counts as overdue. The deadline is written down and reported; nothing ends a hold by itself.
    type: int
    default: 900
  retry_after:
    description: What the header C(Retry-After) says while the application is held, in seconds.
    type: int
    default: 30
  stable_seconds:
    description: For how many seconds no instance may restart before it counts as running.
    type: float
    default: 2.0
  wait_seconds:
    description: How long to wait for each of - all instances running, all probes succeeding.
    type: float
    default: 30.0
  drain_seconds:
    description:
      - For how many seconds workers that are held or replaced may go on answering requests that they have, and take to exit.
      - In cluster mode they accept nothing new meanwhile, and are asked to exit (SIGINT) as soon as every request was answered. Connections
        that clients merely keep open are not waited for.
      - When the time is over, what is left is asked to exit, and ended half a second later.
    type: float
    default: 10.0
"""
