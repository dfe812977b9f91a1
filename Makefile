# Needs make and Python 3.11 to 3.13 with venv; everything else is installed into .venv by the first target that wants it.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test lint format types doctor server setup repair python clean

# The first supported interpreter; choose another with: make test PYTHON=/path/to/python3.12
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)
# cpu, cuda or auto: the one that .venv holds; in an empty .venv, and for repair, cuda where nvidia-smi answers, else cpu
STACK ?= auto
# More arguments for the target's program: make test ARGS="-k loader"
ARGS ?=
# Processes that run tests side by side, a file each; 0: all in one, where a debugger works
TEST_PROCESSES ?= 2

help:  ## Show this text
	@echo "make TARGET [ARGS=...]"
	@sed -n 's/^\([a-z]*\):[a-z ]*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

demo: setup  ## Train FIT and Two-Tower on data with a planted structure, compare them
	@.venv/bin/python -m trainer.demo $(ARGS)

test: setup  ## Run the tests
	@.venv/bin/python -m pytest -n $(TEST_PROCESSES) --dist loadfile $(ARGS)

lint: setup  ## Check style and formatting
	@.venv/bin/ruff check . $(ARGS)
	@.venv/bin/ruff format --check .

format: setup  ## Mend what lint can mend
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

types: setup  ## Check types
	@.venv/bin/pyrefly check $(ARGS)

doctor: setup  ## Say whether this machine can train, and what to do if not
	@.venv/bin/python -m trainer.doctor $(ARGS)

server: setup  ## Build the C++ server into build/server (what has changed)
	@.venv/bin/python -m trainer.export.server_build

setup: python  ## Make .venv and install the pinned stack (at once if that is done)
	@"$(PYTHON)" requirements/install.py --stack $(STACK)

repair: python  ## Empty .venv and install again
	@"$(PYTHON)" requirements/install.py --stack $(STACK) --recreate

python:
	@test -n "$(PYTHON)" || { echo "error: found no Python 3.11, 3.12 or 3.13 as python3; install one (Debian, Ubuntu:" \
		"apt install python3 python3-venv) or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 2; }

clean:  ## Remove caches and builds; data/, runs/ and .venv stay
	@rm -rf build .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
