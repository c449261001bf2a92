// Copyright (c) 2026 payops.rollback contributors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
'use strict';

const net = require('node:net');
const express = require('express');
const config = require('./config');
const { pool, log } = require('./db');
const health = require('./health');
const { acceptCallback } = require('./mpesa');
const { Refused, createPayment, findPayment } = require('./payments');

const app = express();
let stopping = false;

app.disable('x-powered-by');
app.disable('etag');
app.use((request, response, next) => {
  response.set({
    'X-Content-Type-Options': 'nosniff',
    'X-Frame-Options': 'DENY',
    'Strict-Transport-Security': 'max-age=31536000; includeSubDomains',
    'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
    'Referrer-Policy': 'no-referrer',
    'Cache-Control': 'no-store',
    'X-Api-Version': config.version,
  });
  if (stopping) response.set('Connection', 'close');
  next();
});
app.use(express.json({ limit: '64kb' }));

for (const [path, check] of [
  ['/health', health.basic],
  ['/health/detailed', health.detailed],
  ['/health/payments', health.payments],
]) {
  app.get(path, async (request, response) => {
    const { code, body } = await check();
    response.status(code).json(body);
  });
}

app.post('/payments', async (request, response) => {
  const { created, payment } = await createPayment(request.get('Idempotency-Key'), request.body);
  response.status(created ? 201 : 200).json(payment);
});

app.get('/payments/:id', async (request, response) => {
  response.json(await findPayment(request.params.id));
});

app.post('/mpesa/callback', async (request, response) => {
  await acceptCallback(request.body);
  response.json({ ResultCode: 0, ResultDesc: 'Accepted' });
});

app.use((request, response) => {
  response.status(404).json({ error: 'not_found', message: `no route ${request.method} ${request.path}` });
});

// Anything unexpected is answered 503 with Retry-After: clients and payment providers try again, nothing is lost.
app.use((error, request, response, next) => {
  if (response.headersSent) {
    next(error);
  } else if (error instanceof Refused) {
    response.status(error.status).json({ error: error.code, message: error.message });
  } else if (error.status >= 400 && error.status < 500) {
    response.status(error.status).json({ error: 'bad_request', message: 'the request could not be read' });
  } else {
    log(`${request.method} ${request.path}: ${error.code || ''} ${error.message}`);
    response.set('Retry-After', '2').status(503).json({ error: 'temporarily_unavailable', message: 'try again with the same Idempotency-Key' });
  }
});

const server = app.listen(config.port, config.host, (error) => {
  if (error) {
    log(`cannot listen on ${config.host}:${config.port}: ${error.message}`);
    process.exit(1);
  }
  log(`version ${config.version} listens on ${config.host}:${config.port}`);
  setTimeout(() => process.send && process.send('ready'), config.readyDelay);
});
server.keepAliveTimeout = 65000;

function stop(reason) {
  if (stopping) return;
  stopping = true;
  log(`${reason}: finishing what is under way`);
  // Not server.close(), which hangs up at once on connections without a request: who sends on one at that very moment would get no answer.
  // For half a second each answer says 'Connection: close', so that whoever is busy leaves by himself; then the rest is closed.
  net.Server.prototype.close.call(server, () => pool.end().finally(() => process.exit(0)));
  setTimeout(() => setInterval(() => server.closeIdleConnections(), 50).unref(), 500);
  setTimeout(() => process.exit(0), 4000).unref();
}

process.on('SIGINT', () => stop('SIGINT'));
process.on('SIGTERM', () => stop('SIGTERM'));
process.on('message', (message) => message === 'shutdown' && stop('shutdown message'));
