# BesselFlow: `make demo` and `make test` set up everything that they need.

SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)

.PHONY: help setup demo test test-all bench lint clean

help:
	@echo "make demo      reconstruct the demo acquisitions, up to demo/results/report.html"
	@echo "make test      run the tests (up to 15 minutes)"
	@echo "make test-all  run the browser tests, too (needs Chromium)"
	@echo "make bench     run the benchmark in BENCH=../shared/bench, up to bench/results/metrics.tsv"
	@echo "make lint      check the style of code and workflow"
	@echo "make clean     remove the demo and the benchmark results"

setup: $(VENV)/.installed

$(VENV)/.installed: envs/requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 12) else "BesselFlow needs Python 3.11 or 3.12, but $(PYTHON) is %d.%d; run: make PYTHON=/path/to/python3.11" % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r envs/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.installed-test: envs/requirements-test.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r envs/requirements-test.txt
	@touch $@

demo: $(VENV)/.installed
	@python scripts/run_demo.py demo

test: $(VENV)/.installed-test
	pytest -m "not browser" tests

test-all: $(VENV)/.installed-test
	pytest tests

bench: $(VENV)/.installed
	@python tests/benchmarks/run_bench.py

lint: $(VENV)/.installed-test
	ruff check .
	ruff format --check .
	snakefmt --check workflow
	snakemake --lint --config samples=tests/data/lint/samples.tsv

clean:
	rm -rf demo bench
