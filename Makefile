# GNU make. `make` alone prints the targets.
.DEFAULT_GOAL := help
.PHONY: help venv quickstart test test-all lint check benchmark clean

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/complete
# Tests of a file share what takes long to make, so they stay in one process.
PYTEST := $(PYTHON) -m pytest --numprocesses=2 --dist=loadfile

help: ## print these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

venv: $(STAMP) ## make .venv with everything installed (3 GB); only when there is none or the requirements changed

# The stamp comes last, so that an environment whose making was interrupted is made again from scratch.
$(STAMP): tools/make_venv.sh requirements.txt requirements-dev.txt constraints.txt
	sh tools/make_venv.sh $(VENV)
	@touch $@

quickstart: venv ## train on handwritten digits with 40 labels, then evaluate, report and export to runs/quickstart
	$(PYTHON) -m metassl_tf.train --flagfile=flags/digits/quickstart.flags --workdir=runs/quickstart

test: venv ## run the tests but the slow ones; ARGS="-k name" picks some
	$(PYTEST) $(ARGS)

test-all: venv ## run all tests, those that take minutes too
	$(PYTEST) -m "" $(ARGS)

lint: venv ## ruff (rules and format) and mypy
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

check: lint test ## lint, then test: what a change must pass

benchmark: venv ## measure speed and memory as ratios into benchmark.json
	$(PYTHON) -m tools.benchmark --output=benchmark.json

clean: ## remove the environment, caches and build products; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache benchmark.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
