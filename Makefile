# BesselFlow: `make demo` and `make test` set up everything that they need.

SHELL := /bin/bash
# The first interpreter that runs and has a version that we support.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& { echo $$p; break; }; done)
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)

# Where Snakemake looks for profiles by their names.
PROFILES := $(or $(XDG_CONFIG_HOME),$(HOME)/.config)/snakemake

.PHONY: help setup demo slurm-profile test test-slow test-browser test-slurm test-gpu bench bench-gpu bench-slurm lint clean

help:
	@echo "make demo          reconstruct the demo acquisitions, up to demo/results/report.html"
	@echo "make slurm-profile make snakemake --profile slurm work from everywhere"
	@echo "make test          run the tests (up to 15 minutes)"
	@echo "make test-slow     kill runs again and again (a few minutes)"
	@echo "make test-browser  open the reports in headless Chromium"
	@echo "make test-slurm    run the workflow on a Slurm cluster of one node (as root; 20 minutes)"
	@echo "make test-gpu      run what needs a CUDA GPU (two minutes)"
	@echo "make bench         run the benchmark over ../shared/bench, up to bench/results/metrics.tsv"
	@echo "make bench-gpu     measure fit, training and sampling on a CUDA GPU"
	@echo "make lint          check the style of code and workflow"
	@echo "make clean         remove the demo and the benchmark results"

setup: $(VENV)/.installed

$(VENV)/.installed: envs/requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "BesselFlow needs Python 3.11 or 3.12; install one, or run: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r envs/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.installed-test: envs/requirements-test.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r envs/requirements-test.txt
	@touch $@

demo: $(VENV)/.installed
	@python scripts/run_demo.py demo

# A link, so that what is adapted to the site stays in one place.
slurm-profile:
	@mkdir -p "$(PROFILES)"
	@test -L "$(PROFILES)/slurm" || test ! -e "$(PROFILES)/slurm" \
	|| { echo "$(PROFILES)/slurm is there already; move it away first"; exit 1; }
	@ln -sfn "$(CURDIR)/profiles/slurm" "$(PROFILES)/slurm"
	@echo "$(PROFILES)/slurm -> $(CURDIR)/profiles/slurm"

# As many workers as cores, each of which computes with one thread.
WORKERS := -n logical --maxprocesses 4
PYTEST := OMP_NUM_THREADS=1 pytest $(WORKERS) --dist loadscope --no-loadscope-reorder

test: $(VENV)/.installed-test
	$(PYTEST) -m "not browser and not slurm and not slow and not gpu" tests

test-slow: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 pytest $(WORKERS) -m slow tests/workflow

test-browser: $(VENV)/.installed-test
	$(PYTEST) -m browser tests/browser

test-slurm: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 pytest -o cache_dir=.pytest_cache/slurm -m slurm $(AGAIN) tests/slurm

test-gpu: $(VENV)/.installed-test
	pytest -m gpu tests/gpu tests/test_projection.py

bench: $(VENV)/.installed
	@python tests/benchmarks/run_bench.py

bench-gpu: $(VENV)/.installed
	@python tests/benchmarks/time_diffusion.py

bench-slurm: $(VENV)/.installed-test
	@python tests/benchmarks/time_slurm.py

# Snakemake lints a workflow with its samples, here those of the demo.
lint: $(VENV)/.installed-test
	ruff check .
	ruff format --check .
	snakefmt --check workflow
	@python scripts/make_demo.py demo
	snakemake --lint --config samples=demo/samples.tsv

clean:
	rm -rf demo bench
