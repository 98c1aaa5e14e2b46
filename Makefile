# remora: build, try, test. Every target installs what it lacks and says so.
# Built things are kept in ${XDG_CACHE_HOME:-~/.cache}/remora, so that a second run, or a second clone, is quick.

PYTHON ?= python3
# `wheel` is what is shipped (fat LTO); `release` builds faster.
PROFILE ?= wheel
PYTEST_ARGS ?=

export PYTHON PROFILE PYTEST_ARGS

.PHONY: help build wheel wheels inject pythons collector venvs lint rust-test test py-test bench train demo clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

build: ## .venv/ with the release wheel: .venv/bin/remora, import remora
	@.ci/wheel $(PROFILE) "$(PYTHON)" dist
	@.ci/venv .venv "$(PYTHON)" dist
	@echo "built: .venv/bin/remora, .venv/bin/python (import remora)"

wheel: ## dist/remora-*-cpXY-*.whl for one interpreter (PYTHON=path)
	@.ci/wheel $(PROFILE) "$(PYTHON)" dist

wheels: ## dist/: one wheel for every CPython 3.11-3.15 found (make pythons brings 3.14 and 3.15)
	@.ci/each wheels $(PROFILE)

inject: wheels ## dist/inject/: one folder that serves all of these interpreters
	@.ci/inject dist dist/inject

pythons: ## finds CPython 3.11-3.15, fetches 3.14 and 3.15 into the cache folder
	@.ci/pythons

collector: ## builds the OpenTelemetry Collector into the cache folder
	@.ci/collector

venvs: ## for tests: .venv/ with the test requirements, and one environment per other interpreter
	@.ci/wheel $(PROFILE) "$(PYTHON)" dist
	@.ci/venv .venv "$(PYTHON)" dist tests/requirements.txt
	@.ci/each venvs release

lint: ## fmt, clippy, ruff, mypy, stubtest, type-checks for 3.14t, 3.15t and aarch64, one crypto provider
	@[ -x .venv/bin/remora ] || $(MAKE) --no-print-directory build
	@.ci/lint

rust-test: ## the tests of the pure Rust crates
	@.ci/rust-test

py-test: ## pytest against the installed wheels (after make venvs); PYTEST_ARGS='-k …'
	@.ci/py-test

test: ## make lint and every test, against the installed wheels
	@.ci/pythons
	@.ci/collector
	@.ci/servers-redis
	@.ci/servers-mongo
	@.ci/servers-kafka
	@.ci/servers-sql
	@$(MAKE) --no-print-directory venvs
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory rust-test
	@$(MAKE) --no-print-directory py-test

bench: ## remora, its peers and bare Python in one run
	@[ -x .venv/bin/remora ] || $(MAKE) --no-print-directory build
	@benches/run

train: pythons ## the profile that the wheel is compiled with, anew (after changes of what runs in every request)
	@benches/train

demo: build ## two services, one trace, no Collector: prints the waterfalls; files in demo-out/
	@.ci/demo

clean: ## removes what the tree holds of builds (the cache folder stays)
	rm -rf .venv dist demo-out target
