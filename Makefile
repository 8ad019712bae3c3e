# Two commands do everything: `make tour` and `make test`. Both make .venv from constraints.txt first.
PYTHON ?= python3
VENV   ?= .venv
OUT    ?= tour
BIN    := $(VENV)/bin
# Rebuilt only when one of these changes: installing does not redo what is already there.
STAMP  := $(VENV)/.installed

.PHONY: tour test lint docs bench clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

tour: $(STAMP)
	$(BIN)/invlearn tour -o $(OUT) --overwrite

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2

lint: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/run.py $(BENCH)

clean:
	rm -rf $(VENV) tour build *.egg-info
