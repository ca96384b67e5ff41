# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Fine tokens of recordings: in the store, in an attempt of a lab, in the report on a bundle."""

from dataclasses import replace

from hralign_ros.data.instructions import STILL
from hralign_ros.data.manifest import Episode, read_manifest, write_manifest
from hralign_ros.data.token_features import build_tokens, episode_videos, open_views
from hralign_ros.evaluation.bootstrap import EvaluationError
from hralign_ros.evaluation.bundle import BundleReplay, evaluate_bundle
from hralign_ros.runtime import Encoder
from hralign_ros.runtime.report import silent
from hralign_ros.runtime.video import read_frames, write_video
from hralign_ros.training.attempts import encode_attempt
import numpy as np
import pytest
from support.images import image
from support.tiny_bundle import DIM, FINE, FINE_CHANNELS, ROBOT_VIEWS, write_tiny_bundle

FRAMES, RATE_HZ = 9, 5


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp('grounded')
    write_tiny_bundle(folder, ROBOT_VIEWS, fine=True, grounded=True)
    return folder


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Write three episodes: with both views, with a human, and without the reference view."""
    folder, episodes = tmp_path_factory.mktemp('data'), []
    for number, views in enumerate([('wrist', 'third_person'), ('wrist', 'third_person', 'human'),
                                    ('wrist',)]):
        files = {view: f'{number}_{view}.mp4' for view in views}
        for view, file in files.items():
            write_video(folder / file, (image(
                100 * number + frame + 10 * len(view), 32, 32) for frame in range(FRAMES)),
                RATE_HZ)
        human = files.pop('human', '')
        episodes.append(Episode(
            episode_id=f'e{number}', task_id='cup', task_text='pick up the cup',
            scene=f's{number}', camera='c', embodiment='panda', source='hand', license_id='MIT',
            split='train', seed=number, success=True, robot_videos=files, human_video=human,
            human_from=f'e{number}' if human else '',
            time_s=[i / RATE_HZ for i in range(FRAMES)],
            success_flags=[i >= 6 for i in range(FRAMES)]))
    write_manifest(folder, episodes)
    return read_manifest(folder)


@pytest.fixture(scope='module')
def features(bundle, data):
    return build_tokens(data, bundle, size=3, report=silent)


def frames_of(data, file):
    return read_frames(data.path(file), count=FRAMES)[0]


def test_offline_fine_tokens_are_the_live_ones(bundle, data, features):
    """Guards training against a skew: what is stored of a frame is what the node makes of it."""
    encoder = Encoder.load(bundle, provider='cpu', threads=1)
    for episode, human in ((data.episodes[0], False), (data.episodes[1], False),
                           (data.episodes[1], True)):
        one = features.load(episode, human=human)
        assert one.fine.shape == (FRAMES, FINE * FINE, FINE_CHANNELS)
        assert one.fine.dtype == np.float16
        for row, frame in enumerate(frames_of(
                data, episode.human_video if human else episode.robot_videos['third_person'])):
            _, live, _ = encoder.encode_images({'third_person': frame})
            np.testing.assert_allclose(one.fine[row].astype(np.float32), live, atol=1e-3)
        assert np.ptp(one.fine[:, 0].astype(float), axis=0).min() > 0.05, 'frames differ'


def test_a_reference_view_that_was_not_recorded(data, features):
    """Guards wrist recordings: zeros, and never the wrist's own."""
    one = features.load(data.episodes[2])
    assert one.fine.shape == (FRAMES, FINE * FINE, FINE_CHANNELS) and not one.fine.any()
    assert one.present.tolist() == [True, False] and one.tokens[:, 0].any()


def test_a_bundle_without_stores_none(tmp_path, data):
    """Guards stores of other bundles: they are as large as before."""
    write_tiny_bundle(tmp_path / 'plain', ROBOT_VIEWS)
    found = build_tokens(data, tmp_path / 'plain', folder=tmp_path / 'store', size=3,
                         report=silent)
    assert found.load(data.episodes[0]).fine is None


def test_an_attempt_of_a_lab(bundle, data, features):
    """Guards teaching on a grounded bundle: the base head's vector, for each set of views."""
    encoder = Encoder.load(bundle, provider='cpu', threads=1)
    recordings = open_views(episode_videos(data.episodes[0]), data.folder)
    made = encode_attempt(encoder, features.basis, recordings)
    assert made['video'].shape == (3, FRAMES, DIM) and np.isfinite(made['video']).all()


def test_the_report_replays_it(bundle, data, tmp_path):
    """
    Guards `hralign bundle evaluate`: scores of recordings are those of the first and newest frame.

    Stills are no attempts to such a head: of them alone there is nothing to say.
    """
    encoder = Encoder.load(bundle, provider='cpu', threads=1)
    replay = BundleReplay(encoder)
    for episode in data.episodes[:2]:
        scores = replay(replay.replay(episode, data.folder)).scored.scores
        means = np.array([encoder.encode_images({'third_person': frame})[1].mean()
                          for frame in frames_of(data, episode.robot_videos['third_person'])])
        np.testing.assert_allclose(scores, 10 * means[0] + means, atol=1e-4)
    blind = replay(replay.replay(data.episodes[2], data.folder)).scored.scores
    assert blind[-1] == pytest.approx(3.0), 'frames of the wrist in a clip'
    stills = data.only([replace(e, tags=(STILL,)) for e in data.episodes])
    with pytest.raises(EvaluationError, match='no episode with videos'):
        evaluate_bundle(stills, bundle, tmp_path, report=silent)
