// Copyright (c) 2026 payops.rollback contributors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
'use strict';

const { transaction } = require('./db');
const { Refused } = require('./payments');

function metadata(callback) {
  const items = (callback.CallbackMetadata && callback.CallbackMetadata.Item) || [];
  return Object.fromEntries(items.map((item) => [item.Name, item.Value]));
}

// Safaricom sends the result of an STK push, sometimes more than once: the CheckoutRequestID decides whether it is news.
async function acceptCallback(body) {
  const callback = body && body.Body && body.Body.stkCallback;
  if (!callback || !callback.CheckoutRequestID || !Number.isInteger(callback.ResultCode)) {
    throw new Refused(400, 'invalid_callback', 'expected Body.stkCallback with CheckoutRequestID and ResultCode');
  }
  const found = metadata(callback);
  return transaction(async (client) => {
    await client.query('INSERT INTO webhook_log (provider, event, body) VALUES ($1, $2, $3)', [
      'mpesa',
      'stk_callback',
      JSON.stringify(body),
    ]);
    const { rows } = await client.query('SELECT id, amount FROM payments WHERE checkout_request_id = $1 FOR UPDATE', [
      callback.CheckoutRequestID,
    ]);
    if (rows.length === 0) throw new Refused(404, 'unknown_checkout', `no payment waits for ${callback.CheckoutRequestID}`);
    const inserted = await client.query(
      `INSERT INTO mpesa_callbacks (checkout_request_id, merchant_request_id, payment_id, result_code, result_desc, receipt, amount, phone)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (checkout_request_id) DO NOTHING`,
      [
        callback.CheckoutRequestID,
        callback.MerchantRequestID ?? null,
        rows[0].id,
        callback.ResultCode,
        callback.ResultDesc ?? null,
        found.MpesaReceiptNumber ?? null,
        found.Amount ?? null,
        found.PhoneNumber === undefined ? null : String(found.PhoneNumber),
      ],
    );
    if (inserted.rowCount === 1) {
      await client.query('UPDATE payments SET status = $2, provider_ref = $3 WHERE id = $1', [
        rows[0].id,
        callback.ResultCode === 0 ? 'paid' : 'failed',
        found.MpesaReceiptNumber ?? null,
      ]);
    }
    return { news: inserted.rowCount === 1 };
  });
}

module.exports = { acceptCallback };
