// Copyright (c) 2026 payops.rollback contributors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
'use strict';

const path = require('node:path');

module.exports = {
  apps: [
    {
      name: process.env.APP_NAME || 'kejayangu-api',
      cwd: process.env.APP_DIR || __dirname,
      script: path.join(process.env.APP_DIR || __dirname, 'src', 'server.js'),
      exec_mode: process.env.APP_MODE || 'cluster',
      instances: process.env.APP_MODE === 'fork' ? 1 : Number(process.env.APP_INSTANCES || 2),
      wait_ready: true,
      listen_timeout: 8000,
      kill_timeout: 5000,
    },
  ],
};
