.PHONY: test test-slow lint fix docs bench

PYTHON ?= python
# Further arguments of pytest: `make test PYTEST_ARGS="-n 2"` shares the tests between two processes.
PYTEST_ARGS ?=

test:
	$(PYTHON) -m pytest -m "not slow" $(PYTEST_ARGS)

test-slow:
	$(PYTHON) -m pytest -m slow $(PYTEST_ARGS)

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
	$(PYTHON) tests/benchmarks/features.py
