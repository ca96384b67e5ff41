# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Teach from real clips, and ask the gate: each attempt is scored by heads that did not see it.

    python -m benchmarks.success.teach_real FOOTAGE --work FOLDER

FOOTAGE has `real_success/labels.csv` (file, task, label) and `droid_labs/instructions.csv` (file,
instruction, place / object / verb). Clips of DROID are all taken for successes; half of those of
one place, object and verb are cut off in the middle and stand for attempts that stop early. All
clips are by one third-person camera. Writes results/teach_real.json.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
import csv
import json
from pathlib import Path
from typing import Any

from benchmarks.pages import ROOT
from hralign_ros.calibration.taught_task import fit_task
from hralign_ros.calibration.teach import ood_limits
from hralign_ros.data.manifest import DataSet, Episode, slug
from hralign_ros.runtime import default_bundle, Encoder
from hralign_ros.runtime.tasks import Task
from hralign_ros.runtime.video import frame_times
from hralign_ros.training.attempts import load_attempts
import numpy as np

# Clips of one place, object and verb in DROID, and attempts of either kind, below which a group is
# left out.
_DROID_LEAST, _LEAST = 15, 2


def episodes_of(footage: Path) -> Iterator[tuple[str, list[Episode]]]:
    """Yield the attempts at each task of each source that has both kinds."""
    rows: dict[tuple[str, str], list[tuple[str, bool]]] = {}
    for row in csv.DictReader((footage / 'real_success/labels.csv').open()):
        source = row['file'].split('/')[0]
        if row['label'] in ('success', 'failure'):
            rows.setdefault((source, row['task']), []).append(
                (f'real_success/{row["file"]}', row['label'] == 'success'))
            if source == 'human2sim2robot':  # few of each task, one lab: all together as well
                rows.setdefault((source, 'all tasks'), []).append(
                    (f'real_success/{row["file"]}', row['label'] == 'success'))
    for (source, task), files in rows.items():
        kinds = Counter(good for _, good in files)
        if min(kinds[True], kinds[False]) >= _LEAST:
            yield source, [_episode(source, task, file, good) for file, good in files]
    groups: dict[tuple[str, str], list[str]] = {}
    for row in csv.DictReader((footage / 'droid_labs/instructions.csv').open()):
        place, what = row['file'].split('/')[0], row['place / object / verb'].partition(' / ')[2]
        if 'Other' not in what:
            groups.setdefault((place, what), []).append(f'droid_labs/{row["file"]}')
    for (place, what), names in groups.items():
        if len(names) >= _DROID_LEAST:
            rng = np.random.default_rng(0)
            yield 'droid', [
                _episode('droid', f'{what} in {place}', file, bool(i % 2),
                         None if i % 2 else float(frame_times(footage / file)[-1]) / 2)
                for i, file in enumerate(rng.permutation(sorted(names)).tolist())]


def _episode(
    source: str, task: str, file: str, good: bool, until_s: float | None = None,
) -> Episode:
    return Episode(
        episode_id=f'{task} {file}', task_id=slug(task), task_text=task, scene=source,
        camera='one', embodiment=source, source='folder', license_id='', success=good,
        robot_videos={'third_person': file},
        robot_span_s=() if until_s is None else (0.0, until_s))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('footage', type=Path)
    parser.add_argument('--work', type=Path, required=True, help='folder of features')
    options = parser.parse_args(arguments)
    bundle = default_bundle()
    manifest = Encoder.load(bundle, provider='cpu').manifest
    view = manifest.views.index('third_person')
    regions = np.ones((len(manifest.views), manifest.tokens.count), np.float32)
    found: list[dict[str, Any]] = []
    for source, episodes in episodes_of(options.footage):
        attempts = load_attempts(DataSet(options.footage.resolve(), tuple(episodes)), bundle,
                                 folder=options.work)
        limits, _ = ood_limits(manifest, attempts, [view], print)
        one = fit_task(manifest, attempts, attempts.attempts,
                       Task(slug(episodes[0].task_id), episodes[0].task_text), [view], regions,
                       limits)
        evidence = one.calibration.evidence
        found.append({
            'source': source, 'task': episodes[0].task_text,
            'successes': sum(a.succeeds for a in attempts.attempts),
            'failures': sum(not a.succeeds for a in attempts.attempts),
            'chosen': one.choice.recipe.name,
            **(vars(evidence) if evidence else {}),
            'thresholds': len(one.calibration.rates),
            'decided': one.table[0].decided if one.table else 0,
            'false': one.table[0].false if one.table else 0})
    told = [row for row in found if 'auroc' in row]
    weak = [row for row in found if row.get('auroc', 0.0) <= row.get('elapsed_auroc', 1.0)]
    document = {
        'command': 'python -m benchmarks.success.teach_real FOOTAGE --work FOLDER',
        'groups': found,
        'auroc_by_source': {source: round(float(np.average(
            [row['auroc'] for row in told if row['source'] == source],
            weights=[row['attempts'] for row in told if row['source'] == source])), 3)
            for source in dict.fromkeys(row['source'] for row in told)},
        'groups_below_clock': len(weak),
        'groups_below_clock_with_a_threshold': sum(row['thresholds'] > 0 for row in weak)}
    (ROOT / 'results/teach_real.json').write_text(json.dumps(document, indent=1) + '\n', 'utf-8')
    print(json.dumps(document, indent=1))
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
