// Copyright (c) 2026 payops.rollback contributors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
'use strict';

const { Pool } = require('pg');
const config = require('./config');

const pool = new Pool({
  connectionString: config.databaseUrl,
  max: config.poolSize,
  connectionTimeoutMillis: config.connectTimeout,
  statement_timeout: config.statementTimeout,
  idleTimeoutMillis: 30000,
  application_name: `kejayangu-api/${config.version}`,
});

function log(message) {
  console.error(`${new Date().toISOString()} ${message}`);
}

// Without these handlers a connection that the server ends makes the process exit (POOL_ERROR_HANDLER=off).
if (config.poolErrorHandler) {
  pool.on('error', (error) => log(`idle database connection lost: ${error.message}`));
  pool.on('connect', (client) => client.on('error', (error) => log(`database connection lost: ${error.message}`)));
}

async function transaction(work) {
  const client = await pool.connect();
  let broken;
  try {
    await client.query('BEGIN');
    const result = await work(client);
    await client.query('COMMIT');
    return result;
  } catch (error) {
    broken = error;
    await client.query('ROLLBACK').then(
      () => {
        broken = undefined;
      },
      () => {},
    );
    throw error;
  } finally {
    client.release(broken);
  }
}

module.exports = { pool, transaction, log };
