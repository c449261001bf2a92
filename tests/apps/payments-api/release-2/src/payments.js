// Copyright (c) 2026 payops.rollback contributors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
'use strict';

const crypto = require('node:crypto');
const { pool, transaction } = require('./db');
const { feeOf } = require('./fees');

const PROVIDERS = ['mpesa', 'stripe', 'flutterwave'];
const AMOUNT = /^\d{1,10}(\.\d{1,2})?$/;

class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

function checked(body) {
  const { provider, currency = 'KES', phone, reference } = body || {};
  const amount = String((body || {}).amount ?? '');
  if (!AMOUNT.test(amount) || Number(amount) <= 0) {
    throw new Refused(400, 'invalid_amount', 'amount must be a positive number with at most two decimals');
  }
  if (!PROVIDERS.includes(provider)) throw new Refused(400, 'invalid_provider', `provider must be one of ${PROVIDERS.join(', ')}`);
  if (!/^[A-Z]{3}$/.test(currency)) throw new Refused(400, 'invalid_currency', 'currency must be a three-letter code');
  if (!/^\+?\d{9,15}$/.test(String(phone ?? ''))) throw new Refused(400, 'invalid_phone', 'phone must be an international number');
  return { amount, provider, currency, phone: String(phone), reference: reference ? String(reference).slice(0, 64) : null };
}

function shown(row) {
  return {
    id: row.id,
    reference: row.reference,
    amount: row.amount,
    currency: row.currency,
    provider: row.provider,
    status: row.status,
    checkout_request_id: row.checkout_request_id,
    created_at: row.created_at,
  };
}

// Stripe and Flutterwave answer at once; M-Pesa sends a callback when the customer has typed the PIN.
async function charge(client, payment) {
  if (payment.provider === 'mpesa') return { status: 'pending', checkout: `ws_CO_${crypto.randomUUID()}` };
  return { status: 'paid', checkout: null };
}

async function storePayment(client, key, payment, fee) {
  await client.query('INSERT INTO customers (phone) VALUES ($1) ON CONFLICT (phone) DO NOTHING', [payment.phone]);
  const outcome = await charge(client, payment);
  const { rows } = await client.query(
    `INSERT INTO payments (customer_id, reference, amount, currency, provider, status, checkout_request_id, fee)
     SELECT id, $2, $3, $4, $5, $6, $7, $8 FROM customers WHERE phone = $1 RETURNING *`,
    [payment.phone, payment.reference, payment.amount, payment.currency, payment.provider, outcome.status, outcome.checkout, fee],
  );
  const stored = shown(rows[0]);
  await client.query('INSERT INTO audit_log (action, payment_id, detail) VALUES ($1, $2, $3)', [
    'payment.created',
    stored.id,
    JSON.stringify({ key, provider: payment.provider }),
  ]);
  return stored;
}

// The key and the payment are committed together, so a retry finds either both or neither.
async function createPayment(key, body) {
  if (!key || key.length > 128) throw new Refused(400, 'idempotency_key_required', 'send a header Idempotency-Key of 1 to 128 characters');
  const payment = checked(body);
  const fingerprint = crypto.createHash('sha256').update(JSON.stringify(payment)).digest('hex');
  const fee = await feeOf(payment);
  return transaction(async (client) => {
    const claim = await client.query(
      'INSERT INTO idempotency_keys (key, request_hash) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING',
      [key, fingerprint],
    );
    if (claim.rowCount === 0) {
      const { rows } = await client.query('SELECT request_hash, response FROM idempotency_keys WHERE key = $1', [key]);
      if (rows[0].request_hash !== fingerprint) {
        throw new Refused(422, 'idempotency_key_reused', 'this Idempotency-Key was used for another payment');
      }
      return { created: false, payment: rows[0].response };
    }
    const stored = await storePayment(client, key, payment, fee);
    await client.query('UPDATE idempotency_keys SET payment_id = $2, response = $3 WHERE key = $1', [key, stored.id, JSON.stringify(stored)]);
    return { created: true, payment: stored };
  });
}

async function findPayment(id) {
  if (!/^\d{1,18}$/.test(id)) throw new Refused(400, 'invalid_id', 'the payment id is a number');
  const { rows } = await pool.query('SELECT * FROM payments WHERE id = $1', [id]);
  if (rows.length === 0) throw new Refused(404, 'not_found', `no payment ${id}`);
  return shown(rows[0]);
}

module.exports = { PROVIDERS, Refused, createPayment, findPayment };
