# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""`hralign encoder`: train, evaluate, export."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from hralign_ros.cli.options import changed, compute_on, Device, settings, Workers
from hralign_ros.runtime.errors import BundleError


@settings('training.alignment_options:AdaptOptions')
def train(
    *, data: Path, output: Path, features: Path | None = None, workers: Workers = 1,
    resume: bool = False, device: Device = 'auto',
    preset: Literal['default', 'paper'] = 'default', command: str, **changes: Any,
) -> None:
    """
    Adapt a backbone on paired clips (HR-Align): train adapters and query. Also under torchrun.

    :param output: the run's folder
    :param preset: settings to start from
    """
    from hralign_ros.training.alignment_options import PRESETS
    from hralign_ros.training.alignment_run import adapt

    compute_on(device)
    adapt(data, output, changed(PRESETS[preset], changes), cache=features, workers=workers,
          resume=resume, device=device, command=command)


def evaluate(
    runs: Sequence[Path], /, *, data: Path, output: Path, features: Path | None = None,
    split: Sequence[str] = ('test_task',), view: str = 'third_person', gallery: int = 100,
    quick: bool = False, device: Device = 'auto', command: str,
) -> None:
    """
    Measure runs beside the frozen backbone: retrieval, domain gap, separability, probes.

    Writes report.html, .json and .csv.

    :param runs: folders of `hralign encoder train`; the first names the variant whose images are
        shown
    :param output: folder of the report
    :param split: of the episodes
    :param view: of the robot
    :param gallery: clips in a gallery, where there are as many
    :param quick: R@1 and proxy A-distance only
    """
    from hralign_ros.data.manifest import read_manifest
    from hralign_ros.evaluation.encoder import evaluate_adaptation
    from hralign_ros.training.alignment_run import load_run

    compute_on(device)
    evaluate_adaptation(
        read_manifest(data), [load_run(folder) for folder in runs], output, splits=split,
        view=view, gallery=gallery, full=not quick, probes=not quick, cache=features,
        device=device, commands=[command])


def export(
    run: Path | None = None, /, *, output: Path, report: Path | None = None,
    data: Sequence[Path] = (),
    backbone: str = 'efficientnet_lite0', weights: str | None = None,
    non_commercial: bool = False,
    views: Sequence[str] = ('wrist', 'third_person'), int8: bool = False, fp16: bool = False,
    replace: bool = False, seed: int = 0, command: str,
) -> None:
    """
    Make a bundle of a run, or one with identity adapters. Its success head is untrained.

    :param run: folder of `hralign encoder train`; without it, the adapters are identity
    :param output: bundle to write
    :param report: report.json of `hralign encoder evaluate`, for the card
    :param data: data sets to fit the embedding's parts spatial and keypoints to; without, the
        bundle lacks them until `hralign bundle add-parts`
    :param backbone: where there is no RUN: efficientnet_lite0, r3m_resnet50, dinov2_vits14,
        siglip2_vitb16, ..., torchvision:NAME or timm:NAME
    :param weights: state dict (.pth read without pickle, .safetensors); random; or hub, which
        downloads them
    :param non_commercial: no commercial use is made of weights whose terms forbid it
    :param views: camera views, the reference view last
    :param int8: also write visual.int8.onnx
    :param fp16: also write visual.fp16.onnx
    :param replace: also replace a bundle whose success head is trained
    :param seed: of random weights
    """
    from hralign_ros.data.manifest import read_manifest
    from hralign_ros.export.bundle import export_bundle, ExportOptions
    from hralign_ros.export.parts import add_parts

    sets = [read_manifest(folder) for folder in data]
    options = ExportOptions(backbone=backbone, weights=weights,
                            non_commercial=non_commercial, views=tuple(views), int8=int8,
                            fp16=fp16, seed=seed, name=output.name)
    adaptation = None
    if run:
        from hralign_ros.evaluation.encoder import for_card
        from hralign_ros.export.adaptation import adaptation_of
        from hralign_ros.training.alignment_run import load_run

        found = load_run(run)
        adaptation = adaptation_of(found, for_card(report, found) if report else None)
        # A run's backbone is always that of seed 0.
        options = changed(options, {
            'backbone': found.options.backbone, 'weights': found.options.weights, 'seed': 0,
            'non_commercial': found.options.non_commercial,
            'length': found.options.train.length})
    try:
        manifest = export_bundle(
            output, options, command=command, adaptation=adaptation, replace_trained=replace)
        if sets:
            manifest = add_parts(output, sets, output, command=command)
    except (ValueError, RuntimeError) as error:
        raise BundleError(str(error)) from error
    total = sum(entry.bytes for entry in manifest.files.values())
    for name, entry in manifest.files.items():
        print(f'  {entry.bytes / 1e6:7.2f} MB  {name}')
    print(f'  {total / 1e6:7.2f} MB  {output}')
