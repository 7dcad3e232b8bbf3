.PHONY: test test-slow lint fix docs bench

PYTHON ?= python

test:
	$(PYTHON) -m pytest -m "not slow"

test-slow:
	$(PYTHON) -m pytest -m slow

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	lint-imports

fix:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

docs:
	$(PYTHON) -m mkdocs build --strict

bench:
	$(PYTHON) tests/benchmarks/training_step.py
	$(PYTHON) tests/benchmarks/loading.py
	$(PYTHON) tests/benchmarks/startup.py
