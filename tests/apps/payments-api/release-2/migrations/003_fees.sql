-- Copyright (c) 2026 payops.rollback contributors
-- GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later

-- The broken migration of release 2. It was meant to add fees; the status column was "cleaned up" on the way:
-- every settled M-Pesa payment is pending again, the receipts are gone, and a receipt may now be booked twice.
ALTER TABLE payments ADD COLUMN fee numeric(12, 2) NOT NULL DEFAULT 0;
UPDATE payments SET status = 'pending' WHERE provider = 'mpesa' AND status = 'paid';
DROP VIEW payments_per_day;
ALTER TABLE payments DROP COLUMN provider_ref;
ALTER TABLE mpesa_callbacks DROP CONSTRAINT mpesa_callbacks_receipt_key;
DROP INDEX payments_pending;

CREATE TABLE fee_rules (
    provider text PRIMARY KEY,
    percent numeric(5, 2) NOT NULL
);

INSERT INTO fee_rules VALUES ('mpesa', 0), ('stripe', 2.9), ('flutterwave', 1.4);
