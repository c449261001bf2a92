# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The story: deploy, back up, deploy something bad, go back, count the money."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
import typing as t

from tests.client import check
from tests.client.report import Ack, Failure, read, summary
from tests.demo import screen
from tests.demo.stage import DATABASE, Stage, ansible_playbook
from tests.lab import app, ports
from tests.lab.node import ROOT

RATE = float(os.environ.get("DEMO_RATE", "20"))
AIM_OUTAGE = 5.0


class Story:
    """Tells it on the screen and remembers what did not hold."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.wrong: list[str] = []

    def holds(self, ok: bool, text: str) -> bool:
        screen.verdict(ok, text)
        if not ok:
            self.wrong.append(text)
        return ok

    def command(self, playbook: str, *words: str) -> list[str]:
        extra = [part for word in words for part in ("-e", word)]
        return [ansible_playbook(), f"playbooks/{playbook}.yml", "-i", str(self.stage.inventory), *extra]

    def shown(self, argv: t.Sequence[str]) -> str:
        return shlex.join(["ansible-playbook", *argv[1:]])

    def play(self, playbook: str, *words: str) -> int:
        argv = self.command(playbook, *words)
        screen.typed(self.shown(argv))
        env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOWS": "1"}
        if screen.COLOUR:
            env["ANSIBLE_FORCE_COLOR"] = "1"
        return screen.stream(argv, ROOT, env, self.stage.log)

    # --- the chapters -------------------------------------------------------------------------------------------

    def tell(self) -> bool:
        self.set_the_stage()
        self.stage.start_clients(RATE)
        try:
            self.let_flow(5)
            if not self.take_a_point():
                return False
            self.let_flow(3)
            self.deploy_the_bad_release()
            begin = time.time()
            self.go_back()
            end = time.time()
            self.let_flow(6)
        finally:
            with screen.busy("clients finish their retries"):
                self.stage.stop_clients()
        self.look_at_the_system()
        self.ask_the_clients(begin, end)
        return not self.wrong

    def set_the_stage(self) -> None:
        screen.heading("PostgreSQL, PM2 and release 1 of a payment API")
        with screen.busy("PostgreSQL 18 with an owner, a migrator, an application and an operator role"):
            cluster = self.stage.start_database()
        with screen.busy("PM2 of its own (installed once, then cached)"):
            self.stage.pm2.start_daemon()
        with screen.busy("release 1, its schema, 20,000 payments of history, two workers"):
            self.stage.deploy_first()
        self.stage.write_inventory()
        screen.note(f"PostgreSQL on port {cluster.port}, API on port {self.stage.port}, everything in {self.stage.folder}")
        screen.note(f"{RATE:g} payments per second now flow, each with an Idempotency-Key, over new and kept connections")

    def let_flow(self, seconds: float) -> None:
        time.sleep(seconds)
        seen = self.stage.clients_report()
        if seen:
            screen.note(f"clients: {seen['acknowledged']} payments acknowledged, {seen['failed']} requests failed so far")

    def take_a_point(self) -> bool:
        screen.heading("The one line before a deployment: take a point")
        code = self.play("backup", "label=before-release-2")
        points = self.stage.points()
        return self.holds(code == 0 and bool(points), f"backup exits {code}, points: {', '.join(points) or 'none'}")

    def deploy_the_bad_release(self) -> None:
        screen.heading("Release 2 goes out, as the team deploys: migration, new code in api/, pm2 reload")
        for line in ("node migrate.js", "cp -r release-2/. api/", f"pm2 reload {app.APP_NAME}"):
            screen.typed(line)
        with screen.busy("deployment"):
            self.stage.deploy_second()
            with contextlib.suppress(TimeoutError):  # pm2 reload says done when it has waited, not when the release answers
                ports.wait_until(lambda: self.stage.health()[1].get("version") == "2.0.0", "release 2 to answer", 60, 0.1)
        self.holds(self.stage.health()[1].get("version") == "2.0.0", "release 2 answers, and right after the deployment it looks well")
        with screen.busy("waiting for real traffic to show what is wrong"):
            ports.wait_until(self._ill, "release 2 to fall ill", 90, 0.25)
        code, answer = self.stage.health()
        screen.typed(f"curl -s -w '%{{http_code}}' http://127.0.0.1:{self.stage.port}/health")
        screen.note(f"HTTP {code} {answer}")
        cluster = self.stage.cluster
        if cluster is not None:
            lost = cluster.sql("SELECT count(*) FROM payments WHERE status = 'pending' AND reference LIKE 'history-%'", dbname=DATABASE)[0][
                0
            ]
            screen.note(f"and the migration has set {lost} settled M-Pesa payments of the past back to pending; their receipts are gone")

    def _ill(self) -> bool:
        return all(self.stage.health()[0] != 200 for attempt in range(4))

    def go_back(self) -> None:
        screen.heading("Back: application and database together")
        version = self.stage.points()[-1]
        code = self.play("rollback_full", f"version={version}")
        self.holds(code == 0, f"rollback_full exits {code}")

    def look_at_the_system(self) -> None:
        screen.heading("The system now")
        code, answer = self.stage.health()
        self.holds(code == 200 and answer.get("version") == "1.0.0", f"GET /health: {code}, version {answer.get('version')}")
        apps = self.stage.pm2.jlist()
        listed = ", ".join(f"{each['name']}:{each['pm2_env'].get('NODE_APP_INSTANCE')} {each['pm2_env']['status']}" for each in apps)
        names = sorted((each["name"], each["pm2_env"].get("NODE_APP_INSTANCE"), each["pm2_env"]["status"]) for each in apps)
        self.holds(names == [(app.APP_NAME, number, "online") for number in (0, 1)], f"PM2 runs {listed}")
        cluster = self.stage.cluster
        if cluster is None:
            return
        damaged, fees = cluster.sql(
            "SELECT (SELECT count(*) FROM payments WHERE provider = 'mpesa' AND status = 'pending' AND reference LIKE 'history-%'),"
            " to_regclass('fee_rules') IS NOT NULL",
            dbname=DATABASE,
        )[0]
        self.holds(
            damaged == 0 and not fees, f"database {DATABASE}: {damaged} payments of history damaged, schema of release {2 if fees else 1}"
        )

    def ask_the_clients(self, begin: float, end: float) -> None:
        screen.heading("What the clients saw")
        acks = read(self.stage.clients / "acks.jsonl", Ack)
        failures = read(self.stage.clients / "failures.jsonl", Failure)
        # To the very last answer: the clients' own report ends where they stop to begin payments.
        last = max((each.time for each in (*acks, *failures)), default=end)
        whole = summary(acks, failures, self.stage.clients_report().get("started", begin), last)
        during = summary(acks, failures, begin, end)
        rows = (("", "whole demo", "rollback"), *((name, str(whole.get(key)), str(during[key])) for name, key in FIGURES))
        for name, one, two in rows:
            screen.note(f"{name:32}{one:>12}{two:>12}")
        for error, number in during["errors"].items():
            screen.note(f"  during the rollback: {number} x {error}")
        # A measurement, not a verdict: on a machine that is busy with other things every second is longer.
        met = (
            "met" if during["outage_seconds"] <= AIM_OUTAGE else f"missed; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        )
        screen.note(f"outage of the rollback as the clients saw it: {during['outage_seconds']} s (aim: {AIM_OUTAGE:g} s, {met})")
        if self.stage.cluster is not None:
            found = check.check(self.stage.clients / "acks.jsonl", self.stage.cluster.params(), DATABASE)
            self.holds(found.ok and found.acknowledged > 0, found.sentence())

    def look_around(self) -> None:
        """Commands for KEEP=1."""
        stage = self.stage
        screen.heading("It keeps running. Look around:")
        screen.typed(f"curl -s http://127.0.0.1:{stage.port}/health/detailed")
        if stage.cluster is not None:
            screen.typed(
                f'PGPASSWORD=$(python3 -c \'import json; print(json.load(open("{stage.cluster.root}/cluster.json"))["password"])\') '
                f"{stage.cluster.program('psql')} -h 127.0.0.1 -p {stage.cluster.port} -U postgres -l"
            )
        screen.typed(f"PM2_HOME={stage.folder}/pm2 {stage.pm2.node_bin} {stage.pm2.bin} list")
        for playbook in ("rollback_points", "verify", "undo", "complete"):
            screen.typed(self.command(playbook))
        screen.typed(
            f"{shlex.quote(sys.executable)} -m tests.client --port {stage.port} --folder {stage.folder}/more-clients --duration 30"
        )
        screen.note("End it and remove everything:")
        screen.typed(f"{shlex.quote(sys.executable)} -m tests.demo stop")


FIGURES = (
    ("requests to pay", "requests"),
    ("failed ones", "failed"),
    ("failed callbacks of M-Pesa", "failed_callbacks"),
    ("payments acknowledged", "acknowledged"),
    ("of them after a retry", "retried_with_success"),
    ("longest time without a success, s", "outage_seconds"),
    ("p50 until acknowledged, ms", "p50_ms"),
    ("p95 until acknowledged, ms", "p95_ms"),
)
