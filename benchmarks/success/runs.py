# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The runs that measure.py measures: train what is missing, refuse what is stale."""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
import sys

from benchmarks.runs import folder_of, Job, run_all
from benchmarks.success.recipes import ABLATIONS, Recipes, VARIANTS
from hralign_ros.cli.main import make_parser
from hralign_ros.cli.options import changed
from hralign_ros.training.run_folder import RUN
from hralign_ros.training.success_options import SuccessOptions
from hralign_ros.training.success_run import check_runs, load_success_run, SuccessRun


def train(
    folder: Path, recipes: Recipes, data: Path, bundle: Path, at_a_time: int, *,
    also: Sequence[Path] = (),
) -> None:
    """
    Run what is not finished; the first variant first.

    :param also: more data sets to train on.
    """
    jobs = []
    for name, (seeds, settings) in recipes.items():
        for seed in range(seeds):
            run, own = folder_of(folder, name, seed), (f'--seed={seed}', *settings)
            if (run / RUN).exists():
                _check(run, own)
                continue
            command = [sys.executable, '-m', 'hralign_ros.cli', *_words(run, own),
                       '--data', str(data), '--bundle', str(bundle), '--resume',
                       *(('--also', *map(str, also)) if also else ())]
            jobs.append(Job(f'{name}, seed {seed}', run, command))
    run_all(jobs, at_a_time)


def finished(folder: Path, recipes: Recipes, bundle: Path) -> dict[str, list[SuccessRun]]:
    """
    Load whatever is there, of this call or an earlier one.

    :raises SystemExit: a run is not what its recipe says, or those to be compared were not trained
        on the same recordings.
    """
    runs: dict[str, list[SuccessRun]] = {}
    for name, (seeds, settings) in recipes.items():
        for seed in range(seeds):
            run = folder_of(folder, name, seed)
            if (run / RUN).exists():
                _check(run, (f'--seed={seed}', *settings))
                runs.setdefault(name, []).append(load_success_run(run))
    for some in runs.values():
        check_runs(some, bundle)
    compared = [some[0] for name, some in runs.items()
                if name in (*VARIANTS, *ABLATIONS) and not some[0].options.human_fraction]
    if len({(run.record['data'].get('recordings'), run.basis.key) for run in compared}) > 1:
        raise SystemExit(f'{folder}: heads to be compared were not all trained on the same '
                         'recordings: move away those that were trained before the data changed')
    return runs


def _check(folder: Path, settings: Sequence[str]) -> None:
    """Refuse a finished run that is not what the recipe says today: a recipe may have changed."""
    words = [*_words(folder, settings), '--data', '']
    wanted = changed(SuccessOptions(), vars(make_parser().parse_args(words)))
    # A run's folder has paths as text.
    wanted = replace(wanted, split_file=str(wanted.split_file))
    found = load_success_run(folder).options
    if found != wanted:
        differ = [f'{f.name} {getattr(found, f.name)} instead of {getattr(wanted, f.name)}'
                  for f in fields(wanted) if getattr(found, f.name) != getattr(wanted, f.name)]
        raise SystemExit(f'{folder} was trained with {", ".join(differ)}: move it away')


def _words(folder: Path, settings: Sequence[str]) -> list[str]:
    return ['success', 'train', '--output', str(folder), *settings]
