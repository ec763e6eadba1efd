# Everything a newcomer needs: `make run` and `make test` set up what they use.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# one thread an operation: tests run side by side, and two busy threads a core are far slower;
# bytecode is kept: without it each process compiles the package and rewrites the tests again
TEST_ENV := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 WANDB_MODE=offline HF_HUB_OFFLINE=1 MPLBACKEND=Agg

.PHONY: run gallery grids peers test test-slow bench lint clean
.DELETE_ON_ERROR:

run: $(VENV)/.run  ## the main job: train, sweep, table, figure
	$(BIN)/samplerbench $(ARGS)

gallery: $(VENV)/.run  ## the main job and all experiments, their pictures and numbers: an hour
	$(BIN)/python multirun/gallery/make.py $(ARGS)

grids: $(VENV)/.run  ## samplers on a common grid and each on its own, of docs/grids.md: half an hour with the training of the U-Net
	$(BIN)/python multirun/gallery/grids.py $(ARGS)

peers: $(VENV)/.test  ## docs/peers.md: samplers of the installed packages, measured: nine minutes on two cores
	$(BIN)/python multirun/gallery/peers.py $(ARGS)

test: $(VENV)/.test  ## the tests for every change; a file in one process, which makes its runs once, and the long files of app and bench first
	$(TEST_ENV) $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder -p no:hypothesispytest -m "not slow and not bench" --durations=15 --durations-min=1 $(ARGS)

test-slow: $(VENV)/.test  ## the tests that take long, and all cases of those of which make test has some
	$(TEST_ENV) $(BIN)/python -m pytest -n auto --maxprocesses 2 --dist loadfile -m "slow and not bench" $(ARGS)

bench: $(VENV)/.test  ## speed, as ratios; run it on an idle machine
	$(TEST_ENV) $(BIN)/python -m pytest tests/benchmarks -m bench --benchmark-enable -s $(ARGS)

lint: $(VENV)/.test  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("samplerbench needs Python 3.11, 3.12 or 3.13; try make PYTHON=python3.11" if not (3, 11) <= sys.version_info < (3, 14) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e .
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e ".[test]"
	# peers whose numbers ours are compared with; their own requirements would bring another torch
	$(PIP) --no-deps azula einops k-diffusion
	touch $(VENV)/.run $@

clean:
	rm -rf $(VENV)
