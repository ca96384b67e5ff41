# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Out to LeRobot and back: the same images, states and labels at even times."""

from dataclasses import replace
import json

from hralign_ros.cli.main import main
from hralign_ros.data.importing import import_data
from hralign_ros.data.lerobot import read_lerobot
from hralign_ros.data.lerobot_export import export_lerobot
from hralign_ros.data.manifest import DataError, Episode, read_manifest, write_manifest
from hralign_ros.runtime.images import ViewGeometry
from hralign_ros.runtime.video import read_frames, RecordingWriter, write_video
import numpy as np
from pyarrow import parquet
import pytest

VIEWS = {'observation.images.third_person': 'third_person', 'observation.images.wrist': 'wrist'}


def image(number, side=33):
    return np.full((side, side, 3), 20 + 8 * number, np.uint8)


@pytest.fixture
def data(tmp_path):
    """Make episodes at uneven times about 10 Hz, the wrist's video a little later."""
    rng = np.random.default_rng(0)
    episodes = []
    for episode in range(3):
        times = np.arange(20) / 10 + np.concatenate([[0], rng.uniform(-0.02, 0.02, 19)])
        files = {}
        for view in ('third_person', 'wrist'):
            files[view] = f'{episode}/{view}.mp4'
            with RecordingWriter(tmp_path / 'data' / files[view]) as video:
                for number, time_s in enumerate(times):
                    video.add(image(number), time_s)
        episodes.append(Episode(
            f'e{episode}', 'push-it', 'push it' if episode else 'pull it', 'lab', 'c', 'panda',
            'rosbag', 'MIT', split='train', robot_videos=files, robot_offset_s={'wrist': -0.05},
            success=episode > 0, time_s=times.tolist(),
            success_flags=[episode == 1 and i > 14 for i in range(20)] if episode < 2 else [],
            actions=[[i, -i] for i in range(20)], proprio=[[i, i, i] for i in range(20)]))
    write_manifest(tmp_path / 'data', episodes)
    return read_manifest(tmp_path / 'data')


def test_there_and_back(data, tmp_path):
    """Guards what a policy learns from: frames, numbers and labels belong together."""
    said = []
    export_lerobot(data, tmp_path / 'out', report=said.append)
    assert said[-1].startswith(f'{tmp_path / "out"}: 3 episodes at 10 Hz')
    episodes = read_lerobot(tmp_path / 'out', views=VIEWS, report=str)
    assert [e.task_text for e in episodes] == ['pull it', 'push it', 'push it']
    assert [e.success for e in episodes] == [False, True, True]
    # Of the last, when it was is not known: in the end.
    assert [sum(e.success_flags) for e in episodes] == [0, 5, 1]
    for before, after in zip(data.episodes, episodes, strict=True):
        count = len(after.time_s)
        assert count in (19, 20) and after.embodiment == 'panda'
        np.testing.assert_array_equal(np.array(after.proprio)[:, 0], np.arange(count))
        np.testing.assert_array_equal(np.array(after.actions)[:, 1], -np.arange(count))
        for view, shift in (('third_person', 0), ('wrist', 0)):
            frames, _ = read_frames(tmp_path / 'out' / after.robot_videos[view], count=count)
            assert frames.shape[1:3] == (34, 34)
            seen = np.rint((frames.mean((1, 2, 3)) - 20) / 8).astype(int)
            assert np.abs(seen - np.arange(count) - shift).max() <= 1, before.episode_id
    path = import_data('lerobot', tmp_path / 'out', views=VIEWS, report=str)
    assert len(read_manifest(path).episodes) == 3


def test_a_video_that_is_ready_is_copied(data, tmp_path):
    """Guards recordings at an even rate: they were encoded a second time, for minutes an hour."""
    def noise(number):
        return np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)

    episodes = []
    for number, (size, rate) in enumerate(((20, 10), (20, 10), (20, 10), (40, 20))):
        file = f'even/{number}.mp4'
        write_video(data.path(file), map(noise, range(size)), rate)
        episodes.append(replace(
            data.episodes[0], episode_id=f'even{number}', robot_videos={'third_person': file},
            robot_offset_s={}, time_s=[i / rate for i in range(size)], success_flags=[],
            **{name: [[0.0]] * size for name in ('actions', 'proprio')},
            # Of these, the second is turned, and of the third the beginning is left out.
            geometry={'third_person': ViewGeometry(180)} if number == 1 else {},
            **({'robot_span_s': (0.5, 1.9)} if number == 2 else {})))
    episodes[2] = replace(episodes[2], time_s=episodes[2].time_s[5:], **{
        name: [[0.0]] * 15 for name in ('actions', 'proprio')})
    export_lerobot(data.only(episodes), tmp_path / 'out', report=str)
    written = sorted((tmp_path / 'out/videos').glob('*/*/*.mp4'))
    assert [file.read_bytes() == data.path(f'even/{number}.mp4').read_bytes()
            for number, file in enumerate(written)] == [True, False, False, False]
    found = read_lerobot(tmp_path / 'out', views={
        'observation.images.third_person': 'third_person'}, report=str)
    assert [len(e.time_s) for e in found] == [20, 20, 15, 20]
    stats = json.loads((tmp_path / 'out/meta/stats.json').read_text('utf-8'))
    assert stats['observation.images.third_person']['count'] == [4 * 8 * 4]


def test_what_lerobot_reads(data, tmp_path):
    """Guards the parts of the format that LeRobot's own reader relies on."""
    assert main(['data', 'export', 'lerobot', '--data', str(data.folder), '--output',
                 str(tmp_path / 'out'), '--hz', '5']) == 0
    info = json.loads((tmp_path / 'out/meta/info.json').read_text())
    assert (info['fps'], info['total_episodes'], info['codebase_version']) == (5, 3, 'v3.0')
    assert info['features']['next.success'] == {'dtype': 'bool', 'shape': [1], 'names': None}
    assert info['features']['action']['shape'] == [2]
    assert info['features']['observation.images.wrist']['shape'] == [34, 34, 3]
    rows = parquet.read_table(tmp_path / 'out/data/chunk-000/file-000.parquet').to_pylist()
    assert len(rows) == info['total_frames']
    assert [row['index'] for row in rows] == list(range(len(rows)))
    assert sum(row['next.done'] for row in rows) == 3 and rows[-1]['next.done']
    assert {round(row['timestamp'] * 5 - row['frame_index'], 4) for row in rows} == {0.0}
    stats = json.loads((tmp_path / 'out/meta/stats.json').read_text())
    assert np.shape(stats['observation.images.wrist']['mean']) == (3, 1, 1)
    assert stats['action']['min'][0] == 0.0
    pandas = pytest.importorskip('pandas', reason='pandas is not installed')
    tasks = pandas.read_parquet(tmp_path / 'out/meta/tasks.parquet')
    assert tasks.iloc[0].name == 'pull it' and tasks.loc['push it', 'task_index'] == 1


def test_lerobot_itself_opens_it(data, tmp_path):
    """Guards the whole of it, where LeRobot is installed."""
    datasets = pytest.importorskip('lerobot.datasets.lerobot_dataset',
                                   reason='LeRobot is not installed')
    export_lerobot(data, tmp_path / 'out', report=str)
    opened = datasets.LeRobotDataset('own/set', root=tmp_path / 'out')
    assert (opened.num_episodes, opened.fps) == (3, 10)
    item = opened[25]
    assert item['observation.images.wrist'].shape == (3, 34, 34) and item['task'] == 'push it'
    assert bool(item['next.done']) is False


def test_episodes_that_lack_something(data, tmp_path):
    """Guards the rest of a set: one without a view, an action or a label is left out."""
    from dataclasses import replace

    first, second, third = data.episodes
    said = []
    export_lerobot(data.only([
        first, second, replace(third, success=None, actions=(), robot_videos={
            'wrist': third.robot_videos['wrist']}, robot_offset_s={})]), tmp_path / 'out',
        report=said.append)
    assert said[0] == 'left out e2: it lacks third_person, actions of 2 numbers, a label'
    with pytest.raises(DataError, match='there already'):
        export_lerobot(data, tmp_path / 'out')
    for rate in (0.0, 7.5, float('nan')):
        with pytest.raises(DataError, match='a whole number'):
            export_lerobot(data, tmp_path / 'other', fps=rate)
    with pytest.raises(DataError, match='no episode has'):
        export_lerobot(data.only([]), tmp_path / 'other')
    (data.folder / first.robot_videos['wrist']).write_bytes(b'')
    with pytest.raises(DataError, match='wrist.mp4'):
        export_lerobot(data, tmp_path / 'other', report=str)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ['data', 'out']
