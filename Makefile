# Everything starts here; all that is needed is make and Python 3.11 or later.
# The environment is made from the lock file, and again only when the lock file or pyproject.toml has changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PACKAGES := api client core embedded store teachers worker
# A test process for every processor, at most four: each wants memory of its own.
TEST_PROCESSES ?= $(shell $(PYTHON) -c 'import os; print(min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))')

# The dashboard's tests drive the system's Chromium, or playwright's own, which is fetched where there is none.
HAS_CHROMIUM := command -v chromium || command -v chromium-browser || command -v google-chrome

.DELETE_ON_ERROR:
.PHONY: help demo up down test pictures manual links lint audit format lock clean

help: ## Say what can be made.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: $(INSTALLED) ## Distil the bundled teacher here and draw both side by side.
	exec $(BIN)/condenser demo

up: $(INSTALLED) ## Run the whole service until Ctrl-C.
	exec $(BIN)/condenser up

down: $(INSTALLED) ## Stop a service that was left running.
	exec $(BIN)/condenser down

test: $(INSTALLED) ## Run every test, real servers included.
	@{ $(HAS_CHROMIUM); } >/dev/null || $(BIN)/python -m playwright install chromium
	exec $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist worksteal $(PYTEST_OPTIONS)

pictures: $(INSTALLED) ## Take a picture of every page of the dashboard, and the manual's anew.
	exec $(BIN)/python -m pytest tests/browser --screenshots pictures --manual-pictures docs/screenshots

manual: $(INSTALLED) ## Build the manual; a link that leads nowhere is an error.
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --builder html docs build/manual
	@echo build/manual/index.html

links: $(INSTALLED) ## Ask every server that the manual links to whether the page is still there; needs the network.
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --builder linkcheck docs build/links

# KEDA's kind is in no schema of Kubernetes: tests/deploy looks at it.
MANIFESTS = $(filter-out %/kustomization.yaml %/keda.yaml, $(wildcard deploy/kubernetes/base/*.yaml))

lint: $(INSTALLED) ## Check format, style, types, who imports whom, Dockerfiles and manifests.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy api store worker client embedded core/spec.py
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/*.Dockerfile
	$(BIN)/kubernetes-validate --strict --quiet --kubernetes-version 1.34 $(MANIFESTS)

# A package that the index knows nothing of would pass for a sound one: --strict makes that a failure. pip-audit
# has an environment of its own, for it needs none of ours and ours none of it.
AUDIT := $(VENV)/audit
audit: ## Look for known vulnerabilities of the locked releases; needs an index that tells them.
	test -x $(AUDIT)/bin/pip-audit || { $(PYTHON) -m venv $(AUDIT) && $(AUDIT)/bin/python -m pip install --quiet 'pip-audit>=2.9,<3'; }
	$(AUDIT)/bin/pip-audit --requirement requirements.lock --no-deps --disable-pip --strict

format: $(INSTALLED) ## Bring the code into our format.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What few users need, and pulls in much, is not locked: the extras hub and fidelity.
LOCKED_EXTRAS := api core dev embedded store worker benchmarks

# The lock names releases only, not where they come from nor a machine's own builds (torch's CPU wheel is a local
# version of the same release), and none of an accelerator's libraries, which not every machine wants.
lock: ## Resolve the dependencies anew.
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet 'pip-tools>=7.5,<8'
	CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet $(LOCKED_EXTRAS:%=--extra %) --strip-extras --unsafe-package condenser \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--upgrade-package torch==2.13.0 $(LOCK_OPTIONS) --output-file requirements.lock pyproject.toml
	sed -i.before 's/^\([a-z0-9-]*==[^ +]*\)+[^ ]*/\1/' requirements.lock && rm requirements.lock.before
	! grep -E '^(nvidia|cuda|triton|condenser)' requirements.lock

clean: ## Remove the environment and what tools leave behind; data folders stay.
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
