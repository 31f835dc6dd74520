# Two commands are enough on a machine with Python 3.11 and make: `make run` and `make test`.

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell command -v $(p))))
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SANDBOX := deploy/sandbox/node_modules/.installed
PEERS := deploy/peers/node_modules/.installed
FUZZ := $(patsubst %.py,%,$(filter-out %/__init__.py,$(wildcard tests/fuzz/*.py)))

.PHONY: help setup run test lint format lock bench soak fuzz clean

help:  ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: $(INSTALLED) $(SANDBOX) $(PEERS)  ## virtual environment and Node packages; run and test do it by themselves

$(INSTALLED): requirements-dev.lock pyproject.toml setup.py
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is wanted; set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

deploy/%/node_modules/.installed: deploy/%/package-lock.json $(INSTALLED)
	$(BIN)/python deploy/local/install_packages.py deploy/$*
	@touch $@

run: $(INSTALLED) $(SANDBOX)  ## the service on the sample channels, with a sandbox and a stand-in old engine
	@exec $(BIN)/python deploy/local/run.py

test: setup  ## every test but the soak
	$(BIN)/python -m pytest -n 2 -m "not soak"

lint: $(INSTALLED)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)  ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## the figures of the README, as JSON
	$(BIN)/python -m bench

soak: setup  ## the long tests
	$(BIN)/python -m pytest -m soak

fuzz: $(INSTALLED)  ## a million made-up inputs for each target of tests/fuzz, guided by coverage
	@for target in $(subst /,.,$(FUZZ)); do echo "== $$target"; $(BIN)/python -m $$target -runs=1000000 || exit 1; done

lock:  ## resolve the dependencies anew (wants uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --upgrade pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

clean:  ## what can be made again; the ledger in var/ stays
	rm -rf $(VENV) build dist *.egg-info deploy/*/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
