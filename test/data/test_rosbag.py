# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""From bags to episodes: the right images at the right times, with the right labels."""

import json
import shutil

from hralign_ros.cli.main import main
from hralign_ros.data.bag_conversion import BagOptions
from hralign_ros.data.importing import import_data
from hralign_ros.data.manifest import DataError, read_manifest
from hralign_ros.data.token_features import episode_videos, open_views
from hralign_ros.runtime.bags import BagWriter, Topic
from hralign_ros.runtime.images import decode_compressed
from hralign_ros.runtime.labels import Label as SetLabel
from hralign_ros.runtime.labels import set_label
from hralign_ros.runtime.video import frame_times, read_frames
import numpy as np
import pytest

pytest.importorskip('rosbags.rosbag2', reason='rosbags is not installed')
pytest.importorskip('zstandard', reason='zstandard is not installed')
bags = pytest.importorskip('support.bags')

SECOND = bags.SECOND


def run(source, output, instruction='push it', **options):
    """Import; return the episodes by id, and what was said."""
    options.setdefault('views', bags.TOPICS)
    said = []
    import_data('rosbag', source, output, options=BagOptions(**options),
                instruction=instruction, report=said.append)
    return {e.episode_id: e for e in read_manifest(output).episodes}, said


def frames_of(output, episode, view):
    """Return the images of a view, and when they were taken [ns]."""
    video = open_views(episode_videos(episode), output)[view]
    return video.read(video.stamps), np.rint(video.times * SECOND).astype(int)


@pytest.mark.parametrize('stored', ['sqlite3, zstd by message', 'mcap'])
@pytest.mark.parametrize('encoding', ['rgb8', 'jpeg', 'bayer_rggb8'])
def test_live_equals_imported(tmp_path, stored, encoding):
    """
    Guards against skew between training and the robot: images are equal to the bit.

    Videos without loss in YUV moved the embedding's tokens by cosines down to .99. Stamps are
    those of the headers, which no video of constant rate has.
    """
    make = {'jpeg': bags.jpeg, 'rgb8': bags.raw}.get(
        encoding, lambda image, stamp: bags.raw(np.ascontiguousarray(image[..., 1]), stamp,
                                                encoding))
    jitter = np.random.default_rng(0).integers(-30_000_000, 30_000_000, 2 * bags.FRAMES)
    recorded = []
    for (topic, message, received), shift in zip(bags.images(make=make), jitter, strict=True):
        stamp = message.header.stamp.sec * SECOND + message.header.stamp.nanosec + int(shift)
        message.header.stamp = bags.time_of(stamp)
        recorded.append((topic, message, received, stamp))
    bags.write(tmp_path / 'bags/one', [one[:3] for one in recorded], stored)
    episodes, _ = run(tmp_path / 'bags', tmp_path / 'data')
    episode = episodes['one']
    zero = recorded[0][3]
    for view, topic in bags.TOPICS.items():
        mine = [(message, stamp) for name, message, _, stamp in recorded if name == topic]
        images, times = frames_of(tmp_path / 'data', episode, view)
        assert np.abs(times + zero - [stamp for _, stamp in mine]).max() <= 1000
        if encoding == 'bayer_rggb8':
            continue
        expected = [decode_compressed(message.data) if encoding == 'jpeg' else
                    message.data.reshape(32, 48, 3) for message, _ in mine]
        np.testing.assert_array_equal(images, expected)
    own = np.array(episode.time_s) * SECOND + zero
    assert np.abs(own - [one[3] for one in recorded[:bags.FRAMES]]).max() < 1000
    assert (episode.source, episode.task_id, episode.success) == ('rosbag', 'push-it', None)


def test_what_the_recorder_writes(tmp_path):
    """
    Guards the recorder's folder, without one option: topics, instruction and labels are found.

    A bag of a recorder that was killed is called NAME.partial.
    """
    views = {'third_person': '/third_person/image_raw/compressed',
             'wrist': '/lab/wrist/image_raw/compressed'}
    root = tmp_path / 'recordings'
    for number in range(7):
        recorded = bags.images(make=bags.jpeg, views=views) + bags.moves()
        for stamp in map(bags.stamp_of, range(bags.FRAMES)):
            recorded.append(('/encoder/success', bags.success(stamp, bags.START - 9, 'push it'),
                             stamp + bags.LATE))
        bags.write(root / f'e{number}', recorded)
    cut = bags.cut(root / 'e6', 0.6)
    cut.rename(root / 'e6.partial')
    (root / 'e6.partial/e6.mcap').rename(root / 'e6.partial/e6_0.mcap')
    (root / 'labels.csv').write_text(
        'episode,success,time_s,note,by\n'
        'e0,success,0.7,,human:ann\ne1,success,,nearly missed,human:ann\ne2,failure,,,model\n'
        'e3,discard,,,human:ann\ne4,failure,,,model\ne4,success,,,human:ann\ne4,failure,,,model\n'
        'e6,success,,,human:ann\ne9,success,,,human:ann\n')
    assert main(['data', 'import', 'rosbag', str(root), '--output', str(tmp_path / 'data'),
                 '--robot', 'panda']) == 0
    episodes = {e.episode_id: e for e in read_manifest(tmp_path / 'data').episodes}
    assert sorted(episodes) == ['e0', 'e1', 'e2', 'e4', 'e5', 'e6']
    assert [episodes[name].success for name in sorted(episodes)] == [
        True, True, False, True, None, None]
    first = episodes['e0']
    assert (first.task_text, first.embodiment, first.camera) == (
        'push it', 'panda', 'third_person')
    assert first.success_s == pytest.approx(0.7)
    assert list(first.success_flags) == [False] * 7 + [True] * 5
    assert not any(episodes['e2'].success_flags) and len(episodes['e2'].success_flags) == 12
    assert not episodes['e1'].success_flags and np.shape(first.proprio) == (12, 3)
    assert list(episodes['e6'].tags) == ['cut_off'] and 0 < len(episodes['e6'].time_s) < 12
    again = run(root, tmp_path / 'data', views={}, instruction='')[1]
    assert any("names 'e9', and there is no such bag" in line for line in again)
    assert any('its end is missing' in line for line in again)


@pytest.mark.parametrize('whole', [True, False])
def test_bags_by_the_recorders_own_writer(tmp_path, whole):
    """Guards what two parts agree on: a bag's name while it is written, chunks, labels."""
    pytest.importorskip('mcap.writer', reason='mcap is not installed')
    views = {view: f'/{view}/image_raw/compressed' for view in bags.TOPICS}
    writer = BagWriter(tmp_path / 'bags', 'e1')
    for topic, message, received in sorted(
            bags.images(60, make=bags.jpeg, views=views) + bags.moves(60),
            key=lambda one: one[2]):
        kind = message.__msgtype__
        definition, _ = bags.STORE.generate_msgdef(kind, ros_version=2)
        writer.add(Topic(topic, kind, definition),
                   bytes(bags.STORE.serialize_cdr(message, kind)), received)
    if whole:
        writer.finish()
    else:
        writer.flush()
    set_label(tmp_path / 'bags', SetLabel('e1', 'success', 0.3, 'good', 'human:ann'))
    episodes, said = run(tmp_path / 'bags', tmp_path / 'data', views={})
    if whole:
        assert list(episodes['e1'].success_flags) == [False] * 3 + [True] * 57
        assert np.shape(episodes['e1'].proprio) == (60, 3)
    else:
        assert 3 < len(episodes['e1'].time_s) < 60 and any('cut off' in line for line in said)
        writer.abandon()


def test_states_and_commands(tmp_path):
    """Guards what was newest at each image: joints by name, over several messages and topics."""
    recorded = bags.images() + bags.moves()
    for step in range(0, 60, 5):
        at = bags.START + step * bags.PERIOD // 5 + 1
        recorded.append(('/command', bags.T['Float64MultiArray'](
            layout=bags.T['MultiArrayLayout'](dim=[], data_offset=0),
            data=np.array([step, -step], np.float64)), at))
    bags.write(tmp_path / 'bags/one', recorded)
    episode = run(tmp_path / 'bags', tmp_path / 'data', actions=('/command',))[0]['one']
    rows = np.arange(bags.FRAMES)
    expected = np.stack([5 * rows, 2.5 * rows, 95 + 5 * rows], 1)
    np.testing.assert_allclose(np.array(episode.proprio)[:, :2], expected[:, :2])
    np.testing.assert_allclose(np.array(episode.proprio)[:, 2], 100 + 5 * rows)
    # A command comes just after the image: the one before counts, and for the first the first.
    np.testing.assert_allclose(np.array(episode.actions)[:, 0], [0, *(5 * rows[:-1])])
    episode = run(tmp_path / 'bags', tmp_path / 'data',
                  proprio=('/joint_states:position', '/command'))[0]['one']
    assert np.shape(episode.proprio) == (12, 5) and not episode.actions
    said = run(tmp_path / 'bags', tmp_path / 'data', proprio=('/joint_states:effort',))[1]
    assert any('name a field' in line for line in said)
    said = run(tmp_path / 'bags', tmp_path / 'data', actions=('/nothing',))[1]
    assert any('no message on /nothing' in line for line in said)


def test_a_bag_with_many_episodes(tmp_path):
    """Guards the three ways to cut: what the encoder said, a topic of labels, and labels.csv."""
    begin = [bags.START, bags.START + 20 * bags.PERIOD, bags.START + 30 * bags.PERIOD]
    count = [12, 6, 9]
    recorded = bags.images(frames=40)
    for number, (start, frames) in enumerate(zip(begin, count, strict=True)):
        for step in range(frames):
            stamp = start + step * bags.PERIOD
            # The episode's own name is system time, also where the clock is simulated.
            recorded.append(('/encoder/success', bags.success(
                stamp, 5_000_000_000 + number, f'task {number}'), stamp + 80_000_000))
        text = ('success', 'discard', 'failure')[number]
        recorded.append(('/label', bags.T['String'](data=text),
                         start + frames * bags.PERIOD - 10_000_000))
        recorded.append(('/label', bags.T['String'](data='start'), start - 10_000_000))
    bags.write(tmp_path / 'bags/long', recorded)
    data = tmp_path / 'data'
    said = run(tmp_path / 'bags', data)[1]
    assert not any('--cut messages' in line for line in said)
    episodes = list(run(tmp_path / 'bags', data, instruction='', cut='messages')[0].values())
    assert [e.task_text for e in episodes] == ['task 0', 'task 1', 'task 2']
    assert [len(e.time_s) for e in episodes] == count
    assert np.rint((frames_of(data, episodes[1], 'third_person')[0][:, 0, 0, 0] - 20) / 5
                   ).tolist() == list(range(20, 26))
    episodes = run(tmp_path / 'bags', data, label_topic='/label')[0]
    assert {name: e.success for name, e in episodes.items()} == {
        'long/001': True, 'long/003': False}
    assert [len(e.time_s) for e in episodes.values()] == [12, 9]
    (tmp_path / 'bags/labels.csv').write_text(
        'episode,bag,start_s,end_s,success,time_s,task_text,session\n'
        'a,long,0,0.55,yes,0.3,,one\nb,long,2.0,,no,,pull it,two\n')
    episodes = run(tmp_path / 'bags', data)[0]
    first, second = (episodes[name] for name in ('long/a', 'long/b'))
    assert (len(first.time_s), len(second.time_s)) == (6, 20)
    assert list(first.success_flags) == [False] * 3 + [True] * 3
    assert (second.task_text, second.session, second.success) == ('pull it', 'two', False)


def test_views_that_begin_and_end_apart(tmp_path):
    """Guards the part that both cameras saw: the node masks a late view, training cannot."""
    recorded = [one for one in bags.images(frames=40) if one[0] == bags.TOPICS['third_person']
                or bags.START + 10 * bags.PERIOD <= one[2] < bags.START + 30 * bags.PERIOD]
    bags.write(tmp_path / 'bags/one', recorded)
    (tmp_path / 'bags/labels.csv').write_text('episode,success,time_s\none,success,2.05\n')
    episode = run(tmp_path / 'bags', tmp_path / 'data')[0]['one']
    assert episode.robot_span_s[0] == pytest.approx(0.52, abs=0.06)
    assert episode.time_s[0] == pytest.approx(0.6) and episode.time_s[-1] < 3.1
    assert episode.success_flags.index(True) == round(
        (2.1 - episode.time_s[0]) * 10)
    times = frame_times(tmp_path / 'data' / episode.robot_videos['wrist'])
    assert len(times) == 20 and episode.robot_offset_s['wrist'] == pytest.approx(-1.02, abs=0.06)


def test_fewer_images(tmp_path):
    """Guards --hz: the views keep images of the same moments."""
    bags.write(tmp_path / 'bags/one', bags.images(frames=30))
    episode = run(tmp_path / 'bags', tmp_path / 'data', hz=5.0)[0]['one']
    for view in bags.TOPICS:
        images, _ = frames_of(tmp_path / 'data', episode, view)
        assert ((images[:, 0, 0, 0].astype(int) - 20) // 5).tolist() == list(range(0, 30, 2))


def test_clocks(tmp_path):
    """
    Guards stamps: of a simulated clock, of none, and that go back.

    Commands without a stamp are put to the images by when both arrived.
    """
    start = 3 * SECOND
    recorded = bags.images(start=start, late=1_700_000_000 * SECOND)
    for step in range(bags.FRAMES):
        recorded.append(('/command', bags.T['Float64'](data=float(step)),
                         1_700_000_000 * SECOND + bags.stamp_of(step, start=start)))
    bags.write(tmp_path / 'bags/simulated', recorded)
    back = bags.images()
    back += [(topic, bags.raw(bags.draw(99, 'wrist'), bags.stamp_of(2)), at + 5 * SECOND)
             for topic, _, at in back[:3]]
    bags.write(tmp_path / 'bags/back', back)
    bags.write(tmp_path / 'bags/none', bags.images(
        make=lambda image, stamp: bags.raw(image, 0)))
    episodes, said = run(tmp_path / 'bags', tmp_path / 'data', actions=('/command',))
    assert sorted(episodes) == ['back', 'simulated']
    assert np.array(episodes['simulated'].actions)[:, 0].tolist() == list(range(12))
    assert len(episodes['back'].time_s) == 12
    assert any('3 of 15 images are not newer' in line for line in said)
    assert any('--stamp-source arrival' in line for line in said)
    episodes = run(tmp_path / 'bags/none', tmp_path / 'data2', stamp_source='arrival')[0]
    assert len(episodes['none'].time_s) == 12


def test_an_import_that_was_stopped_goes_on(tmp_path, monkeypatch):
    """Guards against half a bag taken for a whole one, and against doing all of it again."""
    for name in ('a', 'b'):
        bags.write(tmp_path / 'bags' / name, bags.images())
    data = tmp_path / 'data'
    from hralign_ros.data import bag_conversion

    add, calls = bag_conversion.RecordingWriter.add, []

    def stopped(self, *more):
        calls.append(self.path)
        if len(calls) == 30:
            raise KeyboardInterrupt
        add(self, *more)

    monkeypatch.setattr(bag_conversion.RecordingWriter, 'add', stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / 'bags', data)
    assert len(list(data.rglob('bag.json'))) == 1 and not (data / 'manifest.parquet').exists()
    assert not list(data.rglob('*.tmp'))
    before = {path: path.stat().st_mtime_ns for path in data.rglob('*.mp4')}
    monkeypatch.setattr(bag_conversion.RecordingWriter, 'add', add)
    episodes, said = run(tmp_path / 'bags', data)
    assert sorted(episodes) == ['a', 'b'] and any(line.startswith('1 bags read') for line in said)
    for path, at in before.items():
        assert 'videos/a' not in path.as_posix() or path.stat().st_mtime_ns == at
    # Nothing is read again; labels are.
    (tmp_path / 'bags/labels.csv').write_text('episode,success\na,failure\n')
    episodes, said = run(tmp_path / 'bags', data)
    assert episodes['a'].success is False and not any('bags read' in line for line in said)
    # Other options: what the manifest no longer names is gone.
    run(tmp_path / 'bags', data, hz=5.0)
    assert len(list(data.rglob('*.mp4'))) == 4


def test_later_bags_are_added(tmp_path):
    """Guards what is in a data set already, and bags of the same name elsewhere."""
    bags.write(tmp_path / 'one/a', bags.images())
    bags.write(tmp_path / 'two/b', bags.images())
    data = tmp_path / 'data'
    run(tmp_path / 'one', data)
    assert sorted(run(tmp_path / 'two', data, instruction='pull it')[0]) == ['a', 'b']
    shutil.rmtree(tmp_path / 'one/a')
    bags.write(tmp_path / 'three/a', bags.images(frames=5))
    with pytest.raises(DataError, match='no episode can be used'):
        import_data('rosbag', tmp_path / 'three', tmp_path / 'data3', report=str,
                    options=BagOptions(views=bags.TOPICS))
    episodes, said = run(tmp_path / 'three', data)
    assert sorted(episodes) == ['a', 'b'] and len(episodes['a'].time_s) == 12
    assert any('another bag of that name' in line for line in said)
    (tmp_path / 'two/labels.csv').write_text('episode,success\nb,discard\n')
    assert sorted(run(tmp_path / 'two', data)[0]) == ['a']


def test_what_cannot_be_used(tmp_path):
    """Guards one bad bag among good ones: a sentence says what is wrong with it."""
    root = tmp_path / 'bags'
    bags.write(root / 'good', bags.images())
    bags.write(root / 'other', bags.images(views={'wrist': '/somewhere/else'}))
    bags.write(root / 'wrist only', bags.images(views={'wrist': bags.TOPICS['wrist']}))
    sizes = bags.images()
    sizes[5] = (sizes[5][0], bags.raw(np.zeros((16, 16, 3), np.uint8), bags.stamp_of(5)),
                sizes[5][2])
    sizes[3][1].encoding = '8UC3'
    bags.write(root / 'sizes', sizes)
    (root / 'garbage').mkdir()
    (root / 'garbage/garbage_0.mcap').write_bytes(b'nothing')
    (root / 'empty').mkdir()
    (root / 'empty/empty_0.db3').write_bytes(b'')
    episodes, said = run(root, tmp_path / 'data')
    assert sorted(episodes) == ['good', 'sizes', 'wrist only']
    assert list(episodes['wrist only'].robot_videos) == ['wrist']
    assert len(episodes['sizes'].time_s) == 10
    text = '\n'.join(said)
    for words in ('no MCAP file', '/somewhere/else', '8UC3', 'the first is [32, 48, 3]',
                  'bad_bag: 3'):
        assert words in text, words
    with pytest.raises(DataError, match='cannot be the name of a robot'):
        BagOptions(views={'../x': '/a'})
    with pytest.raises(DataError, match='letters'):
        BagOptions(views={'human': '/a'})


def test_a_bag_without_instruction(tmp_path):
    """Guards the message: nothing says what is done in it."""
    bags.write(tmp_path / 'bags/one', bags.images())
    said = []
    with pytest.raises(DataError, match='no episode can be used'):
        import_data('rosbag', tmp_path / 'bags', tmp_path / 'data', report=said.append,
                    options=BagOptions(views=bags.TOPICS))
    assert any('--instruction' in line for line in said)
    record, = (tmp_path / 'data').rglob('bag.json')
    assert json.loads(record.read_text())['episodes'][0]['task'] == ''
    assert len(read_frames(record.parent / 'wrist.mp4', count=3)[0]) == 3
