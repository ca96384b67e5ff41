# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The command line: hralign COMMAND; `hralign --help` lists them."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
import os
from pathlib import Path
import shlex
import sys
from typing import Any, TYPE_CHECKING

from hralign_ros import __version__
from hralign_ros.runtime.errors import HralignError

if TYPE_CHECKING:
    from hralign_ros.adapt.options import AdaptOptions

# What each optional group of packages is for; named when one of its imports fails.
_EXTRAS = dict.fromkeys(('export', 'import', 'adapt', 'evaluate', 'train-success', 'calibrate',
                         'add-task', 'evaluate-success'), 'adapt')
DEFAULT_VIEWS = ['wrist', 'third_person']
# As the split file has them; here, so that the command line starts without its packages.
SPLITS = ('train', 'validation', 'calibration', 'test_seen', 'test_task', 'test_view',
          'test_embodiment', 'test_distractor')
_Commands = Any  # argparse's own type for it is private


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    options = make_parser().parse_args(arguments)
    words = list(sys.argv[1:] if arguments is None else arguments)
    options.repeat = ' '.join(['hralign', *(_plain(word) for word in words)])
    try:
        return int(options.run(options))
    except HralignError as error:
        print(f'hralign: {error}', file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if options.command == 'simulate':
            print(f"hralign: simulate needs the package '{error.name}': `make sim` makes a "
                  'virtual environment with the simulators; then call .venv-sim/bin/hralign',
                  file=sys.stderr)
            return 1
        if options.command not in _EXTRAS:
            raise
        print(f"hralign: {options.command} needs the package '{error.name}': "
              f"pip install 'hralign_ros[{_EXTRAS[options.command]}]'", file=sys.stderr)
        return 1


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog='hralign', description='Work with hralign_ros bundles and what they are made from.')
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(dest='command', required=True)
    for add in (_add_verify, _add_doctor, _add_sign, _add_make_key, _add_simulate, _add_import,
                _add_adapt, _add_evaluate, _add_export, _add_train_success, _add_calibrate,
                _add_evaluate_success, _add_add_task):
        add(commands)
    return parser


def _plain(word: str) -> str:
    """Leave out of a command the folders that are nobody else's business."""
    return shlex.quote(Path(word).name if word.startswith('/') else word)


def _add_verify(commands: _Commands) -> None:
    verify = commands.add_parser(
        'verify', help='check a bundle and run it once', description='Check a bundle: manifest, '
        'hashes, graphs; then run every graph once and say where it ran.')
    verify.add_argument('bundle', nargs='?', help='its directory; default: the shipped one')
    verify.add_argument('--provider', default='auto', help='auto, cpu or cuda (%(default)s)')
    verify.add_argument('--require-gpu', action='store_true', help='fail where no GPU is used')
    verify.add_argument('--trusted-key', action='append', default=[], metavar='PUBLIC_PEM',
                        help='fail unless the bundle is signed with this key, or another one so '
                        'named')
    verify.set_defaults(run=_verify)


def _add_doctor(commands: _Commands) -> None:
    doctor = commands.add_parser(
        'doctor', help="check a robot's computer, cameras included", description='Check Python, '
        'ROS, onnxruntime, bundle, transport, cameras and computer as the encoder needs them, and '
        'say what to do. Exit code 1 where anything is an ERROR.')
    doctor.add_argument('--bundle', help="its directory; default: the parameter file's, or the "
                        'shipped one')
    doctor.add_argument('--provider', help="auto, cpu or cuda; default: the parameter file's, or "
                        'auto')
    doctor.add_argument('--seconds', type=float, default=5.0,
                        help='how long to listen to the cameras (%(default)g)')
    doctor.add_argument('--topics', nargs='+', default=[], metavar='VIEW=TOPIC',
                        help="image topics of the views, without '/compressed'")
    doctor.add_argument('--params-file', type=Path, help='that the encoder is started with')
    doctor.add_argument('--namespace', default='/', help='of the encoder (%(default)s)')
    doctor.add_argument('--json', type=Path, metavar='FILE', help='write the findings there too')
    doctor.set_defaults(run=_doctor)


def _add_sign(commands: _Commands) -> None:
    signing = commands.add_parser(
        'sign', help='sign a bundle', description='Check the hash of every file of a bundle, then '
        'sign bundle.yaml, which holds them; bundle.sig is written beside it. Whatever changes '
        'the bundle makes the signature worthless: sign last.')
    signing.add_argument('bundle', help='its directory')
    signing.add_argument('--key', required=True, metavar='PRIVATE_PEM',
                         help='the private file of `hralign make-key`')
    signing.set_defaults(run=_sign)


def _add_make_key(commands: _Commands) -> None:
    making = commands.add_parser(
        'make-key', help='make a pair of keys for signing bundles', description='Write '
        'OUT.private.pem, which only you may read and which signs, and OUT.public.pem, which '
        'robots need. Nothing is overwritten.')
    making.add_argument('out', metavar='OUT', help='path and beginning of the names')
    making.set_defaults(run=_make_key)


def _add_simulate(commands: _Commands) -> None:
    simulate = commands.add_parser(
        'simulate', help='make paired human and robot episodes', description='Simulate paired '
        'episodes, successes and labelled failures, in Meta-World and robosuite. Runs in the '
        'virtual environment that `make sim` makes; go on with the same command.')
    simulate.add_argument('--output', required=True, type=Path, help='data set to write')
    simulate.add_argument('--rounds', type=int, default=3,
                          help='about 750 episodes each, over all tasks (%(default)s)')
    simulate.add_argument('--workers', type=int, default=os.cpu_count() or 1,
                          help='processes (%(default)s)')
    simulate.add_argument('--tasks', nargs='+', default=[], help='only these tasks')
    simulate.add_argument('--no-failures', action='store_true',
                          help='successes only, which is what adaptation needs')
    simulate.add_argument('--purpose', default='adaptation', choices=('adaptation', 'success'),
                          help='what the episodes are for: pairs of successes, or mostly '
                          'failures, filmed at 5 Hz (%(default)s)')
    simulate.add_argument('--only', nargs='+', default=[], choices=SPLITS, metavar='SPLIT',
                          help='make these splits only: %(choices)s')
    simulate.add_argument('--hand', type=Path, help='glTF file of the hand')
    simulate.add_argument('--splits', type=Path, help='split file; default: the shipped one')
    simulate.set_defaults(run=_simulate)


def _add_import(commands: _Commands) -> None:
    importing = commands.add_parser(
        'import', help='write the manifest of a recorded data set', description='Write a '
        'manifest beside recordings, which stay where they are.')
    importing.add_argument('kind', choices=('rh20t', 'folders', 'lerobot'))
    importing.add_argument('source', type=Path, help='its root')
    importing.add_argument('--output', type=Path, help='folder of the manifest: the source '
                           '(default) or one above it')
    importing.add_argument('--splits', type=Path, help='split file; default: the shipped one')
    importing.add_argument('--task-descriptions', type=Path,
                           help='rh20t: task_description.json; default: the one in the root')
    importing.add_argument('--commercial-only', action='store_true',
                           help='rh20t: leave out scenes that are licensed for research only')
    importing.add_argument('--strict-success', action='store_true',
                           help='rh20t: a success is rated 5 or better, not 2')
    importing.add_argument('--view', action='append', default=[], metavar='CAMERA=VIEW',
                           help='lerobot: which camera is which view')
    importing.set_defaults(run=_import)


def _add_adapt(commands: _Commands) -> None:
    adapt = commands.add_parser(
        'adapt', help='adapt a backbone on paired clips (HR-Align)', description='Train adapters '
        'and query on the training pairs of a data set. Also under torchrun.')
    adapt.add_argument('--data', required=True, type=Path, help='folder with a manifest')
    adapt.add_argument('--output', required=True, type=Path, help="the run's folder")
    adapt.add_argument('--cache', type=Path, help='folder for features; default: in the data set')
    adapt.add_argument('--workers', type=_workers, default=1,
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
                       help='share of the attention that is even over the picture')
    adapt.add_argument('--frames', type=int, help='frames of each clip in the cache')
    adapt.add_argument('--views', nargs='+', help='of the robot; each is a stream of its own')
    adapt.add_argument('--set', action='append', default=[], metavar='NAME=VALUE',
                       help='a training setting (batch, steps, seed, learning_rate, ...)')
    adapt.set_defaults(run=_adapt)


def _add_evaluate(commands: _Commands) -> None:
    evaluate = commands.add_parser(
        'evaluate', help='measure runs beside the frozen backbone', description='Measure '
        'retrieval, domain gap, separability, probes; write report.html, .json and .csv.')
    evaluate.add_argument('runs', nargs='+', type=Path, help='folders of `hralign adapt`; the '
                          'first one names the variant whose pictures are shown')
    evaluate.add_argument('--data', required=True, type=Path, help='folder with a manifest')
    evaluate.add_argument('--output', required=True, type=Path, help='folder of the report')
    evaluate.add_argument('--splits', nargs='+', default=['test_task'], help='(%(default)s)')
    evaluate.add_argument('--view', default='third_person', help='of the robot (%(default)s)')
    evaluate.add_argument('--gallery', type=int, default=100,
                          help='clips in a gallery, where there are as many (%(default)s)')
    evaluate.add_argument('--cache', type=Path, help='folder of features')
    evaluate.add_argument('--quick', action='store_true', help='R@1 and proxy A-distance only')
    evaluate.set_defaults(run=_evaluate)


def _add_export(commands: _Commands) -> None:
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
    export.add_argument('--seed', type=int, default=0, help='of random weights (%(default)s)')
    export.set_defaults(run=_export)


def _add_features(parser: argparse.ArgumentParser) -> None:
    """Add what every command has that works on the features of a data set."""
    parser.add_argument('--data', required=True, type=Path, help='folder with a manifest')
    parser.add_argument('--bundle', type=Path,
                        help='whose encoder makes them; default: the shipped one')
    parser.add_argument('--store', type=Path,
                        help='folder of features; default: in the data set')
    parser.add_argument('--workers', type=int, default=1,
                        help='processes that compute features (%(default)s)')


def _add_train_success(commands: _Commands) -> None:
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


def _add_calibrate(commands: _Commands) -> None:
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


def _add_evaluate_success(commands: _Commands) -> None:
    evaluate = commands.add_parser(
        'evaluate-success', help='measure success heads', description='Calibrate runs of '
        '`hralign train-success` that differ in their seed, and measure detection, calibration, '
        'false alarms, streams, missing cameras; write report.html, .json and .csv.')
    evaluate.add_argument('runs', nargs='+', type=Path, help='folders of train-success')
    _add_features(evaluate)
    evaluate.add_argument('--output', required=True, type=Path, help='folder of the report')
    evaluate.set_defaults(run=_evaluate_success)


def _add_add_task(commands: _Commands) -> None:
    adding = commands.add_parser(
        'add-task', help='teach a bundle one more task from a few clips', description='Fit '
        'failure prompts, bias and calibration of one task on a CPU, and write a new bundle; all '
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
    adding.add_argument('--set', action='append', default=[], metavar='NAME=VALUE',
                        help='a setting (done_s, unknown_s, steps, ...)')
    adding.set_defaults(run=_add_task)


def _workers(text: str) -> int | str:
    return text if text == 'ray' else int(text)


def _verify(options: argparse.Namespace) -> int:
    from hralign_ros.runtime import default_bundle, Encoder

    encoder = Encoder.load(
        options.bundle or default_bundle(), provider=options.provider,
        require_gpu=options.require_gpu, trusted_keys=options.trusted_key,
        require_signature=bool(options.trusted_key))
    seconds = encoder.warm_up()
    manifest, hardware = encoder.manifest, encoder.hardware
    print(f'{encoder.bundle.path}: good')
    print(f'  bundle     {manifest.name}, {encoder.bundle.sha256[:16]}')
    if encoder.bundle.signed_by:
        print(f'  signature  good, by the trusted key {encoder.bundle.signed_by[:16]}')
    print(f'  backbone   {manifest.backbone}, adapter {manifest.adapter}')
    print(f'  views      {", ".join(manifest.views)}; {manifest.channels} values each')
    print(f'  tasks      {len(encoder.tasks.tasks)}; success head '
          f'{"trained" if manifest.success_trained else "not trained"}')
    print(f'  provider   asked {hardware.requested}, got {hardware.provider}')
    if hardware.remark:
        print(f'  remark     {hardware.remark}')
    print(f'  one tick   {seconds * 1e3:.1f} ms, one 640x480 picture per view')
    return 0


def _doctor(options: argparse.Namespace) -> int:
    # Lazily, as all commands: nothing but the part that listens needs ROS.
    from hralign_ros.nodes.doctor.run import doctor, read_options

    return doctor(read_options(
        bundle=options.bundle, provider=options.provider, topics=options.topics,
        params_file=options.params_file, namespace=options.namespace, seconds=options.seconds,
        json_file=options.json))


def _sign(options: argparse.Namespace) -> int:
    from hralign_ros.runtime.bundle import sign_bundle

    path, key_id = sign_bundle(options.bundle, options.key)
    print(f'{path}: signed with the key {key_id[:16]}')
    return 0


def _make_key(options: argparse.Namespace) -> int:
    from hralign_ros.runtime.signature import make_key

    private, public, key_id = make_key(options.out)
    print(f'key {key_id[:16]}')
    print(f'  {private}: signs; keep it to yourself')
    print(f'  {public}: for the robots, parameter trusted_keys')
    return 0


def _simulate(options: argparse.Namespace) -> int:
    from hralign_ros.simulation.simulate import simulate
    import metaworld  # noqa: F401  # missing, it is named before any work is done
    import robosuite  # noqa: F401

    path = simulate(
        options.output, rounds=options.rounds, workers=options.workers,
        tasks=tuple(options.tasks), failures=not options.no_failures,
        purpose=options.purpose, only=tuple(options.only), hand=options.hand,
        splits=options.splits)
    print(path)
    return 0


def _import(options: argparse.Namespace) -> int:
    from hralign_ros.data.importing import import_data

    chosen: dict[str, Any] = {}
    if options.kind == 'rh20t':
        chosen = {'task_descriptions': options.task_descriptions,
                  'commercial_only': options.commercial_only,
                  'strict_success': options.strict_success}
    elif options.kind == 'lerobot':
        pairs = [text.partition('=') for text in options.view]
        if not pairs or not all(camera and view for camera, _, view in pairs):
            raise HralignError('lerobot: name the views, for example '
                               '--view observation.images.front=third_person')
        chosen = {'views': {camera: view for camera, _, view in pairs}}
    print(import_data(
        options.kind, options.source, options.output, splits=options.splits, **chosen))
    return 0


def adapt_options(options: argparse.Namespace) -> 'AdaptOptions':
    """
    Return what the words of `hralign adapt` ask for.

    :raises HralignError: an option is none of those allowed.
    """
    from hralign_ros.adapt.options import PRESETS

    preset = PRESETS[options.preset]
    given = {name: getattr(options, name) for name in (
        'backbone', 'weights', 'position', 'init', 'pairs', 'validation_pairs', 'dtype', 'text',
        'trained', 'pooling', 'attention_floor', 'variant', 'frames', 'draws')
        if getattr(options, name) is not None}
    if options.views:
        given['views'] = tuple(options.views)
    training = replace(preset.train, **_settings(options.set, preset.train))
    return replace(preset, train=training, **given)


def _adapt(options: argparse.Namespace) -> int:
    from hralign_ros.adapt.run import adapt

    adapt(options.data, options.output, adapt_options(options), cache=options.cache,
          workers=options.workers, resume=options.resume, command=options.repeat)
    return 0


def _settings(texts: Sequence[str], example: Any) -> dict[str, Any]:
    """Read NAME=VALUE texts as values of the types that an options object has."""
    known = {f.name: getattr(example, f.name) for f in fields(example)}
    found: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition('=')
        if name not in known:
            raise HralignError(f"no setting '{name}'; there are: {', '.join(known)}")
        kind = type(known[name])
        try:
            if kind is bool:
                found[name] = {'true': True, 'false': False}[value.lower()]
            else:
                found[name] = kind(value)
        except (KeyError, ValueError) as error:
            raise HralignError(f"setting {name}: '{value}' is no {kind.__name__}") from error
    return found


def _evaluate(options: argparse.Namespace) -> int:
    from hralign_ros.adapt.run import load_run
    from hralign_ros.data.manifest import read_manifest
    from hralign_ros.evaluate.adaptation_report import evaluate_adaptation

    evaluate_adaptation(
        read_manifest(options.data), [load_run(folder) for folder in options.runs],
        options.output, splits=options.splits, view=options.view, gallery=options.gallery,
        full=not options.quick, probes=not options.quick, cache=options.cache,
        commands=[options.repeat])
    return 0


def _train_success(options: argparse.Namespace) -> int:
    from hralign_ros.runtime import default_bundle
    from hralign_ros.success.options import SuccessOptions
    from hralign_ros.success.run import train_success

    train_success(
        options.data, options.bundle or default_bundle(), options.output,
        SuccessOptions(**_settings(options.set, SuccessOptions())), workers=options.workers,
        store=options.store, also=options.also, command=options.repeat)
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    from hralign_ros.evaluate.report import read_report
    from hralign_ros.runtime import default_bundle
    from hralign_ros.success.calibrate import calibrate, card_metrics
    from hralign_ros.success.run import load_success_run

    metrics = card_metrics(read_report(options.report)) if options.report else None
    print(calibrate(
        load_success_run(options.run_folder), options.data, options.bundle or default_bundle(),
        options.output, workers=options.workers, store=options.store, command=options.repeat,
        metrics=metrics))
    return 0


def _evaluate_success(options: argparse.Namespace) -> int:
    from hralign_ros.evaluate.success_report import evaluate_success
    from hralign_ros.runtime import default_bundle
    from hralign_ros.success.run import load_success_run, open_data

    runs = [load_success_run(folder) for folder in options.runs]
    bundle = options.bundle or default_bundle()
    data, store = open_data(options.data, bundle, runs[0].options, workers=options.workers,
                            store=options.store)
    evaluate_success(data, store, runs, bundle, options.output, commands=[options.repeat])
    return 0


def _add_task(options: argparse.Namespace) -> int:
    from hralign_ros.runtime import default_bundle
    from hralign_ros.success.add_task import add_task, AddTaskOptions

    print(add_task(
        options.bundle or default_bundle(), options.output, options.name, options.success,
        options.failure, task_id=options.id, aliases=options.alias,
        options=AddTaskOptions(**_settings(options.set, AddTaskOptions()))))
    return 0


def _export(options: argparse.Namespace) -> int:
    from hralign_ros.export.bundle import export_bundle, ExportOptions

    backbone, weights, adaptation = options.backbone, options.weights, None
    if options.adapted:
        backbone, weights, adaptation = _adaptation(options.adapted, options.report)
    try:
        manifest = export_bundle(
            options.output,
            ExportOptions(backbone=backbone, weights=weights, views=tuple(options.views),
                          int8=options.int8,
                          # A run's backbone is always that of seed 0.
                          seed=0 if adaptation else options.seed, name=options.output.name),
            command=options.repeat, adaptation=adaptation)
    except (ValueError, RuntimeError, OSError) as error:
        print(f'hralign: {error}', file=sys.stderr)
        return 1
    total = sum(entry['bytes'] for entry in manifest['files'].values())
    for name, entry in manifest['files'].items():
        print(f'  {entry["bytes"] / 1e6:7.2f} MB  {name}')
    print(f'  {total / 1e6:7.2f} MB  {options.output}')
    return 0


def _adaptation(folder: Path, report: Path | None) -> tuple[str, str | None, Any]:
    """Take from a run what a bundle needs; and from a report, what its card says of it."""
    from hralign_ros.adapt.run import load_run
    from hralign_ros.data.manifest import SIMULATORS
    from hralign_ros.evaluate.report import read_report
    from hralign_ros.export.bundle import Adaptation

    run = load_run(folder)
    options, data = run.options, run.record['data']
    if options.pooling != 'attention' or options.text != 'minilm':
        raise HralignError(
            f'{folder}: a bundle needs attention pooling and the text encoder minilm; this run '
            f'has {options.pooling} and {options.text}')
    train = options.train
    if train.objective == 'align':
        loss = ['Eq. 6 of HR-Align', *(['decoupled'] if train.decoupled else []),
                *(['same-task pairs masked'] if train.mask_same_task else []),
                'negatives pooled with the text of the clip they are compared with'
                if train.negatives == 'anchor' else 'negatives pooled with their own text',
                f'un-adapted negative x {train.frozen_weight:g}']
        how = 'adapted by HR-Align'
    else:
        loss, how = ['video and text only, no alignment'], 'co-trained without alignment'
    training: dict[str, Any] = {
        'simulated': set(data['sources']) <= SIMULATORS,
        'data': f'{data["pairs"]} pairs of human and robot clips ({", ".join(data["sources"])}, '
                f'{len(data["tasks"])} tasks, {data["scenes"]} scenes, '
                f'{", ".join(data["embodiments"])})',
        'robot views': ', '.join(options.views), 'pairs': options.pairs,
        'attention': f'{options.attention_floor:g} of it is even over the picture',
        'licences of the data': ', '.join(data['licenses']),
        'loss': ', '.join(loss),
        'steps and batch': f'{run.record["best_step"]} x {train.batch}'
                           + (f', running average {train.average:g}' if train.average else ''),
        'seed': train.seed, 'command': run.record['command'],
        'validation': f'R@1 {run.record["validation_r1"]:.3f} on {data["validation_pairs"]} pairs '
                      'of tasks that are not trained on'}
    if report:
        training |= _measured(read_report(report)['rows'], options.variant, train.seed, report)
    return options.backbone, options.weights, Adaptation(
        adapters=run.model.adapters, attention=run.model.attention, position=options.position,
        name=f'{options.position} x3, {how}' if options.trained == 'adapters'
        else 'none; only the query is trained', training=training)


# What a card says of a report, by the beginning of the metric's name.
_ON_CARDS = ('E1 R@1 of the task in other scenes', 'E1 R@1 human to robot',
             'E2 proxy A-distance, task text', 'E5', 'E6')


def _measured(
    rows: Sequence[Mapping[str, Any]], variant: str, seed: int, report: Path,
) -> dict[str, str]:
    """
    Say in one line per metric what a report has of a variant, and of the frozen backbone.

    :raises HralignError: the report is not of this run.
    """
    mine = [row for row in rows if row['variant'] == variant
            and row['metric'].startswith(_ON_CARDS)]
    if not mine or seed not in mine[0]['seeds']:
        raise HralignError(
            f"{report} is not of this run: it has no variant '{variant}' with seed {seed}")
    beside = {(row['metric'], row['split']): row['value'] for row in rows
              if row['variant'] == 'frozen, mean'}
    found = {}
    for row in mine:
        ends = ', '.join('?' if row[end] is None else f'{row[end]:.3f}' for end in ('low', 'high'))
        words = [f'{row["value"]:.3f} [{ends}]']
        frozen = beside.get((row['metric'], row['split']))
        if frozen is not None:
            words.append(f'frozen backbone, mean of all tokens: {frozen:.3f}')
        if row.get('chance') is not None:
            words.append(f'chance {row["chance"]:.3f}')
        if len(row['seeds']) > 1:
            words.append(f'mean of seeds {", ".join(map(str, row["seeds"]))}')
        found[f'{row["metric"]} ({row["split"]})'] = '; '.join(words)
    return found


if __name__ == '__main__':
    sys.exit(main())
