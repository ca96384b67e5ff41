# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""From videos and stills to a bundle with a grounded head, and back through the runtime."""

from dataclasses import replace
import json
import shutil

from hralign_ros.calibration.beside import prepare_beside, write_beside
from hralign_ros.calibration.calibrate import write_calibrated
from hralign_ros.calibration.calibrated import Calibrated
from hralign_ros.calibration.scorer import Scorer
from hralign_ros.cli.main import main
from hralign_ros.data.instructions import FILE_NAME, NOT_SO, SO, STILL
from hralign_ros.data.manifest import DataError, read_manifest, write_manifest
from hralign_ros.data.replay import Recording
from hralign_ros.data.things import Places, write_things
from hralign_ros.data.token_features import episode_videos
from hralign_ros.doctor.bundle import bundle_findings
from hralign_ros.doctor.software import Choice
from hralign_ros.evaluation.bundle import BundleReplay
from hralign_ros.evaluation.success import evaluate_success
from hralign_ros.export.writer import graphs_of, write_bundle
from hralign_ros.runtime import BundleError, Encoder
from hralign_ros.runtime.bundle import load_bundle
from hralign_ros.runtime.report import silent
from hralign_ros.runtime.resources import find_share
from hralign_ros.runtime.tasks import load_tasks
from hralign_ros.runtime.video import write_video
from hralign_ros.training.checkpoints import TrainingError
from hralign_ros.training.success_clips import load_recordings, open_data
from hralign_ros.training.success_options import SuccessOptions
from hralign_ros.training.success_run import load_success_run, train_success
import numpy as np
import pytest
from support.bundles import make_variant
from support.fast_bundle import fast_bundle
from support.small_success_data import data_folder, draw_image, RULES, SIDE, TASKS
import yaml

SPLIT_FILE = str(find_share('config/splits.yaml'))
SETTINGS = ('--grounded', f'--split-file={SPLIT_FILE}', '--stills-per-step=8',
            '--texts-per-still=2', '--modes=2', '--steps=20', '--tasks-per-step=2',
            '--clips-per-task=8', '--cluster-every=10', '--checkpoint-every=10', '--average=0.8',
            '--warm-up=2', '--all-robots')
TEXTS = {task: task.replace('-', ' ') for task in TASKS}
# What the split file does not hold out.
FREE = [task for task in TASKS if not RULES.of_task(task)]


@pytest.fixture(scope='module')
def base():
    return fast_bundle(fine=True)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Add stills of every split to the small data set: where the block is, and what is so."""
    root = tmp_path_factory.mktemp('grounded') / 'data'
    shutil.copytree(data_folder(), root, ignore=shutil.ignore_patterns('features'))
    episodes = list(read_manifest(root).episodes)
    known, located = list(TASKS), []
    for number in range(24):
        split = ('train', 'train', 'calibration', 'test_seen')[number % 4]
        done = known[number % len(known)]
        rng = np.random.default_rng(number)
        place, colour = (24 + int(rng.integers(-3, 4)), 24), int(rng.integers(60, 160))
        files = {}
        for view in ('third_person', 'wrist'):
            files[view] = f'videos/still_{number}_{view}.mp4'
            write_video(root / files[view], (
                draw_image(place, TASKS[done], step, '', False, view == 'wrist', colour)
                for step in (0, 6)), 1)
        episodes.append(replace(
            episodes[0], episode_id=f'still-{number}', split=split, seed=None, human_video='',
            human_from='', robot_videos=files, time_s=[0.0, 1.0], success_flags=[False, True],
            progress=[], proprio=[], actions=[], task_id='left-corner',
            task_text=TEXTS['left-corner'], tags=(
                STILL, *(f'{SO if task == done else NOT_SO}{TEXTS[task]}' for task in TASKS))))
        located.append((f'still-{number}', [Places('block', 'third_person', np.array(
            [np.array(point) + 7 for point in (place, TASKS[done])], np.float32) / SIDE)]))
    write_manifest(root, episodes)
    write_things(root, located)
    (root / FILE_NAME).write_text(json.dumps([
        {'text': text, 'paraphrases': [f'{text}, please'], 'object': 'block', 'place': ''}
        for text in TEXTS.values()]), 'utf-8')
    return root


@pytest.fixture(scope='module')
def run_folder(tmp_path_factory, data, base):
    folder = tmp_path_factory.mktemp('run')
    assert main(['success', 'train', '--data', str(data), '--bundle', str(base), '--output',
                 str(folder), *SETTINGS]) == 0
    return folder


@pytest.fixture(scope='module')
def bundle(tmp_path_factory, data, base, run_folder):
    folder = tmp_path_factory.mktemp('bundle') / 'made'
    assert main(['success', 'calibrate', str(run_folder), '--data', str(data), '--bundle',
                 str(base), '--output', str(folder)]) == 0
    return folder


@pytest.fixture(scope='module')
def other(tmp_path_factory, bundle):
    """Make a bundle with a trained head whose tasks are none of the data set's."""
    source, folder = load_bundle(bundle), tmp_path_factory.mktemp('other') / 'made'
    table = load_tasks(source)
    write_bundle(folder, source.manifest, graphs_of(source), replace(table, tasks=tuple(
        replace(task, task_id=f'stir-{number}', name=f'stir pot {number}')
        for number, task in enumerate(table.tasks))))
    return folder


@pytest.fixture(scope='module')
def untrained(tmp_path_factory, base):
    return make_variant(tmp_path_factory.mktemp('untrained'), base,
                        change=lambda d: d['success'].update(trained=False))


@pytest.fixture(scope='module')
def promptless(tmp_path_factory, data, other):
    folder = tmp_path_factory.mktemp('promptless')
    assert main(['success', 'train', '--data', str(data), '--bundle', str(other), '--output',
                 str(folder), *SETTINGS, '--no-use-prompts']) == 0
    return folder


@pytest.fixture(scope='module')
def beside(tmp_path_factory, data, other, promptless):
    folder = tmp_path_factory.mktemp('beside') / 'made'
    assert main(['success', 'calibrate', str(promptless), '--data', str(data), '--bundle',
                 str(other), '--beside', 'blocks', '--output', str(folder)]) == 0
    return folder


def test_what_a_run_remembers(run_folder, base):
    """Guards a run that is opened again: its head looks, and what it learned from is known."""
    run = load_success_run(run_folder)
    grounding = run.head.grounding
    assert (grounding.rows, grounding.columns, grounding.see.in_features) == (14, 14, 9)
    assert grounding.text_mean.abs().max() > 0, 'the mean of what stills tell'
    # Of the training split alone; what the split file holds out is no goal.
    found = run.record['data']
    assert (found['stills'], found['goals']) == (12, len(FREE)) and len(FREE) < len(TASKS)
    # They are no attempts.
    attempts = [e for e in read_manifest(data_folder()).episodes if e.split == 'train']
    assert found['episodes'] == len(attempts)


def test_the_bundle_is_grounded(bundle, run_folder, capsys):
    """Guards what is told of it: by the manifest, the card, the doctor and `bundle verify`."""
    encoder = Encoder.load(bundle, provider='cpu')
    assert encoder.manifest.success.grounded and encoder.manifest.fine.shape == (196, 3)
    card = (bundle / 'card.md').read_text('utf-8')
    assert 'grounded: it looks for what the instruction names' in card
    assert main(['bundle', 'verify', '--bundle', str(bundle), '--device', 'cpu']) == 0
    assert 'success head trained, grounded' in capsys.readouterr().out
    said = {finding.name: str(finding) for finding in bundle_findings(
        Choice(bundle=str(bundle)), {})}
    assert 'looks for what the instruction names' in said['success head']


def test_live_is_offline(bundle, base, data, run_folder):
    """
    Guards thresholds: scores that they are fitted to are those of the node, grounded or not.

    Not grounded where the reference view was not recorded.
    """
    run = load_success_run(run_folder)
    episodes, store = open_data(data, base, run.options, basis=run.basis, report=silent)
    scorer = Scorer(run, Encoder.load(base, provider='cpu'))
    replay = BundleReplay(Encoder.load(bundle, provider='cpu'))
    recording = load_recordings(episodes, store, ['test_seen'])[0]
    for views in ((True, True), (True, False), (False, True)):
        seen = scorer.run_trace(recording, views=np.array(views))
        only = replace(recording.episode, robot_videos={
            view: file for view, file in recording.episode.robot_videos.items()
            if views[replay.encoder.manifest.views.index(view)]})
        live = replay(replay.replay(only, episodes.folder))
        np.testing.assert_allclose(live.scored.scores, scorer.score(seen).scores, atol=0.02)
        assert np.isfinite(live.probability).all()


def test_stills_are_no_attempts(bundle, base, data, run_folder, tmp_path):
    """
    Guards calibration and report: a still is two frames, seconds apart, that no node would see.

    In the splits of calibration and tests there are some, too.
    """
    counts = [e for e in read_manifest(data).episodes if e.split == 'calibration']
    attempts = [e for e in counts if STILL not in e.tags]
    assert len(attempts) < len(counts)
    task = Encoder.load(bundle, provider='cpu').tasks.match(TEXTS['left-corner'])
    assert task.calibrations[0].episodes == len(attempts)
    run = load_success_run(run_folder)
    episodes, store = open_data(data, base, run.options, basis=run.basis, report=silent)
    found, _ = evaluate_success(
        episodes, store, [run], base, tmp_path, perturbed_frames=0, device='cpu', report=silent)
    assert not any('still' in row['episode'] for row in found.tables['ticks'])
    assert {row['conditions'].get('cameras') for row in found.rows} >= {
        'all views', 'no third_person', 'third_person stuck', 'third_person 250 ms late'}


def test_a_bundle_without_fine_tokens(tmp_path):
    """Guards hours of encoding: such a bundle is refused before anything is read."""
    with pytest.raises(TrainingError, match='no fine tokens .*hralign bundle add-fine'):
        train_success(tmp_path / 'nowhere', fast_bundle(), tmp_path / 'run',
                      SuccessOptions(grounded=True, split_file=SPLIT_FILE), report=silent)


def test_a_backbone_that_crops_images(base, tmp_path):
    """
    Guards pointing: where things are is known of whole images, of which some backbones see a part.

    Simulated ones are wider than high; the wrong tokens were pointed at.
    """
    folder = tmp_path / 'crops'
    folder.mkdir()
    make_variant(folder, base, change=lambda d: d['preprocessing'].update(fit='crop'))
    with pytest.raises(TrainingError, match='does not show whole images.*--pointing 0'):
        train_success(tmp_path / 'nowhere', folder, tmp_path / 'run',
                      SuccessOptions(grounded=True, split_file=SPLIT_FILE), report=silent)
    with pytest.raises(DataError, match='nowhere'):
        train_success(tmp_path / 'nowhere', folder, tmp_path / 'other', SuccessOptions(
            grounded=True, split_file=SPLIT_FILE, pointing=0.0), report=silent)


def test_a_data_set_without_stills(base, run_folder, tmp_path):
    """
    Guards a grounded head that nothing would teach to look: said before anything is encoded.

    It was said after that, which is an hour of work for ten thousand episodes.
    """
    few = [e for e in read_manifest(data_folder()).episodes if e.split == 'train'][:2]
    (tmp_path / 'few/videos').mkdir(parents=True)
    for episode in few:
        for file in episode.robot_videos.values():
            shutil.copy(data_folder() / file, tmp_path / 'few' / file)
    write_manifest(tmp_path / 'few', [replace(e, human_video='', human_from='') for e in few])
    with pytest.raises(DataError, match='none to train on; .*--stills'):
        train_success(tmp_path / 'few', base, tmp_path / 'run',
                      load_success_run(run_folder).options, report=silent)
    assert not (tmp_path / 'few/features').exists()


def play(bundle, data, text):
    """Play an attempt to a bundle, with an instruction: its ticks."""
    folder = read_manifest(data)
    episode = next(e for e in folder.episodes if e.split == 'test_seen' and STILL not in e.tags)
    encoder = Encoder.load(bundle, provider='cpu')
    played = Recording(encoder, episode_videos(episode), folder.folder)
    return encoder, [tick for _, tick in played.play(text)]


@pytest.mark.parametrize('text', ['stir pot 1', 'whisk some pots in the corner'])
def test_a_head_beside_leaves_the_bundles_own_as_it_is(beside, other, data, text):
    """
    Guards decisions that were measured: those of the bundle's tasks stay, to the last bit.

    The new default bundle adds hundreds of tasks to a head that was proven on others.
    """
    (first, before), (second, after) = (play(folder, data, text) for folder in (other, beside))
    assert first.text.encode(text).task.task_id == second.text.encode(text).task.task_id
    for one, two in zip(before, after, strict=True):
        assert two.success.probability == one.success.probability
        assert two.success.modes == one.success.modes
        assert two.success.ood_score == one.success.ood_score
        assert two.decision == one.decision
        np.testing.assert_array_equal(two.success.video, one.success.video)
    one, two = (load_bundle(folder).manifest for folder in (other, beside))
    assert two.success == one.success and two.ood == one.ood


def test_a_head_beside_decides_for_its_tasks(beside, base, data, promptless, tmp_path):
    """
    Guards what the node runs: the scores that thresholds were fitted to, of rounded weights.

    The basis of tokens is rounded in the graph alone; these tokens of full range make the most
    of it.
    """
    encoder = Encoder.load(beside, provider='cpu')
    task = encoder.tasks.match(TEXTS['left-corner'])
    file = 'shared_head.blocks.onnx'
    assert task.head == file and not task.robot and len(encoder.tasks.tasks) == 2 * len(FREE)
    # No prompts of hundreds of tasks.
    assert encoder.bundle.manifest.files['tasks.safetensors'].bytes < 2 * len(
        load_bundle(base).read('tasks.safetensors')) + 60_000
    # So few attempts let nothing decide FAILURE, and then no risk is told.
    source, table = load_bundle(beside), encoder.tasks
    write_bundle(tmp_path / 'risky', source.manifest, graphs_of(source), replace(
        table, tasks=tuple(replace(one, modes=('failed',)) if one.head else one
                           for one in table.tasks)))
    encoder = Encoder.load(tmp_path / 'risky', provider='cpu')
    run = prepare_beside(load_success_run(promptless), beside, 'blocks')
    # With rounded weights the features were others, and all were encoded again.
    assert run.basis.key == load_success_run(promptless).basis.key
    episodes, store = open_data(data, base, run.options, basis=run.basis, report=silent)
    scorer = Scorer(run, Encoder.load(base, provider='cpu'))
    replay = BundleReplay(encoder)
    recording = load_recordings(episodes, store, ['test_seen'])[0]
    for views in ((True, True), (True, False), (False, True)):
        seen = scorer.run_trace(recording, views=np.array(views))
        only = replace(recording.episode, robot_videos={
            view: video for view, video in recording.episode.robot_videos.items()
            if views[encoder.manifest.views.index(view)]})
        live, offline = replay(replay.replay(only, episodes.folder)), scorer.score(seen)
        np.testing.assert_allclose(live.scored.scores, offline.scores, atol=0.1)
        np.testing.assert_allclose(live.scored.risks, offline.risks, atol=0.02)
        np.testing.assert_allclose(live.scored.trace.ood_score, seen.ood_score, rtol=0.02)


def test_tasks_share_their_calibrations(beside, tmp_path):
    """
    A head of 220 tasks had a tasks.yaml of a megabyte, of which each said the same.

    It was refused for its size, after the calibration.
    """
    document = yaml.safe_load((beside / 'tasks.yaml').read_text('utf-8'))
    own = [task for task in document['tasks'] if task.get('head')]
    assert len(own) == len(FREE) and all(task['shares'] for task in own)
    assert not any(task.get('calibrations') for task in own)
    loaded = [task for task in load_tasks(load_bundle(beside)).tasks if task.head]
    assert all(task.calibrations and not task.shares for task in loaded)
    del document['shared']
    folder = make_variant(tmp_path, beside, files={
        'tasks.yaml': yaml.safe_dump(document).encode()})
    with pytest.raises(BundleError, match='has the calibrations .*not there'):
        load_tasks(load_bundle(folder))


def test_instructions_that_are_like_its_own_go_to_a_head_beside(beside):
    """Guards other words: nearest to one of its tasks they are its matter, else the bundle's."""
    text = Encoder.load(beside, provider='cpu').text
    assert text.encode('left corner, quickly').task.task_id == 'fallback.blocks'
    assert text.encode('stir the pot number 1').task.task_id == 'fallback'
    assert not text.encode('left corner, quickly').known


def test_what_is_told_of_a_head_beside(beside, capsys):
    """Guards the card, the doctor and `bundle verify`: what it learned from, and its tasks."""
    card = (beside / 'card.md').read_text('utf-8')
    assert 'its head `shared_head.blocks.onnx` was trained on' in card
    assert '--no-use-prompts' in card and '| head blocks |' in card
    assert main(['bundle', 'verify', '--bundle', str(beside), '--device', 'cpu']) == 0
    assert f'shared_head.blocks.onnx, grounded; tasks {len(FREE)}' in capsys.readouterr().out
    said = {finding.name: str(finding) for finding in bundle_findings(
        Choice(bundle=str(beside)), {})}
    assert f'with {len(FREE)} tasks' in said['shared head']


@pytest.mark.parametrize(('of', 'onto', 'name', 'match'), [
    ('run_folder', 'other', 'blocks', 'has failure prompts.*--no-use-prompts'),
    ('promptless', 'bundle', 'blocks', 'knows .* already'),
    ('promptless', 'other', '../blocks', 'name'),
    ('promptless', 'untrained', 'blocks', 'not trained.*leave out --beside')])
def test_what_cannot_stand_beside(of, onto, name, match, request):
    """Guards an hour of work: a head that cannot stand beside another is refused before."""
    run, folder = load_success_run(request.getfixturevalue(of)), request.getfixturevalue(onto)
    with pytest.raises(TrainingError, match=match):
        prepare_beside(run, folder, name)


def test_calibrated_again_it_takes_its_own_place(beside, promptless):
    """Guards calibrating again: a head's tasks are in the way of others, and not of itself."""
    assert prepare_beside(load_success_run(promptless), beside, 'blocks').texts.keys() == set(FREE)
    with pytest.raises(TrainingError, match='a task has one head'):
        prepare_beside(load_success_run(promptless), beside, 'others')


def test_a_head_in_the_place_of_both(beside, promptless, base, data, tmp_path):
    """
    Guards the card: of heads that were left out it told the licences, the checks and recordings.

    Recordings that a task was taught with are nothing to keep apart once its head is gone.
    """
    run, source = load_success_run(promptless), load_bundle(beside)
    write_bundle(tmp_path / 'taught', replace(source.manifest, provenance={
        **source.manifest.provenance, 'taught': {'stir-0': ['0123']}}), graphs_of(source),
        load_tasks(source))
    write_calibrated(run, Calibrated(1.0, frozenset(run.texts)), tmp_path / 'taught',
                     tmp_path / 'alone')
    alone = load_bundle(tmp_path / 'alone').manifest
    assert 'head blocks' in source.manifest.licenses and 'head blocks' not in alone.licenses
    assert 'shared_head.blocks.onnx' in source.manifest.metrics['parity_max_abs_diff']
    assert 'shared_head.blocks.onnx' not in alone.metrics['parity_max_abs_diff']
    assert 'shared_head.blocks.onnx' not in alone.files and 'taught' not in alone.provenance


def test_tasks_that_go_are_told_of(beside, promptless, tmp_path):
    """Guards tasks of a bundle: a head of a name that was there took their place in silence."""
    run, said = load_success_run(promptless), []
    gone = min(run.texts)
    fewer = replace(run, texts={one: text for one, text in run.texts.items() if one != gone})
    run = prepare_beside(fewer, beside, 'blocks')
    write_beside(run, Calibrated(1.0, frozenset(run.texts)), beside, tmp_path / 'made', 'blocks',
                 report=said.append)
    assert any('1 of whose tasks' in line and gone in line for line in said), said


def test_a_head_of_other_inputs_is_refused(beside, tmp_path):
    """Guards optional inputs: what no head is given, and what all have to have, is named."""
    for number, (other, match) in enumerate((('success.onnx', 'mode_mask'), (
            'text.onnx', r"needed are \['mask', 'tokens'\]"))):
        (tmp_path / str(number)).mkdir()
        folder = make_variant(tmp_path / str(number), beside, files={
            'shared_head.blocks.onnx': load_bundle(beside).read(other)})
        with pytest.raises(BundleError, match=f'shared_head.blocks.onnx.*{match}'):
            Encoder.load(folder, provider='cpu')
