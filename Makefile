# Every target builds what it needs; CI calls only these. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .venv-tools
INTEROP := .venv-interop
RAY := .venv-ray
OLD_NUMPY := .venv-numpy-1.26
NEW_NUMPY := .venv-numpy-newest
# What draws, exports and tests need, without TensorFlow.
DRAWING := h5py onnx onnxruntime threadpoolctl google-crc32c protobuf zlib-ng pillow typer tqdm scipy pytest hypothesis
COMPILE = $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
    --no-emit-index-url --no-emit-find-links
PIP_COMMAND := python -m pip --disable-pip-version-check --quiet
PIP := $(BIN)/$(PIP_COMMAND)
OUT ?= dataset
COUNT ?= 60000
FORMAT ?= tfrecord

.DEFAULT_GOAL := help
.PHONY: help install dataset test test-slow test-interop test-ray test-numpy lint format docs bench build audit lock release clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

install: $(VENV)/installed ## Make the environment in .venv

# Every package at the version, and with the hash, of constraints/ci.txt; the project itself is built with those.
$(VENV)/installed: pyproject.toml constraints/ci.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes --requirement constraints/ci.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# Environments of their own: what these bring without a hash moves no locked package of .venv.
$(INTEROP)/installed: pyproject.toml constraints/ci.txt constraints/interop.txt
	$(PYTHON) -m venv $(INTEROP)
	$(INTEROP)/bin/$(PIP_COMMAND) install --require-hashes --requirement constraints/ci.txt
	$(INTEROP)/bin/$(PIP_COMMAND) install --constraint constraints/interop.txt --no-build-isolation --editable '.[interop]'
	@touch $@

$(RAY)/installed: pyproject.toml constraints/ci.txt
	$(PYTHON) -m venv $(RAY)
	$(RAY)/bin/$(PIP_COMMAND) install --require-hashes --requirement constraints/ci.txt
	$(RAY)/bin/$(PIP_COMMAND) install --no-build-isolation --editable '.[ray]'
	@touch $@

# The oldest numpy that pyproject.toml allows, and the newest; everything else as new as it comes.
$(OLD_NUMPY)/installed: SOME_NUMPY := 'numpy==1.26.*'
$(NEW_NUMPY)/installed: SOME_NUMPY := numpy
$(OLD_NUMPY)/installed $(NEW_NUMPY)/installed: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/$(PIP_COMMAND) install $(SOME_NUMPY) $(DRAWING)
	$(@D)/bin/$(PIP_COMMAND) install --no-deps --editable .
	@touch $@

dataset: install ## Export 60,000 labelled images from the shipped checkpoint and verify them (OUT, COUNT, FORMAT)
	$(BIN)/synthgen export --count $(COUNT) --format $(FORMAT) --out $(OUT) --resume
	$(BIN)/synthgen verify $(OUT) --regenerate 256

test: install ## Run the tests
	$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-ray: $(RAY)/installed ## Run the tests of the Ray engine, on two emulated nodes (installs Ray)
	$(RAY)/bin/python -m pytest -q -m ray

test-numpy: $(OLD_NUMPY)/installed $(NEW_NUMPY)/installed ## Draw with numpy 1.26 and the newest, without TensorFlow (installs both)
	$(OLD_NUMPY)/bin/python -m pytest -q tests/pixels --ignore tests/pixels/test_second.py
	$(NEW_NUMPY)/bin/python -m pytest -q tests/pixels --ignore tests/pixels/test_second.py

test-slow: install ## Run the tests that take minutes: fifty kills a format, ten thousand hostile inputs, the wheel
	$(BIN)/python -m pytest -q --numprocesses 2 -m slow

test-interop: $(INTEROP)/installed ## Load every format with the libraries of its users, which this installs
	$(INTEROP)/bin/python -m pytest -q -m interop tests/interop

lint: install ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## Put the code into its style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: install ## Write docs/recipes.md anew from the code
	$(BIN)/synthgen recipes keys > docs/recipes.md

bench: install ## Measure what the README states: speed, and usefulness of the shipped set beside real images
	$(BIN)/python benchmarks/export.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/private_step.py

build: install ## Build the wheel and the source archive into dist/
	$(BIN)/python -m build --no-isolation --outdir dist

lock: $(TOOLS)/installed ## Write the locks in constraints/ anew from the bounds in pyproject.toml
	$(COMPILE) --extra dev --output-file constraints/ci.txt pyproject.toml
	$(COMPILE) --constraint constraints/ci.txt --output-file constraints/runtime.txt pyproject.toml

audit: $(TOOLS)/installed ## Look every locked package up among the known vulnerabilities; see docs/supply-chain.md
	$(TOOLS)/bin/python -m pip_audit --disable-pip --require-hashes --requirement constraints/ci.txt

release: build $(TOOLS)/installed ## The wheel, the source archive, a bill of materials (CycloneDX) and SHA-256, in dist/
	$(TOOLS)/bin/python -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible \
	    --output-file dist/synthgen.cdx.json constraints/runtime.txt
	cd dist && sha256sum *.whl *.tar.gz *.cdx.json > SHA256SUMS

$(TOOLS)/installed:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip --disable-pip-version-check --quiet install 'uv>=0.5' 'pip-audit>=2.7' 'cyclonedx-bom>=5'
	@touch $@

clean: ## Remove the environment and what was built
	rm -rf $(VENV) $(TOOLS) $(INTEROP) $(RAY) $(OLD_NUMPY) $(NEW_NUMPY) dist build
