# Two commands: `make search` runs the main job, `make test` runs the tests; both set up what they need first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SPACE ?= spaces/small_dataset.yaml

.PHONY: search test test-slow check benchmark setup clean

search: setup
	$(BIN)/python -m search.run $(SPACE)

test: setup check
	$(BIN)/python -m pytest

test-slow: setup
	$(BIN)/python -m pytest -m slow

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

benchmark: setup
	$(BIN)/python -m pytest -m benchmark -s tests/benchmarks

setup: $(VENV)/.installed

# Pinned by constraints.txt; rebuilt when what is asked for changes.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "vistune needs Python 3.11 or newer, found $$($(PYTHON) --version); give one: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
