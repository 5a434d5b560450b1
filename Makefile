# Everything happens in .venv; `make setup` fills it from envs/requirements.txt.
PYTHON ?= python3
CORES ?= 2
BIN := .venv/bin
# modules are compiled when first imported: most never are, and to compile all takes longer than the rest
QUIETLY := --quiet --disable-pip-version-check --no-compile
export OMP_NUM_THREADS ?= 1
# Where a shell forbids bytecode, each of the demo's 52 jobs would compile all that it imports: 11 minutes for 7.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo test test-slurm lint format benchmark clean reference lock

setup: .venv/installed

.venv/installed: envs/requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "colatent needs Python 3.11 or newer; choose one with: make setup PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(QUIETLY) pip==26.3 # takes two thirds of the time of Python 3.11's own
	$(BIN)/pip install $(QUIETLY) -r envs/requirements.txt
	$(BIN)/pip install $(QUIETLY) --no-deps -e .
	@touch $@

demo: setup
	$(BIN)/snakemake --cores $(CORES)

test: setup
	$(BIN)/pytest -n $$(($(CORES) + 1)) --dist loadfile --no-loadscope-reorder

# as root: installs Debian's SLURM, starts it on loopback, stops it; skips, saying why, where it cannot
test-slurm: setup
	$(BIN)/pytest -m slurm tests/slurm

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/snakemake --lint

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

benchmark: setup
	@failed=0; for script in tests/benchmarks/[a-z]*.py; do $(BIN)/python $$script || failed=1; done; exit $$failed

# the JSON schema and the manual's table of keys, from the config's models
reference: setup
	$(BIN)/colatent reference

# the versions installed now, as the lock that `make setup` and the conda environment use
lock: setup
	$(BIN)/python envs/lock.py

clean:
	rm -rf .venv .snakemake results build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
