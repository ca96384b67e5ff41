# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A finished bundle on somebody's own takes: all of them are measured, whatever their splits."""

from dataclasses import replace
import json
import shutil

from hralign_ros.calibration.teach import teach
from hralign_ros.cli.main import main
from hralign_ros.data.content import recording_key
from hralign_ros.data.manifest import DISCARDED, read_manifest, write_manifest
from hralign_ros.evaluation.bootstrap import EvaluationError
from hralign_ros.evaluation.bundle import (
    _as_trained,
    _data_names,
    _made_of,
    BundleReplay,
    evaluate_bundle,
)
from hralign_ros.evaluation.success import example_traces
from hralign_ros.export.writer import graphs_of, write_bundle
from hralign_ros.runtime import Decision, Encoder, load_bundle
from hralign_ros.runtime.report import silent
from hralign_ros.runtime.tasks import load_tasks
from hralign_ros.training.attempts import TAIL_S
import pytest
from support.small_lab import make_lab
from support.tiny_bundle import robot_bundle, write_beside

SPLITS = ('train', 'calibration', 'test_seen', '')


@pytest.fixture(scope='module')
def taught(tmp_path_factory):
    """Teach the tiny bundle; return its data and the bundle."""
    folder = tmp_path_factory.mktemp('lab')
    make_lab(folder / 'cup', 6, flags=True)
    teach(robot_bundle(), folder / 'cup', folder / 'bundle', report=silent)
    return folder / 'cup', folder / 'bundle'


@pytest.fixture(scope='module')
def takes(tmp_path_factory):
    """Record new takes in the same lab, with outcomes alone, which an import put into splits."""
    folder = tmp_path_factory.mktemp('takes')
    # In turn: a success, a failure.
    write_manifest(folder, [replace(e, split=SPLITS[i // 2 % 4]) for i, e in enumerate(
        make_lab(folder, 4, seed=7))])
    return folder


def measure(folder, *words):
    """Run the command; return what it wrote, and what it said."""
    assert main(['bundle', 'evaluate', *map(str, words), '--output', str(folder)]) == 0
    return json.loads((folder / 'report.json').read_text())


def episodes(report):
    """Name the episodes that were measured."""
    return [row['episode'] for row in report['tables']['episodes']]


def test_a_folder_of_takes_is_measured_whatever_its_splits(taught, takes, tmp_path, capsys):
    """
    Guards whoever checks a taught bundle on new takes: half of them were left out, or all.

    An import had put them into train and calibration, and takes with an outcome alone, which is
    all that teaching needs, were left out altogether. Of the task there was no row about
    decisions, since so few attempts back no 5 %.
    """
    _, bundle = taught
    report = measure(tmp_path, '--bundle', bundle, '--data', takes)
    assert sorted(episodes(report)) == sorted(e.episode_id for e in read_manifest(takes).episodes)
    assert {row['split'] for row in report['tables']['episodes']} == {
        'train', 'calibration', 'test_seen', 'no split'}
    rates = {row['metric']: row for row in report['rows'] if row['split'] == 'all'
             and row['conditions'] == {'alpha': 'auto'}}
    assert rates['false_alarm_rate']['value'] == 0.0 and rates['false_alarm_rate']['n'] == 4
    assert rates['false_alarm_rate']['chance'] == pytest.approx(0.1429)
    assert rates['missed_success_rate']['value'] == 0.0 and rates['missed_success_rate']['n'] == 4
    assert (tmp_path / 'traces.png').is_file()
    assert 'early_success_rate' not in rates, 'nobody knows when they succeeded'
    assert not [row for row in report['rows'] if row['metric'] == 'success_delay_median']
    warnings = ' '.join(report['warnings'])
    assert 'Measured were episodes of calibration, train, too' in warnings
    assert 'Of 4 successes only the outcome is known' in warnings
    assert 'SUCCESS in 4 of 4 successes and in 0 of 4 failures' in capsys.readouterr().out
    assert all(row['done_s'] is None and row['node_decision'] in ('SUCCESS', 'FAILURE', 'RUNNING')
               for row in report['tables']['episodes'])
    # As asked for, and no more.
    report = measure(tmp_path, '--bundle', bundle, '--data', takes, '--split', 'test_seen')
    assert len(episodes(report)) == 2 and {row['split'] for row in report['rows']} == {'test_seen'}
    assert 'train' not in ' '.join(report['warnings'])


def test_a_picture_calls_nothing_early_that_nobody_knows(taught, takes):
    """Guards outcomes alone: a SUCCESS before the last .8 s was drawn as a wrong one."""
    one = BundleReplay(Encoder.load(taught[1], provider='cpu'))
    good = next(e for e in read_manifest(takes).episodes if e.success)
    recording = one.replay(good, takes)
    assert one(recording).verdict is Decision.SUCCESS
    trace, = example_traces(one, [recording], alpha=0.0)
    assert 0.5 <= trace.threshold <= 1.0, 'that of the rate that the node takes'
    assert trace.success_s < recording.features.time_s[-1] - TAIL_S
    assert trace.done_s == trace.success_s


def test_what_a_bundle_was_taught_is_not_taken_for_new(taught, takes, tmp_path):
    """Attempts that taught it are known by their content: left out beside others, else told."""
    data, bundle = taught
    alone = measure(tmp_path / 'alone', '--bundle', bundle, '--data', data)
    assert '12 of 12 episodes were used to make the bundle' in ' '.join(alone['warnings'])
    assert len(episodes(alone)) == 12
    assert all(row['made_the_bundle'] for row in alone['tables']['episodes'])
    # Imported again under other names, together with new takes.
    both = tmp_path / 'both'
    for folder in (data, takes):
        shutil.copytree(folder / 'videos', both / 'videos', dirs_exist_ok=True)
    write_manifest(both, [
        *(replace(e, episode_id=f'old-{e.episode_id}', split='test_seen')
          for e in read_manifest(data).episodes), *read_manifest(takes).episodes])
    report = measure(tmp_path / 'report', '--bundle', bundle, '--data', both)
    assert not [name for name in episodes(report) if name.startswith('old-')]
    assert '12 episodes of these data were used to make the bundle' in ' '.join(report['warnings'])
    report = measure(tmp_path / 'report', '--bundle', bundle, '--data', both, '--split',
                     'test_seen')
    assert '12 of 14 episodes were used' in ' '.join(report['warnings'])


def test_takes_that_are_not_to_be_used(taught, takes, tmp_path):
    """Discarded takes and those that nobody labelled are left out; of them alone that is said."""
    data = read_manifest(takes)
    some = data.only([replace(data.episodes[0], tags=[DISCARDED]),
                      replace(data.episodes[1], success=None)])
    with pytest.raises(EvaluationError, match='no episode with videos and .*splits there: train'):
        evaluate_bundle(some, taught[1], tmp_path / 'report', report=silent)


def test_recordings_are_known_by_their_content(taught, takes):
    """Every attempt has a key of its own, also those that share a file; a lost file has none."""
    new = read_manifest(takes)
    kept = load_bundle(taught[1]).manifest.provenance['taught']
    assert [len(keys) for keys in kept.values()] == [12]
    one = new.episodes[0]
    keys = {recording_key(new, e) for e in (*new.episodes, replace(one, robot_span_s=(0.0, 1.0)))}
    assert len(keys) == 9 and not keys & set(next(iter(kept.values())))
    assert recording_key(new, replace(one, episode_id='other')) in keys
    assert recording_key(new, replace(one, robot_videos={'wrist': 'gone.mp4'})) == ''


@pytest.mark.parametrize(('command', 'names'), [
    ('hralign success train --data success --bundle default --also my/more data --seed 0',
     {'success', 'more', 'data'}),
    ("train --data='a b/c d' --output x", {'c d'}), ("train --data it's", {"it's"}), ('', set())])
def test_data_of_a_command(command, names):
    """What follows --data and --also, whatever else the command holds."""
    assert _data_names(command) == names


def test_a_bundle_whose_own_head_was_not_trained(taught, tmp_path):
    """
    Guards `bundle evaluate` of a new backbone that was taught a task: a ValueError.

    Of the head itself nothing is known, and commands were counted that had no training beside.
    """
    data, folder = taught
    whole = load_bundle(folder)
    write_bundle(tmp_path / 'bare', replace(whole.manifest, success=replace(
        whole.manifest.success, trained=False, training=None)), graphs_of(whole),
        load_tasks(whole))
    found = read_manifest(data)
    assert _made_of(found, found.episodes, load_bundle(tmp_path / 'bare').manifest) == {
        e.episode_id for e in found.episodes}


@pytest.mark.parametrize('everywhere', [True, False])
def test_each_head_has_splits_of_its_own(everywhere, tmp_path):
    """
    Guards figures of a head beside another one that was trained with --all-robots.

    Its attempts kept the splits of the data set: robots that it was trained on, by their seeds,
    were measured as ones that it never saw.
    """
    make_lab(tmp_path / 'data', 2, flags=True)
    data = read_manifest(tmp_path / 'data')
    data = data.only(replace(e, split='test_embodiment', seed=1, task_text=text)
                     for e in data.episodes[:1] for text in ('pick up the cup', 'close the cup'))
    write_beside(tmp_path / 'bundle', 'close the cup')
    source = load_bundle(tmp_path / 'bundle')
    (file, head), = source.manifest.heads.items()
    write_bundle(tmp_path / 'made', replace(source.manifest, success=replace(
        source.manifest.success, training=replace(head.training, all_robots=not everywhere)),
        heads={file: replace(head, training=replace(head.training, all_robots=everywhere))}),
        graphs_of(source), load_tasks(source))
    found = _as_trained(data, Encoder.load(tmp_path / 'made', provider='cpu'))
    assert [e.split == 'test_embodiment' for e in found.episodes] == [everywhere, not everywhere]
