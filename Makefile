# Every target makes the virtual environment when it is missing or out of date.
PYTHON ?= python3.11
PYTHON_OLDEST ?= python3.11
PYTHON_NEWEST ?= $(shell python3.12 -c '' 2>/dev/null && echo python3.12 || \
	echo "$$(pyenv prefix "$$(pyenv latest 3.12)")/bin/python3.12")

VENV := .venv
OLDEST := .venv-oldest
NEWEST := .venv-newest
EXTRAS := dev,docs,demo,plots,blackjax,flax,spectrum
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Files stay in order on one worker, where their compiled programs are, until the other is idle.
PYTEST := -m pytest -n 2 --dist worksteal
FAST := -m "not slow and not integration"

.DEFAULT_GOAL := help
.PHONY: help demo test test-integration test-slow test-oldest test-newest lint format types docs \
	api house bench studies study venv clean

help:
	@echo "make demo         a Bayesian network on digits: table and pictures (about 3 minutes)"
	@echo "make test         the tests (ARGS='-k laws' for some, -x to stop at the first failure)"
	@echo "make test-integration   tests that start programs: pages, studies, notebooks, the wheel"
	@echo "make test-slow    the tests that take minutes"
	@echo "make test-oldest  the tests on the oldest supported JAX, Python 3.11"
	@echo "make test-newest  the tests on the newest JAX of Python 3.12"
	@echo "make lint         ruff and the import contracts;   make format  lets ruff mend"
	@echo "make types        mypy"
	@echo "make docs         the site, strict, into site/"
	@echo "make house        the source in figures, beside those asked of it"
	@echo "make api          writes the public API anew into tests/api.txt"
	@echo "make bench        step times, as ratios to optax.sgd"
	@echo "make study NAME=… one study of examples/studies;   make studies  runs all, notebooks too"
	@echo "make clean        removes environments and everything built"

venv: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

demo: $(READY)
	$(BIN)/python -m sgmcmc.demo $(ARGS)

test: $(READY)
	$(BIN)/python $(PYTEST) $(FAST) $(ARGS)

test-integration: $(READY)
	$(BIN)/python $(PYTEST) -m "integration and not slow" $(ARGS)

test-slow: $(READY)
	$(BIN)/python $(PYTEST) -m slow $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY)
	$(BIN)/mypy

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

house: $(READY)
	$(BIN)/python -m tools.house $(ARGS)

api: $(READY)
	$(BIN)/python -m tools.api

bench: $(READY)
	$(BIN)/python -m benchmarks.steps $(ARGS)
	$(BIN)/python -m benchmarks.samplers $(ARGS)
	$(BIN)/python -m benchmarks.local $(ARGS)
	$(BIN)/python -m benchmarks.learning $(ARGS)

studies: $(READY)
	failed=; for study in $(filter-out examples/studies/_%,$(wildcard examples/studies/*.py)); do \
		$(BIN)/python "$$study" $(ARGS) || failed="$$failed $$study"; done; \
	$(BIN)/jupyter execute $(wildcard examples/*.ipynb) || failed="$$failed notebooks"; \
	test -z "$$failed" || { echo "something asked is missed in:$$failed"; exit 1; }

study: $(READY)
	@test -n "$(NAME)" || { echo "make study NAME=<name of a file in examples/studies>"; exit 2; }
	$(BIN)/python examples/studies/$(NAME).py $(ARGS)

# Both ends of the supported range. Other packages' deprecations are not our failures there.
test-oldest: $(OLDEST)/.ready
	$(OLDEST)/bin/python $(PYTEST) -W default -m "not slow" $(ARGS)

$(OLDEST)/.ready: pyproject.toml constraints-oldest.txt
	$(PYTHON_OLDEST) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints-oldest.txt --editable '.[dev,demo,docs]'
	@touch $@

test-newest: $(NEWEST)/.ready
	$(NEWEST)/bin/python $(PYTEST) -W default -m "not slow" $(ARGS)

$(NEWEST)/.ready: pyproject.toml
	$(PYTHON_NEWEST) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		--upgrade --upgrade-strategy eager --editable '.[dev,demo,docs,plots,blackjax]'
	@touch $@

clean:
	rm -rf $(VENV) $(OLDEST) $(NEWEST) site dist build *.egg-info
	rm -rf .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
