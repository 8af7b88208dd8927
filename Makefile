# Two commands matter: `make demo` and `make test`. Both need only python3 (3.11+) and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup test demo bench numbers shape reshape storm detection kill-rounds strong mutants lint types check clean console-numbers pictures

setup: .venv/.done

.venv/.done: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	$(BIN)/python -m compileall -q kvctl kvnode
	touch .venv/.done

test: setup
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

demo: setup
	$(BIN)/kvctl demo tour

bench: setup
	$(BIN)/python -m tests.bench

numbers: setup
	$(BIN)/python -m tests.numbers gossip kill drain repair

shape: setup
	$(BIN)/python -m tests.shape

reshape: setup
	$(BIN)/python -m tests.reshaping

console-numbers: setup
	$(BIN)/python -m tests.console_numbers

pictures: setup
	$(BIN)/python -m tests.console_pictures docs

storm: setup
	$(BIN)/python -m tests.numbers storm

strong: setup
	$(BIN)/python -m tests.numbers strong

detection: setup
	KILLS=50 $(BIN)/pytest tests/test_failure.py -k noticed -s --timeout 1800

kill-rounds: setup
	KILL_ROUNDS=200 $(BIN)/pytest tests/test_kill_rounds.py -s --timeout 1800

mutants: setup
	$(BIN)/python -m tests.mutants

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

check: lint types test

clean:
	rm -rf .venv build *.egg-info
