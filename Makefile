# Everything runs in .venv, which is made on first use and made anew when setup.cfg changes.
#   make demo        the oracle sweep on real digits, and where its report lies; beside it explore.html, the same with sliders
#   make test        every test not marked slow or long
#   make test-slow   those marked slow
#   make test-ci     both in one run, as .ci/run does: the workers start once, and share what is compiled
#   make test-long   longer forms of other tests, by hand: CONTRIBUTING.md
#   make drill       DRILL_FAULTS faults to jobs of several processes; the last line says what was lost
#   make launch-dry  render what is submitted to a cloud, and check it; submits nothing
#   make lint        ruff, mypy, the direction of imports, and whether the documents have the numbers of docs/figures
#   make docs        the site, its tutorials run and its links checked, in build/site
#   make check-wheel the wheel in dist/, installed into an empty environment and tried there
#   make clean       remove .venv and what the demo wrote

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export JAX_PLATFORMS ?= cpu
# Bytecode is kept, even where the caller turns that off: the tests start hundreds of processes, and check types where modules are imported.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-slow test-ci test-long drill launch-dry lint docs check-wheel clean

demo: $(VENV)/.installed
	@$(BIN)/python -m experiments.oracle_sweep --workdir=demo --overwrite --config.explorer=True

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed-slow
	$(BIN)/python -m pytest -m "slow and not long"

test-ci: $(VENV)/.installed-slow
	$(BIN)/python -m pytest -m "not long"

test-long: $(VENV)/.installed-slow
	$(BIN)/python -m pytest -m long

DRILL_FAULTS ?= 50

drill: $(VENV)/.installed-test
	$(BIN)/python -m tests.drill --faults=$(DRILL_FAULTS)

LAUNCH := $(BIN)/python launch/render.py --bucket=my-bucket --image=registry.example/flowjax:dry

launch-dry: $(VENV)/.installed-test
	$(LAUNCH) --slice=v5e-256 --form=check -- python -m experiments.train --config=experiments/configs/train.py:imagenet_vavae_xl1 --config.data.path=/bucket/latents
	$(LAUNCH) --slice=v6e-64 --form=check -- python -m experiments.oracle_sweep --config=experiments/configs/oracle_sweep.py:arrays --config.data.path=/bucket/latents
	$(LAUNCH) --slice=v5p-64 --form=jobset -- python -m experiments.train
	$(LAUNCH) --slice=v5e-16 --form=xpk -- python -m experiments.train
	$(LAUNCH) --slice=v5e-16 --form=queued -- python -m experiments.train

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/fill_numbers.py --check

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

check-wheel: $(VENV)/bin/python
	rm -rf dist build/wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir=dist .
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip install --quiet dist/*.whl
	cd build/wheel && bin/python -m experiments.oracle_sweep --workdir=run

clean:
	rm -rf $(VENV) demo

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is $$($(PYTHON) --version 2>&1), and Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "make: $(PYTHON) cannot make a virtual environment; install its venv module (Debian: apt install python3-venv)"; exit 1; }
	@# The pip that comes with an older Python takes nearly twice as long to choose versions. Where none is to be had, it stays.
	@$(BIN)/python -m pip install --quiet --upgrade pip || true

# Bytecode is left to be written where a module is imported: most modules of what is installed never are.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --editable

$(VENV)/.installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV) ..."
	@$(INSTALL) .
	@touch $@

$(VENV)/.installed-test: setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV), with what the tests need ..."
	@$(INSTALL) ".[test,gcs,torch]"
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV), with what the site needs ..."
	@$(INSTALL) ".[docs]"
	@touch $@

$(VENV)/.installed-slow: setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV), with what the tests need and the TPU compiler ..."
	@$(INSTALL) ".[test,gcs,tpu,torch]"
	@touch $@ $(VENV)/.installed-test $(VENV)/.installed
