# make first · run · test · test-all · test-latest · test-platforms · lab · notebooks · lint · bench:
# each sets up .venv first, test-latest a .venv-latest.
# PYTHON names another interpreter, TORCH_INDEX another place for PyTorch than the one that fits the
# driver, RECIPE the experiment; make notebooks REPOSITORY=account/name BRANCH=main says where the
# series is on GitHub.
PYTHON ?= python3
RECIPE ?= recipes/embedded.toml
# As a variable of the environment: a shell that got the text itself would run what it contains.
export RECIPE
# Of what is in it python alone is run: the other programs name the folder that they were installed
# in, which may have another name by now.
BIN := .venv/bin
SET_UP := .venv/ready

# The newest of everything but torch: unpinned, torch pulls gigabytes of CUDA, and torchcodec newer
# than constraints.txt's does not load beside a CPU build.
LATEST_TORCH ?= $(shell grep -E '^torch(codec)?==' constraints.txt)

# Only from the command line: an environment may have a variable of that name for its own ends.
GIVEN = $(if $(filter command,$(firstword $(origin $(2)))),--$(1) '$($(2))')

# Containers often set it; then every lesson would compile torch and transformers anew.
unexport PYTHONDONTWRITEBYTECODE

# Two test files at once, each on half of the cores: much of a test is work for one core alone.
HALF_THE_CORES := $(shell expr \( $$(getconf _NPROCESSORS_ONLN) + 1 \) / 2)
TEST = OMP_NUM_THREADS=$(HALF_THE_CORES) $(1)/bin/python -m pytest -n 2 --dist loadfile -m "not slow"

.PHONY: first run test test-all test-latest test-platforms browser lab notebooks lint bench

# Lesson 1 alone: from a clean clone to the first transcription.
first: $(SET_UP)
	@mkdir -p runs
	$(BIN)/python -m papermill notebooks/01_environment.ipynb runs/01_environment.ipynb \
		-p RECIPE "$$RECIPE" --no-progress-bar
	@$(BIN)/python -c 'import json, sys; report = json.load(open(sys.argv[1])); \
		[print(key, report[key]) for key in ("device", "precision", "first_transcription")]' \
		"runs/$$(basename "$$RECIPE" .toml)/environment.json"

run: $(SET_UP)
	$(BIN)/python -m utils "$$RECIPE"

test: $(SET_UP)
	$(call TEST,.venv)

test-all: $(SET_UP) browser
	$(BIN)/python -m pytest

test-latest:
	$(PYTHON) -m venv --clear .venv-latest
	.venv-latest/bin/python -m pip install --quiet $(LATEST_TORCH)
	.venv-latest/bin/python -m pip install --quiet -r requirements-dev.txt
	$(call TEST,.venv-latest)

# What Colab, Kaggle and Debian 12 have, in environments of their own: some gigabytes, half an hour.
test-platforms: $(SET_UP)
	WHISPER_PLATFORMS=1 $(BIN)/python -m pytest tests/test_platforms.py

# test-all opens the page in a browser where there is one, or where apt may install it; else those
# tests say that they were skipped, and why.
browser:
	@command -v chromium >/dev/null || [ "$$(id -u)" != 0 ] || \
		! command -v apt-get >/dev/null || \
		{ apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium; } || true

FIRST_PAGE := /lab/tree/notebooks/01_environment.ipynb

# On localhost, with a token; from elsewhere: ssh -L 8888:127.0.0.1:8888 HOST
# Rented GPU machines log you in as root, which Jupyter refuses unless it is told otherwise.
lab: $(SET_UP)
	$(BIN)/python -m jupyterlab --ip=127.0.0.1 $(if $(filter 0,$(shell id -u)),--allow-root) --LabApp.default_url=$(FIRST_PAGE)

notebooks: $(SET_UP)
	$(BIN)/python notebooks/source/build.py $(call GIVEN,repository,REPOSITORY) $(call GIVEN,branch,BRANCH)

lint: $(SET_UP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python notebooks/source/build.py --check

bench: $(SET_UP)
	$(BIN)/python -m benchmarks.training_step

# What the Python of this machine is, in one word: 3.12.3, 3.11.0rc1, or nothing.
FOUND = $(shell $(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null)
GOOD = import sys; v = sys.version_info; sys.exit(not ((3, 11) <= v < (3, 15) and v[3] == "final"))

# The marker is written last: a set-up that was interrupted starts over.
$(SET_UP): requirements.txt requirements-dev.txt constraints.txt utils/environment/driver.py
	@$(PYTHON) -c '$(GOOD)' 2>/dev/null || { \
		echo "Python 3.11 to 3.14 is needed, no pre-release, and $(PYTHON) is \
	$(or $(FOUND),missing): name another one, make PYTHON=python3.12 $(MAKECMDGOALS) (docs/ssh.md says \
	how to get it)." | tr -s '\t ' ' '; exit 1; }
	@$(PYTHON) -m venv .venv || { \
		if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then \
			echo "No virtual environment could be made, for the reason above: if .venv is a link that \
	leads nowhere, delete it." | tr -s '\t ' ' '; \
		else echo "No virtual environment could be made: apt-get install \
	python$(basename $(basename $(FOUND)).x)-venv" | tr -s '\t ' ' '; fi; exit 1; }
	@# The PyTorch that fits the driver, before pip takes gigabytes that do not.
	@TORCH_INDEX="$(TORCH_INDEX)" $(BIN)/python utils/environment/driver.py
	@# What is never imported need not be compiled: the rest is, at its first import.
	$(BIN)/python -m pip install --quiet --no-compile -r requirements-dev.txt -c .venv/constraints.txt
	@touch $(SET_UP)
