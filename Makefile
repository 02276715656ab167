# What people run. Each target makes the environment that it needs, once; see scripts/setup.
.DEFAULT_GOAL := help
.PHONY: help demo test lint types units check bench lock clean distclean
MAKEFLAGS += --no-print-directory
ARGS ?=
export PYTHON

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

demo: ## the whole loop on this machine in two minutes; ARGS="--duration 20" passes options, ARGS=--help lists them
	@sh scripts/setup demo && exec .venv/demo/bin/wattloop-hil demo $(ARGS)

test: ## all tests; ARGS="tests/agent -k lease" chooses
	@sh scripts/setup dev && exec .venv/dev/bin/pytest $(ARGS)

lint: ## style and import direction
	@sh scripts/setup dev
	.venv/dev/bin/ruff check .
	.venv/dev/bin/ruff format --check .
	.venv/dev/bin/lint-imports

types: ## strict type check
	@sh scripts/setup dev
	.venv/dev/bin/mypy

units: ## the systemd units: valid, and as closed as they promise
	@sh scripts/setup dev
	sh scripts/check-units

check: lint types units test ## everything that CI checks

bench: ## the figures, one JSON line each; BENCH=command_latency chooses
	@sh scripts/setup dev && sh scripts/bench $(BENCH)

lock: ## write requirements/*.lock anew; ARGS=--upgrade takes the newest versions
	sh scripts/lock $(ARGS)

clean: ## remove caches and build products
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## clean, and the environments
	rm -rf .venv *.egg-info
