# `make demo` and `make test` make .venv themselves. Another interpreter: make PYTHON=python3.12 test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The release that the tests are run with. Another: make TORCH='torch --index-url https://...' test
TORCH ?= torch==2.13.0
OUT := out/demo
# Give tests and benchmarks one thread per process: the processes are the parallelism.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench schema clean

help: ## show this
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "datakit needs Python 3.11 or newer; make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(STAMP) ## native files -> scenes -> certificates -> a report to look at
	@rm -rf $(OUT) && mkdir -p $(OUT)
	@set -eu; for form in worker tfds; do \
	  echo; echo "== Kubric, native form: $$form"; \
	  set -x; \
	  $(BIN)/datakit world kubric $(OUT)/native/$$form --form $$form --num-scenes 2 --size 128x128 --seed 1; \
	  $(BIN)/datakit probe kubric $(OUT)/native/$$form; \
	  $(BIN)/datakit convert kubric $(OUT)/native/$$form $(OUT)/scenes/$$form; \
	  $(BIN)/datakit validate $(OUT)/scenes/$$form; \
	  $(BIN)/datakit certify $(OUT)/scenes/$$form; \
	  { set +x; } 2>/dev/null; \
	done; \
	scene=$$(ls $(OUT)/scenes/worker/*.h5 | head -n 1); \
	$(BIN)/datakit info $$scene; \
	$(BIN)/datakit show $$scene -o $(OUT)/report.html; \
	echo; echo "Look at:"; \
	echo "  $(OUT)/report.html                    the scene, in any browser"; \
	echo "  $(OUT)/scenes/worker/summary.json     certificates, rolled up"; \
	echo "  $(OUT)/scenes/*/*.h5                  scenes, for datakit.open_scene"

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint ## lint, types and all tests
	$(BIN)/pytest -n auto -q tests
	$(BIN)/pytest -q --doctest-modules datakit/geometry datakit/schema datakit/__init__.py

format: $(STAMP) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## measure, and print ratios
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

schema: $(STAMP) ## make schemas/json and docs/contract.md from the tables
	$(BIN)/datakit schema

clean: ## delete what was made here, .venv too
	rm -rf $(VENV) out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
