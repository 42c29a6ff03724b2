# Comptroller: the commands of a working day. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Give PYTHON=... to choose the interpreter of the virtual environment yourself.
PYTHON ?=
CANDIDATES := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
# Extra arguments: make test ARGS="-k ledger", make sabotage ARGS="--only balanced"
ARGS ?=

.PHONY: help venv demo test lint format types bench sabotage check clean requirements

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP) ## create .venv from requirements.txt (nothing to do when it is up to date)

# An environment that was once complete is brought up to date in place; any other is made anew.
$(STAMP): pyproject.toml requirements.txt
	@suits() { "$$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }; \
	if [ -n "$(PYTHON)" ] || [ ! -e $@ ] || ! suits $(BIN)/python; then \
	  python=""; \
	  for candidate in $(CANDIDATES); do if suits "$$candidate"; then python="$$candidate"; break; fi; done; \
	  if [ -z "$$python" ]; then echo "make: Comptroller needs Python 3.11 or newer, and none of these is: $(CANDIDATES). Install it, or name it: make venv PYTHON=/path/to/python" >&2; exit 1; fi; \
	  if ! "$$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then echo "make: $$python has no venv module. Install it (Debian and Ubuntu: apt-get install python3-venv) and run make again" >&2; exit 1; fi; \
	  echo "Creating $(VENV) with $$("$$python" --version)"; \
	  "$$python" -m venv --clear $(VENV); \
	fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP) ## run the main job on an embedded database and print its report
	@$(BIN)/comptroller demo $(ARGS)

test: $(STAMP) ## run all tests
	@$(BIN)/python -m pytest -n auto $(ARGS)

lint: $(STAMP) ## ruff, formatting and import floors
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache

format: $(STAMP) ## format the code and apply ruff's safe fixes
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

types: $(STAMP) ## mypy --strict
	@$(BIN)/mypy --strict

check: lint types test ## lint, types and tests

bench: $(STAMP) ## run the benchmarks
	@$(BIN)/python -m tests.bench $(ARGS)

sabotage: $(STAMP) ## break each guarantee on purpose and see its test turn red
	@$(BIN)/python -m tests.sabotage $(ARGS)

requirements: ## compile requirements.txt again from pyproject.toml (needs pip-compile on the PATH)
	@pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe \
	  --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	  --extra dev --output-file requirements.txt pyproject.toml

clean: ## remove .venv, caches and everything that was generated
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
