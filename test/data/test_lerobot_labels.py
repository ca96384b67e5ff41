# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Labels of a bundle for LeRobot: every frame has its own, and a person's are never lost."""

from dataclasses import replace
import json
import math
import os

from hralign_ros.cli.main import main
from hralign_ros.data.lerobot import read_lerobot
from hralign_ros.data.lerobot_export import export_lerobot
from hralign_ros.data.lerobot_label_files import FILE_NAME
from hralign_ros.data.lerobot_labels import (
    label_lerobot,
    label_recording,
    LabelOptions,
    load_for_labels,
)
from hralign_ros.data.manifest import DataError, Episode, read_manifest, write_manifest
from hralign_ros.data.token_features import episode_videos
from hralign_ros.runtime.decision import Decision
from hralign_ros.runtime.video import write_video
import numpy as np
import pyarrow as pa
from pyarrow import parquet
import pytest
from support.tiny_bundle import robot_bundle, ROBOT_VIEWS

RATE, FRAMES = 10, 20
TASKS = ('pick up the cup', 'open the drawer', 'close the drawer')
CAMERAS = {f'observation.images.{view}': view for view in ROBOT_VIEWS}
SUCCESS = 'next.success'


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Return what makes a LeRobot data set, an episode of two seconds for each task."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))

    def made(tasks=TASKS, *, success=None, name='out', frames=FRAMES):
        rng = np.random.default_rng(3)
        episodes = []
        for number, task in enumerate(tasks):
            files = {}
            for view in ROBOT_VIEWS:
                files[view] = f'{number}/{view}.mp4'
                write_video(tmp_path / 'data' / files[view], rng.integers(
                    0, 255, (frames, 16, 16, 3), np.uint8), RATE)
            episodes.append(Episode(
                f'e{number}', 'a', task, 'lab', 'c', 'panda', 'rosbag', 'MIT', robot_videos=files,
                success=success, time_s=(np.arange(frames) / RATE).tolist(),
                actions=[[i, -i] for i in range(frames)]))
        write_manifest(tmp_path / 'data', episodes)
        return export_lerobot(read_manifest(tmp_path / 'data'), tmp_path / name, report=str)

    return made


def label(root, **more):
    """Label in this process; return what was written and what was said."""
    said = []
    done = label_lerobot(root, robot_bundle(), **{'views': {}, 'provider': 'cpu', 'workers': 1,
                                                  'report': said.append} | more)
    return done, parquet.read_table(done.path), '\n'.join(said)


def test_every_frame_has_its_progress(make):
    """Guards the weights of RA-BC: what is between two played frames is interpolated."""
    root = make()
    done, table, said = label(root)
    assert table.column_names == ['index', 'episode_index', 'frame_index', 'progress_sparse',
                                  'success', 'decision']
    assert [str(kind) for kind in table.schema.types] == [
        'int64', 'int64', 'int64', 'float', 'float', 'int8']
    np.testing.assert_array_equal(table['index'], np.arange(3 * FRAMES))
    np.testing.assert_array_equal(table['frame_index'], np.tile(np.arange(FRAMES), 3))
    # Progress of this bundle is how much of its clip of three frames is filled.
    progress = np.array(table['progress_sparse']).reshape(3, FRAMES)
    np.testing.assert_allclose(progress[:, :6], [np.array([2, 3, 4, 5, 6, 6]) / 6] * 3, atol=1e-6)
    # .88 is above the threshold of .8 from frame 4 on, and has to stay there for .3 s.
    decision = np.array(table['decision']).reshape(3, FRAMES)
    assert decision[0].tolist() == [Decision.RUNNING] * 8 + [Decision.SUCCESS] * 12
    # Not calibrated; not known.
    assert not decision[1:].any() and 'does not know 1 of 3 tasks' in said
    assert done.verdicts == {'ABSTAIN': 2, 'SUCCESS': 1} and done.frames == 3 * FRAMES
    assert done.seconds == 6.0 and 'times real time' in said
    mark = table.schema.metadata
    assert json.loads(mark[b'hralign_labels'])['bundle'] == 'tiny'
    assert mark[b'reward_model_path'].decode() == str(robot_bundle())


def test_the_runtime_decides(make):
    """Guards that there is one decoder: what is written is what the node would have said."""
    root = make(TASKS[:1])
    _, table, _ = label(root, options=LabelOptions(hz=100.0))
    episode = read_lerobot(root, views=CAMERAS, report=str)[0]
    encoder = load_for_labels(robot_bundle(), 'cpu')
    live = label_recording(
        encoder, replace(episode_videos(episode), instruction=episode.task_text), root,
        LabelOptions(hz=100.0))
    np.testing.assert_array_equal(live['row'], np.arange(FRAMES))
    np.testing.assert_array_equal(live['decision'], table['decision'])
    np.testing.assert_allclose(live['probability'], table['success'], rtol=1e-6)


def test_what_was_computed_is_not_computed_again(make):
    """
    Guards a long run that was stopped: the same episodes are found, in a copy as well.

    Another instruction for the same videos is another question.
    """
    root = make()
    _, table, said = label(root)
    assert '3 of 3 clips to encode' in said
    _, again, said = label(root)
    assert 'to encode' not in said
    for name in table.column_names:
        np.testing.assert_array_equal(again[name], table[name])
    (root / 'labels.csv').write_text('episode,task_text\nepisode_000000,open the drawer\n')
    _, other, said = label(root)
    assert '1 of 3 clips to encode' in said
    assert np.array(other['decision']).max() == Decision.ABSTAIN


def test_stamp_and_its_source(make):
    """Guards next.success: where it comes from is written beside it, and read again."""
    root = make()
    before = parquet.read_table(root / 'data/chunk-000/file-000.parquet')
    _, table, said = label(root, stamp=True)
    assert 'next.success written into 1 files' in said
    frames = parquet.read_table(root / 'data/chunk-000/file-000.parquet')
    stamped = np.array(frames[SUCCESS]).reshape(3, FRAMES)
    assert stamped[0].tolist() == [False] * 8 + [True] * 12 and not stamped[1:].any()
    assert frames.drop_columns([SUCCESS]).equals(before)
    feature = json.loads((root / 'meta/info.json').read_text())['features'][SUCCESS]
    assert (feature['dtype'], feature['shape']) == ('bool', [1])
    assert (feature['info']['source'], feature['info']['bundle']) == ('hralign', 'tiny')
    assert json.loads((root / 'meta/stats.json').read_text())[SUCCESS]['mean'] == [0.2]
    # A second bundle, or the same one, may stamp again.
    label(root, stamp=True, options=LabelOptions(alpha=0.1))
    # And nobody takes for a label what no person saw.
    said = []
    episodes = read_lerobot(root, views=CAMERAS, report=said.append)
    assert all(episode.success is None for episode in episodes)
    assert 'was written by the bundle tiny and is not taken as a label' in '\n'.join(said)


def test_files_that_lerobot_wrote_keep_their_description(make):
    """Guards images in Parquet: a column that the description lacks is an error in LeRobot."""
    root = make()
    path = root / 'data/chunk-000/file-000.parquet'
    described = {'info': {'features': {'index': {'dtype': 'int64', '_type': 'Value'}}}}
    table = parquet.read_table(path).replace_schema_metadata(
        {b'huggingface': json.dumps(described).encode(), b'pandas': b'{}'})
    parquet.write_table(table, path, row_group_size=FRAMES, compression='zstd')
    label(root, stamp=True)
    stamped = parquet.ParquetFile(path)
    assert stamped.num_row_groups == 3
    assert stamped.metadata.row_group(0).column(0).compression == 'ZSTD'
    metadata = stamped.schema_arrow.metadata
    assert json.loads(metadata[b'huggingface'])['info']['features'][SUCCESS] == {
        'dtype': 'bool', '_type': 'Value'}
    assert metadata[b'pandas'] == b'{}'


def test_labels_of_a_person_are_not_written_over(make):
    """Guards an afternoon of labelling: --stamp refuses before any work; without it all goes."""
    root = make(success=True)
    with pytest.raises(DataError, match='3 frames have next.success already.*lost'):
        label(root, stamp=True)
    assert not (root / FILE_NAME).exists()
    _, table, _ = label(root)
    assert table.num_rows == 3 * FRAMES
    before = parquet.read_table(root / 'data/chunk-000/file-000.parquet')
    assert sum(before[SUCCESS].to_pylist()) == 3


@pytest.mark.parametrize('hz, rate', [(0.7, RATE), (0.8, RATE), (5.0, 0.7)])
def test_few_frames_a_second(make, hz, rate):
    """
    Below one frame a second nothing could be decided, and all of next.success was false.

    Dwell times started again after a gap of a second, so at every frame that was played: with
    such an --hz, and with videos of such a rate.
    """
    root = make(TASKS[:1], frames=int(10 * rate))
    for path in root.glob('videos/*/*/*.mp4'):
        write_video(path, np.zeros((int(10 * rate), 16, 16, 3), np.uint8), rate)
    done, *_ = label(root, options=LabelOptions(hz=hz))
    assert done.verdicts == {'SUCCESS': 1}


def test_every_file_says_whose_labels_it_has(make):
    """
    What info.json said of next.success decided for all files, and a person's labels were lost.

    They were where info.json did not have the column, and where a person had written a stamped
    file anew, with a program that drops the file's metadata or one that keeps them.
    """
    root = make(success=True)
    path, frames = root / 'meta/info.json', root / 'data/chunk-000/file-000.parquet'
    info = json.loads(path.read_text())
    del info['features'][SUCCESS]
    path.write_text(json.dumps(info))
    with pytest.raises(DataError, match='file-000.parquet: 3 frames have next.success'):
        label(root, stamp=True)
    root = make(name='stamped')
    frames = root / 'data/chunk-000/file-000.parquet'
    label(root, stamp=True)
    stamped = parquet.read_table(frames)
    hers = [row == 5 for row in range(3 * FRAMES)]
    for metadata in (None, stamped.schema.metadata):
        table = stamped.drop_columns([SUCCESS]).append_column(SUCCESS, pa.array(hers))
        parquet.write_table(table.replace_schema_metadata(metadata), frames)
        with pytest.raises(DataError, match='1 frames have next.success already, and not as'):
            label(root, stamp=True)
        assert parquet.read_table(frames)[SUCCESS].to_pylist() == hers


def test_labels_that_come_during_the_work_are_kept(make):
    """Labels that a person gave while the command was at work were lost without a word."""
    root = make()
    frames = root / 'data/chunk-000/file-000.parquet'
    hers = parquet.read_table(frames).append_column(SUCCESS, pa.array([True] * 3 * FRAMES))

    def report(line):
        if 'times real time' in line:
            parquet.write_table(hers, frames)

    with pytest.raises(DataError, match='60 frames have next.success already'):
        label(root, stamp=True, report=report)
    assert parquet.read_table(frames).equals(hers)
    assert not list(root.rglob('.*.tmp'))


@pytest.mark.parametrize('kind, no, yes', [
    (pa.int64(), 0, 1), (pa.float32(), 0.0, 1.0), (pa.list_(pa.bool_()), [False], [True])])
def test_success_of_other_types(make, kind, no, yes):
    """A next.success of numbers, or of lists of one, ended in a traceback of Arrow."""
    root = make()
    frames = root / 'data/chunk-000/file-000.parquet'
    table = parquet.read_table(frames)
    parquet.write_table(table.append_column(
        SUCCESS, pa.array([no] * 59 + [yes], kind)), frames)
    with pytest.raises(DataError, match='1 frames have next.success already'):
        label(root, stamp=True)
    parquet.write_table(table.append_column(SUCCESS, pa.array([no] * 60, kind)), frames)
    label(root, stamp=True)
    assert sum(parquet.read_table(frames)[SUCCESS].to_pylist()) == 12


def test_stamping_that_was_stopped(make):
    """
    A stop between files left stamps that were read as a person's labels, and could not be mended.

    It happened where next.success was there and false throughout. A stamp is known as one by
    info.json, which is written first, and without it by the file itself.
    """
    root = make()
    frames = root / 'data/chunk-000/file-000.parquet'
    table = parquet.read_table(frames)
    parquet.write_table(table.append_column(SUCCESS, pa.array([False] * len(table))), frames)
    path, before = root / 'meta/info.json', frames.read_bytes()
    info = json.loads(path.read_text())
    info['features'][SUCCESS] = {'dtype': 'bool', 'shape': [1], 'names': None}
    path.write_text(json.dumps(info))
    label(root, stamp=True)
    said = []
    path.write_text(json.dumps(info))  # the files, and not info.json
    episodes = read_lerobot(root, views=CAMERAS, report=said.append)
    assert [episode.success for episode in episodes] == [None] * 3
    assert 'was written by the bundle tiny and is not taken as a label' in '\n'.join(said)
    label(root, stamp=True)
    frames.write_bytes(before)  # info.json, and not the files
    episodes = read_lerobot(root, views=CAMERAS, report=str)
    assert [episode.success for episode in episodes] == [None] * 3
    label(root, stamp=True)
    assert sum(parquet.read_table(frames)[SUCCESS].to_pylist()) == 12


def test_what_others_write_during_the_work_stays(make):
    """
    What was written into info.json while the command was at work was set back to its beginning.

    Frames that came in that time ended in an IndexError, and scratch files were left.
    """
    root = make(TASKS[:1])
    path, frames = root / 'meta/info.json', root / 'data/chunk-000/file-000.parquet'

    def rename(line):
        if 'times real time' in line:
            path.write_text(json.dumps({**json.loads(path.read_text()), 'robot_type': 'mine'}))

    label(root, stamp=True, report=rename)
    info = json.loads(path.read_text())
    assert info['robot_type'] == 'mine' and SUCCESS in info['features']

    def grow(line):
        if 'times real time' in line:
            table = parquet.read_table(frames)
            more = pa.array(range(FRAMES, 2 * FRAMES))
            parquet.write_table(table.set_column(
                table.column_names.index('index'), 'index', more), frames.with_stem('file-001'))

    with pytest.raises(DataError, match='file-001.parquet: it has frames that were not there'):
        label(root, stamp=True, report=grow)
    assert not list(root.rglob('.*.tmp'))


@pytest.mark.skipif(os.geteuid() == 0, reason='nothing is read-only for root')
def test_read_only_data_set(make):
    """Hours of work ended in a PermissionError where the files of frames were read-only."""
    root = make(TASKS[:1])
    for name in ('data/chunk-000', 'meta'):
        mode = (root / name).stat().st_mode
        (root / name).chmod(0o500)
        try:
            with pytest.raises(DataError, match=f'{name} cannot be written'):
                label(root, stamp=True)
        finally:
            (root / name).chmod(mode)
        assert not (root / FILE_NAME).exists()


def test_refused_before_the_work(make, tmp_path):
    """Guards hours: what cannot come to anything is said at once, and how to mend it."""
    root = make(TASKS[2:])
    with pytest.raises(DataError, match='false throughout.*--allow-unknown-tasks'):
        label(root, stamp=True)
    for hz in (0.0, math.inf, math.nan):
        with pytest.raises(DataError, match=f'{hz:g} frames a second'):
            label(root, options=LabelOptions(hz=hz))
    for alpha in (5.0, -1.0, 0.0, math.nan):
        with pytest.raises(DataError, match=f'alpha is {alpha:g}; needed is a false-alarm rate'):
            label(root, options=LabelOptions(alpha=alpha))
    with pytest.raises(DataError, match='--view front=...: the bundle has no .* wrist, third'):
        label(root, views={'observation.images.third_person': 'front'})
    with pytest.raises(DataError, match='there are: observation.images.third_person'):
        label(root, views={'observation.images.front': 'wrist'})
    with pytest.raises(DataError, match='not a LeRobot data set'):
        label(tmp_path)
    assert not (root / FILE_NAME).exists()


def test_output_does_not_replace_anything_else(make, tmp_path):
    """
    An --output that named info.json, or the file of frames, was replaced by the progress.

    The data set was lost. Only a file of progress that the command itself wrote is replaced.
    """
    root = make(TASKS[:1])
    frames = root / 'data/chunk-000/file-000.parquet'
    label(root, stamp=True)
    other = tmp_path / 'sarm.parquet'
    parquet.write_table(pa.table({'index': [0]}).replace_schema_metadata(
        {b'reward_model_path': b'sarm'}), other)
    for path in (frames, root / 'meta/info.json', root / 'meta', other):
        before = path.read_bytes() if path.is_file() else None
        with pytest.raises(DataError, match='is there, and it is no file of progress'):
            label(root, output=path)
        assert path.is_dir() or path.read_bytes() == before
    with pytest.raises(DataError, match='among the files of frames'):
        label(root, output=root / 'data/chunk-000/mine.parquet')
    _, first, _ = label(root, output=tmp_path / 'mine.parquet')
    _, again, _ = label(root, output=tmp_path / 'mine.parquet')
    assert again.equals(first)


def test_stamping_needs_a_threshold(make):
    """An --alpha that no task has a threshold for gave a next.success of nothing but false."""
    root = make(TASKS[:2])
    with pytest.raises(DataError, match='alpha is 0.3, .* have thresholds for 0.05, 0.1. Give'):
        label(root, stamp=True, options=LabelOptions(alpha=0.3))
    with pytest.raises(DataError, match='no task has a threshold for SUCCESS with these views'):
        label(make(TASKS[1:2], name='drawer'), stamp=True)
    assert not (root / FILE_NAME).exists()
    assert label(root, options=LabelOptions(alpha=0.3))[0].verdicts == {'ABSTAIN': 2}


def test_text_that_the_encoder_does_not_take(make):
    """An instruction that was too long was refused without a word about whose it was."""
    root = make((TASKS[0], 'word ' * 400))
    with pytest.raises(DataError, match='episode_000001: the task has .*labels.csv'):
        label(root)
    (root / 'labels.csv').write_text('episode,task_text\nepisode_000001,open the drawer\n')
    assert label(root)[0].verdicts == {'ABSTAIN': 1, 'SUCCESS': 1}


@pytest.mark.parametrize('name, values, match', [
    ('index', [*range(FRAMES)] * 2, '20 values of index come more than once, such as 0'),
    ('frame_index', [*range(FRAMES), *range(5, 5 + FRAMES)], 'frame_index of episode 1 does not'),
    ('frame_index', [None, *range(1, FRAMES), *range(FRAMES)], 'needed are the columns index')])
def test_frames_that_are_not_numbered(make, name, values, match):
    """
    An index that began again in each episode put the stamps of one into another.

    Frames that were not counted from 0 ended the work in an IndexError.
    """
    root = make(TASKS[:2])
    path = root / 'data/chunk-000/file-000.parquet'
    table = parquet.read_table(path)
    table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.int64()))
    parquet.write_table(table, path)
    said = []
    with pytest.raises(DataError, match=match):
        label(root, stamp=True, report=said.append)
    assert not said and parquet.read_table(path).equals(table)


def test_an_episode_of_one_frame(make):
    """An episode of one frame was taken for the whole file of video that it lies in."""
    root = make((TASKS[0], TASKS[0]))
    path = root / 'data/chunk-000/file-000.parquet'
    parquet.write_table(parquet.read_table(path).slice(0, FRAMES + 1), path)
    rows = next((root / 'meta/episodes').glob('*/*.parquet'))
    table = parquet.read_table(rows)
    parquet.write_table(table.set_column(
        table.column_names.index('length'), 'length', pa.array([FRAMES, 1])), rows)
    done, table, _ = label(root)
    assert done.frames == table.num_rows == FRAMES + 1
    assert done.verdicts == {'RUNNING': 1, 'SUCCESS': 1}
    episode = read_lerobot(root, views=CAMERAS, report=str)[1]
    assert episode.robot_span_s[0] == episode.time_s[0] and len(episode.time_s) == 1


def test_cameras_are_found_by_their_names(make):
    """Guards `hralign data label DATASET` without options, and the words where that fails."""
    root = make(TASKS[:1])
    path = root / 'meta/info.json'
    text = path.read_text()
    text = text.replace('observation.images.wrist', 'observation.images.hand')
    path.write_text(text)
    done, *_ = label(root)
    assert done.verdicts == {'RUNNING': 1}  # the one camera that is left has 3 frames to show
    path.write_text(text.replace('images.third_person', 'images.front'))
    with pytest.raises(DataError, match='--view third_person=observation.images.front'):
        label(root)


def test_episodes_that_cannot_be_read(make):
    """Guards the rest: such frames have a row without a value, of which RA-BC knows."""
    root = make()
    (root / 'videos/observation.images.wrist/chunk-000/file-001.mp4').write_bytes(b'')
    (root / 'videos/observation.images.third_person/chunk-000/file-001.mp4').write_bytes(b'')
    done, table, said = label(root)
    assert table.num_rows == 3 * FRAMES and done.frames == 2 * FRAMES
    progress = np.array(table['progress_sparse']).reshape(3, FRAMES)
    assert np.isnan(progress[1]).all() and not np.isnan(progress[[0, 2]]).any()
    assert 'corrupt_video: 2' in said


def test_command(make, capsys):
    """Guards the command as it is typed."""
    root = make(TASKS[:1])
    assert main(['data', 'label', str(root), '--bundle', str(robot_bundle()), '--device', 'cpu',
                 '--workers', '1', '--view', 'wrist=observation.images.wrist', '--output',
                 str(root / 'mine.parquet'), '--stamp', '--hz', '2.5']) == 0
    assert 'mine.parquet: 20 of 20 frames in 1 episodes' in capsys.readouterr().out
    assert parquet.read_table(root / 'mine.parquet').num_rows == FRAMES
    assert main(['data', 'label', str(root), '--view', 'wrist']) == 1
    assert "--view 'wrist': needed is VIEW=WHAT" in capsys.readouterr().err
    table = pa.table({'index': [0], 'episode_index': [0]})
    parquet.write_table(table, root / 'data/chunk-000/file-001.parquet')
    assert main(['data', 'label', str(root), '--bundle', str(robot_bundle()), '--device',
                 'cpu']) == 1
    assert 'needed are the columns index, episode_index, frame_index' in capsys.readouterr().err
