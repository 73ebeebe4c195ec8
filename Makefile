# `make` alone prints what each target does.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo run test fast fmt lint proto proto-check docs-check conformance openapi fuzz sim bigdb bench check lock

help: ## print this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "skep needs Python 3.11 or later: make PYTHON=/path/to/python3.11")'
	@$(PYTHON) -m venv --clear $(VENV) || { echo "python3 cannot make a virtual environment: on Debian, apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

setup: $(READY) ## the virtual environment with the locked dependencies

demo: $(READY) ## a server, four bots and a real job, checked; then everything stops
	$(BIN)/python -m examples.census.demo

run: $(READY) ## the same fleet, left running until Ctrl-C
	$(BIN)/python -m examples.census.demo --keep

test: $(READY) ## every test (T=path::name for one)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(T)

fast: $(READY) ## the tests that need no server process: under two minutes
	$(BIN)/python -m pytest -n 2 -m "not slow and not e2e" $(T)

fmt: $(READY) ## format, and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --quiet . || true

lint: $(READY) ## style, types, import contracts, the bot's Python floor
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 -p bot_client
	$(BIN)/lint-imports
	$(BIN)/vermin --quiet --no-tips --violations --target=3.9- --eval-annotations --backport typing bot_client

proto: $(READY) ## regenerate the protobuf code
	cd proto && ../$(BIN)/python -m grpc_tools.protoc --plugin=protoc-gen-mypy=../$(BIN)/protoc-gen-mypy -I. --python_out=. --mypy_out=. botpb/*.proto swarmingpb/*.proto

proto-check: proto ## fail when the committed protobuf code is stale
	git diff --exit-code --stat -- proto

docs-check: $(READY) ## fail when a row or control has no test, or its page is stale
	$(BIN)/python -m tools.conformance check
	$(BIN)/python -m tools.threat_model check
	$(BIN)/python -m tools.openapi check

conformance: $(READY) ## rewrite docs/conformance.md and the controls from the markers in the tests
	$(BIN)/python -m tools.conformance
	$(BIN)/python -m tools.threat_model

openapi: $(READY) ## rewrite botapi/api/openapi.json from the table of calls
	$(BIN)/python -m tools.openapi

fuzz: $(READY) ## tokens, bodies and configuration files, guided by coverage (S=seconds each, 600)
	for target in tokens bodies config; do $(BIN)/python -m tests.fuzz $$target -max_total_time=$(or $(S),600) || exit 1; done

sim: $(READY) ## the simulation with many seeds (SEEDS=100000)
	$(BIN)/python -m tests.sim --seeds $(or $(SEEDS),100000)

bigdb: $(READY) ## build the database of 1,000,000 tasks once, and time lists and scheduling on it
	$(BIN)/python -m bench.bigdb

bench: $(READY) ## P1, P2, P3 with P4, and P6 with their yardsticks, in one run
	$(BIN)/python -m bench

check: lint proto-check docs-check test ## what CI runs

lock: ## pin the newest allowed dependencies (needs uv)
	uv pip compile pyproject.toml --extra dev --generate-hashes --python-version 3.11 --no-header -q -o requirements.lock
