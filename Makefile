# `make quickstart` and `make test` need git, Python >= 3.11 and make; everything else is installed into .venv once.
PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -q

.PHONY: quickstart test test-slow mutants lint docs

# Two processes of one thread each: a model this small keeps the threads of one process waiting for each other. On the
# CPU whatever else there is: two processes would look for two accelerators.
quickstart: $(INSTALLED)
	ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc_per_node 2 -m diffalign train --config scripts/recipes/shapes-flow/quickstart.yaml --overwrite_output_dir

test: $(INSTALLED)
	$(PYTEST) -m "not slow and not gpu"

test-slow: $(INSTALLED)
	$(PYTEST) -m "slow and not gpu"

# Changes each formula of diffalign/losses in turn and asks whether its tests notice; up to half an hour on two cores.
mutants: $(INSTALLED)
	$(BIN)/python scripts/mutants.py --jobs $(WORKERS)

docs: $(INSTALLED)
	$(BIN)/python -m pdoc --docformat google --math -o build/docs diffalign
	@echo "API reference: build/docs/index.html"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("diffalign needs Python >= 3.11, this is %d.%d; try: make PYTHON=python3.11" % v[:2])'
	@echo "Installing diffalign and its pinned dependencies into $(VENV) (once; a few minutes, about 6 GB on Linux with CUDA builds of torch)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@
