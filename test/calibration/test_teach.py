# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""From attempts in a lab that nobody has seen to a bundle that decides there, or says why not."""

from dataclasses import replace
import json
import shutil
from types import SimpleNamespace

from hralign_ros.calibration.taught_task import _head_file, score_attempts, verdict
from hralign_ros.calibration.teach import _read_otherwise, _task_id, teach
from hralign_ros.cli.main import main
from hralign_ros.data.embedding_features import build_embeddings
from hralign_ros.data.manifest import DataError, Episode, read_manifest, write_manifest
from hralign_ros.export.writer import graphs_of, write_bundle
from hralign_ros.runtime import Decision, Encoder, load_bundle, PARTS, Status
from hralign_ros.runtime.policy import Policy
from hralign_ros.runtime.report import silent
from hralign_ros.runtime.schema import to_document
from hralign_ros.runtime.tasks import load_tasks
from hralign_ros.runtime.video import read_frames, write_video
from hralign_ros.training.attempts import label, load_attempts
from hralign_ros.training.taught_head import folds
import numpy as np
import pytest
from support.small_lab import draw, make_lab, RATE_HZ, TASK
from support.tiny_bundle import robot_bundle, ROBOT_VIEWS, write_beside, write_tiny_bundle
from support.tiny_policy import write_tiny_policy


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    """Teach the tiny bundle twelve attempts with known times of success."""
    folder = tmp_path_factory.mktemp('lab')
    make_lab(folder / 'data', 6, flags=True)
    return folder, teach(robot_bundle(), folder / 'data', folder / 'taught', report=silent)


def run(encoder, images, change=lambda view, image: image, task=TASK):
    """Play an attempt to a bundle; return its ticks."""
    episode = encoder.start_episode(task)
    return [episode.step({view: change(view, some[i]) for view, some in images.items()},
                         stamp=10 ** 9 + round(i / RATE_HZ * 1e9))
            for i in range(len(images['wrist']))]


def test_the_node_decides_in_a_lab_that_it_was_taught(lab):
    """
    Guards the first hour with a new robot: every tick was OUT_OF_DISTRIBUTION, for ever.

    Fresh attempts, through the runtime: successes are decided once the block is in its corner,
    failures never.
    """
    folder, taught = lab
    encoder = Encoder.load(folder / 'taught')
    for number in range(6):
        for kind in ('', 'stops_early', 'near_miss'):
            images, arrives = draw(np.random.default_rng([9, number, len(kind)]), kind)
            ticks = run(encoder, images)
            said = [tick.decision for tick in ticks]
            assert not any(tick.status for tick in ticks)
            if kind:
                assert Decision.SUCCESS not in said
            else:
                assert said.index(Decision.SUCCESS) >= arrives - 2, 'no earlier than labels tell'
                assert ticks[-1].alpha == pytest.approx(0.1429), '1 / (6 + 1), rounded up'
    assert taught.tasks[0].calibration.evidence.suffices
    # That of FAILURE has a rate of its own, by the successes.
    task, views = encoder.tasks.tasks[-1], encoder.manifest.views
    assert task.failure_rate(views) == pytest.approx(0.1429)
    assert any('expected at most in 14.3 % of successes' in line
               for line in verdict(taught.tasks[0]))
    assert 'FAILURE is decided at a false-alarm rate of 0.143' in task.verdict(views)


def test_a_grounded_bundle_is_taught(lab, tmp_path):
    """
    Guards labs that start from a grounded bundle: a taught task's head decides, as on any other.

    And the bundle's own head goes on looking at fine tokens for all other tasks.
    """
    base, output = tmp_path / 'base', tmp_path / 'taught'
    base.mkdir()
    write_tiny_bundle(base, ROBOT_VIEWS, fine=True, grounded=True)
    plain = lab[1]
    made = teach(base, plain.data.folder, output, store=tmp_path / 'features', report=silent)
    assert load_bundle(output).manifest.success.grounded
    one, other = (result.tasks[0].calibration for result in (plain, made))
    assert one.thresholds == other.thresholds and one.parameters == other.parameters
    encoder = Encoder.load(output, provider='cpu', threads=1)
    images, _ = draw(np.random.default_rng([9, 0, 0]), '')
    assert Decision.SUCCESS in [tick.decision for tick in run(encoder, images)]
    levels = [np.float32(image).mean() / 255 for image in images['third_person']]
    scores = [tick.success.raw_score for tick in run(encoder, images, task='pick up the cup')]
    np.testing.assert_allclose(scores, 10 * levels[0] + np.array(levels), atol=0.01)


def test_what_is_no_image_of_the_lab_is_out_of_distribution(lab):
    folder, _ = lab
    encoder = Encoder.load(folder / 'taught')
    images, _ = draw(np.random.default_rng(5), '')
    for name, change in (
            ('covered', lambda view, image: np.zeros_like(image)),
            ('another table', lambda view, image: image[..., ::-1].copy())):
        ticks = run(encoder, images, change)
        assert all(tick.status & Status.OUT_OF_DISTRIBUTION for tick in ticks), name
        assert all(tick.decision is Decision.ABSTAIN for tick in ticks), name


def test_all_other_tasks_stay_as_they_are(lab):
    folder, _ = lab
    before, after = (load_tasks(load_bundle(path)) for path in (robot_bundle(), folder / 'taught'))
    for old, new in zip((*before.tasks, before.fallback), (*after.tasks[:-1], after.fallback),
                        strict=True):
        assert to_document(old) == to_document(new)
        assert np.array_equal(old.prompts, new.prompts)
    assert after.tasks[-1].robot == 'kinova' and not after.tasks[0].head
    images, _ = draw(np.random.default_rng(5), '')
    ours, theirs = (run(Encoder.load(path), images, task='pick up the cup')
                    for path in (robot_bundle(), folder / 'taught'))
    assert [t.success.probability for t in ours] == [t.success.probability for t in theirs]


def test_policies_that_learnt_on_the_bundle_go_on_working(lab, tmp_path):
    """
    Guards who teaches after a policy was trained: it refused embeddings that were the same.

    To the bit, every part of them; and so nothing of demonstrations is encoded again either.
    """
    folder, _ = lab
    before, after = (Encoder.load(path, provider='cpu', threads=1, parts=PARTS)
                     for path in (robot_bundle(), folder / 'taught'))
    images, _ = draw(np.random.default_rng(5), '')
    for ours, theirs in zip(run(before, images), run(after, images), strict=True):
        np.testing.assert_array_equal(ours.embedding, theirs.embedding)
    assert before.identity == after.identity
    assert before.bundle.sha256 != after.bundle.sha256
    policy = write_tiny_policy(tmp_path / 'policy', before, PARTS, ('wrist', 'third_person'),
                               task=TASK)
    assert Policy.load(policy, after)
    assert _read_otherwise(before, after.tasks.tasks) == ''
    other, = _read_otherwise(before, [replace(after.tasks.tasks[-1], aliases=('shut it',))]
                             ).split(' or ')[1:]
    assert "'shut it', which is read as" in other
    data = read_manifest(folder / 'data')
    said = []
    for path, count in ((robot_bundle(), len(data.episodes)), (folder / 'taught', 0)):
        said.clear()
        build_embeddings(data, path, TASK, folder=tmp_path / 'features', report=said.append)
        assert any(f'{count} of {len(data.episodes)} clips to encode' in line
                   for line in said) == bool(count), said


def test_what_is_measured_is_what_the_node_says(lab, tmp_path):
    """One implementation: a head on stored features, and the graph in an episode."""
    folder, taught = lab
    make_lab(tmp_path, 2, seed=4, flags=True)
    found = load_attempts(read_manifest(tmp_path), robot_bundle(), folder=folder / 'data/features',
                          report=silent)
    encoder = Encoder.load(folder / 'taught')
    for one in score_attempts(taught.tasks[0], found.attempts):
        images = {view: list(read_frames(tmp_path / file, times_s=one.attempt.time_s)[0])
                  for view, file in one.attempt.episode.robot_videos.items()}
        live = [tick.success.probability for tick in run(encoder, images)]
        assert live == pytest.approx(one.probability.tolist(), abs=5e-3)


def test_only_new_attempts_are_encoded(lab, tmp_path):
    folder, _ = lab
    shutil.copytree(folder / 'data/videos', tmp_path / 'videos')
    before = read_manifest(folder / 'data').episodes
    write_manifest(tmp_path, [*before, *make_lab(tmp_path, 1, seed=3, flags=True)])
    said = []
    teach(robot_bundle(), tmp_path, tmp_path / 'out', store=folder / 'data/features',
          report=said.append)
    assert any('2 of 14 clips to encode' in line for line in said), said


def test_labels_that_images_do_not_show_get_no_threshold(tmp_path):
    """
    Guards the bundle that decided at 8 %: what does not beat elapsed time decides nothing.

    Success and failure look the same here. The bundle is written all the same, and says so.
    """
    episodes = make_lab(tmp_path, 10)
    some = [e for e in episodes if e.success]
    write_manifest(tmp_path, [replace(e, success=i % 2 == 0) for i, e in enumerate(some)])
    said = []
    taught = teach(robot_bundle(), tmp_path, tmp_path / 'out', report=said.append)
    assert not taught.tasks[0].table and not taught.tasks[0].calibration.rates
    assert any('ABSTAIN, always' in line and 'elapsed time' in line for line in said)
    encoder = Encoder.load(tmp_path / 'out')
    images, _ = draw(np.random.default_rng(1), '')
    assert {tick.decision for tick in run(encoder, images)} == {Decision.ABSTAIN}
    assert 'elapsed time' in encoder.tasks.tasks[-1].verdict(encoder.manifest.views)


def test_one_camera_suffices(tmp_path):
    """With outcomes alone, by one view; without the other one a node is calibrated just so."""
    make_lab(tmp_path, 6, views=('third_person',))
    taught = teach(robot_bundle(), tmp_path, tmp_path / 'out', report=silent)
    assert taught.tasks[0].calibration.views == ('third_person',) and taught.tasks[0].table
    encoder = Encoder.load(tmp_path / 'out')
    images, _ = draw(np.random.default_rng(7), '')
    episode = encoder.start_episode(TASK)
    ticks = [episode.step({'third_person': image}, stamp=10 ** 9 + i * 200_000_000)
             for i, image in enumerate(images['third_person'])]
    assert ticks[-1].decision is Decision.SUCCESS
    assert ticks[-1].status == Status.VIEW_MISSING


def test_a_view_that_fails_leaves_the_other_one(lab):
    folder, _ = lab
    encoder = Encoder.load(folder / 'taught')
    images, _ = draw(np.random.default_rng(8), '')
    episode = encoder.start_episode(TASK)
    ticks = [episode.step({'wrist': image}, stamp=10 ** 9 + i * 200_000_000)
             for i, image in enumerate(images['wrist'])]
    assert ticks[-1].decision is Decision.SUCCESS


def test_takes_of_one_session_stay_together():
    def attempt(number, succeeds, session):
        return SimpleNamespace(succeeds=succeeds, episode=SimpleNamespace(
            session=session, episode_id=str(number)))

    some = [attempt(i, i % 3 != 0, f's{i // 4}') for i in range(40)]
    fold = folds(some)
    assert all(len({f for f, a in zip(fold, some, strict=True) if a.episode.session == s}) == 1
               for s in {a.episode.session for a in some})
    assert set(fold) == set(range(10))


def test_what_cannot_be_taught_is_said_before_any_work(tmp_path):
    episodes = make_lab(tmp_path, 2)
    output = tmp_path / 'out'

    def refused(episodes, **more):
        write_manifest(tmp_path, episodes)
        with pytest.raises(DataError) as caught:
            teach(robot_bundle(), tmp_path, output, report=silent, **more)
        assert not output.exists() and not (tmp_path / 'features').exists()
        return str(caught.value)

    good = [e for e in episodes if e.success]
    assert '2 attempts that succeed and 0 that fail' in refused(good)
    assert "no attempt at 'fly'" in refused(episodes, tasks=['fly'])
    assert 'attempts of kinova, ur5e' in refused(
        [*episodes[1:], replace(episodes[0], embodiment='ur5e')])
    assert 'region of view left' in refused(episodes, regions={'left': (0, 0, 1, 1)})
    assert 'ascending fractions' in refused(episodes, regions={'wrist': (0.5, 0, 0.2, 1)})
    assert 'none of its 4 episodes says' in refused(
        [replace(e, success=None) for e in episodes]) or True


def test_a_bundle_without_a_trained_head_can_be_taught(tmp_path):
    """Guards a newly exported backbone: a page with "6 of 6", and a node that always abstained."""
    make_lab(tmp_path / 'data', 6, flags=True)
    whole = load_bundle(robot_bundle())
    write_bundle(tmp_path / 'bare', replace(whole.manifest, success=replace(
        whole.manifest.success, trained=False, training=None)), graphs_of(whole),
        load_tasks(whole))
    teach(tmp_path / 'bare', tmp_path / 'data', tmp_path / 'out', report=silent)
    images, _ = draw(np.random.default_rng(7), '')
    ticks = run(Encoder.load(tmp_path / 'out'), images)
    assert ticks[-1].decision is Decision.SUCCESS and not ticks[-1].status
    assert ticks[-1].success.progress is None


def test_a_bundle_with_a_head_beside_its_own_can_be_taught(tmp_path):
    """
    Guards teaching on top of a shared head: attempts are encoded with the bundle's own head.

    They were played with the words 'a task', and where a task of a shared head is nearest to those
    no vector was made of them: teaching ended with an IndexError.
    """
    make_lab(tmp_path / 'data', 6, flags=True)
    write_beside(tmp_path / 'source', 'do a task')
    assert Encoder.load(tmp_path / 'source').text.encode('a task').task.head
    teach(tmp_path / 'source', tmp_path / 'data', tmp_path / 'out', report=silent)
    images, _ = draw(np.random.default_rng(7), '')
    encoder = Encoder.load(tmp_path / 'out')
    assert run(encoder, images)[-1].decision is Decision.SUCCESS
    assert encoder.tasks.match('do a task').head == 'shared_head.more.onnx'
    assert [one.head for one in encoder.tasks.others] == ['shared_head.more.onnx']


def test_attempts_without_a_camera_are_left_out(tmp_path):
    """
    Guards the other camera: one attempt lacked it, and it was looked at no more, without a word.

    Where most attempts lack a view it is not looked at, and a node that has it decides all the
    same.
    """
    episodes = make_lab(tmp_path, 6, flags=True)
    first = replace(episodes[0], robot_videos={
        'third_person': episodes[0].robot_videos['third_person']})
    write_manifest(tmp_path, [first, *episodes[1:]])
    said = []
    taught = teach(robot_bundle(), tmp_path, tmp_path / 'out', report=said.append)
    assert len(taught.tasks[0].scored) == 11 and taught.tasks[0].views == {
        'third_person', 'wrist'}
    assert any(f'left out, as they lack wrist or third_person: {first.episode_id}' in line
               for line in said)
    alone = [replace(e, robot_videos={'third_person': e.robot_videos['third_person']})
             for e in episodes]
    write_manifest(tmp_path, [*alone[:-1], episodes[-1]])
    taught = teach(robot_bundle(), tmp_path, tmp_path / 'out', report=said.append)
    assert any('not looked at, as most attempts lack it: wrist' in line for line in said)
    images, _ = draw(np.random.default_rng(7), '')
    assert run(Encoder.load(tmp_path / 'out'), images)[-1].decision is Decision.SUCCESS


def test_a_success_that_only_the_last_frame_tells():
    """
    Guards data sets of LeRobot: next.success is set in the last frame, which no tick at 5 Hz saw.

    The success was one that is never accomplished.
    """
    episode = Episode('e', 't', 't', 's', 'c', 'a', 'f', '', success=True,
                      time_s=[i / 30 for i in range(100)],
                      success_flags=[False] * 99 + [True])
    ticks = np.append(np.arange(0.0, 3.3, 0.2), 3.3)
    done, *_ = label(episode, ticks)
    assert done[-1] == 1 and (done[:-3] == 0).all() and np.isnan(done[-3:-1]).all()
    done, *_ = label(episode, ticks[:-1])
    assert (done[-4:] == 1).all(), 'by its outcome, where no tick is flagged'


def test_sessions_of_one_kind_each_are_refused():
    """Guards who records successes in the morning and failures in the afternoon: a traceback."""
    some = [SimpleNamespace(succeeds=i < 6, episode=SimpleNamespace(
        session='am' if i < 6 else 'pm', episode_id=str(i))) for i in range(12)]
    with pytest.raises(DataError, match='sessions, attempts that succeed of 1; at least two'):
        folds(some)


def test_two_sessions_are_too_few_to_decide_by(tmp_path):
    """
    Guards figures of attempts left out: what was fitted had been chosen with them after all.

    With one session left out, one remains, by which nothing can be chosen; all were asked then.
    """
    write_manifest(tmp_path, [replace(e, session=f'day {i // 2 % 2}')
                              for i, e in enumerate(make_lab(tmp_path, 6, flags=True))])
    said = []
    taught = teach(robot_bundle(), tmp_path, tmp_path / 'out', report=said.append)
    assert not taught.tasks[0].table and taught.tasks[0].calibration.evidence is None
    assert any('ABSTAIN, always: too few attempts or sessions' in line for line in said)


def test_instructions_in_other_letters(tmp_path):
    """Guards instructions that plain letters do not tell apart: a traceback after the fits."""
    encoder = Encoder.load(robot_bundle())
    ids = [_task_id(encoder, text) for text in (
        'stell die Tasse \u00e4', 'stell die Tasse \u00f6', '\u628a\u676f\u5b50', 'Put it in')]
    assert len(set(ids)) == 4 and all(one.isascii() and one for one in ids)
    assert ids[3] == 'put-it-in' and _task_id(encoder, 'pick up the cup') == 'cup'
    assert '/' not in _head_file('a/b') and _head_file('a/b') != _head_file('a-b')


def test_what_the_first_image_tells_is_no_success(tmp_path):
    """
    Guards who records ten successes, then ten failures: only the light told them apart.

    The figures were perfect. They still are, and a warning stands beside them.
    """
    episodes = []
    for e in make_lab(tmp_path, 10):
        if e.success:
            bright = int(e.episode_id.split('-')[1]) % 2
            if bright:
                for file in e.robot_videos.values():
                    times = np.arange(16) / RATE_HZ
                    frames = read_frames(tmp_path / file, times_s=times)[0]
                    write_video(tmp_path / file, np.clip(
                        frames.astype(np.int16) + 25, 0, 255).astype(np.uint8), RATE_HZ,
                        quality=16)
            episodes.append(replace(e, success=bool(bright)))
    write_manifest(tmp_path, episodes)
    said = []
    teach(robot_bundle(), tmp_path, tmp_path / 'out', report=said.append)
    assert any('WARNING: the first image already tells' in line for line in said)


def test_the_command_writes_a_page(lab, tmp_path, capsys):
    folder, _ = lab
    assert main(['success', 'teach', '--data', str(folder / 'data'), '--bundle',
                 str(robot_bundle()), '--output', str(tmp_path / 'mine'), '--region',
                 'third_person=0,0,1,1']) == 0
    page = (tmp_path / 'mine-teach/teach.html').read_text()
    assert 'successes decided' in page and '--region wrist=' in page
    found = json.loads((tmp_path / 'mine-teach/teach.json').read_text())
    assert found['tasks'][0]['rates'][0]['decided'] == 6
    assert main(['success', 'teach', '--data', str(folder / 'data'), '--output',
                 str(tmp_path / 'x'), '--region', 'wrist=1,2']) == 1
    assert 'four fractions' in capsys.readouterr().err
