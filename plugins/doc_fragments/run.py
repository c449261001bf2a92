# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the options in ``_module.run_argument_spec``."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  store:
    description:
      - The folder on this host that holds the rollback points of all systems, as an absolute path.
      - Everything of one system lies in the subfolder that O(system) names. The run's lock and journal lie in C(.run) below it.
    type: path
    required: true
  store_group:
    description:
      - The group that shares O(store) when several users of this host act on it, for example C(postgres) and the application's user.
      - New folders get mode V(2770) and that group. Without it they get mode V(0700).
    type: str
  system:
    description:
      - The payment system that is meant, for example V(kejayangu). It names a folder in O(store).
    type: str
    required: true
  run_id:
    description:
      - The run that this call is part of, as opened by M(payops.rollback.rollback_run).
      - With it the module refuses unless that run still holds the lock of this host, and writes every step to the run's journal.
      - Without it the module acts on its own. It refuses while any run holds the lock and writes no journal.
    type: str
  lease:
    description:
      - For how many seconds from now the run counts as alive when its controller cannot be seen from this host.
      - Set it to more than the longest time this call may take.
    type: int
    default: 900
  claim:
    description:
      - Only for an emergency. The module takes the lock of this host for O(run_id) itself before it acts, from whoever holds it, as
        M(payops.rollback.rollback_run) with O(payops.rollback.rollback_run#module:evict=true) does, and so saves a call.
      - Where the store is damaged, full or not to be written, the module does what it was told all the same. Nothing is
        remembered of it then, no lock is held, and C(unrecorded) in the result says why.
    type: dict
    suboptions:
      who:
        description: The person, as in M(payops.rollback.rollback_run).
        type: str
        required: true
      controller:
        description: What runs the playbook, as M(payops.rollback.rollback_gate) says it.
        type: dict
        required: true
      hosts:
        description: All hosts of the run.
        type: list
        elements: str
        required: true
      components:
        description: The components that the run touches.
        type: list
        elements: str
        required: true
"""

    # For modules that only read.
    STORE = r"""
options:
  store:
    description:
      - The folder on this host that holds the rollback points of all systems, as an absolute path.
    type: path
    required: true
  store_group:
    description:
      - The group that shares O(store). Reading needs it only to be the same option everywhere.
    type: str
  system:
    description:
      - The payment system that is meant, for example V(kejayangu). It names a folder in O(store).
    type: str
    required: true
"""
