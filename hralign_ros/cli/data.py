# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Commands that make data sets: simulate, import."""

import argparse
import os
from pathlib import Path
from typing import Any

from hralign_ros.cli.options import add_params_file, Commands
from hralign_ros.runtime.errors import HralignError

# As the split file has them; here, so that the command line starts without its packages.
SPLITS = ('train', 'validation', 'calibration', 'test_seen', 'test_task', 'test_view',
          'test_embodiment', 'test_distractor')


def add_to(commands: Commands) -> None:
    """Add the commands to the parser."""
    for add in (_add_simulate, _add_import):
        add(commands)


def _add_simulate(commands: Commands) -> None:
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
    simulate.add_argument('--no-humans', action='store_true',
                          help='robots only, which a success head is trained on by default')
    simulate.add_argument('--purpose', default='adaptation', choices=('adaptation', 'success'),
                          help='what the episodes are for: pairs of successes, or mostly '
                          'failures, recorded at 5 Hz (%(default)s)')
    simulate.add_argument('--only', nargs='+', default=[], choices=SPLITS, metavar='SPLIT',
                          help='make these splits only: %(choices)s')
    simulate.add_argument('--hz', type=float,
                          help='frames a second; default: 5 for success, 3 at most for adaptation')
    simulate.add_argument('--hand', type=Path, help='glTF file of the hand')
    simulate.add_argument('--splits', type=Path, help='split file; default: the shipped one')
    simulate.set_defaults(run=_simulate)


def _add_import(commands: Commands) -> None:
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
    add_params_file(importing)
    importing.set_defaults(run=_import)


def _simulate(options: argparse.Namespace) -> int:
    from hralign_ros.simulation.simulate import simulate
    import metaworld  # noqa: F401  # missing, it is named before any work is done
    import robosuite  # noqa: F401

    path = simulate(
        options.output, rounds=options.rounds, workers=options.workers,
        tasks=tuple(options.tasks), failures=not options.no_failures,
        humans=not options.no_humans,
        purpose=options.purpose, only=tuple(options.only), hz=options.hz, hand=options.hand,
        splits=options.splits)
    print(path)
    return 0


def _import(options: argparse.Namespace) -> int:
    from hralign_ros.data.geometry import read_geometry
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
    if options.params_file:
        chosen['geometry'] = read_geometry(options.params_file, options.node)
    print(import_data(
        options.kind, options.source, options.output, splits=options.splits, **chosen))
    return 0
