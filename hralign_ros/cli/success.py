# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""`hralign success`: train, calibrate, evaluate, teach."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hralign_ros.cli.options import changed, compute_on, Device, read_views, settings, Workers
from hralign_ros.runtime.errors import HralignError


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
    run: Path, /, *, data: Path, output: Path, bundle: Path | None = None, beside: str = '',
    features: Path | None = None, workers: Workers = 1, report: Path | None = None,
    device: Device = 'auto', command: str,
) -> None:
    """
    Make a bundle of a trained success head: calibration, thresholds, out-of-distribution limit.

    :param run: folder of `hralign success train`
    :param output: bundle to write
    :param bundle: whose encoder goes into it; default: the shipped one
    :param beside: name of the head, to stand beside the one of the bundle, which keeps its tasks
    :param report: report.json of `hralign success evaluate`, for the card
    """
    from hralign_ros.calibration.calibrate import calibrate
    from hralign_ros.evaluation.success import for_card
    from hralign_ros.runtime import default_bundle
    from hralign_ros.training.success_run import load_success_run

    compute_on(device)
    print(calibrate(
        load_success_run(run), data, bundle or default_bundle(), output, beside=beside,
        workers=workers, store=features, device=device, command=command,
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


def teach(
    *, data: Path, output: Path, bundle: Path | None = None, tasks: Sequence[str] = (),
    aliases: Sequence[str] = (), regions: Sequence[str] = (), features: Path | None = None,
    workers: Workers = 1,
    page: Path | None = None, device: Device = 'auto', command: str,
) -> None:
    """
    Teach a bundle the tasks of one robot in its own lab, from attempts recorded there.

    Ten attempts that succeed and ten that fail are enough for most tasks. Writes a new bundle, in
    which all other tasks stay as they are, and a page that says what the node will decide with it.
    Policies that learnt on the bundle go on working: no embedding changes.

    :param data: attempts: a folder with a manifest, as `hralign data import` writes it
    :param output: bundle to write
    :param bundle: to start from; default: the shipped one
    :param tasks: instructions to teach; default: all in the data
    :param aliases: other instructions that mean the task, where it is one
    :param regions: VIEW=LEFT,TOP,RIGHT,BOTTOM: the part of a view to look at, as fractions of the
        image; the page proposes one
    :param page: folder of teach.html and teach.json; default: beside the bundle, NAME-teach
    """
    from hralign_ros.calibration.teach import teach
    from hralign_ros.evaluation.teach_page import write_teach_page
    from hralign_ros.runtime import default_bundle

    compute_on(device)
    taught = teach(
        bundle or default_bundle(), data, output, tasks=tasks, aliases=aliases, store=features,
        workers=workers,
        regions={view: _region(text) for view, text in read_views(
            regions, 'third_person=0.2,0.3,0.8,1.0', '--region').items()})
    print(write_teach_page(
        taught, page or output.with_name(f'{output.name}-teach'), command))


def _region(text: str) -> tuple[float, float, float, float]:
    """
    Read a part of an image.

    :raises HralignError: it is not four numbers.
    """
    try:
        left, top, right, bottom = (float(part) for part in text.split(','))
    except ValueError as error:
        raise HralignError(f"region '{text}': needed are four fractions, as "
                           '0.2,0.3,0.8,1.0 (left, top, right, bottom)') from error
    return left, top, right, bottom
