# Every target builds what it needs; CI calls only these. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= dataset
COUNT ?= 60000
FORMAT ?= tfrecord

.DEFAULT_GOAL := help
.PHONY: help install dataset test test-ray lint format bench build clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(VENV)/installed ## Make the environment in .venv

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

dataset: install ## Export 60,000 labelled images from the shipped checkpoint and verify them (OUT, COUNT, FORMAT)
	$(BIN)/synthgen export --count $(COUNT) --format $(FORMAT) --out $(OUT) --resume
	$(BIN)/synthgen verify $(OUT) --regenerate 256

test: install ## Run the tests
	$(BIN)/python -m pytest -q -m 'not ray' --numprocesses 2 --dist loadfile

test-ray: install ## Run the tests of the Ray engine, on two emulated nodes (installs Ray)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,ray]'
	$(BIN)/python -m pytest -q -m ray

lint: install ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## Put the code into its style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install ## Measure what the README states: speed, and usefulness of the shipped set beside real images
	$(BIN)/python benchmarks/export.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/private_step.py

build: install ## Build the wheel and the source archive into dist/
	$(BIN)/python -m build --outdir dist

clean: ## Remove the environment and what was built
	rm -rf $(VENV) dist build
