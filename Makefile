# From a fresh clone: `make up` runs a camera fleet, `make test` runs the tests. `make help` names the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help up test test-lowest test-cpus screenshots mutants coverage lint typecheck docs bench gpu-report release-check wheel sbom clean setup setup-dev lock lock-jars proto dashboards reference

VENV := .venv
PYTHON := $(VENV)/bin/python
# Extra arguments of a command: make up ARGS="--cameras 8 --seconds 60", make test ARGS="-k spool"
ARGS ?=

# The uv on the path if it runs, otherwise a private one.
OWN_UV := build/uv/bin/uv
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo $(OWN_UV))
UV_FIRST := $(filter $(OWN_UV),$(UV))

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: setup ## Run brokers, bridge, processor, recorder and a simulated fleet: make up ARGS="--cameras 8"
	$(VENV)/bin/pointillist up $(ARGS)

test: setup-dev ## Run the tests, real brokers included, on all cores: make test ARGS="-k spool"
	$(PYTHON) -m pytest --numprocesses auto --dist loadgroup $(ARGS)

test-lowest: $(VENV)/.packages-test $(VENV)/.kafka $(VENV)/.assets ## Run the tests with the oldest versions that pyproject.toml allows
	$(UV) venv --quiet --clear --python '>=3.11' build/lowest
	$(UV) pip install --quiet --python build/lowest/bin/python --resolution lowest-direct -e '.[dev]'
	$(UV) pip list --python build/lowest/bin/python > build/lowest/versions.txt
	build/lowest/bin/python -m pytest --numprocesses auto --dist loadgroup $(ARGS)

test-cpus: setup-dev ## Run the numerical tests with the vector widths of other CPUs, with one and two threads
	$(PYTHON) -m benchmarks.reliability.cpus $(ARGS)

mutants: setup-dev ## Run mutation tests and count the mutants that the tests detect: make mutants ARGS="schemas.ranges*"
	OMP_NUM_THREADS=1 PYTEST_TIMEOUT=30 $(PYTHON) -m benchmarks.reliability.mutation --out docs/results/mutation/README.md $(ARGS)

coverage: setup-dev ## Run the tests and print the branch coverage of the product, including roles in subprocesses
	rm -rf build/coverage
	$(PYTHON) -m coverage run -m pytest --numprocesses auto --dist loadgroup $(ARGS)
	$(PYTHON) -m coverage combine --quiet
	$(PYTHON) -m coverage report --skip-covered --sort=cover

lint: setup-dev ## Check style and format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

typecheck: setup-dev ## Check types, strictly
	$(VENV)/bin/mypy

docs: setup-dev ## Build the documentation site into build/site; a link to a page or anchor that is not there is an error
	$(VENV)/bin/zensical build --clean --strict

screenshots: setup-dev ## Take the documentation's pictures of the console from a live system with the sample videos
	$(PYTHON) -m benchmarks.pages.screenshots --out docs/images
	$(PYTHON) -m benchmarks.models.dropped --out docs/images/dropped.png

bench: setup-dev ## Measure the ratios again: at most 15 minutes, on an idle machine
	mkdir -p build/bench
	for each in stages edge strip preprocess pipeline bridge own_networks; do \
		echo "== $$each"; $(PYTHON) -m benchmarks.speed.$$each --json build/bench/$$each.json; \
	done

gpu-report: setup-dev ## Run all GPU measurements for the pages, 25 minutes at most: make gpu-report ARGS="--device cpu --short"
	$(PYTHON) -m benchmarks.speed.gpu_report $(ARGS)

release-check: setup-dev ## Build the release, install it in an empty environment, and run it there
	$(PYTHON) -m benchmarks.reliability.release $(ARGS)

wheel: $(VENV)/.assets | $(UV_FIRST) ## Build the wheel for devices and other machines into dist
	$(UV) build --quiet --wheel --build-constraints requirements/dev.txt --out-dir dist

sbom: build/sbom/bin/cyclonedx-py ## Write the bill of materials of the wheel, dist/pointillist.cdx.json, from its locked requirements
	mkdir -p dist
	build/sbom/bin/cyclonedx-py requirements requirements/server.txt --pyproject pyproject.toml \
		--mc-type application --output-reproducible --output-file dist/pointillist.cdx.json

# Tests need the npm that `build` may contain. Without .assets, setup installs it again.
clean: ## Remove caches and build results; keeps .venv, state folders and Kafka's jars
	rm -rf build dist mutants *.egg-info .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f $(VENV)/.assets
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf

setup: $(VENV)/.packages $(VENV)/.server $(VENV)/.kafka-archive $(VENV)/.assets $(VENV)/.imagenet ## Install what a run needs

setup-dev: $(VENV)/.packages-test $(VENV)/.dev $(VENV)/.kafka-archive $(VENV)/.assets ## Install what the tests and checks need

lock: | $(UV_FIRST) ## Resolve the hash-locked requirements again: make lock ARGS=--upgrade
	$(call resolve,dev,--constraints requirements/constraints.txt)
	$(call resolve,lab,--constraints requirements/dev.txt)
	$(call resolve,server,--constraints requirements/dev.txt)
	$(call resolve,edge,--constraints requirements/dev.txt)
	$(call resolve,tracing,--constraints requirements/dev.txt)
	$(resolve-file) requirements/assets.in -o requirements/assets.txt $(ARGS)
	$(resolve-file) requirements/uv.in -o requirements/uv.txt $(ARGS)
	$(resolve-file) requirements/sbom.in -o requirements/sbom.txt $(ARGS)

lock-jars: $(VENV)/.packages $(VENV)/.server ## Fetch Kafka's jars again and write their digests
	$(PYTHON) -m infra.local.kafka_jars --lock

proto: setup-dev ## Generate the Python of schemas/pointillist.proto
	$(PYTHON) -m grpc_tools.protoc -Ischemas --python_out=schemas --pyi_out=schemas pointillist.proto

dashboards: setup-dev ## Generate the JSON of the Grafana dashboards
	$(PYTHON) -m infra.grafana

reference: setup-dev ## Generate the reference pages of docs from the code
	$(PYTHON) -m infra.reference

resolve-file = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock"
resolve = $(resolve-file) $(2) --extra $(1) pyproject.toml -o requirements/$(1).txt $(ARGS)

$(OWN_UV): requirements/uv.txt
	./infra/bootstrap.sh run
	python3 -m venv build/uv
	build/uv/bin/pip install --quiet --require-hashes -r requirements/uv.txt

build/sbom/bin/cyclonedx-py: requirements/sbom.txt | $(UV_FIRST)
	$(UV) venv --quiet --python '>=3.11' --clear build/sbom
	$(UV) pip install --quiet --python build/sbom/bin/python --require-hashes -r requirements/sbom.txt

$(VENV)/pyvenv.cfg: | $(UV_FIRST)
	$(UV) venv --quiet --python '>=3.11' $(VENV)

# Stamp files are inside the environment: a new environment has none, and a second `make` has nothing to do.
$(VENV)/.packages: infra/bootstrap.sh | $(VENV)/pyvenv.cfg
	./infra/bootstrap.sh run
	touch $@

$(VENV)/.packages-test: infra/bootstrap.sh | $(VENV)/pyvenv.cfg
	./infra/bootstrap.sh test
	touch $@

define install
	$(UV) pip install --quiet --compile-bytecode --python $(PYTHON) --require-hashes -r $<
	$(UV) pip install --quiet --python $(PYTHON) --no-deps --build-constraints requirements/dev.txt -e .
	touch $@
endef

$(VENV)/.server: requirements/server.txt pyproject.toml | $(VENV)/pyvenv.cfg
	$(install)

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(VENV)/pyvenv.cfg
	$(install)

$(VENV)/.kafka: infra/kafka/pom.xml infra/kafka/jars.sha256 | $(VENV)/pyvenv.cfg
	$(PYTHON) -m infra.local.kafka_jars
	touch $@

# Saves time only: without the archive, the first clean stop of a Kafka writes it.
$(VENV)/.kafka-archive: $(VENV)/.kafka | $(VENV)/.packages
	$(PYTHON) -m infra.local.kafka_archive || true
	touch $@

$(VENV)/.imagenet: infra/bundling/imagenet.py infra/bundling/imagenet_classes.txt infra/bundling/imagenet_groups.txt $(VENV)/.server
	$(VENV)/bin/pointillist bundle create --imagenet
	touch $@

# The npm on the path if it runs, otherwise a private one from PyPI.
$(VENV)/.assets: package.json package-lock.json requirements/assets.txt | $(VENV)/pyvenv.cfg $(UV_FIRST)
	npm --version >/dev/null 2>&1 || $(UV) pip install --quiet --python $(PYTHON) --target build/node --no-deps \
		--require-hashes -r requirements/assets.txt
	$(PYTHON) -m infra.release.assets
	touch $@
