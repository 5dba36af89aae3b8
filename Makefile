# What people type and CI runs. `make` alone prints help.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# dbt starts in half the time when Python may keep what it compiled.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONUNBUFFERED := 1
# This project's profile, whatever the machine has in ~/.dbt.
export DBT_PROFILES_DIR := $(CURDIR)
export DBT_SEND_ANONYMOUS_USAGE_STATS := false

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WHOLE := $(VENV)/.ready-whole
PEERS := .venv-peers

DOMAINS := telemetry orders
DOMAIN ?= all
CHOSEN := $(if $(filter all,$(DOMAIN)),$(DOMAINS),$(DOMAIN))
DATA ?= world
TARGET ?= postgres
KEEP ?=
PORT ?= 8081

.PHONY: help
help: ## This help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

.PHONY: demo
demo: $(READY) ## Land, build, test, show the marts (DOMAIN=orders, TARGET=clickhouse, DATA=flights, KEEP=1)
	@$(BIN)/python -m sandbox.demo --data $(DATA) --domain $(DOMAIN) --target $(TARGET) $(if $(KEEP),--keep)

.PHONY: down
down: $(READY) ## Stop the sandbox that KEEP=1 left up
	@$(BIN)/python -m sandbox.demo --down

.PHONY: test
test: $(WHOLE) ## Every test but the long loops
	$(BIN)/pytest -n 2 --dist worksteal -m "not long"

.PHONY: test-long
test-long: $(WHOLE) ## The long loops: kill -9 fifty times, many random orders
	$(BIN)/pytest -n 2 --dist worksteal -m long

.PHONY: lint
lint: $(WHOLE) ## Style, types, SQL, YAML, shell, import rules; dbt parse on three targets
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/yamllint --strict .
	$(BIN)/shellcheck .ci/run docker/*.sh
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yaml
	for target in postgres clickhouse vertica; do $(BIN)/dbt --quiet parse --target $$target --target-path target/parse-$$target; done
	$(BIN)/python -m sandbox.run $(BIN)/sqlfluff lint dbt_project tests

.PHONY: docs
docs: $(READY) ## The docs site of the models, from the warehouse of the environment
	$(BIN)/dbt --quiet docs generate --static
	@echo "docs: $(CURDIR)/target/static_index.html"

.PHONY: airflow
airflow: $(WHOLE) ## A real Airflow on http://localhost:8081 (admin/admin), its sources filled; Ctrl-C stops it
	@$(BIN)/python -m sandbox.airflow --port $(PORT) --data $(if $(filter world,$(DATA)),recent,$(DATA))

.PHONY: bench
bench: $(WHOLE) $(PEERS)/.ready ## Measure against the peers and write docs/benchmarks.md (PARTS='landing mart', ROUNDS=3)
	$(BIN)/python -m bench --peers $(PEERS) $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(PARTS),--parts $(PARTS)) $(if $(LINES),--order-lines $(LINES))

.PHONY: env
env: ## Passwords for docker-compose.yaml: .env from .env.example
	@$(PYTHON) docker/make_env.py

.PHONY: backfill
# Status 3, not there yet, is said and no reason to stop: what is there is landed, and is built.
backfill: $(READY) ## Land and build a range again: START=2024-12-01 END=2025-01-01 (exclusive), DOMAIN=orders
	@: $${START:?the first day} $${END:?the day after the last one}
	$(BIN)/python -m ingestion init
	for domain in $(CHOSEN); do \
		for source in $$($(BIN)/python -c "from ingestion.sources import *; print(*[s.name for s in sources_of('$$domain')])"); do \
			$(BIN)/python -m ingestion $$source --start-date $$START --end-date $$END || test $$? = 3; done; \
		plan=$$($(BIN)/python -m ingestion plan $$domain --start-date $$START --end-date $$END); \
		target=$$($(BIN)/python -c "from ingestion.settings import target_of; print(target_of('$$domain'))"); \
		$(BIN)/dbt build --target $$target --select tag:$$domain --vars "$$plan"; \
		$(BIN)/python -m ingestion mark $$domain --build $$($(BIN)/python -c 'import json, sys; print(json.loads(sys.argv[1])["build_id"])' "$$plan"); done

COMPILE := $(BIN)/uv pip compile -q pyproject.toml --universal --python-version 3.11 \
	--excludes requirements/excludes.txt --no-emit-index-url --no-header

.PHONY: lock
lock: $(VENV)/bin/uv ## Resolve the dependencies anew into requirements/
	$(COMPILE) --group airflow --group sandbox --group clickhouse --group dev -o requirements/dev.txt
	$(COMPILE) --group sandbox --group clickhouse -c requirements/dev.txt --no-annotate -o requirements/sandbox.txt
	$(BIN)/uv pip compile -q requirements/bench.in --universal --python-version 3.11 --no-emit-index-url --no-header \
		-o requirements/bench.txt
	$(COMPILE) --group airflow -c requirements/dev.txt --no-annotate -o requirements/airflow.txt

.PHONY: clean
clean: ## Remove the environment and all that was made
	rm -rf $(VENV) $(PEERS) target logs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/bin/uv:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed" >&2; exit 1; }
	@echo "making the environment with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || { echo "python -m venv failed: on Debian, install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.8"

# Plain pip can't: dbt-core asks for a package that can't be built here (requirements/excludes.txt).
INSTALL := $(BIN)/uv pip install --quiet --no-deps --compile-bytecode --python $(BIN)/python -r

# The demo and the models need a tenth of it; Airflow and what tests and checks need come on top.
$(READY): requirements/sandbox.txt | $(VENV)/bin/uv
	@echo "installing the locked packages"
	@$(INSTALL) requirements/sandbox.txt
	@touch $@

$(WHOLE): requirements/dev.txt $(READY)
	@echo "installing Airflow and the tools of the tests"
	@$(INSTALL) requirements/dev.txt
	@touch $@

# The tools that landing is measured against, in an environment of their own.
$(PEERS)/.ready: requirements/bench.txt | $(VENV)/bin/uv
	@echo "making the environment of the peers"
	@$(PYTHON) -m venv $(PEERS)
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(PEERS)/bin/python -r requirements/bench.txt
	@touch $@
