#!/usr/bin/python
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_rollback
short_description: Roll the services of a compose project back to a rollback point
version_added: 1.0.0
description:
  - Records which image each service of a C(docker compose) project runs, by its ID, together with the compose and environment files.
    Makes sure that those images are on the host, switches to them and back.
  - A switch makes the image names of the services name the recorded images again, puts the files back, and recreates only the services
    that differ. Nothing is built and nothing is pulled by a tag.
  - The image that is left gets a tag of its own, so that clearing away nameless images does not take the way back. So do the images of points.
  - It never believes an exit code of compose. A release runs if its containers have the recorded images, stay up without a restart, their
    own health checks pass, and all probes succeed.
  - Behind a proxy the services can change without a failed request. O(state=beside) starts what is to come as a second project on other
    ports and judges it there, M(payops.rollback.haproxy_servers) sends everybody to it and waits until nobody is left, O(state=live) or
    O(state=previous) changes the services that nobody asks any more, the proxy sends everybody back, and O(state=alone) removes the
    second project. So the project that the team knows keeps its name and its ports. The role C(rollback_docker) does all of that.
  - A call that was killed anywhere is finished by the same call, or taken back with O(state=previous).
  - The program of compose is called by this module itself and dies with it. So a run that an emergency has replaced starts no container
    any more, which C(community.docker.docker_compose_v2) could not promise.
author:
  - payops.rollback contributors (@payops)
extends_documentation_fragment:
  - payops.rollback.attributes
  - payops.rollback.attributes.actiongroup
  - payops.rollback.run
  - payops.rollback.docker.engine
  - payops.rollback.compose
  - payops.rollback.probes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  undo_run:
    description:
      - The runs whose switch O(state=previous) takes back (or O(state=beside) prepares to take back), when those are others than O(run_id).
      - If none of them made the last switch, no switch is taken back; only a hold is ended.
    type: list
    elements: str
  state:
    description:
      - V(archived) means that the point holds which images the services run now, and their files.
      - V(staged) means that every image of the point is on the host and compose can read the files of the point. An image that is missing is
        loaded from the point, or pulled by its digest.
      - V(beside) means that a second project runs the images of the point, or with no O(version) those that O(state=previous) goes to, on
        other ports and healthy. It is called as the first one with C(-next). With services that cannot run twice nothing is started, and the
        result says why.
      - V(held) means that the services are stopped, and a responder answers every request on their published ports with 503 and C(Retry-After).
      - V(live) means that the services run the images of the point. It ends a hold, and stages first if needed.
      - V(previous) means that the services run what the last switch replaced, or what an unfinished switch was leaving.
      - V(alone) means that there is no second project.
      - V(started) means that the services run the images that they have now. It ends a hold or a stop.
      - V(stopped) means that the services are stopped, and nobody answers. They stay stopped when the engine or the host starts again.
      - V(complete) means that kept tags of images that neither run nor belong to a point are removed. There is no way back to those then.
    type: str
    choices: [archived, staged, beside, held, live, previous, alone, started, stopped, complete]
    required: true
  probes:
    description:
      - What must succeed before a release counts as healthy, beside its containers.
    default: []
requirements:
  - docker (Python library)
  - docker compose 2.17 or newer on the host
notes:
  - Run it as a user that may use the engine, and may write O(project_dir).
  - The environment files are part of the point, in files that only their owner can read.
  - While the services have fixed host ports and no second project serves, customers are not served from the moment in which the old
    container goes until the new one answers. The plan says so, with the reason and the time that the last switch took.
  - The second project joins the networks of the first one under another name, so services that call each other within the project do not
    find it. Only what comes through the proxy does. It has neither volumes nor names of containers of its own choice, and databases never
    get one.
  - Both releases run at the same time for a moment, so they must be able to; services without a port that the proxy reaches never do.
seealso:
  - module: payops.rollback.image_retag
  - module: payops.rollback.health_probe
  - module: payops.rollback.pm2_rollback
"""

EXAMPLES = r"""
---
- name: Keep what runs now as a rollback point
  payops.rollback.compose_rollback:
    store: /var/lib/payops-rollback
    system: kejayangu
    project_dir: /srv/kejayangu/api
    services: [api]
    version: "20231201_120000"
    state: archived

- name: Make everything ready for the way back
  payops.rollback.compose_rollback:
    store: /var/lib/payops-rollback
    system: kejayangu
    project_dir: /srv/kejayangu/api
    services: [api]
    version: "20231201_120000"
    state: staged

- name: Go back
  payops.rollback.compose_rollback:
    store: /var/lib/payops-rollback
    system: kejayangu
    project_dir: /srv/kejayangu/api
    services: [api]
    version: "20231201_120000"
    probes:
      - url: http://localhost:5000/health
    state: live

- name: And forward again
  payops.rollback.compose_rollback:
    store: /var/lib/payops-rollback
    system: kejayangu
    project_dir: /srv/kejayangu/api
    services: [api]
    state: previous
"""

RETURN = r"""
msg:
  description: What was done, in one sentence.
  returned: always
  type: str
  sample: kejayangu at 20231201_120000 runs, verified
actions:
  description: What was done, or in check mode would be done.
  returned: success
  type: list
  elements: str
steps:
  description: The steps with their times in milliseconds.
  returned: success
  type: list
  elements: dict
plan:
  description: How the switch goes, or went, including what it costs and why.
  returned: with state staged, live, previous or started
  type: list
  elements: str
app:
  description: The name of the project.
  returned: success
  type: str
live:
  description: The version, if it is known, the release (a hash over the images of the services), and the image ID of each service.
  returned: success
  type: dict
kept:
  description: What the last switch replaced.
  returned: success
  type: dict
staged:
  description: What is staged.
  returned: success
  type: dict
hold:
  description: Since when the services are held, by which run, and the deadline as seconds since 1970.
  returned: success
  type: dict
unfinished:
  description: A switch that was begun and not finished.
  returned: success
  type: dict
containers:
  description: The containers of the services.
  returned: success
  type: list
  elements: dict
beside:
  description: The second project while there may be one, with its services, which of its ports stands for which, and O(proxies) of its run.
  returned: success
  type: dict
  sample: {"project": "kejayangu-next", "version": "20231201_120000", "services": ["api-next"], "ports": {"5000": 5001}, "proxies": ["proxy1"]}
needed:
  description: Whether the services are going to change and the second project shall serve meanwhile.
  returned: with state beside
  type: bool
against:
  description: Why no second project can serve.
  returned: with state beside, when none can
  type: list
  elements: str
release:
  description: The release of O(version).
  returned: with O(version)
  type: str
at_version:
  description: Whether the images and files of O(version) were in place already.
  returned: with state staged or live
  type: bool
outage_ms:
  description: For how long nobody was served, from the begin of recreating until the release answered.
  returned: when services were recreated without a hold and without a second project
  type: float
removed:
  description: The tags that were removed.
  returned: with state complete
  type: list
  elements: str
notes:
  description: What is worth knowing, for example that compose could not read the file that a bad release has left.
  returned: success
  type: list
  elements: str
size:
  description: The size of the component in the point, in bytes.
  returned: with state archived
  type: int
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.payops.rollback.plugins.module_utils._docker._backend import STATES, STEPS, Backend
from ansible_collections.payops.rollback.plugins.module_utils._docker._project import compose_argument_spec, stack_of
from ansible_collections.payops.rollback.plugins.module_utils._docker._retag import COMPONENT
from ansible_collections.payops.rollback.plugins.module_utils._errors import RollbackError
from ansible_collections.payops.rollback.plugins.module_utils._module import execute, run_argument_spec, run_of


def reach(module: AnsibleModule) -> dict[str, t.Any]:
    params = module.params
    with run_of(module, COMPONENT, STEPS) as run, stack_of(module, run) as stack:
        try:
            return Backend(stack, module.check_mode).reach(params["state"], params["version"], params["undo_run"])
        except RollbackError as exc:
            exc.details.setdefault("steps", run.steps)
            raise


def main() -> None:
    spec = {
        **run_argument_spec(),
        **compose_argument_spec(),
        "state": {"type": "str", "choices": list(STATES), "required": True},
        "undo_run": {"type": "list", "elements": "str"},
    }
    required = [("state", state, ["version"]) for state in ("archived", "staged", "live")]
    execute(AnsibleModule(spec, supports_check_mode=True, required_if=required), reach)


if __name__ == "__main__":
    main()
