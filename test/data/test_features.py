# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The feature store: computed once, whatever happens to the videos, the disk and the processes."""

from dataclasses import replace
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

from hralign_ros.data.content import hash_files, UNREADABLE
from hralign_ros.data.features import build_features, features_folder, Videos
from hralign_ros.data.manifest import DataError, write_manifest
from hralign_ros.runtime.report import silent
import numpy as np
import pytest
from support import mean_colours
from support.mean_colours import make_videos, MeanColours

COUNT = 8


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('videos')
    return folder, make_videos(folder, COUNT)


@pytest.fixture
def build(tmp_path, videos):
    """Compute features of the videos; `encoded()` counts the clips that were encoded."""
    log = tmp_path / 'log'
    log.touch()

    def build(folder=tmp_path / 'features', clips=videos[1], root=videos[0], *, report=silent,
              workers=1, **encoder):
        return build_features(folder, root, clips, MeanColours(log, **encoder), workers=workers,
                              report=report)
    build.encoded = lambda: len(log.read_text())
    return build


def assert_equal(one, other):
    assert set(one) == set(other)
    for name in one:
        for part in one[name]:
            np.testing.assert_array_equal(one[name][part], other[name][part])


def program(tmp_path, videos, *words):
    return subprocess.Popen(
        [sys.executable, mean_colours.__file__, tmp_path / 'features', videos, tmp_path / 'log',
         *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_features_come_back(build):
    lines = []
    features = build(report=lines.append)
    assert f'{COUNT} of {COUNT} clips to encode' in lines[0] and len(features) == COUNT
    assert features['clip0']['colours'].shape == (4, 3)
    assert features['clip0']['colours'].dtype == np.float32
    assert not features['clip0']['colours'].flags.writeable, 'mapped, and shared by all readers'
    lines.clear()
    again = build(report=lines.append)
    assert build.encoded() == COUNT and not lines and again.key == features.key
    assert_equal(again, features)
    with pytest.raises(DataError, match='no features of other: it is not one of the clips'):
        features['other']


def test_a_data_set_that_grows_shares_its_features(build, videos, tmp_path):
    """Guards hours: with one clip more, or videos of other names, all were encoded anew."""
    root, clips = videos
    few = build(clips={name: clips[name] for name in ('clip0', 'clip1', 'clip2')})
    assert build.encoded() == 3
    grown = build()
    assert build.encoded() == COUNT and grown.key != few.key
    for file in root.glob('*.mp4'):
        shutil.copy(file, tmp_path / f'moved-{file.name}')
    moved = build(root=tmp_path, clips={
        f'as {name}': Videos({'': f'moved-{one.files[""]}'}) for name, one in clips.items()})
    assert build.encoded() == COUNT
    np.testing.assert_array_equal(moved['as clip3']['colours'], grown['clip3']['colours'])
    other = build(frames=3)
    assert build.encoded() == 2 * COUNT and other.key != grown.key


def test_spans_and_geometry_are_clips_of_their_own(build, videos):
    whole = videos[1]['clip0']
    part = replace(whole, span_s=(0.2, 0.6))
    features = build(clips={'whole': whole, 'part': part, 'again': part})
    assert build.encoded() == 2
    assert features['part']['time_s'][[0, -1]] == pytest.approx([0.2, 0.6], abs=0.05)
    assert features['whole']['time_s'][-1] == pytest.approx(0.9, abs=0.05)
    assert not np.array_equal(features['part']['colours'], features['whole']['colours'])


def test_what_cannot_be_read_is_remembered_until_it_changes(build, videos, tmp_path):
    """Guards a night's work against one file that was cut short, and the hours of the next."""
    clips = {**{f'clip{i}': videos[1][f'clip{i}'] for i in range(3)},
             'absent': Videos({'': 'absent.mp4'})}
    for name in ('0.mp4', '1.mp4', '2.mp4'):
        shutil.copy(videos[0] / name, tmp_path / name)
    whole = (tmp_path / '1.mp4').read_bytes()
    (tmp_path / '1.mp4').write_bytes(whole[:300])
    lines = []
    features = build(root=tmp_path, clips=clips, report=lines.append)
    assert set(features) == {'clip0', 'clip2'} and set(features.missing) == {'clip1', 'absent'}
    assert any('left out clip1: video' in line for line in lines)
    with pytest.raises(DataError, match='no features of clip1: video .*1.mp4'):
        features['clip1']
    lines.clear()
    again = build(root=tmp_path, clips=clips, report=lines.append)
    assert len(lines) == 1 and 'left out absent: video' in lines[0]
    assert again.missing['clip1'] == features.missing['clip1']
    (tmp_path / '1.mp4').write_bytes(whole)
    (tmp_path / 'absent.mp4').write_bytes(whole)
    fixed = build(root=tmp_path, clips=clips)
    assert not fixed.missing and build.encoded() == 3, 'two of one content are encoded once'
    with pytest.raises(DataError, match='not one of 1 clips could be read; the first: video'):
        build(root=tmp_path, clips={'gone': Videos({'': 'gone.mp4'})})


def test_features_are_of_the_videos_that_are_there(build, videos, tmp_path):
    """
    Guards a data set that changes under its names.

    Features were kept by name alone: an attempt that was recorded anew under its old name kept
    the old one's features, silently. And a disk that is away takes no features with it.
    """
    shutil.copy(videos[0] / '0.mp4', tmp_path / '0.mp4')
    clips = {'clip0': videos[1]['clip0']}
    before = build(root=tmp_path, clips=clips)
    shutil.copy(videos[0] / '1.mp4', tmp_path / '0.mp4')
    after = build(root=tmp_path, clips=clips)
    assert before.key != after.key
    assert not np.array_equal(before['clip0']['colours'], after['clip0']['colours'])
    (tmp_path / '0.mp4').unlink()
    assert_equal(build(root=tmp_path, clips=clips), after)


def test_a_file_is_hashed_once(tmp_path):
    """Guards starts at the size of RH20T: its videos take hours to read."""
    index, path = tmp_path / 'index.json', tmp_path / 'a'
    path.write_bytes(b'one')
    os.utime(path, ns=(0, 10**18))
    first = hash_files(tmp_path, ['a', 'b', 'a'], index)
    assert first['b'] == UNREADABLE
    path.write_bytes(b'two')
    os.utime(path, ns=(0, 10**18))
    assert hash_files(tmp_path, ['a'], index) == {'a': first['a']}, 'of the same size and time'
    path.write_bytes(b'six')
    second = hash_files(tmp_path, ['a'], index)['a']
    path.write_bytes(b'ten')
    assert len({first['a'], second, hash_files(tmp_path, ['a'], index)['a']}) == 3
    index.write_text('[1')
    assert hash_files(tmp_path, ['a'], index)['a'] not in (first['a'], second)


def test_a_killed_build_resumes(build, videos, tmp_path):
    """Guards hours of encoding: SIGKILL in the fifth clip costs the fifth clip."""
    killed = program(tmp_path, videos[0], '--die-in', '5')
    assert killed.wait(100) == -signal.SIGKILL
    assert build.encoded() == 4
    lines = []
    features = build(report=lines.append)
    assert f'4 of {COUNT} clips to encode' in lines[0] and build.encoded() == COUNT
    assert_equal(features, build(folder=tmp_path / 'fresh'))


def test_two_builds_at_the_same_time(build, videos, tmp_path):
    """Guards two runs that are started together: each clip is encoded by one of them."""
    both = [program(tmp_path, videos[0]) for _ in range(2)]
    said = [one.communicate(timeout=100)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert build.encoded() == COUNT
    assert_equal(build(), build(folder=tmp_path / 'fresh'))


def test_several_processes_compute_the_same(build, tmp_path):
    assert_equal(build(workers=2), build(folder=tmp_path / 'one'))


def test_a_worker_that_is_killed_is_one_sentence(build, tmp_path):
    """Guards the largest videos: the system kills who takes too much memory."""
    with pytest.raises(DataError, match='was killed.*it resumes'):
        build(workers=2, die_in=2)
    assert 0 < build.encoded() < COUNT
    assert len(build()) == COUNT


def test_ray_with_a_worker_that_dies(build, tmp_path, monkeypatch):
    """Guards tens of thousands of clips on a cluster, on which machines come and go."""
    ray = pytest.importorskip('ray')
    # Ray's processes find the package and the tests as this one does.
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(sys.path))
    monkeypatch.setenv('RAY_USAGE_STATS_ENABLED', '0')
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        died = tmp_path / 'died'
        features = build(workers='ray', once=died)
        assert died.exists(), 'a worker was killed in its second clip'
    finally:
        ray.shutdown()
    assert_equal(features, build(folder=tmp_path / 'one'))


def test_a_full_disk_is_found_out_at_once(build, monkeypatch):
    """Guards a night's work: that it cannot end well is known after a few clips."""
    monkeypatch.setattr('shutil.disk_usage', lambda path: SimpleNamespace(free=100))
    monkeypatch.setattr('hralign_ros.data.features._SIZED', 2)
    with pytest.raises(DataError, match='GB more, and .* GB are free'):
        build()
    assert build.encoded() == 2


def test_a_data_set_that_cannot_be_written(tmp_path, monkeypatch):
    """Guards read-only disks: they ended training in a traceback."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    data, lines = tmp_path / 'data', []
    data.mkdir()
    assert features_folder(data, None, lines.append) == data / 'features' and not lines
    (data / 'features').rmdir()
    # Nothing can be made there, whoever tries.
    (data / 'features').symlink_to('/proc/none/features')
    chosen = features_folder(data, None, lines.append)
    assert chosen.parent == tmp_path / 'cache/hralign_ros' and 'data-' in chosen.name
    assert f'features are kept in {chosen}' in lines[0]
    given = tmp_path / 'given'
    assert features_folder(data, given, lines.append) == given and len(lines) == 1


def test_an_import_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match='manifest cannot be written there; link the data'):
        write_manifest(Path('/proc/none'), [])


def test_a_folder_that_cannot_be_written_is_one_sentence(build):
    with pytest.raises(DataError, match=f'{COUNT} clips are to be computed.*name another folder'):
        build(folder=Path('/proc/none/features'))
    assert build.encoded() == 0


def test_a_damaged_file_says_what_to_do(build):
    """Guards copies that were cut short: one was taken for whole, and ended in a traceback."""
    features = build()
    path = next(features.folder.rglob('*.safetensors'))
    for content in (path.read_bytes()[:-50], b'', b'what'):
        path.write_bytes(content)
        with pytest.raises(DataError, match='delete it, and it is computed anew'):
            [features[name] for name in features]
    path.unlink()
    assert len(build()) == COUNT and build.encoded() == COUNT + 1


def test_wrong_options_are_one_sentence(build):
    for options, words in (({'clips': {}}, 'no clips'), ({'workers': 0}, "workers is '0'"),
                           ({'workers': 'many'}, "workers is 'many'")):
        with pytest.raises(DataError, match=words):
            build(**options)
