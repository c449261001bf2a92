#!/usr/bin/python
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_retag
short_description: Make tags name given images, on a Docker engine or straight in a registry
version_added: 1.0.0
description:
  - Moves tags to images that are there already, known by their ID or digest. This is how an image is rolled back.
  - On an engine it uses the Docker SDK for Python. In a registry each tag costs one small request, whatever the size of the image.
    No layer is moved, and an image for several platforms stays whole.
  - The image that a tag leaves stays reachable under a kept tag in the same repository. The way back is the same call with RV(undo) as O(tags).
  - All tags are looked at before the first is moved. If one cannot be moved, those that were are put back.
  - Each tag is read again after it was moved.
  - It pulls, pushes, starts and removes nothing. Use C(community.docker.docker_image_pull), C(docker_image_push) and C(docker_compose_v2) for that.
author:
  - payops.rollback contributors (@payops)
extends_documentation_fragment:
  - payops.rollback.attributes
  - payops.rollback.attributes.actiongroup
  - payops.rollback.run
  - payops.rollback.docker
  - payops.rollback.docker.engine
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - docker (Python library) for engines
  - requests (Python library) for registries
options:
  tags:
    description:
      - The tags and the images that they shall name. They are moved all or not at all.
      - A tag that is made with O(allow_new) is the exception. It stays, for there is nothing that it could be put back to.
    type: list
    elements: dict
    required: true
    suboptions:
      tag:
        description:
          - The tag to move, for example V(kejayangu/api:latest). C(latest) is meant if no tag is written. A digest cannot be moved and is refused.
          - With O(registry) the host may be left out. If it is written, it must be that of O(registry.url).
        type: str
        required: true
      image:
        description:
          - The image that it shall name.
          - V(sha256:...) is an image ID or a digest. With O(registry) it is the digest of a manifest of the same repository, or the ID of
            an image for one platform that has a tag there.
          - V(repository@sha256:...) is a digest. V(repository:tag) is the image that this other tag names now.
          - On an engine, 12 digits of an ID are enough if no other image's begins so.
        type: str
        required: true
  allow_new:
    description:
      - Whether a tag that does not exist may be made.
      - Without it such a tag is refused, because a rollback of a misspelt tag would roll nothing back.
    type: bool
    default: false
  kept_prefix:
    description:
      - What kept tags begin with. The first 12 digits of the replaced image's ID or digest follow, so each image has one kept tag in its repository.
      - Kept tags are never moved. They can be named as O(tags[].image).
      - Kept tags are removed by nobody but you. Remove them when there will be no way back any more.
    type: str
    default: payops-kept-
"""

EXAMPLES = r"""
---
- name: Back to the images of yesterday
  payops.rollback.image_retag:
    store: /var/lib/payops-rollback
    system: kejayangu
    tags:
      - tag: kejayangu/api:latest
        image: sha256:5a8c1b7e3d2f4a6b8c0d9e1f2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d
      - tag: kejayangu/worker:latest
        image: kejayangu/worker@sha256:0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0
  register: retagged

- name: And forward again
  payops.rollback.image_retag:
    store: /var/lib/payops-rollback
    system: kejayangu
    tags: "{{ retagged.undo }}"

- name: The same in the registry, so that hosts that are added later get the right image
  payops.rollback.image_retag:
    store: /var/lib/payops-rollback
    system: kejayangu
    registry:
      url: https://registry.example:5000
      username: deploy
      password: "{{ registry_password }}"
      ca_path: /etc/ssl/certs/payments-ca.pem
    tags:
      - tag: kejayangu/api:production
        image: sha256:9d1c0f3e5b7a2948d6c8e0f1a3b5c7d9e1f2031425364758697a8b9cadbecfd0
"""

RETURN = r"""
msg:
  description: What was done, in one sentence.
  returned: always
  type: str
  sample: kejayangu/api:latest names 5a8c1b7e3d2f in the Docker engine at unix:///var/run/docker.sock, not 77d0a1b2c3d4.
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
tags:
  description: One entry per tag, in the given order.
  returned: success
  type: list
  elements: dict
  contains:
    tag:
      description: The tag.
      type: str
    image:
      description: The ID or, in a registry, the digest that it names. In check mode the one that it would name.
      type: str
    was:
      description: What it named when the call began. None for a new tag.
      type: str
    changed:
      description: Whether it was moved.
      type: bool
    replaced:
      description: The image that it left for this one, in this call or in the one that moved it.
      type: str
    kept:
      description: The tag under which RV(tags[].replaced) is kept.
      type: str
undo:
  description: The value of O(tags) that takes back what moved these tags to their images, in this call or in an earlier one.
  returned: success
  type: list
  elements: dict
notes:
  description: What is worth knowing, for example that a replaced image could not be kept because the registry had lost a part of it.
  returned: success
  type: list
  elements: str
blockers:
  description: Everything that stands in the way, one entry per tag and reason.
  returned: when nothing was done because of it
  type: list
  elements: str
available:
  description: The images that do exist in the repositories of the tags that could not be moved.
  returned: when nothing was done because of a missing image or tag
  type: list
  elements: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.payops.rollback.plugins.module_utils._docker._options import docker_argument_spec, place_of
from ansible_collections.payops.rollback.plugins.module_utils._docker._retag import COMPONENT, STEPS, Retag, difference, wishes_of
from ansible_collections.payops.rollback.plugins.module_utils._module import execute, run_argument_spec, run_of


def retag(module: AnsibleModule) -> dict[str, t.Any]:
    given = module.params
    wishes = wishes_of(given["tags"], given["kept_prefix"])
    with place_of(module) as place, run_of(module, COMPONENT, STEPS) as run:
        work = Retag(place, run, given["kept_prefix"], given["allow_new"])
        moves = work.plan(wishes)
        work.reach(moves, module.check_mode)
        result = work.result(moves, module.check_mode)
    if module._diff:
        result["diff"] = difference(moves)
    return result


def main() -> None:
    spec = {
        **run_argument_spec(),
        **docker_argument_spec(),
        "tags": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": {"tag": {"type": "str", "required": True}, "image": {"type": "str", "required": True}},
        },
        "allow_new": {"type": "bool", "default": False},
        "kept_prefix": {"type": "str", "default": "payops-kept-"},
    }
    execute(AnsibleModule(spec, supports_check_mode=True), retag)


if __name__ == "__main__":
    main()
