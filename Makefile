PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export OMP_WAIT_POLICY = PASSIVE

.PHONY: demo test check bench docs clean

demo: $(VENV)/.demo  ## build a gallery, upgrade its embedding model, look at the report (no torch, offline)
	$(BIN)/crossfade demo

test: check  ## everything that CI runs
	$(BIN)/python -m pytest

check: $(VENV)/.dev
	$(BIN)/ruff format --check src tests recipes benchmarks
	$(BIN)/ruff check src tests recipes benchmarks
	$(BIN)/mypy

bench: $(VENV)/.dev  ## measure again what benchmarks/results holds (CROSSFADE_DATA names the data folder)
	$(BIN)/python -m benchmarks

docs: $(VENV)/.dev  ## run the documentation's commands and write their output into its pages
	$(BIN)/python docs/execute.py

clean:
	rm -rf $(VENV) crossfade-demo build dist

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Crossfade needs Python 3.10 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e '.[lance,onnx,faiss]'
	touch $@

# The CPU build of torch comes first: whatever depends on torch then finds it and fetches no CUDA.
$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[lance,onnx,faiss,pgvector,qdrant,milvus-lite,chroma-local,dev]'
	touch $@
