# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""`hralign success`: train, calibrate, evaluate, add-task."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hralign_ros.cli.options import changed, compute_on, Device, settings, Workers


@settings('training.success_options:SuccessOptions')
def train(
    *, data: Path, output: Path, bundle: Path | None = None, features: Path | None = None,
    workers: Workers = 1, resume: bool = False, also: Sequence[Path] = (),
    split_file: Path | None = None, device: Device = 'auto', command: str, **changes: Any,
) -> None:
    """
    Train a success head and its failure prompts on a bundle's features of successes and failures.

    :param output: the run's folder
    :param bundle: whose encoder computes the features; default: the shipped one
    :param also: more data sets, whose training episodes are added
    :param split_file: that the data were imported with; default: the shipped one. --all-robots and
        --leave-out split anew by it
    """
    from hralign_ros.runtime import default_bundle
    from hralign_ros.training.success_options import SuccessOptions
    from hralign_ros.training.success_run import train_success

    compute_on(device)
    if split_file:
        changes['split_file'] = str(split_file)
    train_success(
        data, bundle or default_bundle(), output, changed(SuccessOptions(), changes),
        workers=workers, store=features, also=also, resume=resume, device=device,
        command=command)


def calibrate(
    run: Path, /, *, data: Path, output: Path, bundle: Path | None = None,
    features: Path | None = None, workers: Workers = 1, report: Path | None = None,
    device: Device = 'auto', command: str,
) -> None:
    """
    Make a bundle of a trained success head: calibration, thresholds, out-of-distribution limit.

    :param run: folder of `hralign success train`
    :param output: bundle to write
    :param bundle: whose encoder goes into it; default: the shipped one
    :param report: report.json of `hralign success evaluate`, for the card
    """
    from hralign_ros.calibration.calibrate import calibrate
    from hralign_ros.evaluation.success import for_card
    from hralign_ros.runtime import default_bundle
    from hralign_ros.training.success_run import load_success_run

    compute_on(device)
    print(calibrate(
        load_success_run(run), data, bundle or default_bundle(), output, workers=workers,
        store=features, device=device, command=command,
        metrics=for_card(report) if report else None))


def evaluate(
    runs: Sequence[Path], /, *, data: Path, output: Path, bundle: Path | None = None,
    features: Path | None = None, workers: Workers = 1, device: Device = 'auto', command: str,
) -> None:
    """
    Measure success heads: detection, calibration, false alarms, streams, missing cameras.

    Runs differ in their seed only; each is calibrated first. Writes report.html, .json and .csv.

    :param runs: folders of `hralign success train`
    :param output: folder of the report
    :param bundle: whose encoder computes the features; default: the shipped one
    """
    from hralign_ros.evaluation.success import evaluate_success
    from hralign_ros.runtime import default_bundle
    from hralign_ros.training.success_clips import open_data
    from hralign_ros.training.success_run import check_runs, load_success_run

    compute_on(device)
    found = [load_success_run(folder) for folder in runs]
    bundle = bundle or default_bundle()
    check_runs(found, bundle)
    episodes, store = open_data(
        data, bundle, found[0].options, workers=workers, store=features, basis=found[0].basis)
    evaluate_success(
        episodes, store, found, bundle, output, device=device, commands=[command])


@settings('calibration.add_task:AddTaskOptions')
def add_task(
    *, instruction: str, success: Path, failure: Path, output: Path, bundle: Path | None = None,
    task_id: str = '', aliases: Sequence[str] = (), params_file: Path | None = None,
    node: str = '/encoder', device: Device = 'auto', **changes: Any,
) -> None:
    """
    Teach a bundle one more task from a few clips; all other tasks stay as they are.

    Fits failure prompts and calibration of the task, and writes a new bundle. A folder of clips
    holds one folder per attempt, with wrist.mp4 and third_person.mp4 (or the views that there are)
    in it.

    :param instruction: of the task, in words
    :param success: folder of clips that end with the task accomplished
    :param failure: folder of clips in which it never is
    :param output: bundle to write
    :param bundle: to start from; default: the shipped one
    :param task_id: default: made of the instruction
    :param aliases: other instructions that mean the same task
    """
    from hralign_ros.calibration.add_task import add_task, AddTaskOptions
    from hralign_ros.data.geometry import read_geometry
    from hralign_ros.runtime import default_bundle

    compute_on(device)
    print(add_task(
        bundle or default_bundle(), output, instruction, success, failure, task_id=task_id,
        aliases=aliases, options=changed(AddTaskOptions(), changes), device=device,
        geometry=read_geometry(params_file, node) if params_file else None))
