# Two commands: `make search` runs the main job, `make test` runs the tests; both set up what they need first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SPACE ?= spaces/small_dataset.yaml

.PHONY: search test test-slow check audit fuzz benchmark setup clean

search: setup
	$(BIN)/python -m search.run $(SPACE)

# Half of the tests wait for processes to start: so two at a time, the ones that start Ray one after the other.
test: setup check
	$(BIN)/python -m pytest -n 2

test-slow: setup
	$(BIN)/python -m pytest -m slow -rs

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Known vulnerabilities of what constraints.txt pins; says so where no list of them can be reached.
audit: setup
	$(BIN)/python .ci/audit.py

# The tests with generated input or of long lists, with TIMES as many examples, and other ones at every call.
TIMES ?= 100
fuzz: setup
	VISTUNE_FUZZ=$(TIMES) $(BIN)/python -m pytest tests/search/test_config_fuzz.py tests/search/test_damaged_runs.py \
	  tests/trainables/test_damaged_files.py
	VISTUNE_FUZZ=1 $(BIN)/python -m pytest -m slow tests/trainables/test_architectures.py

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
