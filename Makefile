# Two commands: `make demo` shows it working on real input, `make test` checks everything.

PY  ?= python3
BIN := .venv/bin
PAGE := src/forge_jobs/ui/static/index.html

.PHONY: help demo demo-postgres dashboard test slow django6 mutants bench bench-postgres lint types layers check-system format clean

help:            ## this list
	@grep -hE '^[a-z0-9-]+: .*##|^[a-z0-9-]+:  *##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/\t/' | expand -t 14

.venv/.ready: pyproject.toml hatch_build.py
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PY=/path/to/python3.11"; exit 1; }
	$(PY) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test]'
	@touch $@

demo: .venv/.ready dashboard    ## set up, then run the demo: real jobs, a killed worker, a check; KEEP=1 lets it run on
	$(BIN)/forge-jobs demo $(if $(DATABASE_URL),--server '$(DATABASE_URL)') $(if $(KEEP),--stay)

demo-postgres: .venv/.ready check-system    ## the same on a throw-away PostgreSQL server, with three workers
	$(BIN)/python -m forge_jobs.testing.postgres $(BIN)/forge-jobs demo --server

dashboard: .venv/.ready     ## compile the dashboard anew if its sources changed
	@[ -e $(PAGE) ] && [ -z "$$(find ui -name node_modules -prune -o -type f -newer $(PAGE) -print -quit)" ] || \
		$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .

test: .venv/.ready check-system dashboard lint types layers    ## set up, then run every check
	$(BIN)/pytest -q -m "not slow" -n 2 --dist loadfile --ignore tests/process --ignore tests/demo
	$(BIN)/pytest -q -m "not slow" tests/process tests/demo

slow: .venv/.ready check-system django6    ## the long proofs in full
	$(BIN)/pytest -q -m slow --timeout 3600

django6: check-system    ## the Django integration on Django 6, whose Python must be 3.12 or newer (DJANGO6_PY=…)
	@sh tests/with-django6.sh

mutants: .venv/.ready       ## faults put into the source on purpose: each must be noticed
	$(BIN)/python tests/mutants/catch.py

bench: .venv/.ready         ## measure, each number as a ratio to what bare SQLite reaches in the same run
	$(BIN)/forge-jobs bench

bench-postgres: .venv/.ready check-system    ## the same on a throw-away PostgreSQL server with stock settings, on disk
	$(BIN)/forge-jobs bench --backend postgres

lint: .venv/.ready
	$(BIN)/ruff check src tests docs examples
	$(BIN)/ruff format --check -q src tests docs examples

types: .venv/.ready
	$(BIN)/mypy

layers: .venv/.ready
	$(BIN)/lint-imports --no-cache

check-system:
	@sh tests/check-system.sh

format: .venv/.ready
	$(BIN)/ruff check -q --fix src tests docs examples; $(BIN)/ruff format -q src tests docs examples

clean:
	rm -rf .venv .venv-django6 .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
