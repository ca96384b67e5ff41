# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""LeRobot v3.0: many episodes in a file, and each gets its own frames."""

import json

import cv2
from hralign_ros.data.importing import import_data
from hralign_ros.data.lerobot import read_lerobot
from hralign_ros.data.manifest import DataError, read_manifest, write_manifest
from hralign_ros.data.pairs import robot_clip
from hralign_ros.data.skipped import Faults
from hralign_ros.data.token_features import episode_videos, open_views
from hralign_ros.runtime.images import decode_compressed
from hralign_ros.runtime.video import read_frames, write_video
import numpy as np
import pyarrow as pa
from pyarrow import parquet
import pyarrow.compute
import pytest

RATE = 10
FRONT, HAND = 'observation.images.front', 'observation.images.hand'
VIEWS = {FRONT: 'third_person', HAND: 'wrist'}
LENGTHS = (6, 4, 5)
TEXTS = ('Push the T.', 'Lift the T.')
TASKS = (0, 1, 0)
VIDEO = 'videos/{}/chunk-000/file-{:03d}.mp4'


def image(episode, frame):
    """Draw a frame whose brightness tells where it comes from."""
    return np.full((16, 16, 3), 20 + 60 * episode + 6 * frame, np.uint8)


def table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)


def make(root, *, together=True, success=None, tasks_column='__index_level_0__'):
    """
    Make a data set of three episodes and two cameras.

    :param together: whether the hand's video holds the episodes as the front's does; otherwise
        the last episode opens a file of its own.
    :param success: of each episode; None: the column is not there.
    """
    (root / 'meta').mkdir(parents=True)
    video = {'dtype': 'video', 'shape': [3, 16, 16]}
    (root / 'meta' / 'info.json').write_text(json.dumps({
        'codebase_version': 'v3.0', 'robot_type': 'so101', 'fps': RATE,
        'data_path': 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet',
        'video_path': 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4',
        'features': {FRONT: video, HAND: video, 'action': {'dtype': 'float32', 'shape': [2]},
                     'depth': {'dtype': 'image', 'info': {'is_depth_map': True}}}}))
    table(root / 'meta' / 'tasks.parquet',
          [{'task_index': i, tasks_column: text} for i, text in enumerate(TEXTS)])
    starts = np.cumsum((0, *LENGTHS))
    frames = [[] for _ in range(2)]
    for episode, length in enumerate(LENGTHS):
        for i in range(length):
            row = {'action': [float(episode), float(i)], 'observation.state': [float(i)] * 3,
                   'timestamp': i / RATE, 'frame_index': i, 'episode_index': episode,
                   'index': int(starts[episode]) + i, 'task_index': TASKS[episode]}
            if success is not None:
                row['next.success'] = bool(success[episode] and i == length - 1)
            frames[episode // 2].append(row)
    for number, rows in enumerate(frames):
        table(root / f'data/chunk-000/file-{number:03d}.parquet', rows[::-1])
    rows = []
    for episode, length in enumerate(LENGTHS):
        row = {'episode_index': episode, 'length': length, 'tasks': [TEXTS[TASKS[episode]]],
               'data/chunk_index': 0, 'data/file_index': episode // 2, 'stats/action/min': [0.0]}
        for camera in VIEWS:
            alone = camera == HAND and not together and episode == 2
            start = 0.0 if alone else starts[episode] / RATE
            row |= {f'videos/{camera}/chunk_index': 0, f'videos/{camera}/file_index': int(alone),
                    f'videos/{camera}/from_timestamp': start,
                    f'videos/{camera}/to_timestamp': start + length / RATE}
        rows.append(row)
    table(root / 'meta/episodes/chunk-000/file-000.parquet', rows)
    images = [[image(e, i) for i in range(length)] for e, length in enumerate(LENGTHS)]
    for camera in VIEWS:
        apart = camera == HAND and not together
        parts = [images[:2], images[2:]] if apart else [images]
        for number, part in enumerate(parts):
            write_video(root / VIDEO.format(camera, number), sum(part, []), RATE, quality=5)
    return root


def read(root, views=VIEWS, **options):
    faults = Faults()
    return read_lerobot(root, views=views, report=lambda _: None, faults=faults, **options), faults


def numbers(frames):
    return np.rint((frames.mean((1, 2, 3)) - 20) / 6).astype(int).tolist()


@pytest.mark.parametrize('together', [True, False])
def test_each_episode_gets_its_own_frames(tmp_path, together):
    """Guards the parts of a file: first to last frame of the episode, none of its neighbours'."""
    episodes, faults = read(make(tmp_path, together=together))
    assert not faults.found
    assert {e.recording for e in episodes} == {f'episode_00000{i}' for i in range(3)}
    seen = set()
    for episode in episodes:
        number = int(episode.recording[-1])
        for view, file in episode.robot_videos.items():
            seen.add((number, view))
            frames, times = read_frames(tmp_path / file, count=LENGTHS[number],
                                        span_s=robot_clip(episode, view).span_s)
            assert numbers(frames) == [10 * number + i for i in range(LENGTHS[number])]
            own = np.array(episode.time_s) + episode.robot_offset_s.get(view, 0.0)
            assert np.allclose(times, own)
            again, _ = read_frames(tmp_path / file, own)
            assert np.array_equal(again, frames)
    assert seen == {(i, view) for i in range(3) for view in VIEWS.values()}


def test_rows(tmp_path):
    """Guards what is known of an episode."""
    episodes, _ = read(make(tmp_path), license_id='MIT')
    first, second, third = episodes
    assert (first.task_text, first.task_id) == ('Push the T.', 'push-the-t')
    assert [e.task_id for e in episodes] == ['push-the-t', 'lift-the-t', 'push-the-t']
    assert (first.embodiment, first.camera, first.source) == ('so101', FRONT, 'lerobot')
    assert (first.scene, first.license_id, first.human_video) == (tmp_path.name, 'MIT', '')
    assert np.array_equal(third.actions, [[2, i] for i in range(5)])
    assert np.array_equal(second.proprio, [[i] * 3 for i in range(4)])
    assert (second.success, second.success_flags) == (None, ())
    assert list(first.robot_videos) == ['third_person', 'wrist']


def test_cameras_that_lie_elsewhere(tmp_path):
    """
    Guards large data sets: files are split by size, camera by camera.

    From the first split on every episode fell apart into two, of one view each; heads that look
    at both were trained and calibrated on next to nothing.
    """
    episodes, _ = read(make(tmp_path, together=False))
    assert [e.episode_id for e in episodes] == [f'episode_00000{i}' for i in range(3)]
    last = episodes[2]
    assert list(last.robot_videos) == ['third_person', 'wrist'] and last.time_s[0] == 1.0
    assert last.robot_offset_s == {'wrist': -1.0} and last.camera == FRONT
    assert last.robot_span('wrist')[0] == 0.0 and last.robot_span('third_person')[0] == 1.0
    write_manifest(tmp_path, episodes)
    again = read_manifest(tmp_path).episodes
    assert [e.robot_offset_s for e in again] == [{}, {}, {'wrist': -1.0}]
    videos = open_views(episode_videos(again[2]), tmp_path)
    assert np.allclose(videos['wrist'].times, videos['third_person'].times)
    assert numbers(read_frames(videos['wrist'].path, videos['wrist'].stamps)[0]) == [
        20 + i for i in range(5)]


@pytest.mark.parametrize('success, expected', [
    ((True, False, True), [True, False, True]), ((False, False, False), [None] * 3)])
def test_success(tmp_path, success, expected):
    """Guards labels: a column that never says yes says nothing."""
    episodes, _ = read(make(tmp_path, success=success))
    assert [e.success for e in episodes] == expected
    if expected[0]:
        assert episodes[0].success_flags == (False,) * 5 + (True,)


def test_the_column_of_instructions(tmp_path):
    """Guards both names that the instructions' column has, by the pandas that wrote it."""
    episodes, _ = read(make(tmp_path, tasks_column='task'))
    assert episodes[1].task_text == 'Lift the T.'


@pytest.mark.parametrize('version', ['v1.6', 'v4.0'])
def test_other_versions(tmp_path, version):
    """Guards the message: which version it is and how to convert it."""
    path = make(tmp_path) / 'meta' / 'info.json'
    path.write_text(path.read_text().replace('v3.0', version))
    with pytest.raises(DataError, match=f'{version}.*reads v3.0, v2.1'):
        read(tmp_path)


def change(path, **columns):
    """Replace columns of a table by lists."""
    table = parquet.read_table(path)
    for name, values in columns.items():
        at = table.column_names.index(name)
        table = table.set_column(at, name, pa.array(values))
    parquet.write_table(table, path)


def older(root, version='v2.1'):
    """Turn a set into one of the format before, with a file an episode."""
    info = json.loads((root / 'meta/info.json').read_text())
    info |= {'codebase_version': version, 'chunks_size': 2, 'data_path': None, 'video_path': None}
    (root / 'meta/info.json').write_text(json.dumps(info))
    (root / 'meta/tasks.jsonl').write_text(''.join(
        json.dumps({'task_index': i, 'task': text}) + '\n' for i, text in enumerate(TEXTS)))
    (root / 'meta/episodes.jsonl').write_text(''.join(
        json.dumps({'episode_index': i, 'tasks': [TEXTS[TASKS[i]]], 'length': length}) + '\n'
        for i, length in enumerate(LENGTHS)))
    frames = pa.concat_tables(parquet.read_table(path) for path in sorted(root.rglob(
        'file-*.parquet')) if 'data' in path.parts)
    for path in root.rglob('file-*'):
        path.unlink()
    for i, length in enumerate(LENGTHS):
        path = root / f'data/chunk-{i // 2:03d}/episode_{i:06d}.parquet'
        path.parent.mkdir(exist_ok=True)
        parquet.write_table(frames.filter(pa.compute.equal(frames['episode_index'], i)), path)
        for camera in VIEWS:
            write_video(root / f'videos/chunk-{i // 2:03d}/{camera}/episode_{i:06d}.mp4',
                        [image(i, frame) for frame in range(length)], RATE, quality=5)
    return root


@pytest.mark.parametrize('version', ['v2.1', 'v2.0'])
def test_the_format_before(tmp_path, version):
    """Guards the many sets that nobody has converted: they were refused."""
    older(make(tmp_path, success=(True, False, True)), version)
    episodes, faults = read(tmp_path)
    assert not faults.found and [e.task_text for e in episodes] == [
        TEXTS[task] for task in TASKS]
    assert [e.success for e in episodes] == [True, False, True]
    for number, episode in enumerate(episodes):
        frames, _ = read_frames(tmp_path / episode.robot_videos['wrist'], episode.time_s)
        assert numbers(frames) == [10 * number + i for i in range(LENGTHS[number])]
    assert np.array_equal(episodes[2].actions, [[2, i] for i in range(5)])


@pytest.mark.parametrize('kind', ['JPEG in rows', 'PNG in rows', 'PNG in files'])
def test_images_instead_of_videos(tmp_path, kind):
    """
    Guards sets that were recorded without videos, which had "no video of camera".

    Images become videos beside the manifest, equal to the bit, once.
    """
    root = make(tmp_path / 'set')
    info = json.loads((root / 'meta/info.json').read_text())
    info['features'][FRONT]['dtype'] = 'image'
    (root / 'meta/info.json').write_text(json.dumps(info))
    rng, made = np.random.default_rng(0), {}
    for path in sorted((root / 'data').rglob('*.parquet')):
        rows = parquet.read_table(path).to_pylist()
        for row in rows:
            picture = rng.integers(0, 256, (16, 18, 3), np.uint8)
            suffix = '.jpg' if 'JPEG' in kind else '.png'
            data = cv2.imencode(suffix, picture)[1].tobytes()
            made[row['episode_index'], row['frame_index']] = decode_compressed(data)
            name = f'images/{row["index"]}{suffix}'
            row[FRONT] = {'bytes': data, 'path': name}
            if 'files' in kind:
                (root / 'images').mkdir(exist_ok=True)
                (root / name).write_bytes(data)
                row[FRONT]['bytes'] = None
        table(path, rows)
    for _ in range(2):
        path = import_data('lerobot', root, tmp_path, views=VIEWS, report=lambda _: None)
        files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob('third_person-*.mp4')}
    assert len(files) == 3 and all(
        file.stat().st_mtime_ns == before for file, before in files.items())
    data = read_manifest(path)
    for number, episode in enumerate(data.episodes):
        videos = open_views(episode_videos(episode), data.folder)
        np.testing.assert_array_equal(
            videos['third_person'].read(videos['third_person'].stamps),
            [made[number, i] for i in range(LENGTHS[number])])
        assert numbers(videos['wrist'].read(videos['wrist'].stamps)) == [
            10 * number + i for i in range(LENGTHS[number])]


def test_frames_are_matched_by_number(tmp_path):
    """
    Guards labels of sets whose time stamps do not run at their rate.

    Recorded at 8 Hz in a set of 10, with success in the last two frames, only the last had it; at
    12 Hz, three had. A span that is one frame too long gave the next episode's first image one.
    """
    make(tmp_path, success=(True, True, True))
    for path in (tmp_path / 'data').rglob('*.parquet'):
        rows = parquet.read_table(path).to_pylist()
        change(path, timestamp=[row['frame_index'] / 8 for row in rows], **{'next.success': [
            row['frame_index'] >= LENGTHS[row['episode_index']] - 2 for row in rows]})
    episodes_file = tmp_path / 'meta/episodes/chunk-000/file-000.parquet'
    rows = parquet.read_table(episodes_file).to_pylist()
    change(episodes_file, **{f'videos/{camera}/to_timestamp': [
        row[f'videos/{camera}/to_timestamp'] + 0.1 for row in rows] for camera in VIEWS})
    episodes, faults = read(tmp_path)
    assert faults.counts() == {'rates_apart': 3} and '8.0 Hz' in faults.found[0].text
    for number, episode in enumerate(episodes):
        videos = open_views(episode_videos(episode), tmp_path)
        for video in videos.values():
            assert numbers(video.read(video.stamps)) == [
                10 * number + i for i in range(LENGTHS[number])]
            np.testing.assert_allclose(
                video.times, np.array(episode.time_s), atol=1e-9)
        assert list(episode.success_flags) == [False] * (LENGTHS[number] - 2) + [True] * 2


@pytest.mark.parametrize('drift', [-4e-6, 4e-6, 0.01])
def test_spans_that_drift(tmp_path, drift):
    """Guards the first frame: spans are sums of durations that were rounded to microseconds."""
    path = make(tmp_path) / 'meta/episodes/chunk-000/file-000.parquet'
    rows = parquet.read_table(path).to_pylist()
    change(path, **{f'videos/{FRONT}/from_timestamp': [
        row[f'videos/{FRONT}/from_timestamp'] + drift * row['episode_index'] for row in rows]})
    episodes, faults = read(tmp_path)
    assert not faults.found
    for number, episode in enumerate(episodes):
        video = open_views(episode_videos(episode), tmp_path)['third_person']
        assert numbers(video.read(video.stamps)) == [
            10 * number + i for i in range(LENGTHS[number])]


def test_a_video_with_fewer_frames(tmp_path):
    """Guards against frames of which nobody knows which they are."""
    make(tmp_path)
    write_video(tmp_path / VIDEO.format(HAND, 0), [image(0, i) for i in range(12)], RATE)
    episodes, faults = read(tmp_path)
    assert [list(e.robot_videos) for e in episodes] == [[*VIEWS.values()]] * 2 + [['third_person']]
    assert 'has 2 of its 5 frames' in faults.found[0].text


def test_success_that_is_not_known_of_every_frame(tmp_path):
    """Guards nulls, which read as no."""
    make(tmp_path, success=(True, True, True))
    path = tmp_path / 'data/chunk-000/file-001.parquet'
    change(path, **{'next.success': [None, True, None, False, False]})
    episodes, _ = read(tmp_path)
    assert [e.success for e in episodes] == [True, True, None]


@pytest.mark.parametrize('views, message', [
    ({'front': 'third_person'}, f'camera front.*{FRONT}, {HAND}'), ({}, 'none named'),
    ({'depth': 'third_person'}, 'camera depth'), ({FRONT: 'wrist', HAND: 'wrist'}, 'two cameras')])
def test_cameras_that_are_not_there(tmp_path, views, message):
    """Guards the message: which cameras there are."""
    with pytest.raises(DataError, match=message):
        read(make(tmp_path), views)


def test_broken_parts(tmp_path):
    """Guards the rest of a data set: a broken file costs what is in it."""
    make(tmp_path, together=False)
    (tmp_path / VIDEO.format(HAND, 1)).write_bytes(b'')
    episodes, faults = read(tmp_path)
    assert [list(e.robot_videos) for e in episodes] == [[*VIEWS.values()]] * 2 + [['third_person']]
    assert faults.counts() == {'corrupt_video': 1}
    (tmp_path / VIDEO.format(FRONT, 0)).unlink()
    episodes, faults = read(tmp_path)
    assert [list(e.robot_videos) for e in episodes] == [['wrist']] * 2
    assert faults.counts() == {'corrupt_video': 2, 'no_video': 1}
    (tmp_path / 'data/chunk-000/file-000.parquet').write_bytes(b'nothing')
    episodes, faults = read(tmp_path, {FRONT: 'third_person'})
    assert episodes == [] and faults.counts()['bad_frames'] == 2


def test_frames_that_are_missing(tmp_path):
    """Guards against actions that belong to other images."""
    make(tmp_path)
    path = tmp_path / 'data/chunk-000/file-001.parquet'
    parquet.write_table(parquet.read_table(path).slice(1), path)
    episodes, faults = read(tmp_path)
    assert len(episodes) == 2 and '4 of its 5 frames' in faults.found[0].text


@pytest.mark.parametrize('file', [
    'info.json', 'tasks.parquet', 'episodes/chunk-000/file-000.parquet'])
def test_what_is_no_data_set(tmp_path, file):
    """Guards the messages: a DataError that names the file."""
    path = make(tmp_path) / 'meta' / file
    path.write_bytes(b'nothing')
    with pytest.raises(DataError, match=path.name):
        read(tmp_path)
    path.unlink()
    with pytest.raises(DataError):
        read(tmp_path)


def test_labels(tmp_path):
    """Guards sets without next.success: a table beside them says how episodes ended."""
    make(tmp_path)
    (tmp_path / 'labels.csv').write_text(
        'episode,success,time_s,split,session,task_text\nepisode_000000,yes,0.3,,morning,\n'
        'episode_000001,no,,validation,noon,Lift it\nepisode_000002,discard,,,,\nelse,no,,,,\n')
    (first, second), faults = read(tmp_path)
    assert list(first.success_flags) == [False] * 3 + [True] * 3
    assert (first.success, first.session, first.success_s) == (True, 'morning', 0.3)
    assert (second.success, second.split, second.task_id) == (False, 'validation', 'lift-it')
    assert list(second.success_flags) == [False] * 4
    assert faults.counts() == {'no_episode': 1}


def test_import(tmp_path):
    """Guards the manifest of robot episodes without human clips."""
    make(tmp_path)
    data = read_manifest(import_data('lerobot', tmp_path, views=VIEWS, report=lambda _: None))
    assert len(data.episodes) == 3 and all(e.split for e in data.episodes)
