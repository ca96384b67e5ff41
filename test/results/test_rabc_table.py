# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What counts in the table of RA-BC: whole sets of attempts, in pairs."""

from hashlib import sha256

from benchmarks.ecosystem import rabc
from hralign_ros.data.rollouts import add_rollout, Rollout


def add(work, row, seed, outcomes):
    """Write the attempts of a policy."""
    name, folder = f'{row}.{seed}', work / 'lift'
    manifest = folder / 'policies' / name / 'policy.yaml'
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(name, 'utf-8')
    (folder / f'attempts/{seed}').mkdir(parents=True, exist_ok=True)
    for place, success in enumerate(outcomes):
        add_rollout(folder / f'attempts/{seed}', Rollout(
            name, sha256(manifest.read_bytes()).hexdigest(), 'lift', 'panda', 'lab-1',
            rabc.FIRST_SEED + place, success, 1.0))


def test_what_counts(tmp_path, monkeypatch):
    """Guards the gain: half a set would bend it, and pairs have seed and start in common."""
    monkeypatch.setattr(rabc, 'found_out', lambda folder: {'of': folder.name})
    add(tmp_path, 'uniform', 0, [False, False, True, False])
    add(tmp_path, 'uniform', 1, [False] * 4)
    add(tmp_path, 'shipped', 0, [True] * 4)
    add(tmp_path, 'shipped', 1, [True, True])
    found = rabc.gather(tmp_path, 4)
    assert [(cell['row'], cell['successes'], cell['n'], cell['by_training_seed'])
            for cell in found['cells']] == [('uniform', 1, 8, [1, 0]), ('shipped', 4, 4, [4])]
    assert (found['gain_points']['value'], found['gain_points']['pairs']) == (75.0, 4)
    drawn = rabc.tables(found)['rabc'].splitlines()
    assert len(drawn) == 2 + len(rabc.ROWS) and '4 of 4 (4)' in drawn[3]
