# Every target sets up what it needs; a second call reinstalls nothing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STUDIES := $(shell find tune_configs -name '*.yaml' ! -name '*.reference.yaml')

# pip's own version is pinned because others resolve constraints in other ways.
PIP_VERSION := 26.0

.PHONY: study test test-all check format bench docs docs-serve weak-results vae-results clean
.DEFAULT_GOAL := test

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet pip==$(PIP_VERSION)

# The package and what it cannot do without.
$(VENV)/.base: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

# Every family and the tools for development.
$(VENV)/.full: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $(VENV)/.base $@

## Set up and run the quickstart study.
study: $(VENV)/.base
	$(BIN)/modicum run tune_configs/quickstart.yaml

# The networks of the tests are too small to gain from threads; whole files run in two processes.
test test-all: export OMP_NUM_THREADS = 1

## The suite that a user runs: six minutes at most on two cores.
test: $(VENV)/.full
	$(BIN)/python -m pytest -n 2 -m 'not slow'

## What `make test` leaves out: real kills, browsers, documentation commands, slices of real studies:
## thirty minutes at most.
test-all: $(VENV)/.full
	$(BIN)/python -m pytest -n 2 -m slow

## Format, lint, types, import directions, study files.
check: $(VENV)/.full
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/modicum validate $(if $(MODICUM_DATA),,--no-data) $(STUDIES)

format: $(VENV)/.full
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The theme prints an advertisement for its successor otherwise.
docs docs-serve: export NO_MKDOCS_2_WARNING = 1

## The documentation as a site, in site/.
docs: $(VENV)/.full
	$(BIN)/mkdocs build --strict

## The same, served on this machine and rebuilt when a page changes.
docs-serve: $(VENV)/.full
	$(BIN)/mkdocs serve

## Benchmarks: ratios and figures, not tests.
bench: $(VENV)/.full
	$(BIN)/python tests/benchmarks/overhead.py
	$(BIN)/python tests/benchmarks/weak.py
	$(BIN)/python tests/benchmarks/vae.py
	$(BIN)/python tests/benchmarks/plan.py

## The whole of table 3.2 on the folders under MODICUM_DATA (docs/results/weak.md): about an hour.
weak-results: $(VENV)/.full
	$(BIN)/modicum run tune_configs/weak/table_3_2.yaml --out runs/table_3_2
	$(BIN)/modicum report runs/table_3_2 --markdown runs/table_3_2.md
	$(BIN)/python tests/benchmarks/weak_goals.py runs/table_3_2

## What docs/results/vae.md reports, on the folders under MODICUM_DATA: about two hours.
VAE_RESULTS := table_4_1_small closing_small table_b_1_small cifar10_small table_b_2_small samples_small \
	figure_4_2_small figure_4_3_small figure_4_4_small figure_4_5_small figure_4_6_small \
	figure_4_8_small figure_4_9_small figure_4_10_small all_of_mnist
vae-results: $(VENV)/.full
	for study in $(VAE_RESULTS); do \
		$(BIN)/modicum run tune_configs/vae/$$study.yaml --out runs/$$study || exit 1; \
	done
	$(BIN)/python tests/benchmarks/vae_goals.py runs/table_4_1_small

clean:
	rm -rf $(VENV) runs site .mypy_cache .ruff_cache .pytest_cache
