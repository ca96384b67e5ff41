# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Compare the size of the code with an earlier commit, and gather what shows that nothing moved.

    python -m benchmarks.regression.house --before 82aa217 --digests before.json after.json \
        --weights RUN_BEFORE RUN_AFTER --weights RUN_BEFORE RUN_AFTER

It writes results/house.json. Lines are those of the Python files in hralign_ros/. Clones are
counted by jscpd, which `npm install -g jscpd@3` brings; without it they are null. The digests are
two files of `bit_equality`, the weights pairs of runs. The fault suite's runs under load come from
results/faults.json, the seconds of an installed wheel from --wheel-seconds.
"""

import argparse
from collections.abc import Sequence
import io
import json
import os
from pathlib import Path
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from typing import Any

from benchmarks.pages import ROOT
from safetensors.torch import load_file
import torch

PACKAGE = 'hralign_ros'
FOLDERS = (PACKAGE, 'test', 'benchmarks', 'tools', 'launch')


def export(revision: str, folder: Path) -> None:
    """Write the tracked files of a revision into a folder."""
    archive = subprocess.run(
        ['git', 'archive', revision], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter='data')


def count_lines(tree: Path) -> int:
    """Count the lines of the package's Python files."""
    return sum(len(path.read_text('utf-8').splitlines())
               for path in (tree / PACKAGE).rglob('*.py'))


def count_clones(tree: Path) -> int | None:
    """Count pairs of places that share six lines or more; None: jscpd is not installed."""
    if not shutil.which('jscpd'):
        return None
    printed = subprocess.run(
        ['jscpd', '--min-lines', '6', '--min-tokens', '40', '--format', 'python', '--silent',
         *(name for name in FOLDERS if (tree / name).is_dir())],
        cwd=tree, check=True, capture_output=True, text=True).stdout
    found = re.search(r'Found (\d+)', re.sub(r'\x1b\[[\d;]*m', '', printed))
    return int(found[1]) if found else None


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    """Read what a run has trained, by name; the fallback task's prompts had another name."""
    head = run / 'head.safetensors'
    if head.is_file():
        return {name.replace('prompts.shared', 'prompts.fallback'): tensor
                for name, tensor in load_file(head).items()}
    found: dict[str, torch.Tensor] = torch.load(run / 'best.pt', weights_only=True)['model']
    return found


def same_weights(before: Path, after: Path) -> bool:
    """Tell whether two runs have trained the same weights, to the bit."""
    one, other = weights_of(before), weights_of(after)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write results/house.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('--before', required=True, metavar='REVISION')
    parser.add_argument('--digests', nargs=2, type=Path, metavar=('BEFORE', 'AFTER'))
    parser.add_argument('--weights', nargs=2, type=Path, action='append', default=[],
                        metavar=('BEFORE', 'AFTER'))
    parser.add_argument('--wheel-seconds', type=float)
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, revision in (('before', options.before), ('after', 'HEAD')):
            tree = Path(scratch) / name
            tree.mkdir()
            export(revision, tree)
            found[f'lines_{name}'] = count_lines(tree)
            found[f'duplicate_pairs_{name}'] = count_clones(tree)
    if options.digests:
        before, after = (json.loads(path.read_text('utf-8')) for path in options.digests)
        found['bit_equal_embeddings'] = before == after
        found['episodes_compared'] = len(before)
    if options.weights:
        found['bit_equal_training'] = all(same_weights(*runs) for runs in options.weights)
        found['trainings_compared'] = len(options.weights)
    loaded = json.loads((ROOT / 'results/faults.json').read_text('utf-8')).get('under_load', {})
    runs = loaded.get('runs', [])
    found |= {'fault_suite_runs_under_load': len(runs),
              'fault_suite_green_under_load': sum(run['green'] for run in runs),
              'fault_suite_busy_processes': loaded.get('busy_processes'),
              'wheel_install_seconds': options.wheel_seconds,
              'load_average': round(os.getloadavg()[0], 2),
              'commands': [
                  shlex.join(['python', '-m', 'benchmarks.regression.house',
                              *(Path(word).name if word.startswith('/') else word
                                for word in arguments or sys.argv[1:])]),
                  *([loaded['command']] if 'command' in loaded else []),
                  'python -m pytest test/test_install.py']}
    (ROOT / 'results/house.json').write_text(json.dumps(found, indent=1) + '\n', 'utf-8')
    print(json.dumps(found, indent=1))
    return 0


if __name__ == '__main__':
    sys.exit(main())
