// Copyright (c) 2026 payops.rollback contributors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
'use strict';

// Apply migrations/*.sql in the order of their names, each in a transaction, each once.
const crypto = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');
const { Client } = require('pg');
const config = require('./src/config');

async function main() {
  const folder = path.join(__dirname, 'migrations');
  const client = new Client({ connectionString: config.migrationDatabaseUrl, application_name: 'kejayangu-migrate' });
  await client.connect();
  try {
    await client.query("SELECT pg_advisory_lock(hashtext('kejayangu-migrate'))");
    await client.query(
      `CREATE TABLE IF NOT EXISTS schema_migrations (
         version text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())`,
    );
    const { rows } = await client.query('SELECT version FROM schema_migrations');
    const applied = new Set(rows.map((row) => row.version));
    const files = fs.readdirSync(folder).filter((name) => name.endsWith('.sql')).sort();
    for (const file of files) {
      const version = path.basename(file, '.sql');
      if (applied.has(version)) continue;
      const text = fs.readFileSync(path.join(folder, file), 'utf8');
      const checksum = crypto.createHash('sha256').update(text).digest('hex');
      await client.query('BEGIN');
      await client.query(text);
      await client.query('INSERT INTO schema_migrations (version, checksum) VALUES ($1, $2)', [version, checksum]);
      await client.query('COMMIT');
      console.log(`applied ${version}`);
    }
  } finally {
    await client.end();
  }
}

main().catch((error) => {
  console.error(`migration failed: ${error.message}`);
  process.exit(1);
});
