# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Run LeRobot's own code on a labelled data set, with our plugin; results/ecosystem.json.

    python -m benchmarks.ecosystem.lerobot_run --python LEROBOT/bin/python DATASET

LEROBOT is a virtual environment with `lerobot[dataset]` 0.6, gym-hil, hralign_ros[label] and
lerobot_policy_hralign. DATASET is a LeRobot data set with cameras wrist and third_person, such as
`hralign data export lerobot` writes of episodes that nobody has labelled; a copy of it is labelled
first, by `hralign data label --stamp` in that environment. A large one of
benchmarks.ecosystem.long_recordings tells how fast that is.
"""

import argparse
import json
import os
from pathlib import Path
import resource
import shutil
import tempfile
import time
from typing import Any

from benchmarks.ecosystem.measure import record, RESULTS
from benchmarks.elsewhere import output_of
from benchmarks.pages import ROOT

INSIDE = ROOT / 'benchmarks/ecosystem/lerobot_inside.py'


def label(python: Path, root: Path, cache: Path) -> dict[str, Any]:
    """
    Label a data set in LeRobot's environment, and time it.

    On a computer that does other work, too, seconds of the clock say little. So the rate is also
    what two cores would do with the processor time that it took.
    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    said = output_of(
        [python, '-m', 'hralign_ros.cli', 'data', 'label', root, '--stamp', '--features', cache,
         '--device', 'cpu', '--workers', '2'])
    took, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    print(said, flush=True)
    info = json.loads((root / 'meta/info.json').read_text('utf-8'))
    seconds = info['total_frames'] / info['fps']
    processor = sum(getattr(after, name) - getattr(before, name)
                    for name in ('ru_utime', 'ru_stime'))
    return {'frames': info['total_frames'], 'seconds': seconds, 'took_s': round(took, 1),
            'processor_s': round(processor, 1), 'times': round(seconds / took, 2),
            'times_of_two_cores': round(2 * seconds / processor, 1),
            'load_average': [round(one, 1) for one in os.getloadavg()]}


def main() -> None:
    """Run everything; print it and record it."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('dataset', type=Path)
    parser.add_argument('--python', type=Path, required=True, help="of LeRobot's environment")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='lerobot_') as folder:
        root = Path(folder) / 'data'
        shutil.copytree(given.dataset, root)
        rate = label(given.python, root, Path(folder) / 'cache')
        print(json.dumps(rate), flush=True)
        said = output_of([given.python, INSIDE, root, folder],
                         MUJOCO_GL=os.environ.get('MUJOCO_GL', 'egl'))
    found = json.loads(said.splitlines()[-1])
    print(json.dumps(found))
    version = found['version']
    programs = [f'LeRobot data set and RA-BC {version}', f'LeRobot reward models {version}',
                f'LeRobot HIL-SERL {version}']
    record('python -m benchmarks.ecosystem.lerobot_run --python LEROBOT/bin/python DATASET',
           consumers=programs, without_glue=programs, facts={
               'label_times_real_time': rate})
    print(RESULTS)


if __name__ == '__main__':
    main()
