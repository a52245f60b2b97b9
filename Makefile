# Everything a developer runs. `make` alone lists the targets.
# Arguments go through: make test ARGS="-k batcher", make run ARGS="--port 5000".

# The interpreter that makes the virtual environment: python3 if it is new enough, else the newest that is.
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; \
	done || echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
# How many of all tests run at the same time; most of them wait for a process. With ARGS it is one.
JOBS ?= 3
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-warn-script-location
UV := $(BIN)/uv --quiet --no-config
LOCK := --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
CRATE := --manifest-path native/Cargo.toml
FETCH := CARGO_NET_RETRY=1 CARGO_HTTP_TIMEOUT=10 timeout 60 cargo fetch $(CRATE) --locked --quiet
PROTOC := $(BIN)/python -m grpc_tools.protoc -Iprotos
PROTOS := $(sort $(shell find protos -name '*.proto' 2>/dev/null))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run test lint types fmt check bench torture fuzz protos docs site lock audit rehearse sbom build clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.installed-dev ## Make .venv and install everything that development needs

run: $(VENV)/.installed-run $(VENV)/.tried-native ## Install if needed, then start collector and query service in the foreground
	@exec $(BIN)/msgtrace start $(ARGS)

test: $(VENV)/.installed-test $(VENV)/.tried-native ## Run the tests, on SQLite and on a real PostgreSQL
	@$(BIN)/python -m pytest $(or $(ARGS),--numprocesses $(JOBS) --dist loadgroup)

lint: $(VENV)/.installed-dev ## Check style, import directions and generated code
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache --no-logo
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && set -e && \
	for proto in $(PROTOS); do \
		$(PROTOC) --python_out=$$scratch --pyi_out=$$scratch $$proto; \
	done && \
	(cd $$scratch && find . -type f) | while read -r file; do \
		cmp -s $$scratch/$$file $$file || { echo "$$file is stale: run make protos" >&2; exit 1; }; \
	done
	@if ! cargo clippy --version >/dev/null 2>&1; then \
		echo "native/ is not linted: there is no cargo clippy."; \
	elif ! $(FETCH) 2>/dev/null; then \
		echo "native/ is not linted: cargo cannot have its packages."; \
	else \
		cargo clippy $(CRATE) --locked --quiet --all-targets -- --deny warnings && \
		cargo fmt $(CRATE) --check; \
	fi

types: $(VENV)/.installed-dev ## Check types
	@$(BIN)/mypy

fmt: $(VENV)/.installed-dev ## Format the code and fix what can be fixed
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

check: lint types test ## All that must pass before a change is merged

bench: $(VENV)/.installed-test $(VENV)/.tried-native ## Measure ingest beside the databases' own ceilings
	@$(BIN)/python -m benchmarks.ingest $(ARGS)

torture: $(VENV)/.installed-test ## Break both databases under load, ARGS="--minutes 30 --seed 1"
	@$(BIN)/python -m tests.faults.torture $(ARGS)

fuzz: $(VENV)/.installed-test $(VENV)/.tried-native ## Damage requests and compare the decoders, ARGS="--minutes 10 --seed 1"
	@$(BIN)/python -m tests.fuzz.long $(ARGS)

protos: $(VENV)/.installed-dev ## Compile protos/ into the package
	@for proto in $(PROTOS); do $(PROTOC) --python_out=. --pyi_out=. $$proto || exit 1; done

docs: $(VENV)/.installed-test ## Render the settings, metrics and command line into docs/, and the names of tests in docs/conformance.md
	@for page in settings metrics conformance cli; do \
		$(BIN)/python -m tests.project.render_$$page > docs/$$page.md.new && \
		mv docs/$$page.md.new docs/$$page.md || exit 1; \
	done

site: $(VENV)/.installed-test ## Make a site of docs/ in build/site; a broken link is an error
	@$(BIN)/zensical build --strict

audit: $(VENV)/.installed-test ## Ask for advisories on what the image installs, and on the native decoder where cargo-deny is
	@$(UV) tool run --from 'pip-audit>=2.10,<3' pip-audit --strict --disable-pip --require-hashes \
		--requirement deploy/lock/runtime.txt
	@if cargo deny --version >/dev/null 2>&1; then cargo deny $(CRATE) check; \
	else echo "The crates of the native decoder are not asked about: there is no cargo deny."; fi

lock: $(VENV)/.installed-test ## Pin what the image installs; ARGS=--upgrade takes newer releases
	@$(UV) pip compile pyproject.toml $(LOCK) --output-file deploy/lock/runtime.txt $(ARGS)
	@$(BIN)/python -c 'import tomllib; \
		print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' | \
		$(UV) pip compile - $(LOCK) --output-file deploy/lock/build.txt $(ARGS)
	@$(BIN)/python -c 'import tomllib; \
		print(*tomllib.load(open("native/pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' | \
		$(UV) pip compile - $(LOCK) --output-file deploy/lock/native.txt $(ARGS)

rehearse: $(VENV)/.installed-test ## Carry out the Dockerfile with debootstrap and chroot, as root on Debian
	@$(BIN)/python -m tests.deploy.rehearse $(ARGS)

sbom: $(VENV)/.installed-test ## List what the image installs, with licences, in dist/msgtrace.cdx.json (CycloneDX)
	@mkdir -p dist
	@$(UV) venv --clear build/sbom
	@$(UV) pip install --python build/sbom --require-hashes --requirement deploy/lock/runtime.txt
	@$(UV) pip install --python build/sbom --no-deps .
	@$(UV) tool run --from 'cyclonedx-bom>=7,<8' cyclonedx-py environment build/sbom \
		--pyproject pyproject.toml --output-reproducible --output-format JSON --output-file dist/msgtrace.cdx.json
	@$(BIN)/python deploy/licences.py build/sbom

build: $(VENV)/.installed-dev ## Build wheel and source distribution, and the light wheel, into dist/
	@$(BIN)/python -m build --outdir dist
	@$(BIN)/python -m build --wheel --outdir dist deploy/integration

clean: ## Remove the virtual environment, caches and build results
	@rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is older than pyproject.toml when the dependencies may have changed; the code itself is installed editable.
$(VENV)/.installed-run: pyproject.toml | $(BIN)/pip
	@echo "Installing msgtrace into $(VENV) …"
	@$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/pip
	@echo "Installing msgtrace and its tests' packages into $(VENV) …"
	@$(INSTALL) --editable '.[test]'
	@touch $(VENV)/.installed-run $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/pip
	@echo "Installing msgtrace and its development packages into $(VENV) …"
	@$(INSTALL) --editable '.[dev]'
	@touch $(VENV)/.installed-run $(VENV)/.installed-test $@

# The native decoder is built where Rust is there and its packages can be had; nothing waits for it for long.
$(VENV)/.tried-native: $(wildcard native/Cargo.* native/pyproject.toml native/src/*.rs) | $(BIN)/pip
	@if ! command -v cargo >/dev/null; then \
		echo "The native decoder is not built: there is no cargo. Everything works without it, only slower."; \
	elif ! CARGO_NET_RETRY=1 CARGO_HTTP_TIMEOUT=10 timeout 300 \
			$(INSTALL) --force-reinstall --no-deps ./native >$(VENV)/native.log 2>&1; then \
		echo "The native decoder is not built ($(VENV)/native.log has the reason). Everything works without it, only slower."; \
	fi
	@touch $@

$(BIN)/pip:
	@command -v $(PYTHON) >/dev/null || \
		{ echo "msgtrace needs Python 3.11 or newer, and $(PYTHON) was not found." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "msgtrace needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1)." \
		"Name another one: make run PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments: its venv or ensurepip module is missing." \
		"On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
