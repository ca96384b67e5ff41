# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Commands around the encoder: adapt, evaluate, export."""

import argparse
from dataclasses import replace
from pathlib import Path
import sys
from typing import TYPE_CHECKING

from hralign_ros.cli.options import Commands, read_settings, read_workers

if TYPE_CHECKING:
    from hralign_ros.training.alignment_options import AdaptOptions

DEFAULT_VIEWS = ['wrist', 'third_person']


def add_to(commands: Commands) -> None:
    """Add the commands to the parser."""
    for add in (_add_adapt, _add_evaluate, _add_export):
        add(commands)


def _add_adapt(commands: Commands) -> None:
    adapt = commands.add_parser(
        'adapt', help='adapt a backbone on paired clips (HR-Align)', description='Train adapters '
        'and query on the training pairs of a data set. Also under torchrun.')
    adapt.add_argument('--data', required=True, type=Path, help='folder with a manifest')
    adapt.add_argument('--output', required=True, type=Path, help="the run's folder")
    adapt.add_argument('--cache', type=Path, help='folder for features; default: in the data set')
    adapt.add_argument('--workers', type=read_workers, default=1,
                       help="processes that compute features, or 'ray' (%(default)s)")
    adapt.add_argument('--resume', action='store_true', help='go on where a run was stopped')
    adapt.add_argument('--preset', default='default', choices=('default', 'paper'),
                       help='training settings to start from (%(default)s)')
    for name, help_text in (
            ('backbone', 'as hralign export names it, or torchvision:NAME, timm:NAME'),
            ('weights', 'file of weights, or random'),
            ('position', 'of the adapters: early, middle, late'),
            ('init', 'of the adapters: identity, release'),
            ('pairs', 'recorded, twin, cross_seed, cross_scene or shuffled'),
            ('validation_pairs', 'the same for the choice of the best step'),
            ('dtype', 'of the feature cache: float16, float32'),
            ('text', 'text encoder: minilm, distilbert:FOLDER'),
            ('trained', 'adapters, or query: a baseline without adapters'),
            ('pooling', 'attention, mean'),
            ('variant', 'name of the runs that differ in their seed only')):
        adapt.add_argument(f'--{name.replace("_", "-")}', help=help_text)
    adapt.add_argument('--draws', type=int, help='human partners drawn for each robot clip '
                       '(cross_seed, cross_scene)')
    adapt.add_argument('--attention-floor', type=float,
                       help='share of the attention that is even over the image')
    adapt.add_argument('--frames', type=int, help='frames of each clip in the cache')
    adapt.add_argument('--views', nargs='+', help='of the robot; each is a stream of its own')
    adapt.add_argument('--set', action='append', default=[], metavar='NAME=VALUE',
                       help='a training setting (batch, steps, seed, learning_rate, ...)')
    adapt.set_defaults(run=_adapt)


def _add_evaluate(commands: Commands) -> None:
    evaluate = commands.add_parser(
        'evaluate', help='measure runs beside the frozen backbone', description='Measure '
        'retrieval, domain gap, separability, probes; write report.html, .json and .csv.')
    evaluate.add_argument('runs', nargs='+', type=Path, help='folders of `hralign adapt`; the '
                          'first one names the variant whose images are shown')
    evaluate.add_argument('--data', required=True, type=Path, help='folder with a manifest')
    evaluate.add_argument('--output', required=True, type=Path, help='folder of the report')
    evaluate.add_argument('--splits', nargs='+', default=['test_task'], help='(%(default)s)')
    evaluate.add_argument('--view', default='third_person', help='of the robot (%(default)s)')
    evaluate.add_argument('--gallery', type=int, default=100,
                          help='clips in a gallery, where there are as many (%(default)s)')
    evaluate.add_argument('--cache', type=Path, help='folder of features')
    evaluate.add_argument('--quick', action='store_true', help='R@1 and proxy A-distance only')
    evaluate.set_defaults(run=_evaluate)


def _add_export(commands: Commands) -> None:
    export = commands.add_parser(
        'export', help='make a bundle', description='Export a bundle: of a run of `hralign '
        'adapt`, or with identity adapters. The success head is untrained.')
    export.add_argument('--output', required=True, type=Path, help='directory to write')
    export.add_argument('--run', dest='adapted', type=Path, help='folder of `hralign adapt`')
    export.add_argument('--report', type=Path,
                        help='report.json of `hralign evaluate`, for the card')
    export.add_argument('--backbone', default='efficientnet_lite0',
                        help='without --run: efficientnet_lite0, resnet50, vit_b_16, '
                        'r3m_resnet50, d4r_vit_b, mvp_vit_b, ..., torchvision:NAME or timm:NAME '
                        '(%(default)s)')
    export.add_argument('--weights', help='state dict (.pth read without pickle, .safetensors)')
    export.add_argument('--views', nargs='+', default=DEFAULT_VIEWS,
                        help='camera views, the reference view last (%(default)s)')
    export.add_argument('--int8', action='store_true', help='also write visual.int8.onnx')
    export.add_argument('--fp16', action='store_true', help='also write visual.fp16.onnx')
    export.add_argument('--replace', action='store_true',
                        help='also replace a bundle whose success head is trained')
    export.add_argument('--seed', type=int, default=0, help='of random weights (%(default)s)')
    export.set_defaults(run=_export)


def adapt_options(options: argparse.Namespace) -> 'AdaptOptions':
    """
    Return what the words of `hralign adapt` ask for.

    :raises HralignError: an option is none of those allowed.
    """
    from hralign_ros.training.alignment_options import PRESETS

    preset = PRESETS[options.preset]
    given = {name: getattr(options, name) for name in (
        'backbone', 'weights', 'position', 'init', 'pairs', 'validation_pairs', 'dtype', 'text',
        'trained', 'pooling', 'attention_floor', 'variant', 'frames', 'draws')
        if getattr(options, name) is not None}
    if options.views:
        given['views'] = tuple(options.views)
    training = replace(preset.train, **read_settings(options.set, preset.train))
    return replace(preset, train=training, **given)


def _adapt(options: argparse.Namespace) -> int:
    from hralign_ros.training.alignment_run import adapt

    adapt(options.data, options.output, adapt_options(options), cache=options.cache,
          workers=options.workers, resume=options.resume, command=options.repeat)
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from hralign_ros.data.manifest import read_manifest
    from hralign_ros.evaluation.encoder_report import evaluate_adaptation
    from hralign_ros.training.alignment_run import load_run

    evaluate_adaptation(
        read_manifest(options.data), [load_run(folder) for folder in options.runs],
        options.output, splits=options.splits, view=options.view, gallery=options.gallery,
        full=not options.quick, probes=not options.quick, cache=options.cache,
        commands=[options.repeat])
    return 0


def _export(options: argparse.Namespace) -> int:
    from hralign_ros.export.adaptation import adaptation_of
    from hralign_ros.export.bundle import export_bundle, ExportOptions
    from hralign_ros.training.alignment_run import load_run

    backbone, weights, adaptation = options.backbone, options.weights, None
    length: dict[str, int] = {}
    if options.adapted:
        run = load_run(options.adapted)
        backbone, weights = run.options.backbone, run.options.weights
        metrics = None
        if options.report:
            from hralign_ros.evaluation.encoder_report import for_card

            metrics = for_card(options.report, run)
        adaptation = adaptation_of(run, metrics)
        length = {'length': run.options.train.length}
    try:
        manifest = export_bundle(
            options.output,
            ExportOptions(backbone=backbone, weights=weights, views=tuple(options.views),
                          int8=options.int8, fp16=options.fp16, **length,
                          # A run's backbone is always that of seed 0.
                          seed=0 if adaptation else options.seed, name=options.output.name),
            command=options.repeat, adaptation=adaptation, replace_trained=options.replace)
    except (ValueError, RuntimeError, OSError) as error:
        print(f'hralign: {error}', file=sys.stderr)
        return 1
    total = sum(entry['bytes'] for entry in manifest['files'].values())
    for name, entry in manifest['files'].items():
        print(f'  {entry["bytes"] / 1e6:7.2f} MB  {name}')
    print(f'  {total / 1e6:7.2f} MB  {options.output}')
    return 0
