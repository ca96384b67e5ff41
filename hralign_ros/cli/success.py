# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Commands around the success head: train-success, calibrate, evaluate-success, add-task."""

import argparse
from pathlib import Path

from hralign_ros.cli.options import add_params_file, Commands, read_settings


def add_to(commands: Commands) -> None:
    """Add the commands to the parser."""
    for add in (_add_train_success, _add_calibrate, _add_evaluate_success, _add_add_task,
                _add_evaluate_bundle):
        add(commands)


def _add_train_success(commands: Commands) -> None:
    training = commands.add_parser(
        'train-success', help='train the success head (Adapt2Reward)', description='Train a '
        "success head and its failure prompts on a bundle's features of successes and failures. "
        'Goes on where it was stopped.')
    _add_features(training)
    training.add_argument('--also', nargs='+', default=[], type=Path,
                          help='more folders, whose training episodes are added')
    training.add_argument('--output', required=True, type=Path, help="the run's folder")
    training.add_argument('--set', action='append', default=[], metavar='NAME=VALUE',
                          help='a training setting (steps, seed, modes, leave_out, ...)')
    training.set_defaults(run=_train_success)


def _add_calibrate(commands: Commands) -> None:
    calibrate = commands.add_parser(
        'calibrate', help='make a bundle of a trained success head', description='Fit '
        'calibration, thresholds and out-of-distribution limit of a run of `hralign '
        'train-success` on the calibration episodes, and write a bundle with all of it.')
    calibrate.add_argument('run_folder', type=Path, help='of `hralign train-success`')
    _add_features(calibrate)
    calibrate.add_argument('--output', required=True, type=Path, help='bundle to write')
    calibrate.add_argument('--report', type=Path,
                           help='report.json of `hralign evaluate-success`, for the card')
    calibrate.set_defaults(run=_calibrate)


def _add_evaluate_success(commands: Commands) -> None:
    evaluate = commands.add_parser(
        'evaluate-success', help='measure success heads', description='Calibrate runs of '
        '`hralign train-success` that differ in their seed, and measure detection, calibration, '
        'false alarms, streams, missing cameras; write report.html, .json and .csv.')
    evaluate.add_argument('runs', nargs='+', type=Path, help='folders of train-success')
    _add_features(evaluate)
    evaluate.add_argument('--output', required=True, type=Path, help='folder of the report')
    evaluate.set_defaults(run=_evaluate_success)


def _add_evaluate_bundle(commands: Commands) -> None:
    evaluate = commands.add_parser(
        'evaluate-bundle', help='measure a finished bundle on recorded episodes',
        description='Play episodes to a bundle through the runtime that is in the node, and '
        'measure what it says: detection, calibration, false alarms, delays, status bits. '
        'Nothing is fitted; tasks that were added to the bundle are measured as well. Writes '
        'report.html, .json and .csv.')
    evaluate.add_argument('bundle', type=Path, nargs='?', help='default: the shipped one')
    evaluate.add_argument('--data', required=True, type=Path, help='folder with a manifest')
    evaluate.add_argument('--splits', nargs='+', default=[], metavar='SPLIT',
                          help='of the episodes to play; default: all but train, validation and '
                          'calibration')
    evaluate.add_argument('--allow-unknown-tasks', action='store_true',
                          help='decide on tasks that the bundle does not know, too')
    evaluate.add_argument('--output', required=True, type=Path, help='folder of the report')
    evaluate.set_defaults(run=_evaluate_bundle)


def _add_add_task(commands: Commands) -> None:
    adding = commands.add_parser(
        'add-task', help='teach a bundle one more task from a few clips', description='Fit '
        'failure prompts and calibration of one task on a CPU, and write a new bundle; all '
        'other tasks stay as they are. A folder of clips holds one folder per attempt, with '
        'wrist.mp4 and third_person.mp4 (or the views that there are) in it.')
    adding.add_argument('--name', required=True, help='the instruction')
    adding.add_argument('--success', required=True, type=Path,
                        help='folder of clips that end with the task accomplished')
    adding.add_argument('--failure', required=True, type=Path,
                        help='folder of clips in which it never is')
    adding.add_argument('--output', required=True, type=Path, help='bundle to write')
    adding.add_argument('--bundle', type=Path, help='default: the shipped one')
    adding.add_argument('--id', default='', help='of the task; default: made of its name')
    adding.add_argument('--alias', action='append', default=[], help='another instruction')
    add_params_file(adding)
    adding.add_argument('--set', action='append', default=[], metavar='NAME=VALUE',
                        help='a setting (done_s, unknown_s, steps, ...)')
    adding.set_defaults(run=_add_task)


def _add_features(parser: argparse.ArgumentParser) -> None:
    """Add what every command has that works on the features of a data set."""
    parser.add_argument('--data', required=True, type=Path, help='folder with a manifest')
    parser.add_argument('--bundle', type=Path,
                        help='whose encoder makes them; default: the shipped one')
    parser.add_argument('--store', type=Path,
                        help='folder of features; default: in the data set')
    parser.add_argument('--workers', type=int, default=1,
                        help='processes that compute features (%(default)s)')


def _train_success(options: argparse.Namespace) -> int:
    from hralign_ros.runtime import default_bundle
    from hralign_ros.training.success_options import SuccessOptions
    from hralign_ros.training.success_run import train_success

    train_success(
        options.data, options.bundle or default_bundle(), options.output,
        SuccessOptions(**read_settings(options.set, SuccessOptions())), workers=options.workers,
        store=options.store, also=options.also, command=options.repeat)
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    from hralign_ros.calibration.calibrate import calibrate
    from hralign_ros.runtime import default_bundle
    from hralign_ros.training.success_run import load_success_run

    metrics = None
    if options.report:
        from hralign_ros.evaluation.success_report import for_card

        metrics = for_card(options.report)
    print(calibrate(
        load_success_run(options.run_folder), options.data, options.bundle or default_bundle(),
        options.output, workers=options.workers, store=options.store, command=options.repeat,
        metrics=metrics))
    return 0


def _evaluate_success(options: argparse.Namespace) -> int:
    from hralign_ros.evaluation.success_report import evaluate_success
    from hralign_ros.runtime import default_bundle
    from hralign_ros.training.success_clips import open_data
    from hralign_ros.training.success_run import check_runs, load_success_run

    runs = [load_success_run(folder) for folder in options.runs]
    bundle = options.bundle or default_bundle()
    check_runs(runs, bundle)
    data, store = open_data(options.data, bundle, runs[0].options, workers=options.workers,
                            store=options.store, basis=runs[0].basis)
    evaluate_success(data, store, runs, bundle, options.output, commands=[options.repeat])
    return 0


def _evaluate_bundle(options: argparse.Namespace) -> int:
    from hralign_ros.data.manifest import read_manifest
    from hralign_ros.evaluation.bundle_report import evaluate_bundle
    from hralign_ros.runtime import default_bundle

    evaluate_bundle(
        read_manifest(options.data), options.bundle or default_bundle(), options.output,
        splits=options.splits, allow_unknown=options.allow_unknown_tasks,
        commands=[options.repeat])
    return 0


def _add_task(options: argparse.Namespace) -> int:
    from hralign_ros.calibration.add_task import add_task, AddTaskOptions
    from hralign_ros.data.geometry import read_geometry
    from hralign_ros.runtime import default_bundle

    print(add_task(
        options.bundle or default_bundle(), options.output, options.name, options.success,
        options.failure, task_id=options.id, aliases=options.alias,
        geometry=read_geometry(options.params_file, options.node) if options.params_file else None,
        options=AddTaskOptions(**read_settings(options.set, AddTaskOptions()))))
    return 0
