# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open-loop payment clients: requests start at a fixed rate whether or not earlier ones were answered.

    python -m tests.client --port 5000 --rate 20 --folder /tmp/clients

Each acknowledgement is on disk (fsync) before it counts. SIGTERM or SIGINT ends the paying, outstanding retries are
finished, then report.json is written.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import random
import signal
import time
import typing as t
import uuid

from tests.client.report import Ack, Failure, summary
from tests.client.wire import Connection

PROVIDERS = ("mpesa", "stripe", "flutterwave")
PAUSES = (0.3, 0.6, 1.2, 2.4, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0)


class Journal:
    """JSON lines, each fsynced; written by one thread, so that a slow disk does not slow the clients down."""

    def __init__(self, path: pathlib.Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1)

    def _write(self, record: Ack | Failure) -> None:
        self._file.write(json.dumps(dataclasses.asdict(record)) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    async def add(self, record: Ack | Failure) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._write, record)

    def close(self) -> None:
        self._thread.shutdown()
        self._file.close()


class Clients:
    """Many customers, one process."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.folder = pathlib.Path(options.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.acks: list[Ack] = []
        self.failures: list[Failure] = []
        self.gave_up: list[str] = []
        self.started = time.time()
        self._random = random.Random(options.seed)
        self._idle: list[Connection] = []
        self._stop = asyncio.Event()
        self._ack_journal = Journal(self.folder / "acks.jsonl")
        self._failure_journal = Journal(self.folder / "failures.jsonl")

    # --- one request --------------------------------------------------------------------------------------------

    async def _connection(self, keep: bool) -> Connection:
        while keep and self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            connection.close()
        return await Connection.open(self.options.host, self.options.port)

    async def _post(self, path: str, body: dict[str, t.Any], headers: dict[str, str]) -> tuple[int, t.Any, bool]:
        """Status, answer, and whether it went over a new connection; raises OSError or TimeoutError."""
        keep = self._random.random() < self.options.keepalive
        new = True
        connection: Connection | None = None
        reusable = False
        try:
            async with asyncio.timeout(self.options.timeout):
                connection = await self._connection(keep)
                new = not connection.used
                status, answer, reusable = await connection.post(self.options.host, path, body, headers, keep)
            return status, answer, new
        except (OSError, EOFError, ValueError, TimeoutError) as exc:
            name = "timeout" if isinstance(exc, TimeoutError) else getattr(exc, "strerror", None) or type(exc).__name__
            raise RequestFailed(name, new) from exc
        finally:
            if connection is not None:
                if reusable and len(self._idle) < self.options.kept:
                    self._idle.append(connection)
                else:
                    connection.close()

    async def _attempt(self, kind: str, key: str, number: int, path: str, body: dict[str, t.Any]) -> tuple[int, t.Any] | None:
        headers = {"Idempotency-Key": key} if kind == "payment" else {}
        try:
            status, answer, new = await self._post(path, body, headers)
            if status in (200, 201) and isinstance(answer, dict):
                return status, answer
            error = f"HTTP {status}"
        except RequestFailed as exc:
            error, new = exc.args
        failure = Failure(time.time(), key, number, kind, error, new)
        self.failures.append(failure)
        await self._failure_journal.add(failure)
        return None

    async def _until_done(self, kind: str, key: str, path: str, body: dict[str, t.Any]) -> tuple[int, t.Any, int] | None:
        """Try, and try again with the same key, a bounded number of times."""
        for number in range(1, self.options.retries + 2):
            done = await self._attempt(kind, key, number, path, body)
            if done is not None:
                return (*done, number)
            if number <= self.options.retries:
                await asyncio.sleep(PAUSES[min(number, len(PAUSES)) - 1] * self._random.uniform(0.8, 1.2))
        self.gave_up.append(key)
        return None

    # --- one customer -------------------------------------------------------------------------------------------

    async def _pay(self) -> None:
        key = str(uuid.uuid4())
        provider = self._random.choice(PROVIDERS)
        amount = f"{self._random.randint(1, 500000) / 100:.2f}"
        body = {
            "amount": amount,
            "currency": "KES",
            "provider": provider,
            "phone": f"+2547{self._random.randint(0, 499):08d}",
            "reference": f"order-{key[:8]}",
        }
        begin = time.monotonic()
        done = await self._until_done("payment", key, "/payments", body)
        if done is None:
            return
        status, answer, attempts = done
        ack = Ack(time.time(), str(answer["id"]), amount, key, provider, attempts, status == 200, round(time.monotonic() - begin, 4))
        await self._ack_journal.add(ack)
        self.acks.append(ack)
        if answer.get("checkout_request_id") and self.options.callbacks:
            await asyncio.sleep(self._random.uniform(0.2, 1.0))
            await self._until_done("callback", key, "/mpesa/callback", self._callback(answer, body))

    def _callback(self, payment: dict[str, t.Any], body: dict[str, t.Any]) -> dict[str, t.Any]:
        items = {
            "Amount": float(body["amount"]),
            "MpesaReceiptNumber": uuid.uuid4().hex[:10].upper(),
            "TransactionDate": int(time.strftime("%Y%m%d%H%M%S")),
            "PhoneNumber": int(body["phone"].lstrip("+")),
        }
        return {
            "Body": {
                "stkCallback": {
                    "MerchantRequestID": f"29115-{payment['id']}-1",
                    "CheckoutRequestID": payment["checkout_request_id"],
                    "ResultCode": 0,
                    "ResultDesc": "The service request is processed successfully.",
                    "CallbackMetadata": {"Item": [{"Name": name, "Value": value} for name, value in items.items()]},
                }
            }
        }

    # --- the whole run ------------------------------------------------------------------------------------------

    def stop(self) -> None:
        self._stop.set()

    async def run(self) -> dict[str, t.Any]:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self.stop)
        reporter = loop.create_task(self._report_often())
        paying: set[asyncio.Task[None]] = set()
        begin = loop.time()
        number = 0
        while not self._stop.is_set() and not (self.options.duration and loop.time() - begin >= self.options.duration):
            task = loop.create_task(self._pay())
            paying.add(task)
            task.add_done_callback(paying.discard)
            number += 1
            due = begin + number / self.options.rate
            try:
                async with asyncio.timeout(max(0.0, due - loop.time())):
                    await self._stop.wait()
            except TimeoutError:
                pass
        ended = time.time()
        if paying:
            await asyncio.wait(paying, timeout=self.options.grace)
        for task in list(paying):
            task.cancel()
        reporter.cancel()
        self._ack_journal.close()
        self._failure_journal.close()
        return self._write_report(ended, finished=True)

    async def _report_often(self) -> None:
        while True:
            self._write_report(time.time(), finished=False)
            await asyncio.sleep(1)

    def _write_report(self, end: float, finished: bool) -> dict[str, t.Any]:
        report = {
            **summary(self.acks, self.failures, self.started, end),
            "rate": self.options.rate,
            "started": self.started,
            "finished": finished,
            "gave_up": len(self.gave_up),
        }
        draft = self.folder / "report.json.new"
        draft.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        draft.rename(self.folder / "report.json")
        return report


class RequestFailed(Exception):
    """No answer: (what happened, whether it was a new connection)."""


def parser() -> argparse.ArgumentParser:
    known = argparse.ArgumentParser(prog="python -m tests.client", description="Open-loop payment clients.")
    known.add_argument("--host", default="127.0.0.1")
    known.add_argument("--port", type=int, required=True)
    known.add_argument("--folder", required=True, help="acks.jsonl, failures.jsonl and report.json are written here")
    known.add_argument("--rate", type=float, default=20.0, help="payments begun per second")
    known.add_argument("--duration", type=float, default=0.0, help="seconds; 0 until SIGTERM")
    known.add_argument("--timeout", type=float, default=5.0, help="seconds a client waits for an answer")
    known.add_argument("--retries", type=int, default=8, help="how often a failed payment is sent again with its key")
    known.add_argument("--keepalive", type=float, default=0.5, help="share of requests that reuse connections")
    known.add_argument("--kept", type=int, default=6, help="connections kept open at most")
    known.add_argument("--grace", type=float, default=25.0, help="seconds for outstanding retries at the end")
    known.add_argument("--seed", type=int, default=None)
    known.add_argument("--no-callbacks", dest="callbacks", action="store_false", help="send no M-Pesa callbacks")
    return known


async def _main(options: argparse.Namespace) -> dict[str, t.Any]:
    return await Clients(options).run()


def main(argv: t.Sequence[str] | None = None) -> int:
    print(json.dumps(asyncio.run(_main(parser().parse_args(argv))), indent=2))
    return 0
