# SPDX-FileCopyrightText: 2026 The mazevault.backup authors
# SPDX-License-Identifier: GPL-3.0-or-later

PYTHON ?= python3
export PYTHON
# Programs that the tests start find the same packages as pytest itself (pytest.ini: pythonpath).
TEST_PATH := $(CURDIR)/playbooks/collections:$(CURDIR)/tests/standin:$(CURDIR)/tests

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-full test-local lint bench clean host engine checks ready lab-up lab-down lab-test molecule

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1	/' | expand -t 12

demo: .venv/demo/.ready ## back up and restore a small MazeVault, end to end, on this machine (no root, no Docker)
	.venv/demo/bin/python extensions/demo/demo.py $(ARGS)

test: ready ## everything, with seeded samples of the long counts (under 30 minutes on 2 cores)
	@$(call beside_sanity,$(PYTEST) $(SIDE_BY_SIDE))

test-full: ready ## the same with the full counts
	@$(call beside_sanity,MAZEVAULT_TEST_FULL=1 $(PYTEST) $(SIDE_BY_SIDE))

test-local: checks ## what needs no hosts and no Docker
	@$(call beside_sanity,$(PYTEST) $(SIDE_BY_SIDE) tests/unit tests/standin/tests tests/integration)

# Takes minutes on one core. What it says comes at the end, if there is anything wrong.
beside_sanity = scripts/sanity.sh >.venv/sanity.log 2>&1 & sanity=$$!; $(1); tested=$$?; \
	if wait $$sanity; then echo "scripts/sanity.sh: passed"; else cat .venv/sanity.log; echo "scripts/sanity.sh: failed"; exit 1; fi; \
	exit $$tested

# All tests of the lab are one process's, those of each other file too (tests/conftest.py).
SIDE_BY_SIDE = --numprocesses=4 --dist=loadscope --no-loadscope-reorder

PYTEST = PATH="$(CURDIR)/.venv/test/bin:$$PATH" PYTHONPATH="$(TEST_PATH)" \
	HYPOTHESIS_STORAGE_DIRECTORY="$(CURDIR)/.venv/cache/hypothesis" .venv/test/bin/python -m pytest

checks: host .venv/demo/.ready .venv/test/.ready
	scripts/versions.sh
	scripts/lint.sh

host:
	scripts/setup-test-host.sh

engine: .venv/test/.ready host
	@$(LAB) engine || { echo "Tests that need no hosts: make test-local" >&2; exit 1; }

# Images are mostly waited for, checks mostly work.
ready: engine .venv/demo/.ready
	@$(LAB) images & building=$$!; $(MAKE) --no-print-directory checks; checked=$$?; wait $$building && exit $$checked

lint: .venv/test/.ready ## style, types, and the habits that a machine can check
	scripts/lint.sh

bench: .venv/test/.ready ## backup against the script, the best by hand and the floor, 2 GB, about an hour; ARGS="--help"
	PYTHONPATH="$(TEST_PATH)" .venv/test/bin/python tests/bench/bench.py $(ARGS)

LAB = .venv/test/bin/python tests/lab/lab.py

lab-up: .venv/test/.ready ## real hosts to test on: Docker engine, images, three hosts (see tests/lab/README.md)
	$(LAB) up

lab-down: .venv/test/.ready ## remove the hosts; the images stay for the next time
	$(LAB) down

lab-test: .venv/test/.ready ## the tests that need the lab
	$(PYTEST) tests/lab

molecule: .venv/test/.ready ## the molecule scenario, on hosts of its own
	PATH="$(CURDIR)/.venv/test/bin:$$PATH" ANSIBLE_HOME="$(CURDIR)/.venv/cache/ansible" MAZEVAULT_CHECKOUT="$(CURDIR)" \
		MAZEVAULT_LAB_FOLDER="$(CURDIR)/.venv/lab-molecule" molecule $(or $(ARGS),test)

clean: ## remove what make made
	rm -rf .venv .ansible tests/output demo
	find . -path ./.git -prune -o -type d -name __pycache__ -exec rm -rf {} +

.venv/demo/.ready: requirements.txt scripts/make-venv.sh
	scripts/make-venv.sh .venv/demo requirements.txt
	@touch $@

.venv/test/.ready: tests/requirements.txt requirements.txt scripts/make-venv.sh
	scripts/make-venv.sh .venv/test tests/requirements.txt
	@touch $@
