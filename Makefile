# `make demo` and `make test` are the two commands; both make .venv first if it is missing or out of date.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Also holds inside the isolated environments in which pip builds fairseq, so that their contents are pinned.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt

.PHONY: install demo test test-slow bench lint clean

install: $(STAMP)

# pip 24.1 and later refuse the metadata of omegaconf 2.0.x, which fairseq 0.12.2 needs.
$(STAMP): setup.py pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip<24.1" setuptools wheel
	$(BIN)/python -m pip install --disable-pip-version-check -e ".[dev,inspection,classification]"
	touch $(STAMP)

demo: install
	$(BIN)/python examples/translation/demo.py

# Two processes of one thread each are faster on two cores than one of two, and do not fight.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not very_slow"

test-slow: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "very_slow"

# Half an hour to an hour; `make bench BENCH=--quick` is a minute, BENCH=--resume goes on where it stopped.
bench: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[peers]"
	$(BIN)/python -m benchmarks.cost.run unroll --json out/unroll.jsonl --plot out/unroll.png $(BENCH)

lint: install
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
