# The two commands to know: `make demo` and `make test`. Both set up .venv by themselves and can be run again at any time.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test lint types tests test-slow docs format clean

install: .venv/installed

.venv/installed: pyproject.toml
	@echo "Setting up .venv (PyTorch and what headstart needs, about 6 GB; a few minutes the first time)" >&2
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

demo: install
	$(BIN)/headstart demo

test: install lint types tests

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

# A process for each core; more threads than that in PyTorch would only wait for each other.
tests:
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto

# Real photos and real ImageNet weights: looked for at $$HEADSTART_SHARED, else ../shared.
test-slow: install
	$(BIN)/pytest -q -m slow

# Write the pages that are made from the code: docs/reference.
docs: install
	$(BIN)/python docs/reference/generate.py

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
