-- Copyright (c) 2026 payops.rollback contributors
-- GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later

CREATE TABLE mpesa_callbacks (
    checkout_request_id text PRIMARY KEY,
    merchant_request_id text,
    payment_id bigint NOT NULL REFERENCES payments (id),
    result_code integer NOT NULL,
    result_desc text,
    receipt text UNIQUE,
    amount numeric(12, 2),
    phone text,
    received_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE webhook_log (
    id serial PRIMARY KEY,
    provider text NOT NULL,
    event text NOT NULL,
    body jsonb NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    action text NOT NULL,
    payment_id bigint REFERENCES payments (id),
    detail jsonb,
    at timestamptz NOT NULL DEFAULT now()
);

CREATE VIEW payments_per_day AS
    SELECT date_trunc('day', created_at) AS day, provider, currency, status, count(*) AS number, sum(amount) AS total
    FROM payments GROUP BY 1, 2, 3, 4;
