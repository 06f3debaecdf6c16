# Every target sets itself up in .venv; `make help` lists them.
# PYTHON=python3.12 picks another interpreter (3.11 or newer).
# TORCH_INDEX=URL takes torch from that package index, e.g. PyTorch's own for CPU-only builds.
# WORKERS=4 lets so many processes share the tests.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test check protos check-protos format clean

PYTHON ?= python3
TORCH_INDEX ?=
WORKERS ?= 2
BIN := .venv/bin
READY := .venv/.ready
PROTO := protos/splitexit/live/edge.proto
STUBS := edge_pb2.py edge_pb2.pyi edge_pb2_grpc.py

# pip's own report, down to what it downloads and installs; its errors come through on stderr.
SHORT := sed -u -n -E 's/^ *(Downloading [^ ]+|Building|Installing build|Successfully)( .{0,60})?.*/    \1\2/p'
# Stubs go to $(1); mypy, ruff and the floors test leave them alone.
PROTOC = $(BIN)/python -m grpc_tools.protoc -I protos --python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) $(PROTO)

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## .venv with everything installed
	@echo "setup: .venv is ready"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "splitexit needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) -V 2>/dev/null || echo not there);" \
	    "try: make setup PYTHON=python3.12" >&2; exit 1; }
	@echo "setup: creating .venv with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv .venv || { echo "setup: no venv module; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "setup: installing torch 2.13.0 (by far the largest part; a minute or more)"
	@$(BIN)/python -m pip install torch==2.13.0 $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) | $(SHORT)
	@echo "setup: installing splitexit and its tools"
	@$(BIN)/python -m pip install -c constraints.txt -e '.[dev]' | $(SHORT)
	@touch $(READY)

demo: $(READY)  ## a real device and a real edge process over an emulated link, then the same simulated
	@$(BIN)/splitexit demo

# File by file in two processes of one thread each; then, alone, what measures real time.
test: $(READY)  ## the whole test suite
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile -m "not serial"
	@OMP_NUM_THREADS=1 $(BIN)/pytest -m serial

check: $(READY)  ## formatting, lint, types, generated stubs, imports
	@echo "check: ruff format" && $(BIN)/ruff format --check .
	@echo "check: ruff check" && $(BIN)/ruff check .
	@echo "check: mypy" && $(BIN)/mypy
	@$(MAKE) --no-print-directory check-protos
	@echo "check: floors" && $(BIN)/pytest tests/test_floors.py

protos: $(READY)  ## generate the gRPC stubs from protos/ again
	@$(call PROTOC,.)

check-protos: $(READY)
	@echo "check: protos"
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && $(call PROTOC,"$$dir") && \
	for stub in $(STUBS); do \
	  diff -q "splitexit/live/$$stub" "$$dir/splitexit/live/$$stub" >/dev/null || { \
	    echo "splitexit/live/$$stub is not what $(PROTO) generates; run: make protos" >&2; exit 1; }; \
	done

format: $(READY)  ## put the code into its standard form
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

clean:  ## remove .venv, caches and build output
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
