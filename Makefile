# Three verbs: `make demo`, `make test`, `make check`. Each sets itself up; a second run finds everything in place.
# Wanted beforehand on a Debian or Ubuntu machine: make, and a Python >= 3.11 with venv.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

# Debian packages that tests drive for real. `SYSTEM_PACKAGES= make test` installs none; what is missing is skipped.
SYSTEM_PACKAGES ?= chromium etcd-server fonts-dejavu-core haproxy iproute2 libpango-1.0-0 libpangoft2-1.0-0 poppler-utils \
	prometheus prometheus-alertmanager
# Those whom `python -m benchmarks` measures the daemon beside.
PEERS ?= check-postgres monit monitoring-plugins-basic monitoring-plugins-standard postgresql prometheus \
	prometheus-blackbox-exporter prometheus-postgres-exporter
PYTEST_ARGS ?=
# More than cores: acceptance waits for its clusters more than it computes (docs/adr/0010).
TEST_WORKERS ?= 3
DEMO_ARGS ?=

BIN := .venv/bin
LOCKS := requirements/build.lock requirements/dev.lock

.PHONY: help demo test check lint types system postgres-meta peers lock docs clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/ready postgres-meta ## a real two-node cluster on loopback with the daemon watching it (DEMO_ARGS)
	@$(BIN)/probed demo $(DEMO_ARGS)

test: system postgres-meta lint types ## everything: lint, types and all tests (PYTEST_ARGS)
	@PYTHONPATH=scripts $(BIN)/python -m pytest -ra -p loud_skips -p spread_tests -n $(TEST_WORKERS) --durations=10 $(PYTEST_ARGS)

check: lint types ## lint, types and the fast tests, in under a minute (PYTEST_ARGS)
	@$(BIN)/python -m pytest -q tests/unit $(PYTEST_ARGS)

lint: .venv/ready
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: .venv/ready
	@$(BIN)/mypy --strict

# These two never fail: they say loudly what could not be had, and the tests concerned skip.
system:
	@scripts/system-packages.sh $(SYSTEM_PACKAGES)

postgres-meta:
	@scripts/postgres-meta.sh

peers: ## those who are measured beside the daemon (python -m benchmarks), as Debian packages; none is started
	@scripts/system-packages.sh $(PEERS)
	@scripts/check-patroni.sh

docs: .venv/ready ## write the generated references anew
	@$(BIN)/python -m probed.docs

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(LOCK_ARGS)
LOCK_ARGS ?=
lock: .venv/ready ## pin anew what pyproject.toml allows (LOCK_ARGS=--upgrade for newer versions)
	@$(COMPILE) --group build --output-file requirements/build.lock
	@$(COMPILE) pyproject.toml --output-file requirements/runtime.lock
	@$(COMPILE) pyproject.toml --extra demo --extra apprise --extra pdf --extra uvloop --group dev --output-file requirements/dev.lock

clean: ## remove the environment and every cache
	rm -rf .venv .cache dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/ready: $(LOCKS) pyproject.toml scripts/venv.sh
	@scripts/venv.sh $(LOCKS)
