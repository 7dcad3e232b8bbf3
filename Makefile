.PHONY: install test test-slow lint fix docs wheels plugins release-dist bench gpu

PYTHON ?= python
# Further arguments of pytest: `make test PYTEST_ARGS="-n 2"` shares the tests between two processes.
PYTEST_ARGS ?=

install:
	$(PYTHON) -m pip install -e '.[dev]'

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

# The wheel and sdist of the package, and those of each plugin.
wheels:
	$(PYTHON) -m build --outdir dist .
	set -e; for plugin in plugins/*/pyproject.toml; do \
	  $(PYTHON) -m build --outdir dist "$${plugin%/pyproject.toml}"; \
	done

plugins:
	PYTHON="$(PYTHON)" .ci/plugins

# What a tag releases: v0.2.0 the package, cascadezoo-gan-v0.2.0 a plugin. Its version must be the tag's.
release-dist:
	$(PYTHON) tools/release_dist.py "$(TAG)" dist/release

bench:
	$(PYTHON) tests/benchmarks/training_step.py
	$(PYTHON) tests/benchmarks/loading.py
	$(PYTHON) tests/benchmarks/startup.py
	$(PYTHON) tests/benchmarks/features.py
	$(PYTHON) tests/benchmarks/streaming.py

# The tests of devices and the profile of a step; results go into the folder OUT. Without a GPU both
# run on the CPU, the profile with GPU_ARGS=--small. Other versions of packages may warn: no error.
gpu: OUT ?= gpu-results
gpu: GPU_PROCESSES ?= 8
gpu: GPU_ARGS ?=
gpu:
	mkdir -p "$(OUT)"
	status=0; export OUT="$(OUT)" OMP_NUM_THREADS=1; \
	$(PYTHON) -m pytest tests/gpu -n $(GPU_PROCESSES) --dist worksteal -W default -q -rfEs \
	  --durations=15 --junitxml="$(OUT)/gpu-tests.xml" $(PYTEST_ARGS) || status=$$?; \
	unset OMP_NUM_THREADS; \
	$(PYTHON) tests/gpu/profile_step.py $(GPU_ARGS) || status=$$?; \
	exit $$status
