# make demo, make test: both install first, once, and again when pyproject.toml or constraints.txt change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Tests start many processes; without it, each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test bench docs

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## Make .venv and install the package into it

demo: $(STAMP) ## Show the domain gap and close it, on packaged images; prints where the report is
	$(BIN)/pixelscope demo

test: $(STAMP) ## Check style, structure and types, then run the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -n 3 --dist worksteal

bench: $(STAMP) ## Measure speed side by side with plain programs and other libraries, into results/benchmarks
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks --all

docs: $(STAMP) ## Build the documentation site into site/; warnings are errors
	$(BIN)/python -m mkdocs build --strict --site-dir site
	@echo 'Open site/index.html, or run $(BIN)/python -m mkdocs serve.'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Pixelscope needs Python 3.11 or later; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo 'Installing into $(VENV), once; PyTorch is large, so this takes some minutes.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	@touch $@
