# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The responder: the one Node.js program of the collection, kept as text so that a module carries it to any host."""

from __future__ import annotations

import os

from ansible_collections.payops.rollback.plugins.module_utils._io import write_atomic

# Answers 503 on the application's port while it is held, so that payment providers and customers retry and nobody is refused.
RESPONDER = r"""'use strict';
const fs = require('fs');
const http = require('http');
const port = Number(process.env.PORT);
const hosts = (process.env.PAYOPS_HOLD_HOSTS || '').split(',').filter(Boolean);
const retryAfter = process.env.PAYOPS_HOLD_RETRY_AFTER || '30';
// The same address as the application's, or it could not listen beside us, nor after us. One that gave no host listens on ::,
// and on 0.0.0.0 only where the machine has no IPv6 at all.
const none = fs.existsSync('/proc/net/tcp6') ? '::' : '0.0.0.0';
const everywhere = hosts.length === 0 || hosts.includes(none);
const candidates = everywhere ? [undefined, ...hosts] : [...hosts, undefined];
const body = JSON.stringify({
  status: 'unavailable',
  error: 'maintenance',
  message: 'A rollback is under way. Nothing was processed; please try again.',
  retry_after: Number(retryAfter),
});
const server = http.createServer((request, response) => {
  const answer = () => {
    if (response.headersSent) return;
    response.writeHead(503, {
      'Content-Type': 'application/json; charset=utf-8',
      'Content-Length': Buffer.byteLength(body),
      'Cache-Control': 'no-store',
      'Retry-After': retryAfter,
      'X-Payops-Hold': process.env.PAYOPS_HOLD_RUN || 'held',
      Connection: 'close',
    });
    response.end(request.method === 'HEAD' ? undefined : body);
  };
  request.on('end', answer);
  request.on('error', () => {});
  request.resume();
  setTimeout(answer, 2000).unref();
});
server.on('clientError', (error, socket) => socket.destroy());
let attempt = 0;
function listen() {
  const host = candidates[attempt % candidates.length];
  attempt += 1;
  server.listen(host === undefined ? { port } : { port, host });
}
server.on('error', (error) => {
  if (error.code !== 'EADDRINUSE' && error.code !== 'EADDRNOTAVAIL') throw error;
  setTimeout(listen, 1);
});
function leave() {
  server.close(() => process.exit(0));
  if (server.closeIdleConnections) server.closeIdleConnections();
  setTimeout(() => process.exit(0), 1000).unref();
}
process.on('SIGINT', leave);
process.on('SIGTERM', leave);
setInterval(() => {}, 60000); // stay until PM2 says so, also when nothing listens any more
listen();
"""


def install(folder: str) -> str:
    """Write the responder into ``folder`` where it differs; its path."""
    path = os.path.join(folder, "pm2-hold.js")
    data = RESPONDER.encode("utf-8")
    try:
        with open(path, "rb") as handle:
            same = handle.read() == data
    except FileNotFoundError:
        same = False
    if not same:
        write_atomic(path, data, 0o644)
    return path
