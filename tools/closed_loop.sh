#!/usr/bin/env bash
# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
#
# What `make closed-loop` runs: demonstrations of a simulated arm, a policy that learns from them,
# and attempts of it over ROS. What is there is not made again.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/env.sh

task=${TASK:-lift} arm=${ARM:-panda} episodes=${EPISODES:-20} work=${WORK:-closed_loop}
export OMP_NUM_THREADS=1
policy="$work/policies/$task-$arm"

echo "== 20 demonstrations of $task with $arm"
.venv-sim/bin/hralign data simulate-demonstrations --output "$work/demonstrations-$arm" \
  --task "$task" --arm "$arm" --episodes 20 --resume 2> >(grep -v 'robosuite WARNING' >&2)
if [ ! -f "$policy/policy.yaml" ]; then
  echo "== training on them"
  python -m hralign_ros.cli policy train --data "$work/demonstrations-$arm" --task "$task" \
    --output "$policy"
fi
echo "== attempts over ROS"
python -m hralign_ros.nodes.closed_loop "$policy" --output "$work/attempts/$task-$arm" \
  --episodes "$episodes" --resume ${SPEED:+--speed "$SPEED"} "$@"
