# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Where the things of simulated episodes are in their images: things.parquet beside a manifest.

It teaches a model what words mean, long before success does: where in this image is the red mug?
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
import os
from pathlib import Path
from typing import Any

from hralign_ros.runtime.errors import DataError
import numpy as np
from numpy.typing import NDArray
import pyarrow as pa
from pyarrow import parquet

FILE_NAME = 'things.parquet'
Floats = NDArray[np.float32]
_SCHEMA = pa.schema([
    ('episode_id', pa.string()), ('thing', pa.string()), ('view', pa.string()),
    ('x', pa.list_(pa.float32())), ('y', pa.list_(pa.float32()))])


@dataclass(frozen=True)
class Places:
    """
    Where one thing is in one view.

    :param thing: its words without an article, or the colour of a fixture's part.
    :param view: name of the robot's view.
    :param at: float32 [F, 2], where the middle of it is in each frame: x from the left and y from
        the top, as parts of the image's width and height. It may be hidden there by something
        else, and lies outside of 0 to 1 where it is out of the image; NaN where it is behind the
        camera.
    """

    thing: str
    view: str
    at: Floats


def write_things(folder: Path, things: Iterable[tuple[str, Iterable[Places]]]) -> Path:
    """
    Write where the things of episodes are; a file that is there is replaced in one step.

    :param things: id of each episode, and the places in it.
    :returns: the file.
    """
    rows: list[dict[str, Any]] = [
        {'episode_id': episode, 'thing': one.thing, 'view': one.view,
         'x': one.at[:, 0].tolist(), 'y': one.at[:, 1].tolist()}
        for episode, places in things for one in places]
    path = Path(folder) / FILE_NAME
    scratch = path.with_suffix(f'.{os.getpid()}.tmp')
    try:
        parquet.write_table(
            pa.Table.from_pylist(rows, schema=_SCHEMA), scratch, compression='zstd')
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return path


def read_things(folder: Path) -> Mapping[str, tuple[Places, ...]]:
    """
    Read where things are, by episode.

    :raises DataError: the file is not there, or is none.
    """
    path = Path(folder) / FILE_NAME
    try:
        table = parquet.read_table(path)
    except FileNotFoundError as error:
        raise DataError(
            f'{folder}: no {FILE_NAME} there; `hralign data simulate --world tabletop` writes it '
            'with the episodes that it makes; those of version 0.2.0 have to be made anew'
            ) from error
    except (OSError, pa.ArrowException) as error:
        raise DataError(f'{path}: {error}') from error
    if missing := set(_SCHEMA.names) - set(table.column_names):
        raise DataError(f'{path}: the columns {", ".join(sorted(missing))} are missing')
    found: dict[str, list[Places]] = {}
    for row in table.select(_SCHEMA.names).to_pylist():
        found.setdefault(row['episode_id'], []).append(Places(
            row['thing'], row['view'], np.array([row['x'], row['y']], np.float32).T))
    return {episode: tuple(places) for episode, places in found.items()}
