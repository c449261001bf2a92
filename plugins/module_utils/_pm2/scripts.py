# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Note that this module util is PRIVATE to the collection: it may change without notice.
"""The two small Node.js programs of the collection, kept as text so that a module carries them to any host."""

from __future__ import annotations

import os

from ansible_collections.payops.rollback.plugins.module_utils._io import write_atomic

HOLD_HEADER = "X-Payops-Hold"

# Answers 503 on the application's port while it is held, so that payment providers and customers retry and nobody is refused.
RESPONDER = r"""'use strict';
const http = require('http');
const port = Number(process.env.PORT);
const hosts = (process.env.PAYOPS_HOLD_HOSTS || '').split(',').filter(Boolean);
const retryAfter = process.env.PAYOPS_HOLD_RETRY_AFTER || '30';
const candidates = [undefined, ...hosts];
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
listen();
"""

# Takes workers of a cluster away without losing a request: they stop accepting, finish what they have, then go.
# argv: PM2's folder, port, seconds to wait, ids. Says one line of JSON per id.
DRAIN = r"""'use strict';
const fs = require('fs');
const [library, portText, secondsText, ...ids] = process.argv.slice(2);
const pm2 = require(library);
const port = Number(portText).toString(16).toUpperCase().padStart(4, '0');
const until = Date.now() + Number(secondsText) * 1000;
function sockets(pid) {
  const found = new Set();
  let names;
  try {
    names = fs.readdirSync(`/proc/${pid}/fd`);
  } catch (error) {
    return found;
  }
  for (const name of names) {
    try {
      const link = fs.readlinkSync(`/proc/${pid}/fd/${name}`);
      if (link.startsWith('socket:[')) found.add(link.slice(8, -1));
    } catch (error) {
      // closed meanwhile
    }
  }
  return found;
}
function open(pid) {
  const own = sockets(pid);
  let count = 0;
  for (const family of ['tcp', 'tcp6']) {
    let text = '';
    try {
      text = fs.readFileSync(`/proc/${pid}/net/${family}`, 'utf8');
    } catch (error) {
      continue;
    }
    for (const line of text.split('\n').slice(1)) {
      const columns = line.trim().split(/\s+/);
      if (columns.length > 9 && columns[1].endsWith(`:${port}`) && columns[3] === '01' && own.has(columns[9])) count += 1;
    }
  }
  return count;
}
pm2.connect((failed) => {
  if (failed) {
    console.error(String(failed.message || failed));
    process.exit(1);
  }
  const call = (method, argument, done) => pm2.Client.executeRemote(method, argument, done);
  call('getMonitorData', {}, (error, list) => {
    if (error) {
      console.error(String(error.message || error));
      process.exit(1);
    }
    let left = ids.length;
    const finished = (id, open_connections, problem) => {
      console.log(JSON.stringify({ id, open_connections, problem }));
      left -= 1;
      if (left === 0) process.exit(0);
    };
    for (const id of ids) {
      const entry = list.find((candidate) => String(candidate.pm_id) === id);
      if (!entry) {
        finished(id, 0, 'unknown');
        continue;
      }
      const remove = (count) => call('deleteProcessId', entry.pm_id, (bad) => finished(id, count, bad ? String(bad.message || bad) : undefined));
      if (entry.pm2_env.exec_mode !== 'cluster_mode' || entry.pm2_env.status !== 'online') {
        remove(0);
        continue;
      }
      // The message that Node's own cluster.disconnect() sends: listening ends, requests in flight are finished.
      const packet = { id: entry.pm_id, topic: 'drain', data: {}, cmd: 'NODE_CLUSTER', act: 'disconnect' };
      call('sendDataToProcessId', packet, (bad) => {
        let calm = 0;
        const look = () => {
          const count = open(entry.pid);
          calm = count === 0 ? calm + 1 : 0;
          if (bad || calm >= 3 || Date.now() >= until) remove(count);
          else setTimeout(look, 10);
        };
        setTimeout(look, 20);
      });
    }
  });
});
"""


def install(folder: str) -> dict[str, str]:
    """Write both programs into ``folder`` where they differ; their paths."""
    paths = {}
    for name, text in (("hold", RESPONDER), ("drain", DRAIN)):
        path = os.path.join(folder, f"pm2-{name}.js")
        data = text.encode("utf-8")
        try:
            with open(path, "rb") as handle:
                same = handle.read() == data
        except FileNotFoundError:
            same = False
        if not same:
            write_atomic(path, data, 0o644)
        paths[name] = path
    return paths
