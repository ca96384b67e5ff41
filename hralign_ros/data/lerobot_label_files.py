# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The files that labels of a LeRobot data set go into, and whose these are.

Nothing is written over that is somebody's: each file that was written here has a mark.
"""

from collections.abc import Mapping
import json
import os
from pathlib import Path
from typing import Any

from hralign_ros.data.lerobot import MARK, read_info, stamp_hash, stamp_of, SUCCESS
from hralign_ros.data.lerobot_export import statistics_of
from hralign_ros.data.manifest import DataError
import numpy as np
import pyarrow as pa
from pyarrow import compute, parquet

FILE_NAME = 'hralign_progress.parquet'
# Where LeRobot's own programs look up which model made such a file.
_MODEL = b'reward_model_path'
# The features as the library `datasets` has them, in the metadata of files that it wrote.
_HUGGING_FACE = b'huggingface'
KEYS = ('index', 'episode_index', 'frame_index')


def require_ours(path: Path, root: Path) -> None:
    """
    Refuse to write the file of progress where something else is.

    Stamped files of frames have our mark as well, but not the name of a model.
    """
    try:
        metadata = parquet.read_schema(path).metadata if path.is_file() else None
    except (pa.ArrowException, OSError):
        metadata = None
    if path.exists() and not {MARK, _MODEL} <= set(metadata or {}):
        raise DataError(f'{path} is there, and it is no file of progress that this command wrote; '
                        'it would be lost. Name another file (--output), or move it away')
    if (root / 'data').resolve() in path.resolve().parents:
        raise DataError(f'{path} is among the files of frames, and would be read as one of them; '
                        'name a file elsewhere (--output)')


def require_stampable(root: Path) -> None:
    """
    Refuse to write over labels that are somebody's, and what cannot be written at all.

    The files themselves say whose labels they hold. What info.json says may be out of date: a
    person may have written a stamped file anew, or never have noted the column there.

    :raises DataError: see there.
    """
    files = _data_files(root)
    for path in (*files, *(root / 'meta' / name for name in ('info.json', 'stats.json'))):
        for needed in (path, path.parent):
            if needed.exists() and not os.access(needed, os.W_OK):
                raise DataError(f'{needed} cannot be written, which --stamp needs; leave out '
                                f'--stamp (the file {FILE_NAME} has the decisions as well), or '
                                'copy the data set')
    for file in files:
        try:
            if SUCCESS not in parquet.read_schema(file).names:
                continue
            frames = parquet.read_table(file, columns=[SUCCESS])
        except (pa.ArrowException, OSError) as error:
            raise DataError(f'{file}: {error}') from error
        held = _count(frames.column(SUCCESS))
        if held and stamp_of(frames) is None:
            raise DataError(
                f'{file}: {held} frames have {SUCCESS} already, and not as this command wrote it; '
                f'they would be lost. Leave out --stamp: the file {FILE_NAME} has the decisions '
                'as well. Or take the feature out first, with lerobot-edit-dataset')


def _data_files(root: Path) -> list[Path]:
    return sorted((root / 'data').glob('*/*.parquet'))


def keys_of(root: Path) -> pa.Table:
    """
    Read which frames there are.

    :raises DataError: there are none, a column is missing, two frames have one index, or those of
        an episode are not counted from 0.
    """
    try:
        tables = [parquet.read_table(file, columns=list(KEYS)) for file in _data_files(root)]
        keys = pa.concat_tables(tables).cast(pa.schema(
            [pa.field(name, pa.int64(), nullable=False) for name in KEYS])).sort_by('index')
        index, episodes, frames = (keys.column(name).to_numpy() for name in KEYS)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f'{root}/data: {error}; needed are the columns {", ".join(KEYS)} in '
                        'every file') from error
    twice = index[1:][np.diff(index) == 0]
    if len(twice):
        raise DataError(f'{root}/data: {len(twice)} values of index come more than once, such as '
                        f'{twice[0]}; each frame of a data set needs its own, counted on from '
                        'episode to episode')
    order = np.lexsort((frames, episodes))
    first = np.searchsorted(episodes[order], episodes[order])
    wrong = episodes[order][frames[order] != np.arange(len(order)) - first]
    if len(wrong):
        raise DataError(f'{root}/data: frame_index of episode {wrong[0]} does not count its '
                        'frames from 0 without a gap; number them anew')
    return keys


def write_progress(path: Path, table: pa.Table, source: Mapping[str, Any], model: str) -> None:
    """
    Write the file of progress in one step.

    :param source: what made it, for its metadata.
    :param model: what LeRobot's programs look up there: where the bundle is.
    """
    table = table.replace_schema_metadata(
        {MARK: json.dumps(dict(source)).encode(), _MODEL: model.encode()})
    scratch = _scratch(path)
    try:
        parquet.write_table(table.drop_columns([SUCCESS]), scratch)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def stamp_frames(root: Path, table: pa.Table, source: Mapping[str, Any]) -> int:
    """
    Write next.success into every file of frames, and into info.json that and by what.

    Everything is written beside the old files first. Then info.json says where next.success comes
    from, before any file has it, and every file has a mark of its own. So what a stop in between
    leaves is taken for a person's label by nobody, and the command mends it when it is started
    again.

    :returns: how many files of frames there are.
    :raises DataError: the data set has changed since labelling began, or cannot be written.
    """
    meta, files = root / 'meta', _data_files(root)
    try:
        for file in files:
            _write_stamped(file, table, source)
        # Somebody may have labelled while this was at work.
        require_stampable(root)
        info = read_info(root)
        feature = {'dtype': 'bool', 'shape': [1], 'names': None, 'info': dict(source)}
        _write_json(meta / 'info.json', {
            **info, 'features': {**info['features'], SUCCESS: feature}})
        for file in files:
            _scratch(file).replace(file)
        if (meta / 'stats.json').is_file():
            stats = json.loads((meta / 'stats.json').read_text(encoding='utf-8'))
            succeeded = table.column(SUCCESS).to_numpy()[:, None].astype(np.float64)
            _write_json(meta / 'stats.json', {**stats, SUCCESS: dict(statistics_of(succeeded))})
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f'{root}: {SUCCESS} cannot be written: {error}. Mend that and run the '
                        'command again; what is computed is kept') from error
    finally:
        for file in files:
            _scratch(file).unlink(missing_ok=True)
    return len(files)


def _write_stamped(file: Path, table: pa.Table, source: Mapping[str, Any]) -> None:
    """Write a file of frames with next.success beside the old one; other columns stay."""
    order = table.column('index').to_numpy()
    index = parquet.read_table(file, columns=['index']).column('index').to_numpy()
    places = np.searchsorted(order, index).clip(0, len(order) - 1)
    if (order[places] != index).any():
        raise DataError(f'{file}: it has frames that were not there when labelling began; run the '
                        'command again: what is computed is kept')
    flags = pa.chunked_array([pa.array(table.column(SUCCESS).to_numpy()[places])])
    with parquet.ParquetFile(file) as old:
        codec = old.metadata.row_group(0).column(0).compression if old.num_row_groups else ''
        schema = _with_success(old.schema_arrow, {**source, 'written': stamp_hash(flags)})
        with parquet.ParquetWriter(
                _scratch(file), schema, compression=codec.lower().replace('uncompressed', 'none')
                or 'snappy') as writer:
            start = 0
            for group in range(old.num_row_groups):
                rows = old.read_row_group(group)
                columns = {name: flags.slice(start, rows.num_rows) if name == SUCCESS
                           else rows.column(name) for name in schema.names}
                writer.write_table(pa.table(columns, schema=schema))
                start += rows.num_rows


def _with_success(schema: pa.Schema, source: Mapping[str, Any]) -> pa.Schema:
    """Add next.success to the columns of a file, and to what their features are said to be."""
    field = pa.field(SUCCESS, pa.bool_())
    schema = schema.set(schema.get_field_index(SUCCESS), field) if SUCCESS in schema.names \
        else schema.append(field)
    metadata = {**(schema.metadata or {}), MARK: json.dumps(dict(source)).encode()}
    # The index of a pandas table does not say anything about the new column, and need not.
    if _HUGGING_FACE in metadata:
        described = json.loads(metadata[_HUGGING_FACE])
        described['info']['features'][SUCCESS] = {'dtype': 'bool', '_type': 'Value'}
        metadata[_HUGGING_FACE] = json.dumps(described).encode()
    return schema.with_metadata(metadata)


def _count(flags: pa.ChunkedArray) -> int:
    """Count the frames that are not said to be without success, whatever their type."""
    if pa.types.is_list(flags.type) or pa.types.is_fixed_size_list(flags.type):
        flags = pa.chunked_array([compute.list_flatten(flags)])
    try:
        return int(compute.sum(flags.cast(pa.bool_()).cast(pa.int64())).as_py() or 0)
    except pa.ArrowException:
        return len(flags) - flags.null_count


def _scratch(path: Path) -> Path:
    """Name what is written beside a file before it takes its place, apart by process."""
    return path.with_name(f'.{path.name}.{os.getpid()}.tmp')


def _write_json(path: Path, content: Any) -> None:
    scratch = _scratch(path)
    try:
        scratch.write_text(json.dumps(content, indent=4), encoding='utf-8')
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
