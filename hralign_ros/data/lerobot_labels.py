# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Progress and success of every frame of a LeRobot data set, by a bundle.

    ROOT/hralign_progress.parquet     index, episode_index, frame_index, progress_sparse, success,
                                      decision; one row per frame, ascending by index
    ROOT/data/...                     next.success, where stamping is asked for

The first four columns are those that LeRobot's RA-BC reads, in its types. Episodes are played to
the runtime as the node would see them, a few frames a second; what lies between two of these is
interpolated. What the node would have decided so far holds until it decides again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
import json
import math
import os
from pathlib import Path
import time
from typing import Any

from hralign_ros.data.features import (
    build_features,
    cache_folder,
    Encode,
    Features,
    Tensors,
    Videos,
)
from hralign_ros.data.labels import LABELS
from hralign_ros.data.lerobot import (
    cameras_of,
    MARK,
    read_info,
    read_lerobot,
    STAMP,
    stamp_hash,
    stamp_of,
    SUCCESS,
)
from hralign_ros.data.lerobot_export import statistics_of
from hralign_ros.data.manifest import DataError, Episode, require_writable
from hralign_ros.data.replay import Recording
from hralign_ros.data.token_features import episode_videos
from hralign_ros.runtime.bundle import load_bundle, Manifest
from hralign_ros.runtime.decision import Decision, DecisionRules
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.errors import TaskError
from hralign_ros.runtime.images import ViewGeometry
from hralign_ros.runtime.report import Report
from hralign_ros.runtime.text import TaskFeatures
import numpy as np
from numpy.typing import NDArray
import pyarrow as pa
from pyarrow import compute, parquet

Doubles = NDArray[np.float64]
SCHEMA_VERSION = 2
FILE_NAME = 'hralign_progress.parquet'
# Where LeRobot's own programs look up which model made such a file.
_MODEL = b'reward_model_path'
# The features as the library `datasets` has them, in the metadata of files that it wrote.
_HUGGING_FACE = b'huggingface'
_KEYS = ('index', 'episode_index', 'frame_index')


@dataclass(frozen=True)
class LabelOptions:
    """
    What labels depend on beside the bundle.

    :param hz: frames of each episode that are played a second, at most.
    :param alpha: the false-alarm rate that SUCCESS is decided at; None: as the node does.
    :param allow_unknown_tasks: decide on tasks that the bundle does not know, too.
    """

    hz: float = 5.0
    alpha: float | None = None
    allow_unknown_tasks: bool = False

    def rules(self, times: Doubles) -> DecisionRules:
        """
        Return the rules of decisions for an episode.

        Dwell times start again after a gap of a second. Where frames that are played lie further
        apart than that, by the recording or by `hz`, this would be at every frame.

        :param times: float64 [F] of all its frames [s].
        """
        rules = DecisionRules(alpha=self.alpha, allow_unknown_tasks=self.allow_unknown_tasks)
        if len(times) < 2:
            return rules
        # A frame that is played is the one nearest to its turn.
        gap_s = min(1.0 / self.hz, np.ptp(times)) + 1.5 * float(np.median(np.diff(times)))
        return replace(rules, max_gap=max(rules.max_gap, round(gap_s * 1e9)))


@dataclass(frozen=True)
class Labelled:
    """
    What was written.

    :param path: of the file of progress.
    :param frames: rows that have a probability.
    :param seconds: that these frames last.
    :param took_s: that labelling took, the start of processes included.
    :param verdicts: episodes by what was decided in the end.
    """

    path: Path
    frames: int
    seconds: float
    took_s: float
    verdicts: Mapping[str, int]

    @property
    def times_real_time(self) -> float:
        """Tell how many seconds of recording were labelled in a second."""
        return self.seconds / max(self.took_s, 1e-9)


@dataclass(frozen=True, eq=False)
class LabelEncoder:
    """
    What a bundle says of an episode: float64 [T] `row` of the frame, `probability`, `progress`.

    Then `decision`, `status`, and `frames`, [1], how many the episode has. NaN: there is none.

    :param bundle_sha256: hash of bundle.yaml, which has those of all its files.
    :param provider: as Encoder.load takes it.
    """

    bundle: Path
    bundle_sha256: str
    options: LabelOptions
    provider: str

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Give all that its numbers depend on."""
        return {'kind': 'labels', 'schema_version': SCHEMA_VERSION, 'bundle': self.bundle_sha256,
                **asdict(self.options)}

    def start(self, workers: int) -> Encode:
        """Load the bundle for this process."""
        encoder = load_for_labels(self.bundle, self.provider,
                                  threads=max(1, (os.cpu_count() or 1) // workers))
        return lambda videos, root: label_recording(encoder, videos, root, self.options)


def load_for_labels(bundle: Path, provider: str, threads: int = 1) -> Encoder:
    """Load a bundle with the cheapest embedding: it is not looked at."""
    return Encoder.load(bundle, provider=provider, threads=threads, parts=('mean',))


def label_recording(
    encoder: Encoder, videos: Videos, root: Path, options: LabelOptions,
) -> dict[str, NDArray[Any]]:
    """
    Play an episode.

    :returns: see LabelEncoder.
    :raises DataError: as Recording.
    """
    recording = Recording(encoder, videos, root)
    said = [(row, tick.success.probability, tick.success.progress, int(tick.decision),
             int(tick.status))
            for row, tick in recording.play(
                videos.instruction, rules=options.rules(recording.times), hz=options.hz)]
    columns = np.array([[np.nan if value is None else value for value in line] for line in said],
                       np.float64)
    return {'frames': np.array([len(recording.times)], np.float64),
            **{name: np.ascontiguousarray(columns[:, place]) for place, name in enumerate(
                ('row', 'probability', 'progress', 'decision', 'status'))}}


@dataclass(frozen=True, eq=False)
class FrameLabels:
    """
    Of every frame of an episode.

    :param progress: float64 [F], [0, 1]; NaN: none.
    :param probability: float64 [F], [0, 1]; NaN: none.
    :param decision: int64 [F], of Decision.
    """

    progress: Doubles
    probability: Doubles
    decision: NDArray[np.int64]

    @property
    def verdict(self) -> Decision:
        """Tell what was decided, SUCCESS or FAILURE; else RUNNING, or ABSTAIN if all are."""
        final = self.decision[np.isin(self.decision, (Decision.SUCCESS, Decision.FAILURE))]
        return Decision(int(final[0] if len(final) else self.decision.max()))

    @property
    def succeeded(self) -> NDArray[np.bool_]:
        """Tell of each frame whether SUCCESS is decided by then; that holds to the end."""
        return np.logical_or.accumulate(self.decision == int(Decision.SUCCESS))


def spread(played: Tensors) -> FrameLabels:
    """
    Bring what was said of some frames to all of an episode.

    :param played: see LabelEncoder.
    """
    rows, every = played['row'], np.arange(int(played['frames'][0]))
    last = np.searchsorted(rows, every, 'right') - 1

    def between(values: Doubles) -> Doubles:
        if np.isnan(values).any():
            return np.asarray(values[last], np.float64)
        return np.interp(every, rows, values)

    return FrameLabels(between(played['progress']), between(played['probability']),
                       played['decision'][last].astype(np.int64))


def label_lerobot(
    root: Path, bundle: Path, *, views: Mapping[str, str], options: LabelOptions | None = None,
    stamp: bool = False, output: Path | None = None, folder: Path | None = None,
    geometry: Mapping[str, ViewGeometry] | None = None, provider: str = 'auto',
    workers: int = 0, report: Report = print,
) -> Labelled:
    """
    Write the progress and the success of every frame of a LeRobot data set.

    A run that was stopped goes on where it was: what is computed lies in a folder of its own.

    :param views: the view of each camera that is used, as read_lerobot takes it; none: cameras
        that are called as a view of the bundle is, in the last part of their name.
    :param stamp: write next.success into the data set, too: true from the frame on in which
        SUCCESS is decided.
    :param output: file of progress; None: FILE_NAME in the data set.
    :param folder: of what is computed; None: one of the user's cache.
    :param geometry: by view, how its images are turned and cropped.
    :param provider: auto, cpu or cuda.
    :param workers: processes; 0: as many as there are cores.
    :raises DataError: the data set cannot be read or written, it holds labels of its own that
        would be stamped over, `output` is a file that this did not write, or the bundle says
        nothing that could be written.
    :raises HralignError: the bundle cannot be used.
    """
    began = time.monotonic()
    root, options = Path(root), options or LabelOptions()
    if not 0 < options.hz < math.inf:
        raise DataError(f'{options.hz:g} frames a second; needed is a number above 0')
    if options.alpha is not None and not 0 < options.alpha < 1:
        raise DataError(f'alpha is {options.alpha:g}; needed is a false-alarm rate between 0 and '
                        '1, one that the bundle has thresholds for')
    info, loaded = read_info(root), load_bundle(bundle)
    path = Path(output or root / FILE_NAME)
    _require_ours(path, root)
    strange = sorted(set(views.values()) - set(loaded.manifest.views))
    if strange:
        raise DataError(f'--view {strange[0]}=...: the bundle has no such view; its views are '
                        f'{", ".join(loaded.manifest.views)}')
    encoder = load_for_labels(bundle, 'cpu')
    require_writable(path.parent)
    keys = _keys_of(root)
    if stamp:
        _require_stampable(root)
    folder = Path(folder or cache_folder(root))
    episodes = read_lerobot(root, views=dict(views) or _guess_views(root, info, loaded.manifest),
                            output=folder, report=report)
    if not episodes:
        raise DataError(f'{root}: no episode can be used')
    _check_tasks(encoder, episodes, options, stamp, report)
    source = {'source': STAMP, 'bundle': loaded.manifest.name, 'sha256': loaded.sha256,
              **asdict(options)}
    features = build_features(
        folder, root, {episode.episode_id: _videos(episode, geometry or {})
                       for episode in episodes},
        LabelEncoder(bundle, loaded.sha256, options, provider),
        workers=workers or os.cpu_count() or 1, report=report)
    labels = dict(_labels(features, episodes))
    table = _table(keys, labels)
    mark = {MARK: json.dumps(source).encode(), _MODEL: str(bundle).encode()}
    _write(path, table.replace_schema_metadata(mark))
    rate = float(info.get('fps') or 0) or 1.0
    verdicts = [one.verdict.name for one in labels.values()]
    done = Labelled(
        path, sum(len(one.progress) for one in labels.values()),
        sum(len(one.progress) for one in labels.values()) / rate, time.monotonic() - began,
        {name: verdicts.count(name) for name in Decision.__members__ if name in verdicts})
    report(f'{path}: {done.frames} of {table.num_rows} frames in {len(labels)} episodes, '
           + ', '.join(f'{count} {name}' for name, count in done.verdicts.items()))
    report(f'{done.seconds:.0f} s of recording in {done.took_s:.0f} s: '
           f'{done.times_real_time:.1f} times real time')
    if stamp:
        files = _stamp(root, table, source)
        report(f'{root}: {SUCCESS} written into {files} files')
    return done


def _guess_views(root: Path, info: Mapping[str, Any], manifest: Manifest) -> dict[str, str]:
    """Find the cameras that are called as the bundle's views are."""
    cameras = cameras_of(info)
    found = {camera: camera.rsplit('.', 1)[-1] for camera in cameras
             if camera.rsplit('.', 1)[-1] in manifest.views}
    if not found:
        raise DataError(
            f'{root}: none of the cameras {", ".join(cameras) or "(none)"} is called as a view of '
            f'the bundle ({", ".join(manifest.views)}); say which is which, for example --view '
            f'{manifest.reference_view}={cameras[0] if cameras else "observation.images.front"}')
    return found


def _require_ours(path: Path, root: Path) -> None:
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


def _require_stampable(root: Path) -> None:
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


def _count(flags: pa.ChunkedArray) -> int:
    """Count the frames that are not said to be without success, whatever their type."""
    if pa.types.is_list(flags.type) or pa.types.is_fixed_size_list(flags.type):
        flags = pa.chunked_array([compute.list_flatten(flags)])
    try:
        return int(compute.sum(flags.cast(pa.bool_()).cast(pa.int64())).as_py() or 0)
    except pa.ArrowException:
        return len(flags) - flags.null_count


def _check_tasks(
    encoder: Encoder, episodes: Sequence[Episode], options: LabelOptions, stamp: bool,
    report: Report,
) -> None:
    """
    Say before the work what it will not give.

    :raises DataError: it would give nothing at all.
    """
    tasks: dict[str, TaskFeatures] = {}
    for episode in episodes:
        try:
            tasks[episode.task_text] = encoder.text.encode(episode.task_text)
        except TaskError as error:
            raise DataError(f'{episode.episode_id}: {error}. {LABELS} in the data set can give '
                            'it other words (task_text), or leave it out (discard)') from error
    texts = sorted(tasks)
    known = {text for text in texts if tasks[text].known}
    unknown = [text for text in texts if text not in known]
    if unknown:
        some = ', '.join(f"'{text}'" for text in unknown[:3]) \
            + (f' and {len(unknown) - 3} more' if len(unknown) > 3 else '')
        report(f'the bundle does not know {len(unknown)} of {len(texts)} tasks ({some}): their '
               'progress and probability come from its fallback task'
               + ('' if options.allow_unknown_tasks else ', and nothing is decided on them '
                  '(--allow-unknown-tasks, or `hralign success teach`)'))
    if stamp and not known and not options.allow_unknown_tasks:
        raise DataError(
            f'{SUCCESS} would be false throughout: the bundle knows none of the tasks, and '
            'decides nothing on those that it does not know. Teach it (`hralign success teach`), '
            'give --allow-unknown-tasks, or leave out --stamp')
    if not encoder.manifest.success.trained and not any(
            one.task.head for one in tasks.values()):
        raise DataError(f'{encoder.bundle.path}: its success head is not trained, so that it has '
                        'neither progress nor success to give; name another bundle')
    # One view may begin later than another, so that any part of an episode's views may count.
    calibrations = [
        calibration for text, views in {(e.task_text, frozenset(e.robot_videos)) for e in episodes}
        if text in known or options.allow_unknown_tasks
        for calibration in tasks[text].task.calibrations if set(calibration.views) <= views]
    if stamp and all(one.threshold(options.alpha) is None for one in calibrations):
        rates = sorted({rate for one in calibrations for rate in one.rates})
        raise DataError(
            f'{SUCCESS} would be false throughout: '
            + (f'alpha is {options.alpha:g}, and the tasks have thresholds for '
               f'{", ".join(f"{rate:g}" for rate in rates)}. Give one of these'
               if rates else 'no task has a threshold for SUCCESS with these views. Teach it '
               '(`hralign success teach`)') + ', or leave out --stamp')


def _videos(episode: Episode, geometry: Mapping[str, ViewGeometry]) -> Videos:
    videos = episode_videos(episode)
    return replace(videos, instruction=episode.task_text, geometry={
        view: geometry[view] for view in videos.files if view in geometry})


def _labels(
    features: Features, episodes: Sequence[Episode],
) -> Iterator[tuple[int, FrameLabels]]:
    """Give the labels of every episode that could be played."""
    for episode in episodes:
        if episode.episode_id in features:
            yield int(episode.episode_id.rsplit('_', 1)[-1]), spread(features[episode.episode_id])


def _data_files(root: Path) -> list[Path]:
    return sorted((root / 'data').glob('*/*.parquet'))


def _keys_of(root: Path) -> pa.Table:
    """
    Read which frames there are.

    :raises DataError: there are none, a column is missing, two frames have one index, or those of
        an episode are not counted from 0.
    """
    try:
        tables = [parquet.read_table(file, columns=list(_KEYS)) for file in _data_files(root)]
        keys = pa.concat_tables(tables).cast(pa.schema(
            [pa.field(name, pa.int64(), nullable=False) for name in _KEYS])).sort_by('index')
        index, episodes, frames = (keys.column(name).to_numpy() for name in _KEYS)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f'{root}/data: {error}; needed are the columns {", ".join(_KEYS)} in '
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


def _table(keys: pa.Table, labels: Mapping[int, FrameLabels]) -> pa.Table:
    """
    Make a row for each frame of the data set; NaN and ABSTAIN for those without labels.

    :raises DataError: the bundle has no progress and no probability for any of them.
    """
    episodes, frames = (keys.column(name).to_numpy() for name in _KEYS[1:])
    progress, success = np.full((2, len(episodes)), np.nan, np.float32)
    decision = np.zeros(len(episodes), np.int8)
    succeeded = np.zeros(len(episodes), np.bool_)
    for number, one in labels.items():
        mine = np.flatnonzero(episodes == number)
        rows = frames[mine]
        progress[mine], success[mine] = one.progress[rows], one.probability[rows]
        decision[mine], succeeded[mine] = one.decision[rows], one.succeeded[rows]
    if np.isnan(progress).all() and np.isnan(success).all():
        raise DataError('the bundle gives neither progress nor a probability for any frame')
    return pa.table({**{name: keys.column(name) for name in _KEYS}, 'progress_sparse': progress,
                     'success': success, 'decision': decision, SUCCESS: succeeded})


def _scratch(path: Path) -> Path:
    """Name what is written beside a file before it takes its place, apart by process."""
    return path.with_name(f'.{path.name}.{os.getpid()}.tmp')


def _write(path: Path, table: pa.Table) -> None:
    """Write the file of progress in one step."""
    scratch = _scratch(path)
    try:
        parquet.write_table(table.drop_columns([SUCCESS]), scratch)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _stamp(root: Path, table: pa.Table, source: Mapping[str, Any]) -> int:
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
        _require_stampable(root)
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


def _write_json(path: Path, content: Any) -> None:
    scratch = _scratch(path)
    try:
        scratch.write_text(json.dumps(content, indent=4), encoding='utf-8')
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
