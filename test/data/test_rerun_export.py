# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Bags for rerun: read back by its own reader, everything is there and at its time."""

from importlib import import_module
import sys

from hralign_ros.cli.main import main
from hralign_ros.data.rerun_export import export_rerun, RECEIVED, STAMP
from hralign_ros.runtime.errors import DataError
import pytest

bags = pytest.importorskip('support.bags', reason='rosbags is not installed')
# Beside ROS it cannot be: CI runs these in an environment of their own.
RERUN = 'rerun-sdk is not installed'
TASK = 'open the drawer'
RESULT, MIRROR = '/encoder/success', '/encoder/success/probability'
ATTENTION = '/encoder/attention/wrist'
LATE = 70_000_000


@pytest.fixture
def source(tmp_path):
    """Make a bag of an attempt that succeeds in its eighth image, and a label."""
    messages = bags.images(frames=10)
    messages += [(ATTENTION, bags.jpeg(bags.draw(n, 'wrist'), bags.stamp_of(n)),
                  bags.stamp_of(n) + LATE) for n in range(10)]
    for n in range(10):
        stamp = bags.stamp_of(n)
        one = bags.success(stamp, bags.START, TASK)
        one.probability_valid, one.probability = n != 4, 0.1 * n if n != 4 else 0.0
        one.decision, one.status = (0, 8) if n == 4 else (2 if n >= 7 else 1, 0)
        one.processing_duration.nanosec = 40_000_000
        messages += [(RESULT, one, stamp + LATE),
                     (MIRROR, bags.T['Float64'](data=one.probability), stamp + LATE),
                     (f'{RESULT}/succeeded', bags.T['Bool'](data=n >= 7), stamp + LATE)]
    folder = tmp_path / 'bags'
    bags.write(folder / 'first', messages)
    (folder / 'labels.csv').write_text(
        'episode,success,time_s,note,by\nfirst,success,0.7,well done,human:anna\n')
    return folder


def rows(path, entity, column, timeline=STAMP):
    """List what an entity shows when: (time [ns], values)."""
    reader = import_module('rerun.chunk').RrdReader
    found = []
    for chunk in reader(path).store().stream():
        if str(chunk.entity_path) != entity or chunk.is_static:
            continue
        batch = chunk.to_record_batch()
        names = [name for name in batch.schema.names if name.endswith(column)]
        for name in names:
            found += zip((time.value for time in batch.column(timeline)),
                         batch.column(name).to_pylist(), strict=True)
    return sorted(found)


def test_everything_is_at_its_time(source, tmp_path, capsys):
    """Images and results lie where the image was taken; mirrors, which have no stamp, beside."""
    pytest.importorskip('rerun', reason=RERUN)
    assert main(['data', 'export', 'rerun', str(source), '--output', str(tmp_path / 'out')]) == 0
    path = tmp_path / 'out/first.rrd'
    assert 'first.rrd: ' in capsys.readouterr().out
    stamps = [bags.stamp_of(n) for n in range(10)]
    for topic in (bags.TOPICS['third_person'], ATTENTION):
        assert [time for time, _ in rows(path, topic, ':blob')] == stamps
    assert [time for time, _ in rows(path, ATTENTION, ':blob', RECEIVED)] == [
        stamp + LATE for stamp in stamps]
    shown = rows(path, f'{RESULT}.probability', 'Scalars:scalars')
    valid = [(time, value) for time, value in shown if value]
    assert [time for time, _ in valid] == stamps[:4] + stamps[5:]
    assert [value[0] for _, value in valid] == pytest.approx([.0, .1, .2, .3, .5, .6, .7, .8, .9])
    assert [value for _, value in rows(path, f'{RESULT}.processing_duration', ':scalars')] == [
        [0.04]] * 10
    # The mirror's name is that of a field, with another sign before it.
    assert [time for time, _ in rows(path, MIRROR, ':scalars')] == stamps


def test_lanes_change_where_the_decision_does(source, tmp_path):
    pytest.importorskip('rerun', reason=RERUN)
    path, = export_rerun(source, tmp_path / 'out', report=lambda line: None)

    def lane(entity):
        return [(time, value[0]) for time, value in rows(path, entity, 'StateChange:state')]

    at = bags.stamp_of
    assert lane(f'{RESULT}.decision') == [
        (at(0), 'RUNNING'), (at(4), 'ABSTAIN'), (at(5), 'RUNNING'), (at(7), 'SUCCESS')]
    assert lane(f'{RESULT}.status') == [
        (at(0), 'OK'), (at(4), 'OUT_OF_DISTRIBUTION'), (at(5), 'OK')]
    assert lane(f'{RESULT}/succeeded') == [(at(0), 'False'), (at(7), 'True')]
    (_, task), = lane(f'{RESULT}.task')
    assert task.startswith(TASK)
    assert lane('/label') == [(at(7), 'success')]
    assert rows(path, '/label', 'TextLog:text') == [
        (at(7), ['success, says human:anna: well done'])]


def test_a_stale_result_does_not_overtake_the_next(tmp_path):
    """
    Guards the order of lanes where results come late.

    A stale result lies where it was received. The image of the first good result after it was
    taken before that, so on the timeline of stamps ABSTAIN came last and stood for ever.
    """
    pytest.importorskip('rerun', reason=RERUN)
    at, late = bags.stamp_of, 4 * LATE
    stale = bags.success(0, bags.START, TASK)
    stale.status, stale.decision = 16, 0
    messages = bags.images(frames=3, late=late) + [(RESULT, stale, at(0) + LATE)]
    for n in range(3):
        one = bags.success(at(n), bags.START, TASK)
        one.decision, one.probability_valid = 1, True
        messages.append((RESULT, one, at(n) + late + n))
    bags.write(tmp_path / 'bag', messages)
    path, = export_rerun(tmp_path / 'bag', tmp_path / 'out', report=lambda line: None)
    assert [value for _, value in rows(path, f'{RESULT}.decision', 'StateChange:state')] == [
        ['ABSTAIN'], ['RUNNING']]
    assert [time for time, value in rows(path, f'{RESULT}.probability', 'Scalars:scalars')
            if value] == [at(n) for n in range(3)]


def test_the_layout_shows_what_there_is(source, tmp_path):
    """Each image, curve and lane is in a view, and nothing is that the bag does not hold."""
    pytest.importorskip('rerun', reason=RERUN)
    path, = export_rerun(source, tmp_path / 'out', report=lambda line: None)
    reader = import_module('rerun.chunk').RrdReader(path)
    layout, = reader.blueprints()
    recording, = reader.recordings()
    shown = set()
    for chunk in reader.store(store=layout).stream():
        batch = chunk.to_record_batch()
        for name in batch.schema.names:
            if name.endswith((':query', ':space_origin')):
                shown |= {entity for value in batch.column(name).to_pylist() for entity in value}
    there = {str(chunk.entity_path) for chunk in reader.store(store=recording).stream()}
    shown = {entity for entity in shown if entity != '/' and not entity.startswith('$origin')}
    assert shown == {entity for entity in there if not entity.startswith('/__')}


def test_what_is_there_is_not_written_again(source, tmp_path):
    pytest.importorskip('rerun', reason=RERUN)
    export_rerun(source, tmp_path, report=lambda line: None)
    with pytest.raises(DataError, match=r'first.rrd is there already; name another folder'):
        export_rerun(source, tmp_path, report=lambda line: None)


def test_a_bag_with_nothing_to_show(tmp_path):
    pytest.importorskip('rerun', reason=RERUN)
    bags.write(tmp_path / 'bag', bags.moves(2))
    with pytest.raises(DataError, match='nothing in it that is shown.*JointState'):
        export_rerun(tmp_path / 'bag', tmp_path / 'out')
    assert not list(tmp_path.glob('out/*'))


def labels_of(path):
    """List what a recording says of its episode."""
    return [text for _, (text,) in rows(path, '/label', 'TextLog:text')]


def test_labels_are_found_as_the_import_finds_them(tmp_path):
    """
    A row names a bag by its path from the file, and nothing above the source is looked at.

    Export and import each had a way of their own: the rows `day1/first`, for a bag in a folder,
    and `x`, for a lone x.mcap, were right for the import, and the export found no label. It also
    went up to the root of the disk, and took any labels.csv on the way for its own.
    """
    pytest.importorskip('rerun', reason=RERUN)
    source = tmp_path / 'bags'
    bags.write(source / 'day1/first', bags.images(frames=3))
    bags.write(tmp_path / 'made', bags.images(frames=3))
    storage, = (path for path in (tmp_path / 'made').iterdir() if path.suffix != '.yaml')
    lone = source / 'day2' / f'x{storage.suffix}'
    lone.parent.mkdir()
    storage.rename(lone)
    (source / 'labels.csv').write_text(
        'episode,success,failed_s\nday1/first,no,0.1\n', encoding='utf-8')
    (lone.parent / 'labels.csv').write_text('episode,success,note\nx,yes,by eye\n')
    (tmp_path / 'labels.csv').write_text('image,class\n1.jpg,cat\n')
    first, second = export_rerun(source, tmp_path / 'out', report=lambda line: None)
    assert labels_of(first) == ['failure, says human:by hand']
    assert labels_of(second) == ['success, says human:by hand: by eye']
    assert rows(first, '/label', 'StateChange:state') == [(bags.stamp_of(1), ['failure'])]
    said = []
    export_rerun(source / 'day1', tmp_path / 'more', report=said.append)
    assert labels_of(tmp_path / 'more/first.rrd') == [] and len(said) == 1


def test_a_file_of_labels_that_cannot_be_read(source, tmp_path):
    """
    It is told once, and the recordings are whole.

    It used to be read when a recording was nearly done: that one was deleted, with a message of
    columns, and no further bag was converted.
    """
    pytest.importorskip('rerun', reason=RERUN)
    bags.write(source / 'second', bags.images(frames=3))
    (source / 'labels.csv').write_text('image,class\n1.jpg,cat\n')
    said = []
    paths = export_rerun(source, tmp_path / 'out', report=said.append)
    assert [path.name for path in paths] == ['first.rrd', 'second.rrd']
    assert [line for line in said if 'without it' in line] == [said[0]]
    assert 'labels.csv: columns are image, class' in said[0]
    assert len(rows(paths[0], ATTENTION, ':blob')) == 10 and not labels_of(paths[0])


def test_a_label_behind_the_last_image(source, tmp_path):
    """A time of more seconds than a stamp can hold ended with a traceback; it is a slip."""
    pytest.importorskip('rerun', reason=RERUN)
    (source / 'labels.csv').write_text('episode,success,time_s\nfirst,success,1e300\n')
    path, = export_rerun(source, tmp_path / 'out', report=lambda line: None)
    (time, _), = rows(path, '/label', 'StateChange:state')
    assert bags.stamp_of(9) <= time <= bags.stamp_of(9, 'wrist')


def test_two_bags_of_one_name(tmp_path):
    """
    They are refused before the work.

    A recorder that was killed leaves `a.partial`. Beside a bag `a` both were written to a.rrd: the
    second took the first one's place, and both were reported.
    """
    pytest.importorskip('rerun', reason=RERUN)
    for name in ('a', 'b'):
        bags.write(tmp_path / 'bags' / name, bags.images(frames=3))
    (tmp_path / 'bags/b').rename(tmp_path / 'bags/a.partial')
    with pytest.raises(DataError, match=r'a and .*a\.partial would both be .*a\.rrd; rename'):
        export_rerun(tmp_path / 'bags', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_a_bag_with_nothing_to_show_among_others(source, tmp_path, capsys):
    """One such bag ended the command, and what came behind it was never made."""
    pytest.importorskip('rerun', reason=RERUN)
    for name in ('early', 'late'):
        bags.write(tmp_path / 'moves' / name, bags.moves(2))
    bags.write(source / 'arm', bags.moves(2))
    words = ['data', 'export', 'rerun', str(source), '--output', str(tmp_path / 'out')]
    assert main(words) == 0
    assert 'nothing in it that is shown' in capsys.readouterr().out
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['first.rrd']
    words[3] = str(tmp_path / 'moves')
    assert main(words) == 1
    assert 'none of its 2 bags can be shown' in capsys.readouterr().err


def test_numbers_of_a_later_version(tmp_path):
    """
    An unknown decision and an unknown bit of the status are shown as numbers.

    The decision ended with a traceback, and the status said OK.
    """
    pytest.importorskip('rerun', reason=RERUN)
    one = bags.success(bags.stamp_of(0), bags.START, TASK)
    one.decision, one.status = 9, 64 + 8
    bags.write(tmp_path / 'bag', [
        *bags.images(frames=3), (RESULT, one, bags.stamp_of(0) + LATE)])
    path, = export_rerun(tmp_path / 'bag', tmp_path / 'out', report=lambda line: None)
    assert [value for lane in ('decision', 'status') for _, value in rows(
        path, f'{RESULT}.{lane}', 'StateChange:state')] == [['9'], ['OUT_OF_DISTRIBUTION, 64']]


def test_without_rerun(source, tmp_path, monkeypatch, capsys):
    """One sentence says what is missing, and that ROS's environment is no place for it."""
    monkeypatch.setitem(sys.modules, 'rerun', None)
    assert main(['data', 'export', 'rerun', str(source), '--output', str(tmp_path / 'out')]) == 1
    said = capsys.readouterr().err
    assert 'pip install rerun-sdk' in said and 'numpy 2' in said and 'Traceback' not in said
    assert not (tmp_path / 'out').exists()
