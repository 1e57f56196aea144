# `make quickstart` and `make test` do all of their own set-up.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Processes that run the tests; two take up to 16 GiB of memory.
WORKERS ?= 1
STAMP  := $(VENV)/installed

.PHONY: quickstart test check bench clean

quickstart: $(STAMP)
	$(BIN)/python run.py quickstart

test: $(STAMP) check
	$(BIN)/python -m pytest $(if $(filter-out 1,$(WORKERS)),--numprocesses $(WORKERS) --dist loadfile)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pip check

bench: $(STAMP)
	$(BIN)/python -m pytest tests/benchmarks -o addopts="--import-mode=importlib" --benchmark-only

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 12) else "Python 3.11 or 3.12 is needed, this is %d.%d: make PYTHON=python3.12 ..." % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@# mmcv-lite asks for opencv-python, which needs libGL and glib from the system; its headless twin, laid over it, does not.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --force-reinstall --no-deps opencv-python-headless
	touch $(STAMP)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
