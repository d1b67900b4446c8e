# `make demo` and `make test` install what they need on the first call.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test lint docs train-world gpu-check setup clean

demo: $(STAMP)
	$(BIN)/redediting demo

# The tests' models are tiny: two workers of one thread are quicker than two threads.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not gpu and not slow and not network"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 PYTHONWARNINGS=ignore:IProgress $(BIN)/mkdocs build --strict --config-file docs/config/mkdocs.yml

train-world: $(STAMP)
	$(BIN)/python -m experiments.training

gpu-check: $(STAMP)
	$(BIN)/python -m pytest -m gpu

setup: $(STAMP)

# torch comes first and by its exact version, so that the installer's choice of build (CPU or CUDA)
# is made once; torchvision without its dependencies, so that it cannot replace that build.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --no-deps torchvision==0.28.0
	$(BIN)/python -m pip install --quiet -e '.[dev,docs]'
	touch $@

clean:
	rm -rf runs site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build *.egg-info
