# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The command line: the tree of commands, and how one is run."""

from collections.abc import Sequence
import inspect
import os
from pathlib import Path
import shlex
import sys

from hralign_ros import __version__
from hralign_ros.cli import bundle, data, encoder, policy, success
from hralign_ros.cli.options import add_commands, Parser, Tree
from hralign_ros.runtime.errors import HralignError, install_line

TREE: Tree = {
    'data': ('Make data sets: simulate, or import recordings; label and export them', {
        'simulate': data.simulate, 'simulate-lab': data.simulate_lab,
        'simulate-demonstrations': data.simulate_demonstrations,
        'instructions': data.instructions, 'review': data.review, 'label': data.label,
        'import': ('Write the manifest of recordings; videos stay where they are', {
            'rh20t': data.import_rh20t, 'folders': data.import_folders,
            'lerobot': data.import_lerobot, 'rosbag': data.import_rosbag}),
        'export': ('Write a data set, or bags, in another format', {
            'lerobot': data.export_lerobot, 'rerun': data.export_rerun})}),
    'encoder': ('Adapt a backbone on paired clips (HR-Align), measure it, make a bundle of it', {
        'train': encoder.train, 'evaluate': encoder.evaluate, 'export': encoder.export}),
    'success': ('Teach a bundle when a task is accomplished (Adapt2Reward)', {
        'train': success.train, 'calibrate': success.calibrate, 'evaluate': success.evaluate,
        'teach': success.teach}),
    'policy': ('Train a small policy on embeddings, try it in closed loop', {
        'train': policy.train, 'evaluate': policy.evaluate}),
    'bundle': ('Check, measure, complete and sign a bundle; write what others need to use it', {
        'verify': bundle.verify, 'evaluate': bundle.evaluate, 'add-parts': bundle.add_parts,
        'add-fine': bundle.add_fine,
        'contract': bundle.contract, 'sign': bundle.sign, 'keygen': bundle.keygen}),
    'doctor': bundle.doctor,
}
_SIMULATED = ('data simulate', 'data simulate-lab', 'data simulate-demonstrations',
              'policy evaluate')
# What a robot runs needs no extra; all other commands but these need the extra 'adapt'.
_ON_ROBOTS = ('bundle verify', 'bundle contract', 'bundle sign', 'bundle keygen', 'doctor')
_EXTRAS = {'data label': 'label'}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        given = vars(make_parser().parse_args(words))
        run = given.pop('_command')
        parameters = inspect.signature(run).parameters
        if 'command' in parameters:
            given['command'] = ' '.join(['hralign', *(_plain(word) for word in words)])
        positional = [given.pop(name) for name, parameter in parameters.items()
                      if parameter.kind is parameter.POSITIONAL_ONLY]
        return int(run(*positional, **given) or 0)
    except (HralignError, OSError) as error:
        print(f'hralign: {error}', file=sys.stderr)
    except ModuleNotFoundError as error:
        name = ' '.join(words[:1 if words[0] == 'doctor' else 2])
        print(f"hralign: {name} needs the package '{error.name}': {_remedy(name)}",
              file=sys.stderr)
    return 1


def make_parser() -> Parser:
    """Return the parser of all commands."""
    parser = Parser(
        prog='hralign', description='Work with hralign_ros bundles and what they are made from.')
    parser.add_argument('--version', action='version', version=__version__)
    add_commands(parser, TREE)
    return parser


def _remedy(command: str) -> str:
    """Say how to get the packages of a command."""
    if command in _SIMULATED:
        return ('`make sim` makes a virtual environment with the simulators; then call '
                '.venv-sim/bin/hralign')
    line = install_line('' if command in _ON_ROBOTS else _EXTRAS.get(command, 'adapt'))
    # The cv_bridge of ROS is built for that.
    return line + (" 'numpy<2'" if 'ROS_DISTRO' in os.environ else '')


def _plain(word: str) -> str:
    """Leave out of a command the folders that are nobody else's business."""
    return shlex.quote(Path(word).name if word.startswith('/') else word)
