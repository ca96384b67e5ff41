# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Every target sets up what it needs first, which takes no time when it is there already.

SHELL := /bin/bash
# The Python (3.10 to 3.14) that .venv is made with.
PYTHON ?= python3
# ROS 2 from wheels, where none is sourced: jazzy or kilted. Empty: what .venv has, or jazzy.
ROS_WHEELS ?=
# make demo: a video that plays as both views, or one for each; nothing plays the shipped episodes.
VIDEO ?=
WRIST ?=
THIRD_PERSON ?=
# make demo: the instruction.
TASK ?=
# make bundle: the run of `hralign encoder train` to export, and the report on it.
RUN ?=
REPORT ?=
# Further options for the program that a target runs.
ARGS ?=

# Handed over by the environment, so that no character in them means anything to the shell.
export VIDEO WRIST THIRD_PERSON TASK RUN REPORT

SETUP = @command -v $(PYTHON) >/dev/null || \
	{ echo "setup: Python 3.10 to 3.14 is needed and $(PYTHON) is not found." >&2; exit 1; }; \
	$(PYTHON) tools/setup_env.py $(if $(ROS_WHEELS),--wheels $(ROS_WHEELS))
ENTER = . tools/env.sh

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-sim closed-loop lint docs links bundle bench fuzz soak sim clean distclean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

setup:  ## virtual environment, ROS 2 where none is sourced, both packages built
	$(SETUP) demo

demo:  ## run the node on recorded video: make demo WRIST=a.mp4 THIRD_PERSON=b.mp4 TASK="open it"
	$(SETUP) demo
	@$(ENTER) && python -m hralign_ros.nodes.demo $${VIDEO:+--video "$$VIDEO"} \
		$${WRIST:+--video "wrist=$$WRIST"} \
		$${THIRD_PERSON:+--video "third_person=$$THIRD_PERSON"} $${TASK:+--task "$$TASK"} $(ARGS)

test:  ## build, all tests, linters, type check
	$(SETUP) demo test adapt docs --rebuild
	@tools/run_tests.sh

test-sim:  ## the tests that need the simulators
	$(SETUP) demo test
	@$(MAKE) --no-print-directory sim
	@tools/test_sim.sh $(ARGS)

closed-loop:  ## a simulated arm over ROS: demonstrations, a policy, 20 attempts; TASK=, ARM=, SPEED=
	$(SETUP) demo adapt
	@$(MAKE) --no-print-directory sim
	@tools/closed_loop.sh $(ARGS)

lint:  ## linters and type check only
	$(SETUP) test
	@$(ENTER) && python -m ruff check . && python -m mypy hralign_ros && \
		python -m pytest -q -m linter test

docs:  ## the documentation as a site in build/site, its links checked
	$(SETUP) docs
	@$(ENTER) && python tools/build_site.py $(ARGS)

links:  ## links to other hosts, which need a network
	@$(PYTHON) tools/check_links.py --external $(ARGS)

bundle:  ## rebuild the default bundle in models/default: make bundle RUN=folder REPORT=report.json
	$(SETUP) adapt
	@$(ENTER) && python -m hralign_ros.cli encoder export $${RUN:+"$$RUN"} --output models/default --replace \
		$${REPORT:+--report "$$REPORT"} $(ARGS)

bench:  ## measure latency, writes results/latency.json
	$(SETUP) demo test adapt
	@$(ENTER) && python -m benchmarks.latency.measure $(ARGS)

# The tiny bundle that they run is the tests'.
fuzz:  ## fuzz what comes from outside: make fuzz ARGS="--target images --cases 1000000"
	$(SETUP) demo test adapt fuzz
	@$(ENTER) && PYTHONPATH="test:$$PYTHONPATH" python -m fuzz $(ARGS)

soak:  ## run the node for long: make soak ARGS=ticks, make soak ARGS=hour
	$(SETUP) demo test adapt
	@$(ENTER) && PYTHONPATH="test:$$PYTHONPATH" python -m benchmarks.robustness.soak $(ARGS)

sim:  ## virtual environment of the simulators, for `hralign data simulate`
	@command -v $(PYTHON) >/dev/null || \
		{ echo "setup: Python 3.11 or 3.12 is needed and $(PYTHON) is not found." >&2; exit 1; }
	@$(PYTHON) tools/setup_sim.py

clean:  ## remove what colcon built
	rm -rf build install log

distclean: clean  ## remove the virtual environments too
	rm -rf .venv .venv-sim
