# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What counts in the closed-loop table: whole sets of attempts of the policies that are there."""

from hashlib import sha256

from benchmarks.policy import closed_loop
from hralign_ros.data.rollouts import add_rollout, Rollout


def add(work, row, seed, outcomes, sha=''):
    """Write the attempts of a policy."""
    name = f'lift.20.{row}.{seed}'
    manifest = work / 'policies' / name / 'policy.yaml'
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(name, 'utf-8')
    folder = work / f'attempts/lift.20.{seed}'
    folder.mkdir(parents=True, exist_ok=True)
    for place, success in enumerate(outcomes):
        add_rollout(folder, Rollout(
            name, sha or sha256(manifest.read_bytes()).hexdigest(), 'lift', 'panda', 'lab-1',
            closed_loop.FIRST_SEED + place, success, 1.0))


def test_what_counts(tmp_path):
    """Guards the table: half a set, or attempts of a policy that is gone, would bend it."""
    add(tmp_path, 'spatial', 0, [True] * 4)
    add(tmp_path, 'spatial', 1, [True, False, True, True])
    add(tmp_path, 'spatial', 2, [True])
    add(tmp_path, 'clip', 0, [False, False, True, False])
    add(tmp_path, 'clip', 1, [False] * 4)
    add(tmp_path, 'mean', 0, [True] * 4, sha='0' * 64)
    found = closed_loop.gather(tmp_path, 4)
    assert [(cell['row'], cell['successes'], cell['n'], cell['by_training_seed'])
            for cell in found['cells']] == [('clip', 1, 8, [1, 0]), ('spatial', 7, 8, [4, 3])]
    compared, = found['comparisons']
    assert (compared['row'], compared['against']) == ('spatial', 'clip')
    # Pairs have the training seed and the start in common.
    assert (compared['pairs'], compared['only_first'], compared['only_second']) == (8, 6, 0)
    assert found['adapted_minus_frozen_points'] is None
    drawn = closed_loop.tables(found)['closed_loop']
    assert '| `spatial` | 88 [53, 98] % (4, 3) |' in drawn and 'no camera' not in drawn
