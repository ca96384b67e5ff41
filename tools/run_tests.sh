#!/usr/bin/env bash
# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
#
# What `make test` runs once both packages are built: all checks, even after one has failed.
set -uo pipefail
cd "$(dirname "$0")/.."
. tools/env.sh
# Images of containers often forbid Python to keep what it compiles, and colcon does where nobody
# says anything. Hundreds of processes would compile the same modules again, which was half of a
# node's start. Empty is said, and no.
export PYTHONDONTWRITEBYTECODE=

failed=()
check() {
  echo "== $*"
  "$@" || failed+=("$*")
}

# Tests kill nodes on purpose; what an earlier run left would be in this one's way.
python tools/clean_shared_memory.py
python -m colcon test-result --delete-yes >/dev/null 2>&1
# Three files at a time: most tests of nodes wait for processes. Whole files, whose fixtures are shared.
check python -m colcon test --executor sequential --event-handlers console_direct+ \
  --pytest-args -n 3 --dist loadfile
check python -m colcon test-result --verbose
check python -m ruff check .
check python -m mypy hralign_ros
check python tools/test_totals.py build/hralign_ros/pytest.xml

python tools/clean_shared_memory.py
for name in "${failed[@]}"; do
  echo "failed: $name" >&2
done
[ "${#failed[@]}" = 0 ]
