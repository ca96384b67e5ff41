# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What instructions are about: instructions.json beside a manifest, and the tags that speak of them.

A still says of everything that one could have asked for in its scene whether it is so at the end.
"""

from collections.abc import Mapping
from dataclasses import dataclass
import json
from pathlib import Path

from hralign_ros.runtime.errors import DataError

FILE_NAME = 'instructions.json'
# Tag of an attempt's two ends without the motion between; and tags, before an instruction: it is
# accomplished in the end, or is not.
STILL, SO, NOT_SO = 'still', 'so:', 'not:'


@dataclass(frozen=True)
class Said:
    """
    An instruction, and what it is about.

    :param text: as one says it.
    :param paraphrases: other ways to say it.
    :param thing: id of what is to be moved, or the colour of a fixture's part.
    :param place: id of the thing that it goes into, on or beside; '' for none.
    """

    text: str
    paraphrases: tuple[str, ...]
    thing: str
    place: str


def read_instructions(folder: Path) -> Mapping[str, Said]:
    """
    Read what instructions are about, by their text.

    :raises DataError: the file is not there, or is none.
    """
    path = Path(folder) / FILE_NAME
    try:
        rows = json.loads(path.read_text(encoding='utf-8'))
        return {row['text']: Said(row['text'], tuple(map(str, row['paraphrases'])),
                                  str(row['object']), str(row['place'])) for row in rows}
    except FileNotFoundError as error:
        raise DataError(
            f'{folder}: no {FILE_NAME} there; `hralign data simulate --world tabletop` writes it '
            'beside the manifest') from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f'{path}: {type(error).__name__} {error}; needed is a list of '
                        'instructions as `hralign data simulate --world tabletop` writes it'
                        ) from error
