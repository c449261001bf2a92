# Copyright (c) 2026 payops.rollback contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

.DEFAULT_GOAL := help
SHELL := /bin/bash
.PHONY: help demo test lint bench clean venv venv-lint

# The pair of Python and ansible-core is the newest of this machine; CORE=2.19 or PYTHON=/path/to/python3 asks for another.
CORE ?= -
VENV ?= .venv
PYTEST_ARGS ?=
TESTS ?= tests/unit tests/real tests/integration tests/packaging tests/e2e tests/molecule
export KEEP ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10
	@echo
	@echo 'CORE=2.19 takes another ansible-core, PYTHON=... another interpreter. Nothing is installed outside this folder.'

demo: venv ## See a rollback: a payment API under load, a bad release, one command back (KEEP=1 leaves it running)
	@$(VENV)/bin/python -m tests.demo

test: venv ## All tests; says what was skipped and how to get it (REQUIRE_ALL=1 fails instead, PYTEST_ARGS=... for pytest)
	@$(VENV)/bin/python -m pytest $(TESTS) $(PYTEST_ARGS)

lint: venv-lint ## Every static check, offline (LINT_FULL=1 for all sanity tests, tests/ci/lint.sh ruff for one step)
	@tests/ci/lint.sh

bench: venv ## Measure against the team's own procedure and other tools
	@$(VENV)/bin/python -m tests.bench

clean: ## Remove what the other commands made in this folder
	@rm -rf .venv .venv-* .cache .demo .ansible .pytest_cache .mypy_cache .ruff_cache payops-rollback-*.tar.gz tests/output
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

venv:
	@tests/ci/venv.sh $(VENV) $(CORE) controller test

venv-lint:
	@tests/ci/venv.sh .venv-lint 2.21 lint
