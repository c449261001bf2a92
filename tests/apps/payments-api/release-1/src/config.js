// Copyright (c) 2026 payops.rollback contributors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
'use strict';

// Settings come from the environment; what is not there comes from the file .env in the working directory.
const fs = require('node:fs');
const path = require('node:path');

function readEnvFile(file) {
  let text;
  try {
    text = fs.readFileSync(file, 'utf8');
  } catch (error) {
    if (error.code === 'ENOENT') return {};
    throw error;
  }
  const found = {};
  for (const line of text.split(/\r?\n/)) {
    const match = /^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$/.exec(line);
    if (!match) continue;
    const quoted = /^(['"])(.*)\1$/.exec(match[2]);
    found[match[1]] = quoted ? quoted[2] : match[2];
  }
  return found;
}

const env = { ...readEnvFile(path.join(process.cwd(), '.env')), ...process.env };
const manifest = JSON.parse(fs.readFileSync(path.join(__dirname, '..', 'package.json'), 'utf8'));

module.exports = {
  version: manifest.version,
  port: Number(env.PORT || 5000),
  host: env.HOST || '127.0.0.1',
  databaseUrl: env.DATABASE_URL,
  migrationDatabaseUrl: env.MIGRATION_DATABASE_URL || env.DATABASE_URL,
  poolSize: Number(env.POOL_SIZE || 8),
  poolErrorHandler: env.POOL_ERROR_HANDLER !== 'off',
  connectTimeout: Number(env.CONNECT_TIMEOUT_MS || 1000),
  statementTimeout: Number(env.STATEMENT_TIMEOUT_MS || 5000),
  readyDelay: Number(env.READY_DELAY_MS || 0),
};
