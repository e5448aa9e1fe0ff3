# `make demo`, `make test` and `make docs`; each makes .venv first if it is missing or out of date.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Holds also inside the isolated environments in which pip builds fairseq, so that their contents are pinned.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt

.PHONY: install demo test test-slow bench lint docs clean

install: $(STAMP)

# pip 24.1 and later refuse the metadata of omegaconf 2.0.x, which fairseq 0.12.2 needs.
$(STAMP): setup.py pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -c '' || { echo "make: $(PYTHON): cannot be started; install Python 3.11," \
	    "or give its path: make install PYTHON=/path/to/python3.11" >&2; exit 2; }
	@if test -x $(BIN)/python; then $(BIN)/python check_setup.py; else $(PYTHON) check_setup.py; fi
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip<24.1" setuptools wheel
	$(BIN)/python -m pip install --disable-pip-version-check -e ".[dev,docs,inspection,classification]"
	touch $(STAMP)

demo: install
	$(BIN)/python examples/translation/demo.py

# On two cores, two processes of one thread each are faster than one process of two threads.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not very_slow"

test-slow: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "very_slow"

# Half an hour to an hour; `make bench BENCH=--quick` is a minute, BENCH=--resume goes on where it stopped.
bench: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[peers]"
	$(BIN)/python -m benchmarks.cost.run unroll --json out/unroll.jsonl --plot out/unroll.png $(BENCH)

# Style, layout and types.
lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation, in site/; a warning is an error.
docs: install
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
