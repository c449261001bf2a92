'use strict';
const { version } = require('./package.json');
require('http').createServer((request, response) => {
  response.writeHead(200, { 'Content-Type': 'application/json' });
  response.end(JSON.stringify({ status: 'ok', version }));
}).listen(Number(process.env.PORT));
