# Every command that people and CI run. `make` alone lists them.
PYTHON ?= $(or $(shell command -v python3.11),$(shell command -v python3))
VENV := .venv
BIN := $(VENV)/bin
CLIENTS := .venv-clients
PIP_VERSION := 26.3
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-slow test-endurance test-full lint azurite format bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# dev: what tests, lint and the demo need. The new pip knows dependency groups (PEP 735).
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "pip==$(PIP_VERSION)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e . --group dev
	@touch $@

# Client libraries of other servers, in an environment of their own: their needs contradict ours.
$(CLIENTS)/.installed: tests/serve/clients/requirements.txt
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet "pip==$(PIP_VERSION)"
	$(CLIENTS)/bin/python -m pip install --quiet -r tests/serve/clients/requirements.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e . --group bench
	@touch $@

demo: $(VENV)/.installed ## rank a small search log with the embedded model: no network, no GPU
	$(BIN)/python -m jobs.demo build demo/
	$(BIN)/python -m jobs.rerank demo/log.parquet demo/ranked --overwrite
	$(BIN)/python -m jobs.demo report demo/ranked

serve: $(VENV)/.installed ## the HTTP server with the embedded model, and a page to try it
	$(BIN)/crossray serve

test: lint ## lint and the quick tests
	$(BIN)/python -m tests -m "not slow and not gpu and not hub and not endurance" $(PYTEST_ARGS)

test-slow: $(VENV)/.installed $(CLIENTS)/.installed ## the tests that take minutes: deaths, real clients, a browser
	$(BIN)/python -m tests -m "slow and not gpu and not hub and not endurance" $(PYTEST_ARGS)

test-endurance: $(VENV)/.installed ## many deaths, in many minutes; wants an idle machine
	$(BIN)/python -m pytest -s -m endurance $(PYTEST_ARGS)

test-full: test test-slow ## what CI runs: all but tests of endurance, and those for a GPU or the hub

lint: $(VENV)/.installed ## style, types and the import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

azurite: ## a server of Azure's protocol for the tests of object stores; needs npm, else they are skipped
	npm install --silent --no-audit --no-fund --prefix .azurite azurite@3.35.0

format: $(VENV)/.installed ## rewrite the code in the house style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.bench ## the README's figures of speed; wants an idle machine for half an hour
	$(BIN)/python -m jobs.benchmark engine --output docs/benchmarks/engine.json
	$(BIN)/python -m jobs.benchmark families --output docs/benchmarks/families.json
	$(BIN)/python -m jobs.benchmark job --output docs/benchmarks/job.json
	$(BIN)/python -m jobs.benchmark reuse --output docs/benchmarks/reuse.json
	$(BIN)/python -m jobs.benchmark load --output docs/benchmarks/load.json
	$(BIN)/python -m jobs.benchmark replicas --output docs/benchmarks/replicas.json
	$(BIN)/python -m jobs.benchmark memory --output docs/benchmarks/memory.json --plot docs/benchmarks/memory.svg
	$(BIN)/python -m jobs.benchmark skew --output docs/benchmarks/skew.json
	$(BIN)/python -m serve.benchmark online --output docs/benchmarks/online.json

clean: ## remove what the other targets made, the virtual environment too
	rm -rf $(VENV) $(CLIENTS) .azurite demo build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
