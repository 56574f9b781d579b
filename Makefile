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
.PHONY: help demo test lint format bench schema oracle-waymo clean

help: ## show this
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "datakit needs Python 3.11 or newer; make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

DATASETS := kubric blendedmvs co3dv2 scannet colmap dynamic_replica waymo

demo: $(STAMP) ## every dataset's native files to certified scenes; shards; a small model; what it makes of a video
	@rm -rf $(OUT) && mkdir -p $(OUT)
	@set -eu; for dataset in $(DATASETS); do \
	  echo; echo "== $$dataset: native files of its own form, made here -> scene -> certificate"; \
	  set -x; \
	  $(BIN)/datakit world $$dataset $(OUT)/native/$$dataset --num-scenes 1 --frames 6 --size 96x96 --seed 3; \
	  $(BIN)/datakit probe $$dataset $(OUT)/native/$$dataset; \
	  $(BIN)/datakit convert $$dataset $(OUT)/native/$$dataset $(OUT)/scenes/$$dataset; \
	  $(BIN)/datakit certify $(OUT)/scenes/$$dataset; \
	  { set +x; } 2>/dev/null; \
	done; \
	echo; echo "== scenes -> shards -> a model that learns for two minutes -> what it says of a video"; \
	set -x; \
	$(BIN)/datakit world kubric $(OUT)/native/worlds --num-scenes 8 --frames 24 --size 96x96 --seed 100; \
	$(BIN)/datakit convert kubric $(OUT)/native/worlds $(OUT)/scenes/worlds; \
	$(BIN)/datakit certify $(OUT)/scenes/worlds; \
	$(BIN)/datakit pack $(OUT)/scenes/worlds $(OUT)/shards --min-level not_testable --quiet; \
	$(BIN)/datakit verify $(OUT)/shards; \
	$(BIN)/datakit train tiny --out $(OUT)/run -o data.shards=[$(OUT)/shards] -o validation.shards=[] \
	  -o optim.steps=150; \
	scene=$$(ls $(OUT)/scenes/worlds/*.h5 | head -n 1); \
	$(BIN)/datakit show $$scene -o $(OUT)/report.html; \
	$(BIN)/datakit infer $$scene $(OUT)/inferred --model $(OUT)/run; \
	{ set +x; } 2>/dev/null; \
	echo; echo "Look at:"; \
	echo "  $(OUT)/report.html             a scene, in any browser"; \
	echo "  $(OUT)/inferred/viewer.html    what the model makes of its pictures: points, tracks, cameras"; \
	echo "  $(OUT)/scenes/*/summary.json   certificates, rolled up"; \
	echo "  $(OUT)/scenes/*/*.h5           scenes, for datakit.open_scene"

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint ## lint, types and all tests
	$(BIN)/pytest -n auto --dist worksteal -q tests
	$(BIN)/pytest -q --doctest-modules datakit/geometry datakit/schema datakit/__init__.py

format: $(STAMP) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## measure, and print ratios
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

schema: $(STAMP) ## make schemas/json and docs/contract.md from the tables
	$(BIN)/datakit schema

# The official package needs Linux on x86-64, Python 3.10 or 3.11, and 3 GB: make ORACLE_PYTHON=python3.10 oracle-waymo
ORACLE := out/oracle-waymo
ORACLE_PYTHON ?= $(PYTHON)
oracle-waymo: $(STAMP) ## ask the official Waymo package about a synthetic segment
	@$(ORACLE_PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 12) and "the official package needs Python 3.10 or 3.11; make ORACLE_PYTHON=...")'
	test -x $(ORACLE)/venv/bin/python || $(ORACLE_PYTHON) -m venv $(ORACLE)/venv
	$(ORACLE)/venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/oracle/waymo/requirements.txt
	@# The protobuf that TensorFlow asks for makes the official parser raise (TypeError in frame_utils.py:60).
	test -d $(ORACLE)/protobuf || $(ORACLE)/venv/bin/python -m pip install --quiet --disable-pip-version-check \
	  --target $(ORACLE)/protobuf protobuf==5.29.5
	rm -rf $(ORACLE)/native
	$(BIN)/python -m tests.oracle.waymo.segment $(ORACLE)/native
	PYTHONPATH=$(ORACLE)/protobuf TF_CPP_MIN_LOG_LEVEL=3 $(ORACLE)/venv/bin/python tests/oracle/waymo/official.py \
	  $(ORACLE)/native tests/oracle/waymo/golden.npz
	cp $(ORACLE)/native/v1/training/*.tfrecord tests/oracle/waymo/segment.tfrecord
	$(BIN)/pytest -q tests/converters/waymo/test_golden.py

clean: ## delete what was made here, .venv too
	rm -rf $(VENV) out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
