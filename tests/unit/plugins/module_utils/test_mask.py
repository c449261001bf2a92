# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an application wrote is told without its secrets, and stays readable."""

from __future__ import annotations

import json
import pathlib

import pytest

from ansible_collections.payops.rollback.plugins.module_utils._mask import dotenv, mask

SECRET = "hunter2 with spaces"
PEM = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQ==\n-----END KEY-----"


def test_secrets_are_masked() -> None:
    text = mask(f"no login with {SECRET} at postgres://me:abc@db/x, port 5000", {"DB_PASSWORD": SECRET, "PORT": "5000"})
    assert text == "no login with ******** at postgres://me:********@db/x, port 5000"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("STRIPE_SK", "sk_live_51Habcdef", "refused sk_live_51Habcdef"),
        ("TILL", "254712345678", "no till 254712345678"),
        ("PIN", "4711", "wrong: 4711"),
        ("SIGNER", PEM, "bad " + " | ".join(PEM.splitlines()[1:3])),
        ("SIGNER", PEM.replace("\n", "\\n"), "bad MIIEvQIBADANBg"),
        ("QUOTED", 'a"b\\c-long', "in " + json.dumps('a"b\\c-long')),
        ("DSN_LIKE", "postgres://me:s3cr3t-x@db/x", "password s3cr3t-x"),
        ("BLOB", "/9j/4AAQSkZJRgAB", "image /9j/4AAQSkZJRgAB"),
    ],
)
def test_the_name_of_a_variable_does_not_matter(name: str, value: str, text: str) -> None:
    told = mask(text, {name: value})
    assert "********" in told
    assert not any(part in told for part in value.replace("\\n", "\n").splitlines()) and "s3cr3t-x" not in told and "c-long" not in told


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ("postgres://app:p%40ssw0rd%2Fx@db/app", "p@ssw0rd/x"),
        ("postgres://app:Pa@ssw0rd@db/app", "Pa@ssw0rd"),
        ("https://tok3nvalue@git.example/x", "tok3nvalue"),
        ('{"stripe": [{"k": "sk_live_abc123"}]}', "sk_live_abc123"),
        ("alphatoken,betatoken99", "betatoken99"),
        ("redis://a:first11@r1,redis://a:second22@r2", "second22"),
    ],
)
def test_a_part_of_a_value_is_masked_where_it_stands_alone(value: str, printed: str) -> None:
    assert printed not in mask(f"refused: {printed} at https://x:{printed}@elsewhere/", {"SERVICE": value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NODE_ENV", "production"),
        ("APP_ENV", "Staging"),
        ("TIMEOUT", "600000"),
        ("NODE_VERSION", "20.11.1"),
        ("IMAGE_TAG", "v1.2.3-alpine3.18"),
        ("LISTEN", "127.0.0.1"),
        ("DB_HOST", "db.bank.example"),
        ("HOME", "/home/Deploy"),
        ("ROOT", "/srv/payments-api/current"),
        ("FLAG", "undefined"),
        ("AUTH_ENABLED", "true"),
        ("SHORT", "debug"),
        ("APP_NAME", "payments"),
    ],
)
def test_what_is_harmless_stays_readable(name: str, value: str) -> None:
    assert mask(f"cannot go on: {value}.", {name: value}, "payments") == f"cannot go on: {value}."


def test_files_that_the_application_reads_itself(tmp_path: pathlib.Path) -> None:
    (tmp_path / ".env").write_text(
        f'# a comment of many words\nexport DB_PW="{SECRET}" # ours\nPORT=5000\nSTRIPE=sk_live_1#2 # x\nHASH=abc=def==\n\nSIGNER="{PEM}"\n'
    )
    (tmp_path / ".env.production").write_text("OTHER='other-secret'\n")
    (tmp_path / ".env.example").write_text("DB_PW=password\n")
    (tmp_path / ".envs").mkdir()
    (tmp_path / ".env.local").symlink_to("gone")
    found = dotenv(str(tmp_path))
    assert found[:4] == [("DB_PW", SECRET), ("PORT", "5000"), ("STRIPE", "sk_live_1#2"), ("HASH", "abc=def==")]
    said = f"password {SECRET}, sk_live_1#2, MIIEvQIBADANBg, kqhkiG9w0BAQ==, other-secret at 5000"
    assert mask(said, {}, files=found) == "password ********, ********, ********, ********, ******** at 5000"
    assert dotenv(str(tmp_path / "none")) == []
