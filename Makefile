# One command from a clone to a working tree: `make`. Needs python3 (3.11 to 3.14) with venv, make and git; brings its own uv.
SHELL      := /bin/bash
PYTHON     ?= python3
SERVICES   := customer rating campaign contact loyalty
MEMBERS    := protos services/chassis $(SERVICES:%=services/%) gateway deploy/local
UV         := .tools/bin/uv
BIN        := .venv/bin
MANIFESTS  := $(MEMBERS:%=%/pyproject.toml)
LOCK_ARGS  := --universal --python-version 3.11 --generate-hashes --group dev \
              --extra training --no-header --no-annotate --no-emit-index-url \
              $(foreach m,$(MEMBERS),--no-emit-package concord-$(notdir $m))
TESTED     := $(foreach t,$(wildcard $(MEMBERS:%=%/tests) tests),$(if $(shell find $(t) -name '*.py' -print -quit),$(t)))
# Contracts are compared with those of this revision: the last release, or else what is committed.
AGAINST    ?= $(shell git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || echo HEAD)
DESCRIPTORS := protos/concord/descriptors.binpb

.DEFAULT_GOAL := ready
.PHONY: ready help run test check format-check lint types walls protos protos-check migrations-check openapi-check lock lock-check \
        bench soak format clean

ready: .venv/.ready  ## Install everything into .venv (the default)

help:  ## Say what there is
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

# ---- the environment

.tools/.ready: tools.lock
	$(PYTHON) -m venv --clear .tools
	.tools/bin/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps --only-binary :all: -r tools.lock
	@touch $@

.venv/.ready: requirements.lock $(MANIFESTS) | .tools/.ready
	@test -x $(BIN)/python || $(UV) venv -q --python $(PYTHON) .venv
	$(UV) pip sync -q --require-hashes requirements.lock
	@$(UV) pip install -q --no-deps $(MEMBERS:%=-e ./%)
	@$(UV) pip check -q
	@touch $@

# ---- the platform

run: ready  ## Start the platform, load the demonstration and leave it running
	$(BIN)/concord up --detach
	$(BIN)/concord demo

test: ready  ## Every test except the long fault runs
	$(BIN)/pytest -q -m "not soak" -n 2

soak: ready  ## The long fault runs
	$(BIN)/pytest -q -m soak --timeout 3600

bench: ready  ## The figures, measured side by side with the machine's own (BENCH_SCALE=1 is the default size)
	PYTHONPATH=tests/load $(BIN)/python -m bench

# ---- the rules of the house

check: format-check lint types walls protos-check lock-check migrations-check openapi-check  ## Every rule that a machine can check

format: ready  ## Format Python and contracts
	$(BIN)/ruff format -q
	$(BIN)/ruff check -q --fix-only
	$(if $(wildcard $(DESCRIPTORS)),$(BIN)/buf format -w --path protos/concord)

format-check: ready
	$(BIN)/ruff format -q --check

lint: ready
	$(BIN)/ruff check -q

types: ready  ## mypy --strict; tests one member at a time, because their modules have the same names
	$(BIN)/mypy $(foreach m,$(filter-out protos,$(MEMBERS)),$(m)/$(if $(filter deploy/local,$(m)),concord_local,$(notdir $(m)))) protos/generate.py conftest.py
	@for folder in $(TESTED); do $(BIN)/mypy --no-error-summary --cache-dir .mypy_cache/$${folder//\//-} $$folder || exit 1; done

walls: ready  ## import-linter: who may import whom
	$(BIN)/lint-imports --no-logo

migrations-check: ready  ## Each service's tables are what its migrations make, on a throw-away PostgreSQL
	$(BIN)/python -m concord_local.checks alembic

openapi-check: ready  ## The published OpenAPI document is what the contracts say
	$(BIN)/python -m gateway openapi --check

protos: ready  ## Write the Python of the contracts and their descriptor set
	$(BIN)/python protos/generate.py

protos-check: ready  ## Contracts: no drift of generated code, format, lint, nothing broken since AGAINST=revision
	$(BIN)/python protos/generate.py --check
ifneq ($(wildcard $(DESCRIPTORS)),)
	$(BIN)/buf format --diff --exit-code --path protos/concord
	$(BIN)/buf lint $(DESCRIPTORS) --path concord
	@mkdir -p build
	@if git show $(AGAINST):$(DESCRIPTORS) > build/released.binpb 2>/dev/null; \
	then echo "buf breaking against $(AGAINST)" && $(BIN)/buf breaking $(DESCRIPTORS) --against build/released.binpb --path concord; \
	else echo "no contracts in $(AGAINST): nothing to compare with"; fi
endif

lock: | .tools/.ready  ## Write requirements.lock (P=package raises one, P=--all raises everything)
	$(UV) pip compile -q $(LOCK_ARGS) $(if $(P),$(if $(filter --all,$(P)),--upgrade,$(P:%=--upgrade-package %))) $(MANIFESTS) -o requirements.lock

lock-check: ready  ## What is installed from the lock satisfies every member; the lock names no address
	@$(UV) pip check -q
	@$(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['dependency-groups']['dev'], sep='\n')" | \
	  $(UV) pip install -q --offline --no-deps --dry-run -r -
	@! grep -nE '://|^-e|file:' requirements.lock
	@test ! -e uv.lock

clean:  ## Remove the environment, tools and caches (the platform's data in .concord stays)
	rm -rf .venv .tools build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
