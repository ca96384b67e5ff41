#!/usr/bin/env bash
# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
#
# What `make test-sim` runs: the tests that need the simulators, in their virtual environment.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -f .venv-sim/environment.sh ]; then
  echo "tools/test_sim.sh: .venv-sim is not there, or older than this test: run 'make sim' first" >&2
  exit 1
fi
. .venv-sim/environment.sh
export PYTHONPATH="$PWD/test:$PYTHONPATH"
exec .venv-sim/bin/python -m pytest -q -c /dev/null --rootdir . \
  --confcutdir=test/simulation test/simulation "$@"
