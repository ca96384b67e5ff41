# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What several commands read in the same way."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from hralign_ros.runtime.errors import HralignError

Commands = Any  # argparse's own type for it is private


def read_settings(texts: Sequence[str], example: Any) -> dict[str, Any]:
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


def add_params_file(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the node whose cameras recorded videos."""
    parser.add_argument(
        '--params-file', type=Path, help="the node's parameter file, where its cameras recorded "
        'these videos: they are turned and cropped as the node does (<view>.rotation, '
        '<view>.crop)')
    parser.add_argument('--node', default='/encoder', help='that node, with its namespace, where '
                        'the file is for several (%(default)s)')


def read_workers(text: str) -> int | str:
    """Read how many processes, or where they are."""
    return text if text == 'ray' else int(text)
