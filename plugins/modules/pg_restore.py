#!/usr/bin/python
# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_restore
short_description: Have PostgreSQL databases at a version
version_added: 1.0.0
description:
  - Restores databases from a rollback point B(beside) the live ones, compares them with the point, and gives them the production names
    in one transaction. What they replace is kept under another name and can be given its name back in the same way.
  - The interruption is about 0.1 seconds at any size. A client without a connection pooler sees one error per connection and must reconnect.
  - Nothing live is ever overwritten. Whatever fails before the flip leaves the live databases untouched. The same call again, also after
    a crash at any moment, finishes the job.
  - Sequences only go forward. Numbers that were given out are not given out again.
extends_documentation_fragment:
  - payops.rollback.attributes
  - payops.rollback.attributes.actiongroup
  - payops.rollback.run
  - payops.rollback.postgresql
  - payops.rollback.ledgers
attributes:
  check_mode:
    support: full
    details:
      - Shows the plan with rows newer than the point and what will happen to them, differences of the schema, every blocker, and estimates of time.
      - To look into a replaced database, which is closed, it is opened for the moment of one login, also in check mode.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - With V(staged) the databases of the point exist beside the live ones, compared with the point and closed to everybody.
        This may be done hours before.
      - With V(live) they have the production names. What is not staged yet is staged first. Before the flip the catalogue with every ACL, the
        properties, the number of rows, sequences and large objects of the staged databases are compared again, and no row may have been
        written to them in between.
      - With V(previous) the databases that a flip replaced have their names back, and what the flip had brought is kept. Without a flip
        the staged databases are dropped.
        Inside a run its own flip is undone, inside a run opened for an undo that of the run it took over, otherwise the newest one.
      - With V(complete) no database is left that any flip or undo replaced, and no staged one. This gives up what they hold. Before that the rows
        are counted that are only there; a database whose rows cannot be counted is not dropped. In check mode only that.
    type: str
    choices: [staged, live, previous, complete]
    default: live
  version:
    description:
      - The rollback point. Needed with O(state=staged) and O(state=live).
    type: str
  databases:
    description:
      - The production names. All of them flip in the same transaction.
    type: list
    elements: str
    required: true
  again:
    description:
      - Restore once more although the databases are at the version. Rows written since the flip are then only in the kept database.
    type: bool
    default: false
  jobs:
    description: How many tables and indexes are restored at a time.
    type: int
    default: 2
  allow_foreign:
    description: Accept a point that was taken on another PostgreSQL server.
    type: bool
    default: false
  sequence_margin:
    description:
      - How far sequences are set past the live value, in numbers, when a day of measured use is less. At least 10000.
    type: int
    default: 10000
  accept_replication:
    description:
      - Flip although logical replication slots or subscriptions belong to the replaced database. They stay with it.
    type: bool
    default: false
  terminate_wait:
    description:
      - For how many seconds to try the flip again, at most three times, while sessions do not end.
    type: float
    default: 30
  skip_entries:
    description:
      - Leave entries of the archive out whose description, as C(pg_restore -l) shows it, contains one of these texts, for example
        V(EVENT TRIGGER - audit). Each is reported.
    type: list
    elements: str
    default: []
  undo_run:
    description: With O(state=previous), the runs whose flip is undone. Several, where one had to take over from another on the same way.
    type: list
    elements: str
  count_newer:
    description:
      - Count, right after a flip and in the replaced database, the rows that are newer than the point. Costs about as much as C(count(*)) over
        its tables (1 second for 1.6 GB). Turn it off where an application waits for the flip; the count of O(state=staged) remains.
    type: bool
    default: true
  poolers:
    description:
      - The pgbouncers in front of the databases. Each is told to C(PAUSE) before the flip and to C(RESUME) after the flip was checked, also
        for O(state=previous). Their clients wait for about 0.1 seconds and see no error; without this, connections that a pooler holds
        break, and it may refuse new ones for its C(server_login_retry).
      - A client that is in the middle of its transaction is waited for, at most O(poolers[].pause_timeout). Then everything is resumed,
        nothing was changed, and the message says who held it.
      - A process of its own resumes when the module is killed meanwhile. What is paused still, after a power cut, the next run
        resumes first of all. It must name the same poolers.
      - Poolers of another make cannot be paused in this way and do not belong here.
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description: The pooler's host, or the folder of its socket.
        type: str
        default: 127.0.0.1
      port:
        description: The pooler's port.
        type: int
        default: 6432
      user:
        description: A user of its C(admin_users). One of its C(stats_users) may not pause.
        type: str
        required: true
      password:
        description: The password of O(poolers[].user).
        type: str
      dbname:
        description: The name of its console.
        type: str
        default: pgbouncer
      databases:
        description:
          - Entries of its C([databases]) to pause. By default all whose database is in O(databases), whatever clients call them.
        type: list
        elements: str
        default: []
      pause_timeout:
        description: For how many seconds to wait until clients have ended their transactions.
        type: float
        default: 5
      ssl_mode:
        description: How TLS is negotiated with the pooler, as in libpq.
        type: str
        choices: [allow, disable, prefer, require, verify-ca, verify-full]
        default: prefer
      ca_cert:
        description: The file with the certificate authorities that the pooler's certificate is checked against.
        type: path
  application_logins:
    description:
      - Logins that applications use. Each is tried before anything flips, in the database that has the name and in the staged one.
      - A login that would not get in after the flip is an obstacle, for example because of a missing C(CONNECT) in the point, a password that is
        not the server's, or a rule in C(pg_hba.conf). A rule that merely does not know the staged name is none, because the production name stays.
      - Logins that are in use and are not declared here are named in RV(notes).
    type: list
    elements: dict
    default: []
    suboptions:
      user:
        description: The role.
        type: str
        required: true
      password:
        description: Its password.
        type: str
      host:
        description: The host that the application connects to, a pooler included. O(login_host) if not given.
        type: str
      port:
        description: The port that the application connects to. O(login_port) if not given.
        type: int
      databases:
        description: Those of O(databases) that it uses. All if not given.
        type: list
        elements: str
        default: []
  carry:
    description:
      - Carry rows of the O(ledgers) into the live databases right behind the flip (O(state=live)) or the way back (O(state=previous)), as
        M(payops.rollback.pg_carry_back) does, in the same call. Customers who wait are spared the start of another module.
      - When that fails, the flip stays, and the same command again carries on.
    type: bool
    default: false
  allow_plain_sql:
    description:
      - Accept a plain SQL dump, which is a program that somebody wrote and not data that can be compared with anything.
      - Its statements are sent to the server by a role without superuser rights, in one transaction. No client program reads the file.
    type: bool
    default: false
  legacy_path:
    description:
      - A C(database_backup.sql) or the folder that holds it, as the team's old script wrote it. Needs O(allow_plain_sql=true) and
        exactly one entry in O(databases).
    type: path
    aliases: [plain_sql]
  plain_sql_sha256:
    description: The SHA-256 that the plain SQL dump must have.
    type: str
  plain_sql_roles:
    description:
      - Which existing role takes the place of a role that the plain SQL dump names as owner or grantee.
    type: dict
    default: {}
notes:
  - Needs a superuser, or a role with C(CREATEDB), C(pg_signal_backend) and membership in every role that owns something in the databases.
    What is missing is listed by name before anything is touched.
  - Before PostgreSQL 15 only a superuser restores a schema C(public) that has another owner or other grants than in a new database.
seealso:
  - module: payops.rollback.pg_snapshot
  - module: payops.rollback.pg_carry_back
author:
  - payops.rollback contributors (@payops)
"""

EXAMPLES = r"""
- name: Restore beside the live database and compare, hours before the maintenance
  payops.rollback.pg_restore:
    store: /var/lib/payops-rollback
    system: kejayangu
    databases: [kejayangu_payments]
    version: "20231201_120000"
    state: staged
    login_unix_socket: /var/run/postgresql

- name: Flip
  payops.rollback.pg_restore:
    store: /var/lib/payops-rollback
    system: kejayangu
    databases: [kejayangu_payments]
    version: "20231201_120000"
    state: live
    login_unix_socket: /var/run/postgresql

- name: Flip behind a pooler, after the application's login was tried
  payops.rollback.pg_restore:
    store: /var/lib/payops-rollback
    system: kejayangu
    databases: [kejayangu_payments]
    version: "20231201_120000"
    state: live
    login_unix_socket: /var/run/postgresql
    poolers:
      - host: 127.0.0.1
        user: pgbouncer_admin
        password: "{{ vault_pgbouncer_password }}"
    application_logins:
      - user: payments_app
        password: "{{ vault_payments_app_password }}"
        host: 127.0.0.1
        port: 6432

- name: It was a mistake
  payops.rollback.pg_restore:
    store: /var/lib/payops-rollback
    system: kejayangu
    databases: [kejayangu_payments]
    state: previous
    login_unix_socket: /var/run/postgresql

- name: Give up what was replaced
  payops.rollback.pg_restore:
    store: /var/lib/payops-rollback
    system: kejayangu
    databases: [kejayangu_payments]
    state: complete
    login_unix_socket: /var/run/postgresql
"""

RETURN = r"""
databases:
  description: Each database by its production name.
  returned: success
  type: dict
  contains:
    at_version:
      description: Whether it is the one that a flip to O(version) made and still has the point's catalogue.
      type: bool
    live_oid:
      description: The OID of the database that has the name.
      type: int
    staged:
      description: The name of the staged database.
      type: str
    kept:
      description: The name of the database that was replaced last.
      type: str
    rows_since:
      description: Rows per table that are newer than the point.
      type: dict
    waits_in:
      description: Databases that an interrupted run replaced, and whose rows nobody has carried back.
      type: list
      elements: str
    rows_waiting:
      description: Rows per table there that are newer than the point. Only counted with O(state=staged) outside check mode.
      type: dict
    rows_planned:
      description: For tables with newer rows, how many (RV(ignore:newer)), how many of them will be carried back (RV(ignore:carried)) and how many
        stay in the kept database (RV(ignore:stays)), each as a number or a range such as V(3-5), and whether it is a ledger.
      type: dict
    ledger_differences:
      description: Columns of ledgers that the point does not have or has with another type, in sentences. They are part of the plan.
      type: list
      elements: str
    to_carry:
      description: Whether there is something to carry back, although the database may be at the version.
      type: bool
    rows_gone:
      description: Rows per table that the point has and the live database no longer has in that form.
      type: dict
plan:
  description: What is going to be done, in sentences.
  returned: always
  type: list
  elements: str
blockers:
  description: What stands in the way, each with RV(ignore:code), RV(ignore:database), RV(ignore:what) and RV(ignore:do).
  returned: always
  type: list
  elements: dict
notes:
  description: What a person should know and what stops nothing.
  returned: always
  type: list
  elements: str
estimate:
  description: What is to be expected, from the size that the point recorded and what this host has measured.
  returned: when something is to be restored
  type: dict
  contains:
    staging_seconds:
      description: Seconds of restoring and comparing beside the live databases.
      type: float
    staging_is_least:
      description: Whether that is a lower bound, because the point is older than the record of its size.
      type: bool
    outage_ms:
      description: Milliseconds of interruption by the flip itself.
      type: float
    outage_is_measured:
      description: Whether that is what the last flip on this host took.
      type: bool
    sessions:
      description: Open sessions that the flip ends.
      type: int
    recheck_seconds:
      description: Seconds of the last look at the restored databases, for which held applications wait, too.
      type: float
attempts:
  description: How many attempts the renames took.
  returned: when databases flipped
  type: int
outage_ms:
  description:
    - For how long the production names could not be connected to, as this module saw it. With O(poolers) at least RV(paused_ms).
  returned: when databases flipped
  type: float
paused_ms:
  description: For how long clients of the poolers waited at most, transactions that had to end first included.
  returned: when databases flipped behind O(poolers)
  type: float
kept:
  description: Production name and the name under which the replaced database was kept.
  returned: always
  type: dict
sequences:
  description: Sequences that were moved, per database, each with the live value, where it stood and where it was set to.
  returned: when databases flipped
  type: dict
dropped:
  description: Databases that were dropped, or would be in check mode.
  returned: with O(state=complete)
  type: list
  elements: dict
  contains:
    database:
      description: The production name that it was made for.
      type: str
    name:
      description: Its name.
      type: str
    oid:
      description: Its OID.
      type: int
    bytes:
      description: Its size.
      type: int
    kind:
      description: V(kept) if a flip replaced it, V(undone) if an undo did, V(staged) if it never was live.
      type: str
    run:
      description: The run that replaced or restored it.
      type: str
    version:
      description: The point of that run.
      type: str
    at:
      description: When that was.
      type: str
    only_there:
      description: Rows per table that the live database does not hold in the same form. C(large objects) are told by their number.
      type: dict
    at_most:
      description: Tables of which that number is an upper bound, because they are too large to be compared without a common history, or
        because the live columns cannot hold some of the rows.
      type: list
      elements: str
carried_back:
  description: What M(payops.rollback.pg_carry_back) returns.
  returned: with O(carry=true) and O(ledgers), outside check mode
  type: dict
actions:
  description: What was done, in sentences.
  returned: always
  type: list
  elements: str
steps:
  description: Timed steps.
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.payops.rollback.plugins.module_utils._module import execute, run_argument_spec
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._connection import postgresql_argument_spec
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._entry import restore
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._ledgers import ledger_option
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._logins import argument_spec as application_logins
from ansible_collections.payops.rollback.plugins.module_utils._postgresql._pooler import argument_spec as poolers


def argument_spec() -> dict[str, dict]:
    return {
        **run_argument_spec(),
        **postgresql_argument_spec(),
        "state": {"type": "str", "choices": ["staged", "live", "previous", "complete"], "default": "live"},
        "version": {"type": "str"},
        "databases": {"type": "list", "elements": "str", "required": True},
        "again": {"type": "bool", "default": False},
        "jobs": {"type": "int", "default": 2},
        "allow_foreign": {"type": "bool", "default": False},
        "sequence_margin": {"type": "int", "default": 10000},
        "accept_replication": {"type": "bool", "default": False},
        "terminate_wait": {"type": "float", "default": 30},
        "skip_entries": {"type": "list", "elements": "str", "default": []},
        "undo_run": {"type": "list", "elements": "str"},
        "count_newer": {"type": "bool", "default": True},
        "ledgers": ledger_option(),
        "carry": {"type": "bool", "default": False},
        **poolers(),
        **application_logins(),
        "allow_plain_sql": {"type": "bool", "default": False},
        "legacy_path": {"type": "path", "aliases": ["plain_sql"]},
        "plain_sql_sha256": {"type": "str"},
        "plain_sql_roles": {"type": "dict", "default": {}},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(),
        supports_check_mode=True,
        required_if=[("state", "staged", ["version"]), ("state", "live", ["version"])],
    )
    execute(module, restore)


if __name__ == "__main__":
    main()
