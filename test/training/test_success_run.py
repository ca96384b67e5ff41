# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""From videos to a calibrated bundle, a report and one more task, all through the runtime."""

from dataclasses import replace
import json
import shutil

from hralign_ros.calibration.scorer import Scorer
from hralign_ros.cli.main import main
from hralign_ros.data.manifest import DataError, read_manifest, write_manifest
from hralign_ros.data.token_features import (
    build_tokens,
    encode_recording,
    episode_videos,
    open_views,
)
from hralign_ros.evaluation.bootstrap import EvaluationError
from hralign_ros.evaluation.bundle import BundleReplay, evaluate_bundle
from hralign_ros.evaluation.report import Measured
from hralign_ros.evaluation.success import evaluate_success
from hralign_ros.evaluation.success_events import collect_streams
from hralign_ros.export.writer import require_replaceable
from hralign_ros.runtime import BundleError, Encoder, Status
from hralign_ros.runtime.images import ViewGeometry
from hralign_ros.runtime.report import silent
from hralign_ros.runtime.tasks import FALLBACK
from hralign_ros.runtime.video import read_frames, write_video
from hralign_ros.training.checkpoints import TrainingError
from hralign_ros.training.success_clips import assign_splits, load_recordings, open_data
from hralign_ros.training.success_options import SuccessOptions
from hralign_ros.training.success_run import (
    check_runs,
    load_success_run,
    train_success,
)
import numpy as np
import pytest
from support.fast_bundle import fast_bundle
from support.small_success_data import data_folder, FRAMES, RATE_HZ, TASKS
import torch

SETTINGS = ('--modes=2', '--steps=30', '--tasks-per-step=2', '--clips-per-task=8',
            '--cluster-every=10', '--checkpoint-every=10', '--average=0.8', '--warm-up=2',
            '--all-robots',
            # The shipped bundle's head is without both.
            '--newest-path', '--human-fraction=0.2')
SECOND = 1_000_000_000


def small():
    """Say which data, and which bundle."""
    return '--data', str(data_folder()), '--bundle', str(fast_bundle())


@pytest.fixture(scope='module')
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    assert main(['success', 'train', *small(), '--output', str(folder),
                 *SETTINGS]) == 0
    return folder


@pytest.fixture(scope='module')
def bundle(run_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp('bundle') / 'made'
    assert main(['success', 'calibrate', str(run_folder), *small(),
                 '--output', str(folder)]) == 0
    return folder


def tokens(data=None, **options):
    """Open the features of a data set; `run_folder` has computed those of the small one."""
    return build_tokens(data or read_manifest(data_folder()), fast_bundle(),
                        **{'report': silent, **options})


def test_features_are_those_of_every_frame(run_folder):
    features = tokens()
    one = features.load(read_manifest(data_folder()).episodes[0])
    assert one.tokens.shape == (FRAMES, 2, 49, 96) and one.present.all()
    assert one.time_s[-1] == pytest.approx((FRAMES - 1) / RATE_HZ)
    assert load_success_run(run_folder).basis.key == features.basis.key


def test_a_basis_that_is_damaged_is_one_sentence(tmp_path):
    """Guards a folder of features that was copied in part: nothing is fitted anew in silence."""
    for path in tokens().folder.glob('basis-*'):
        (tmp_path / path.name).write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match='damaged'):
        tokens(folder=tmp_path)


def test_a_camera_that_is_upside_down(tmp_path):
    """
    Guards recordings of a camera that the node turns: features are those of the upright recording.

    And of no other: a data set that is imported anew, turned, has its features made anew.
    """
    data = read_manifest(data_folder())
    episode, root = data.episodes[0], tmp_path / 'data'
    upright, turned = (replace(episode, episode_id=name) for name in ('upright', 'turned'))
    turned = replace(turned, robot_videos={**episode.robot_videos, 'wrist': 'turned.mp4'})
    for file in episode.robot_videos.values():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data.path(file), root / file)
    frames, times = read_frames(data.path(episode.robot_videos['wrist']), count=FRAMES)
    write_video(root / 'turned.mp4', frames[:, ::-1, ::-1], RATE_HZ, quality=0)
    basis = tokens().basis

    def features(some):
        write_manifest(root, [some])
        return tokens(read_manifest(root), basis=basis).load(some).tokens

    expected, as_it_lies = features(upright), features(turned)
    wrist = Encoder.load(fast_bundle(), provider='cpu').manifest.views.index('wrist')
    found = features(replace(turned, geometry={'wrist': ViewGeometry(180)}))
    np.testing.assert_array_equal(np.delete(found, wrist, 1), np.delete(expected, wrist, 1))
    # Encoded twice, colours are a little off.
    apart = [np.abs(other[:, wrist].astype(float) - expected[:, wrist]).mean()
             for other in (found, as_it_lies)]
    assert apart[0] < 0.5 * apart[1]


def test_a_recording_is_encoded_some_frames_at_a_time(monkeypatch):
    """Guards long recordings: all frames of all cameras were in memory at once, 10 GB a minute."""
    data, whole, read = read_manifest(data_folder()), tokens(), []
    encoder = Encoder.load(fast_bundle(), provider='cpu', threads=1)
    several = encoder.encode_batch

    def spy(images):
        read.append(len(images))
        return several(images)
    monkeypatch.setattr(encoder, 'encode_batch', spy)
    episode = data.episodes[0]
    parts = encode_recording(
        encoder, whole.basis, open_views(episode_videos(episode), data.folder), block=4)
    assert max(read) <= 4 and len(parts['time_s']) == FRAMES
    for name, values in parts.items():
        np.testing.assert_allclose(values.astype(float), getattr(
            whole.load(episode), name).astype(float), rtol=2e-3, atol=4e-3)


def test_the_bundle_knows_what_was_trained(bundle, run_folder):
    """Guards the contract: tasks, prompts, maps per set of views, thresholds, OOD."""
    encoder = Encoder.load(bundle, provider='cpu')
    known = {task.task_id for task in encoder.tasks.tasks}
    assert known == {'left-corner', 'right-corner'}
    assert encoder.manifest.success.trained and encoder.manifest.ood_threshold > 0
    for task in (*encoder.tasks.tasks, encoder.tasks.fallback):
        assert [one.views for one in task.calibrations] == [
            ('wrist', 'third_person'), ('wrist',), ('third_person',)]
    run = load_success_run(run_folder)
    np.testing.assert_array_equal(
        encoder.tasks.fallback.prompts, run.prompts[FALLBACK])
    modes = set(run.record['modes'].values())
    assert modes <= {0, 1} and run.record['data']['human_recordings'] > 0


def test_humans_are_looked_at_when_they_are_drawn(run_folder, tmp_path):
    """Guards the default: no hours are spent on encoding recordings that nothing trains on."""
    drawn = load_success_run(run_folder).options
    options = replace(drawn, human_fraction=0.0, steps=1)
    for share, looked_at in ((drawn, True), (options, False)):
        data, _ = open_data(data_folder(), fast_bundle(), share, report=silent)
        assert any(e.human_video for e in data.episodes) is looked_at
    run = train_success(
        data_folder(), fast_bundle(), tmp_path, options, report=silent)
    assert run.record['data']['human_recordings'] == 0


def test_live_is_offline(bundle, run_folder):
    """Guards the evaluation: live and offline scores of an episode are the same."""
    data, store = open_data(data_folder(), bundle, load_success_run(run_folder).options)
    encoder = Encoder.load(bundle, provider='cpu')
    scorer = Scorer(load_success_run(run_folder), encoder)
    from hralign_ros.training.success_clips import load_recording

    episode = next(e for e in data.episodes if e.split == 'test_seen')
    recording = load_recording(store, episode)
    expected = scorer.score(scorer.run_trace(recording)).scores
    live = encoder.start_episode(episode.task_text)
    images = {view: read_frames(data.path(file), times_s=recording.features.time_s)[0]
              for view, file in episode.robot_videos.items()}
    for i, now in enumerate(recording.features.time_s):
        tick = live.step({view: recording_[i] for view, recording_ in images.items()},
                         SECOND + round(now * SECOND))
        assert tick.success.raw_score == pytest.approx(expected[i], abs=0.02)
        assert not tick.status & Status.UNCALIBRATED
        curve = tick.success.calibration
        assert tick.success.probability == pytest.approx(curve.apply(tick.success.raw_score))


def test_the_report(run_folder, tmp_path):
    assert main(['success', 'evaluate', str(run_folder), *small(),
                 '--output', str(tmp_path)]) == 0
    report = json.loads((tmp_path / 'report.json').read_text())
    found = Measured(report['rows'])
    for metric, conditions in (
            ('auroc', {}), ('expected_calibration_error', {'ticks': 'random'}),
            ('progress_rank_correlation', {'episodes': 'successes'}),
            ('instruction_accuracy', {})):
        assert found.find(metric, 'failure prompts', 'test_seen', **conditions)['n'] > 0
    # 8 attempts of either kind are too few for a threshold: nothing is decided, and nothing shown.
    assert not {row['metric'] for row in report['rows']} & {
        'false_alarm_rate', 'missed_success_rate', 'early_success_rate', 'false_success_rate'}
    assert any('16 of 16 attempts have no threshold' in line for line in report['warnings'])
    time_alone = found.find('auroc', 'time alone', 'test_seen')
    assert 0 <= time_alone['value'] <= 1 and time_alone['control']
    assert {row['conditions'].get('cameras') for row in report['rows']} >= {
        'all views', 'no wrist', 'wrist stuck', 'wrist 1000 ms late'}
    assert {f['name'] for f in report['figures']} >= {
        'auroc', 'reliability', 'traces', 'instructions', 'modes'}


def test_the_card_says_what_was_measured(run_folder, tmp_path):
    """Guards the card of a bundle: figures with their intervals, from the report."""
    report = tmp_path / 'report'
    assert main(['success', 'evaluate', str(run_folder), *small(), '--output',
                 str(report)]) == 0
    assert main(['success', 'calibrate', str(run_folder), *small(), '--output',
                 str(tmp_path / 'bundle'), '--report', str(report / 'report.json')]) == 0
    card = (tmp_path / 'bundle' / 'card.md').read_text()
    rows = json.loads((report / 'report.json').read_text())['rows']
    value = Measured(rows).find('auroc', 'failure prompts', 'test_seen')['value']
    assert f'| `auroc` |  | test_seen | {value:.3f} [' in card
    assert '**not trained**' not in card and 'hralign success calibrate' in card


def test_more_data_to_train_on(run_folder, tmp_path):
    """Guards a second data set: its training episodes are added, in the first one's basis."""
    other = tmp_path / 'other'
    shutil.copytree(data_folder(), other, ignore=shutil.ignore_patterns('features'))
    few = read_manifest(other)
    write_manifest(other, [replace(e, episode_id=f'other-{e.episode_id}')
                           for e in few.episodes if e.seed == 10])
    run = train_success(data_folder(), fast_bundle(), tmp_path / 'run', replace(
        load_success_run(run_folder).options, steps=1), also=[other], report=silent)
    used = load_success_run(run_folder).record['data']['episodes']
    assert run.record['data']['episodes'] == used + 4
    assert not (other / 'features').exists()


def test_a_finished_bundle_is_measured_as_it_is(bundle, run_folder, tmp_path, capsys):
    """
    Guards what is deployed: the report on a run fits its own thresholds, whatever a bundle holds.

    Replayed through the runtime, raw scores are those of the offline head, and decisions follow
    the bundle's own thresholds and status bits.
    """
    output = tmp_path / 'report'
    assert main(['bundle', 'evaluate', '--bundle', str(bundle), '--data', str(data_folder()),
                 '--output', str(output)]) == 0
    report = json.loads((output / 'report.json').read_text())
    assert 'wrote' in capsys.readouterr().out and (output / 'report.html').is_file()
    # What it was made of is left out: the data have the name that its training notes.
    assert {row['split'] for row in report['rows']} == {'all', 'test_seen', 'test_task'}
    assert 'used to make the bundle, and are left out' in ' '.join(report['warnings'])
    found = {(row['conditions']['status'], row['split']): row['value']
             for row in report['rows'] if row['metric'] == 'status_rate'}
    assert found['UNKNOWN_TASK', 'test_task'] == 1.0
    assert found['UNKNOWN_TASK', 'test_seen'] == found['UNCALIBRATED', 'test_seen'] == 0.0
    run = load_success_run(run_folder)
    encoder = Encoder.load(bundle, provider='cpu')
    data, store = open_data(data_folder(), fast_bundle(), run.options, basis=run.basis)
    scorer, replay = Scorer(run, encoder), BundleReplay(encoder)
    for recording in load_recordings(data, store, ['test_seen', 'test_task']):
        played = replay.replay(recording.episode, data.folder)
        offline, live = scorer.score(scorer.trace_of(recording)), replay(played).scored
        np.testing.assert_allclose(live.scores, offline.scores, atol=0.05)
        np.testing.assert_array_equal(live.done, offline.done)
        known = recording.episode.split == 'test_seen'
        assert np.isfinite(replay(played).probability).all()
        # As the node compares them: single precision blurs the steps of isotonic maps.
        assert (replay(played).probability != replay(played).probability.astype(np.float32)).any()
        np.testing.assert_allclose(live.risks, offline.risks, atol=0.05)
        assert known or replay(played).decision() is None
        assert replay.knows(played) == known
    # What counts are the words, as in the node, and not what an importer calls the task.
    other = replace(recording.episode, task_id=list(TASKS)[0], task_text='something else')
    assert not replay.knows(replay.replay(other, data.folder))
    with pytest.raises(EvaluationError, match='no episode of train-2.*splits there: calibration'):
        evaluate_bundle(data, bundle, output, splits=['train-2'])
    # Streams are no attempts; of them alone there is nothing to say, and that is said at once.
    streams = data.only([replace(e, tags=('stream:idle',)) for e in data.episodes])
    with pytest.raises(EvaluationError, match='no episode with videos'):
        evaluate_bundle(streams, bundle, output)


def test_what_a_bundle_was_trained_on_is_not_its_test(bundle, tmp_path):
    """
    Guards honest figures: robots that are held out by default may be in the training of this one.

    Seeds of theirs that trained the head were played to it as a test, and nobody was warned. Where
    there is nothing else, they are measured as what they are.
    """
    data = read_manifest(data_folder())
    arm = data.only([replace(e, embodiment='ur5e', split='test_embodiment')
                     for e in data.episodes if e.seed % 10 == 0 and e.task_id in list(TASKS)[:2]])
    evaluate_bundle(arm, bundle, tmp_path / 'report')
    report = json.loads((tmp_path / 'report' / 'report.json').read_text())
    assert {row['split'] for row in report['rows']} == {'train'}
    count = len(report['tables']['episodes'])
    assert f'{count} of {count} episodes were used to make the bundle' in ' '.join(
        report['warnings'])
    # Of the same name, but of other sources: nothing says that it was made of them.
    own = arm.only(replace(e, source='folder') for e in arm.episodes[:4])
    evaluate_bundle(own, bundle, tmp_path / 'report')
    report = json.loads((tmp_path / 'report' / 'report.json').read_text())
    assert 'Measured were episodes of train, too' in ' '.join(report['warnings'])
    assert not any(row['made_the_bundle'] for row in report['tables']['episodes'])


def test_two_tasks_of_one_instruction(tmp_path):
    """
    Guards training on several sources: both were each other's negatives, word for word.

    The bundle that came of it replaced the old one, and could not be loaded.
    """
    data = read_manifest(data_folder())
    task = list(TASKS)[0]
    write_manifest(tmp_path, [
        replace(e, task_id='left', task_text='Left corner.') if e.task_id == task
        and e.seed == 10 else e for e in data.episodes])
    shutil.copytree(data_folder() / 'videos', tmp_path / 'videos')
    with pytest.raises(TrainingError, match="'left corner' names both left and left-corner"):
        train_success(tmp_path, fast_bundle(), tmp_path / 'run', SuccessOptions(
            steps=1, all_robots=True), store=data_folder() / 'features', report=silent)


def test_human_fraction_without_human_recordings(tmp_path):
    """Guards comparisons: a head with human video was one without, and nobody said so."""
    data = read_manifest(data_folder())
    write_manifest(tmp_path, [replace(e, human_video='', human_from='') for e in data.episodes])
    shutil.copytree(data_folder() / 'videos', tmp_path / 'videos')
    with pytest.raises(TrainingError, match='human_fraction is 0.2, and there is no human'):
        train_success(tmp_path, fast_bundle(), tmp_path / 'run', SuccessOptions(
            steps=1, all_robots=True, human_fraction=0.2), store=data_folder() / 'features',
            report=silent)


@pytest.mark.parametrize('change, what', [
    ('recordings', 'the recordings that they were trained on'), ('seed', 'the seeds 0, 0'),
    ('trained_on', 'the recordings that they were trained on')])
def test_runs_that_are_no_seeds_of_one_training(run_folder, tmp_path, change, what):
    """Guards means over seeds: data that grew between two runs make two trainings of them."""
    other = tmp_path / 'other'
    shutil.copytree(run_folder, other)
    record = json.loads((other / 'run.json').read_text())
    if change != 'seed':
        record['options']['seed'] = 1
        record['data'][change] = 'others'
    (other / 'run.json').write_text(json.dumps(record))
    with pytest.raises(TrainingError, match=what):
        check_runs([load_success_run(run_folder), load_success_run(other)], fast_bundle())


@pytest.mark.parametrize('command', ['calibrate', 'teach'])
def test_no_folder_of_other_things_is_replaced(bundle, run_folder, tmp_path, capsys, command):
    """
    Guards recordings and runs: a bundle was put in the place of whatever --output named.

    `hralign success calibrate RUN --data DATA --output RUN` deleted the run.
    """
    kept = tmp_path / 'kept'
    kept.mkdir()
    (kept / 'recordings').write_text('precious')
    words = {'calibrate': [str(run_folder), '--data', str(data_folder())],
             'teach': ['--data', str(data_folder())]}
    assert main(['success', command, *words[command], '--bundle', str(bundle), '--output',
                 str(kept)]) == 1
    assert 'holds other things' in capsys.readouterr().err
    assert (kept / 'recordings').read_text() == 'precious'
    with pytest.raises(BundleError, match='holds other things'):
        require_replaceable(kept / 'recordings')


def test_a_run_looks_at_other_data_in_its_own_basis(run_folder, tmp_path):
    """
    Guards calibrating on a robot of one's own with a head that was trained elsewhere.

    Each data set had a basis fitted to itself: the head read numbers that meant something else,
    and maps and thresholds were fitted to noise.
    """
    run = load_success_run(run_folder)
    other = tmp_path / 'other'
    shutil.copytree(data_folder(), other, ignore=shutil.ignore_patterns('features'))
    few = [e for e in read_manifest(other).episodes if e.seed in (0, 10)][:3]
    write_manifest(other, [replace(e, split='train') for e in few])
    own = tokens(read_manifest(other))
    assert own.basis.key != run.basis.key, 'other data, another basis'
    data, store = open_data(other, fast_bundle(), run.options, basis=run.basis,
                            report=silent)
    assert store.basis.key == run.basis.key and store.key != own.key
    lines = []
    where_it_was_trained = open_data(data_folder(), fast_bundle(), run.options,
                                     basis=run.basis, report=lines.append)[1]
    assert not lines, 'nothing is encoded again'
    np.testing.assert_allclose(
        store.load(data.episodes[0]).tokens, where_it_was_trained.load(few[0]).tokens, atol=2e-3)


def test_an_evaluation_of_little_data(run_folder, tmp_path):
    """
    Guards a report on few recordings: what cannot be measured is left out, not all the rest.

    Without a success among the tests, or with one known task, all was lost at the end.
    """
    run = load_success_run(run_folder)
    data, store = open_data(data_folder(), fast_bundle(), run.options, basis=run.basis,
                            report=silent)
    few = data.only(e for e in data.episodes if e.split != 'test_seen' or not e.success)
    said = []
    found, _ = evaluate_success(few, store, [run], fast_bundle(), tmp_path,
                                perturbed_frames=0, report=said.append)
    assert (tmp_path / 'report.html').is_file()
    assert any(line.startswith('instructions left out') for line in said)
    assert found.find('expected_calibration_error', 'failure prompts', 'test_seen',
                      ticks='random')
    recordings = load_recordings(data, store, ['test_seen'])
    alone = recordings[0].episode.task_id
    streams = collect_streams(recordings, {alone: 'the only task'})
    assert all(recording.episode.task_id != alone for recording, _ in streams['wrong task'])


def test_what_was_trained_on_is_no_test(run_folder, tmp_path):
    """
    Guards figures after an import with another split file: trained episodes became tests.

    Calibration was refused then, if those it had were trained on; the tests were never looked at.
    """
    run = load_success_run(run_folder)
    data, store = open_data(data_folder(), fast_bundle(), run.options, basis=run.basis,
                            report=silent)
    moved = next(e for e in data.episodes if e.split == 'train')
    again = data.only(replace(e, split='test_seen') if e is moved else e for e in data.episodes)
    with pytest.raises(EvaluationError, match=f'1 test episodes .* such as {moved.episode_id}'):
        evaluate_success(again, store, [run], fast_bundle(), tmp_path, report=silent)


def test_two_episodes_of_one_name(run_folder, tmp_path):
    """Guards --also: failure modes are kept by id, so one's would be the other's."""
    run = load_success_run(run_folder)
    with pytest.raises(TrainingError, match='both have an episode'):
        train_success(data_folder(), fast_bundle(), tmp_path, replace(run.options, steps=1),
                      also=[data_folder()], report=silent)


@pytest.mark.skipif(torch.cuda.is_available(), reason='asks for a GPU where there is none')
@pytest.mark.parametrize('words', [
    'encoder train', 'encoder evaluate {no}', 'success train', 'success calibrate {no}',
    'success evaluate {no}', 'bundle evaluate',
    'success teach'])
def test_a_gpu_that_is_not_there(tmp_path, capsys, words):
    """Before any work is done, so that hours of features are not lost to it."""
    no = tmp_path / 'no'
    command = f'{words} --data {{no}} --output {{no}}/out --device cuda'.format(no=no)
    assert main(command.split()) == 1
    assert 'device is cuda, and torch finds no GPU' in capsys.readouterr().err
    assert not no.exists()


@pytest.mark.parametrize(('words', 'said'), [
    ('calibrate {empty} --data {data} --output {out}', 'no finished run there'),
    ('evaluate {run} --data {empty} --bundle {base} --output {out}', 'manifest'),
    ('train --data {data} --output {out} --modes 0', 'modes is 0'),
    ('train --data {data} --output {run} --modes 2', 'holds a run already; add --resume'),
    # Before anything is encoded: the folder of data is empty.
    ('train --data {empty} --output {run} --resume --modes 3', 'modes was 2 and is now 3')])
def test_what_cannot_work_is_one_sentence(run_folder, tmp_path, capsys, words, said):
    """Guards against a traceback, and against files that were half written."""
    (tmp_path / 'empty').mkdir()
    places = {'empty': tmp_path / 'empty', 'data': data_folder(), 'run': run_folder,
              'out': tmp_path / 'out', 'base': fast_bundle()}
    assert main(['success', *(word.format(**places) for word in words.split())]) == 1
    told = capsys.readouterr().err
    assert said in told and 'Traceback' not in told


def test_a_run_of_another_version(run_folder, tmp_path):
    """A run with an option that was taken out again ended in a TypeError; it is said now."""
    shutil.copytree(run_folder, tmp_path / 'run')
    record = json.loads((run_folder / 'run.json').read_text())
    record['options']['luck'] = 1.0
    (tmp_path / 'run' / 'run.json').write_text(json.dumps(record))
    with pytest.raises(TrainingError, match="another version .*'luck'"):
        load_success_run(tmp_path / 'run')


def test_robots_left_out_and_taken_in():
    """Guards leave-one-out: a robot is tested, or trained on; what else was split stays."""
    data = read_manifest(data_folder())
    some = data.only(replace(e, split='test_embodiment') if e.seed == 10 else e
                     for e in data.episodes)
    kept = assign_splits(some, SuccessOptions())
    assert [e.split for e in kept.episodes] == [e.split for e in some.episodes]
    back = assign_splits(some, SuccessOptions(all_robots=True))
    assert [e.split for e in back.episodes] == [e.split for e in data.episodes]
    apart = assign_splits(data, SuccessOptions(leave_out='panda'))
    assert {e.split for e in apart.episodes} == {'test_embodiment'}
