# make quickstart   a real sweep on real data, in a few minutes
# make test         the whole test suite
# make check        format, lint, types, import rules, tests: what CI runs
# make faults       N faults, each at a random moment, into small studies; a table of what came of them (N=200)
# make docs         bring docs/recipe.md up to date with the code
# make lock         bring requirements.lock up to date with pyproject.toml
# make clean        remove the environment and what the tools left behind
#
# Each makes the environment it needs (VENV, with a PYTHON from 3.11 to 3.13) and uses it again the next time.

VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Asked by running it: a version manager's shim exists on the PATH even where it can start nothing.
USABLE := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c '$(USABLE)' >/dev/null 2>&1 && echo $$python && break; done)

N ?= 200
JOBS ?= 1
# Two processes, each with whole files, since tests of one file share what is slow to set up; in the order of the folders,
# where the slowest come first.
PYTEST := python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: quickstart test check faults docs lock clean

quickstart: $(READY)
	$(BIN)/sweeper start studies/digits.yaml

test: $(READY)
	$(BIN)/$(PYTEST)

check: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/$(PYTEST)

faults: $(READY)
	$(BIN)/python -m tests.faults --n $(N) --jobs $(JOBS)

docs: $(READY)
	$(BIN)/python -m sweeper.reference >docs/recipe.md

lock: $(READY)
	$(BIN)/uv pip compile pyproject.toml --universal --all-extras --generate-hashes --no-header \
		--python-version 3.11 --quiet --output-file requirements.lock

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .grimp_cache

# All extras are installed: one lock, each file of it checked against its hash, uv included.
$(READY): requirements.lock pyproject.toml | $(BIN)/uv
	@echo "Installing and compiling the locked requirements: a minute or so"
	$(BIN)/uv pip sync --python $(BIN)/python --require-hashes --compile-bytecode requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --no-build-isolation --offline --quiet --editable .
	@touch $@

$(BIN)/uv:
	@test -n '$(PYTHON)' && $(PYTHON) -c '$(USABLE)' >/dev/null 2>&1 || { echo >&2 \
		"make: no usable Python$(if $(PYTHON), in PYTHON=$(PYTHON)): 3.11, 3.12 or 3.13 with its venv module is" \
		"needed (Debian: apt install python3-venv); name one with: make PYTHON=/path/to/python3.12 ..."; exit 1; }
	@echo "Preparing $(VENV): this happens once and downloads a few GB (PyTorch)"
	$(PYTHON) -m venv --clear $(VENV)
	awk '/^[a-z]/ { keep = /^uv==/ } keep' requirements.lock >$(VENV)/uv.txt
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement $(VENV)/uv.txt
