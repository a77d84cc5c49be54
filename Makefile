# Everything starts here: each target builds or refreshes .venv from nothing but Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS ?= torch,keras,dev
comma := ,
STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))

.PHONY: help env demo test check check-all docs format bench notebooks clean

help:
	@echo "make env     build .venv (EXTRAS=$(EXTRAS))"
	@echo "make demo    the whole way on synthetic radiographs; ends with the path of a report"
	@echo "make test    the test suite"
	@echo "make check   format, lint, types"
	@echo "make docs    the documentation as a site; ends with the path of its first page"
	@echo "make check-all  check, the test suite, docs, each architecture at its own size, the notebooks as stored"
	@echo "make bench   performance claims, each measured beside its peer"
	@echo "make notebooks  run on real radiographs and stored with their outputs; see notebooks/README.md"

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "hilum needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: env
	$(BIN)/hilum demo -o runs/demo --resume

# One test process a core, each with one thread: faster than one process with threads in it.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8 --hypothesis-profile=$(CASES)

# Property tests try the same cases each time, and new ones with check-all. (The name is Hypothesis's own.)
CASES := ci
check-all: CASES := default

# Keras's tests run apart, since no process holds two frameworks; 5 says that there are none, where it is not installed.
KERAS := tests/engines/keras || [ $$? -eq 5 ]

test: env
	$(PYTEST) --dist loadfile --no-loadscope-reorder -m "not full"
	$(PYTEST) --dist loadfile --no-loadscope-reorder -m "not full" $(KERAS)

check: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check-all: check test docs
	$(PYTEST) -m full
	$(PYTEST) -m full $(KERAS)

# From nothing each time, so that no page is left over; a warning, such as of a link that leads nowhere, is an error.
docs: env
	rm -rf build/docs
	$(BIN)/sphinx-build -q -E -W --keep-going -c docs -d build/doctrees . build/docs
	@echo build/docs/index.html

format: env
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: env
	$(BIN)/python -m benchmarks

# One after another: the second of a pair reads what the first one left. NAMES chooses some.
NAMES :=
notebooks: env
	$(BIN)/python notebooks/execute.py $(NAMES)

clean:
	rm -rf $(VENV) build runs .mypy_cache .ruff_cache .pytest_cache
