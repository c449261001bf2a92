// Copyright (c) 2026 payops.rollback contributors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
'use strict';

const config = require('./config');
const checks = require('./checks');
const { pool } = require('./db');
const { PROVIDERS } = require('./payments');

const started = Date.now();

function common(ok) {
  return {
    status: ok ? 'ok' : 'unavailable',
    version: config.version,
    uptime_seconds: Math.round((Date.now() - started) / 1000),
    timestamp: new Date().toISOString(),
  };
}

async function run(check) {
  const begin = process.hrtime.bigint();
  try {
    const found = await check();
    const latency = Number(process.hrtime.bigint() - begin) / 1e6;
    return { status: 'ok', latency_ms: Math.round(latency * 100) / 100, ...found };
  } catch (error) {
    return { status: 'failed', error: error.message };
  }
}

async function runAll() {
  const names = Object.keys(checks);
  const results = await Promise.all(names.map((name) => run(checks[name])));
  return Object.fromEntries(names.map((name, index) => [name, results[index]]));
}

async function basic() {
  const found = await runAll();
  const failed = Object.keys(found).filter((name) => found[name].status !== 'ok');
  return { code: failed.length ? 503 : 200, body: { ...common(failed.length === 0), failed } };
}

async function detailed() {
  const found = await runAll();
  const usage = process.memoryUsage();
  const memory = {
    status: usage.rss < 1024 ** 3 ? 'ok' : 'high',
    rss_mb: Math.round(usage.rss / 1048576),
    heap_used_mb: Math.round(usage.heapUsed / 1048576),
  };
  const ok = [...Object.values(found), memory].every((check) => check.status === 'ok');
  const connections = { total: pool.totalCount, idle: pool.idleCount, waiting: pool.waitingCount };
  return { code: ok ? 200 : 503, body: { ...common(ok), pid: process.pid, connections, checks: { ...found, memory } } };
}

async function payments() {
  try {
    const { rows } = await pool.query(
      `SELECT provider, count(*) FILTER (WHERE status = 'paid')::int AS paid, count(*) FILTER (WHERE status = 'pending')::int AS pending,
              count(*) FILTER (WHERE status = 'failed')::int AS failed, max(created_at) AS newest
       FROM payments WHERE created_at > now() - interval '1 hour' GROUP BY provider`,
    );
    const recent = Object.fromEntries(rows.map((row) => [row.provider, row]));
    const providers = {};
    for (const name of PROVIDERS) {
      const seen = recent[name] || { paid: 0, pending: 0, failed: 0, newest: null };
      const settled = seen.paid + seen.failed;
      providers[name] = {
        status: settled >= 10 && seen.failed > settled / 2 ? 'degraded' : 'operational',
        last_hour: { paid: seen.paid, pending: seen.pending, failed: seen.failed },
        newest: seen.newest,
      };
    }
    const ok = Object.values(providers).every((provider) => provider.status === 'operational');
    return { code: ok ? 200 : 503, body: { ...common(ok), providers } };
  } catch (error) {
    return { code: 503, body: { ...common(false), providers: {}, error: error.message } };
  }
}

module.exports = { basic, detailed, payments };
