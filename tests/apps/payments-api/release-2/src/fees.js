// Copyright (c) 2026 payops.rollback contributors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
'use strict';

// New in release 2: a fee for card payments, read from rules in the database over connections of its own.
const { Pool } = require('pg');
const config = require('./config');
const { log } = require('./db');

const pool = new Pool({
  connectionString: config.databaseUrl,
  max: 4,
  connectionTimeoutMillis: config.connectTimeout,
  application_name: `kejayangu-fees/${config.version}`,
});

if (config.poolErrorHandler) {
  pool.on('error', (error) => log(`idle fee connection lost: ${error.message}`));
  pool.on('connect', (client) => client.on('error', (error) => log(`fee connection lost: ${error.message}`)));
}

// The bug of release 2: nobody gives the connection back. The first card payments are fine and every check right after
// the deployment passes; after a few under real traffic there is no connection left and each card payment fails.
async function feeOf(payment) {
  if (payment.provider !== 'stripe') return 0;
  const client = await pool.connect();
  const { rows } = await client.query('SELECT percent FROM fee_rules WHERE provider = $1', [payment.provider]);
  return Math.round(Number(payment.amount) * Number(rows[0].percent)) / 100;
}

async function check() {
  await pool.query('SELECT 1 FROM fee_rules LIMIT 1');
  return { connections: pool.totalCount };
}

module.exports = { feeOf, check };
