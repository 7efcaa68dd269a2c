# uncrop: `make demo` and `make test` need Python >= 3.10 and make, nothing else.
#
#   make demo                          convert the sample track and show the picture that proves it
#   make test                          run all tests
#   make setup                         only install what the tests need, with the commands, into .venv
#   make test PYTHON=python3.12        with another Python
#   make test VENV_FLAGS=--system-site-packages    with the torch that PYTHON already has

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
VENV_FLAGS ?=
# Only the tests use torch, as an oracle for its own files. It is left out where pip would take the
# CUDA build (gigabytes); those tests are then skipped, and say so.
TORCH ?= torch==2.13.0
DEMO_OUT ?= demo-out
PYTEST_FLAGS ?= -n auto --dist worksteal

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help setup demo test check lint types bench faults fuzz fuzz-long fixtures clean

help:
	@sed -n 's/^#   //p' Makefile

$(VENV)/.base: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("uncrop needs Python >= 3.10, this is " + sys.version) if sys.version_info < (3, 10) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
	$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.base
	$(PIP) install --quiet --editable '.[test]'
	@if $(PIP) install --dry-run --quiet --report - '$(TORCH)' 2>/dev/null | grep -q '"name": "nvidia-'; then \
	  echo "torch is left out: pip would take its CUDA build. Tests against it are skipped;"; \
	  echo "install a CPU build into $(VENV), or: make test VENV_FLAGS=--system-site-packages"; \
	elif [ -n '$(TORCH)' ]; then $(PIP) install --quiet '$(TORCH)'; fi
	@touch $@

setup: $(VENV)/.test

demo: $(VENV)/.base
	$(BIN)/convert fixtures/sample --to gaussiantalker -o $(DEMO_OUT) --overwrite
	@echo; echo "The proof: $(DEMO_OUT)/proof.jpg (mesh and landmarks over the written images)"
	@if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] && command -v xdg-open >/dev/null; then \
	  xdg-open $(DEMO_OUT)/proof.jpg >/dev/null 2>&1 || true; \
	elif [ "$$(uname)" = Darwin ]; then open $(DEMO_OUT)/proof.jpg || true; fi

test: $(VENV)/.test
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

check: lint types test

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks.run

# Every point at which a command changes the disk, and 60 kills at random times: over an hour.
faults: $(VENV)/.test
	UNCROP_FAULTS=0 $(BIN)/python -m pytest tests/faults -q

# Each reader in turn, guided by coverage where atheris has a wheel. Figures: docs/security.md.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= $(shell $(BIN)/python -c 'from tests.fuzz.targets import TARGETS; print(*TARGETS)')

fuzz: $(VENV)/.test
	-$(PIP) install --quiet atheris
	@failed=0; for target in $(FUZZ_TARGETS); do \
	  $(BIN)/python -m tests.fuzz.run $$target --seconds $(FUZZ_SECONDS) || failed=1; \
	done; exit $$failed

fuzz-long: FUZZ_SECONDS = 3600
fuzz-long: fuzz

fixtures: $(VENV)/.test
	$(BIN)/python fixtures/make_torch_files.py
	$(BIN)/python fixtures/make_sample.py
	$(BIN)/python fixtures/make_check_pages.py
	$(BIN)/python fixtures/make_flame_head_tracker.py

clean:
	rm -rf $(VENV) $(DEMO_OUT) .fuzz .pytest_cache .mypy_cache .ruff_cache .hypothesis
