// Copyright (c) 2026 payops.rollback contributors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
'use strict';

// What /health looks at, by name; each answers facts to show or throws.
const { pool } = require('./db');

async function database() {
  const { rows } = await pool.query('SELECT version() AS version');
  return { version: rows[0].version.split(' ').slice(0, 2).join(' ') };
}

module.exports = { database };
