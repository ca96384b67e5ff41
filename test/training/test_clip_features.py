# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Maps of clips: the same numbers as a live forward."""

from dataclasses import dataclass, replace

from hralign_ros.data.manifest import DataError
from hralign_ros.data.pairs import Clip, Pair
from hralign_ros.models.adapters import adapters_of
from hralign_ros.models.backbones import Backbone, Preprocessing
from hralign_ros.models.hr_align import HRAlign
from hralign_ros.models.onnx_export import preprocessing_graph
from hralign_ros.runtime.providers import SessionFactory
from hralign_ros.runtime.report import silent
from hralign_ros.runtime.video import read_frames
from hralign_ros.training.alignment_batches import make_items, PairBatches
from hralign_ros.training.alignment_objective import batch_loss
from hralign_ros.training.alignment_options import TrainOptions
from hralign_ros.training.clip_features import build_clip_features, MapEncoder, preprocess
from hralign_ros.training.distributed import Ranks
import numpy as np
import pytest
from support import tiny_run
from support.mean_colours import make_videos
import torch
from torch import nn

CHANNELS, FRAMES, SIZE = 16, 4, 32
SPEC = Preprocessing(size=SIZE)


def make_net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, CHANNELS, 3, 4, 1),
                        nn.ReLU())
    return net.eval().requires_grad_(False)


@dataclass
class Whole:
    """Stands for a backbone; picklable, so that worker processes get it."""

    module: nn.Module
    name: str = 'tiny'
    preprocessing: Preprocessing = SPEC

    def front(self, position):
        assert position == 'late'
        return self.module


@pytest.fixture(scope='module')
def backbone():
    return Whole(make_net())


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    """Write videos; return their folder and clips."""
    folder = tmp_path_factory.mktemp('videos')
    make_videos(folder, 8)
    return folder, [Clip(f'{i}.mp4', 'third_person', f'e{i}', 'task', 'do it', 'scene', 'panda')
                    for i in range(8)]


def build(tmp_path, videos, backbone, *, clips=None, workers=1, **options):
    folder, every = videos
    return build_clip_features(
        tmp_path, every if clips is None else clips, folder,
        MapEncoder(backbone, **{'engine': 'torch', 'frames': FRAMES, **options}),
        workers=workers, report=silent)


def maps(features, clips):
    """Give all maps as live ones lie: [n, F, C, rows, columns]."""
    return features.stack(clips, [np.arange(features.frames)] * len(clips)).numpy()


@pytest.mark.parametrize('fit', ['squash', 'crop'])
def test_preprocessing_is_that_of_the_bundle(fit):
    """Guards train against serve: pixels as the graph on the robot makes them."""
    frames = np.random.default_rng(1).integers(0, 255, (2, 45, 81, 3), np.uint8)
    spec = replace(SPEC, fit=fit)
    graph = SessionFactory('cpu').create(preprocessing_graph(spec), name='preprocess')
    for frame, pixels in zip(frames, preprocess(frames, spec), strict=True):
        expected = graph.run(None, {'image': frame[None]})[0][0]
        np.testing.assert_allclose(pixels, expected, atol=2e-5)


def test_float32_features_are_the_live_forward(tmp_path, videos, backbone):
    """Guards training on features: maps, shape, times and frames are those of the clip."""
    features = build(tmp_path, videos, backbone, dtype='float32')
    for clip in videos[1]:
        frames, times = read_frames(videos[0] / clip.file, count=FRAMES, span_s=())
        with torch.no_grad():
            live = backbone.module(preprocess(frames, SPEC)).numpy()
        np.testing.assert_allclose(maps(features, [clip])[0], live, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(features.times(clip), times)
    assert live.shape == (FRAMES, CHANNELS, 2, 2) and features.map_shape == (CHANNELS, 2, 2)
    assert not features.maps(clip).flags.writeable


def test_other_dtypes_engines_and_processes_differ_by_rounding(tmp_path, videos, backbone):
    exact, half, onnx = (build(tmp_path, videos, backbone, **options) for options in (
        {'dtype': 'float32'}, {'dtype': 'float16'}, {'dtype': 'float32', 'engine': 'onnxruntime',
                                                     'workers': 2}))
    clips = videos[1]
    assert half.maps(clips[0]).dtype == np.float16
    np.testing.assert_array_equal(
        maps(half, clips), maps(exact, clips).astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(maps(onnx, clips), maps(exact, clips), rtol=0, atol=1e-5)
    assert len({exact.key, half.key, onnx.key}) == 3


@pytest.mark.parametrize(('scale', 'said'), [
    (1e-9, 'too small for float16; use float32'), (1e6, 'do not fit into float16; use float32')])
def test_features_that_float16_cannot_hold(tmp_path, videos, scale, said):
    """
    Guards a cache of zeros, and one of infinities.

    A backbone of random weights gave features of 1e-9. All of them became 0 in float16, without a
    word, and training ended with a loss that was no number.
    """
    net = make_net()
    net.append(Times(scale))
    with pytest.raises(DataError, match=said):
        build(tmp_path, videos, Whole(net), clips=videos[1][:2])


class Times(nn.Module):
    """Give the same number everywhere."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, maps):
        return torch.full_like(maps, self.scale)


def test_what_the_numbers_depend_on_is_in_the_key(tmp_path, videos, backbone):
    key = build(tmp_path, videos, backbone).key
    assert build(tmp_path, videos, backbone, clips=videos[1][::-1] * 2).key == key
    other = Whole(make_net())
    other.module[0].bias.data += 1e-3
    crop = replace(backbone, preprocessing=replace(SPEC, fit='crop'))
    keys = [build(tmp_path, videos, b, **o).key for b, o in (
        (other, {}), (crop, {}), (backbone, {'frames': 3}), (backbone, {'clips': videos[1][:3]}))]
    assert len({key, *keys}) == 5


def test_wrong_options_are_one_clear_error(tmp_path, videos, backbone):
    for options, words in (
            ({'dtype': 'int8'}, "dtype is 'int8'"), ({'frames': 0}, 'frames 0'),
            ({'engine': 'x'}, 'onnxruntime, torch')):
        with pytest.raises(DataError, match=words):
            build(tmp_path, videos, backbone, **options)


def test_a_step_on_the_cache_is_a_full_forward(tmp_path, videos, backbone):
    """Guards the claim of the cache: same loss as with all three streams from the pixels."""
    folder, clips = videos
    pairs = [Pair(replace(clips[i], embodiment='human'), clips[i + 1]) for i in (0, 2, 6)]
    pairs.append(Pair(replace(clips[3], embodiment='human'), clips[4]))
    texts = {'do it': np.ones(6, np.float32)}
    options = TrainOptions(batch=4, length=FRAMES, sampler='segment', mask_same_task=False)
    torch.manual_seed(2)
    model = HRAlign(adapters_of(CHANNELS, 'conv'), nn.Identity(), 6, CHANNELS)
    for adapter in model.adapters:
        nn.init.normal_(adapter.up.weight, std=0.1)
    losses = {}
    for dtype in ('float32', 'float16'):
        cache = build(tmp_path, videos, backbone, dtype=dtype)
        items, left_out = make_items(pairs, cache)
        assert left_out == 0
        batches = PairBatches(items, cache, texts, batch=4, length=FRAMES, sampler='segment')
        losses[dtype] = batch_loss(model, batches.load(0), options, Ranks()).item()
    chosen = [items[i] for i in batches.plan(0)]

    def live(files):
        return torch.stack([backbone.module(preprocess(read_frames(
            folder / file, count=FRAMES, span_s=())[0], SPEC)) for file in files])

    human, frozen, adapted = (live([c.file for c in side]) for side in (
        [i.human for i in chosen], [i.robot for i in chosen], [i.robot for i in chosen]))
    words = torch.ones(4, 6)
    loss = tiny_run.loss_of(
        model.pooled(human, words), model.pooled(frozen, words),
        model.pooled(model.adapters(adapted.flatten(0, 1)).unflatten(0, (4, FRAMES)), words),
        decoupled=options.decoupled)
    assert losses['float32'] == pytest.approx(loss.item(), abs=1e-5)
    print(f"float16 changes the loss by {abs(losses['float16'] - loss.item()):.1e}")
    assert losses['float16'] == pytest.approx(loss.item(), abs=1e-2)


def test_the_real_backbone_fits(tmp_path, videos):
    """Guards the interface: a backbone of the package, its parts and its adapters."""
    from hralign_ros.models.adapters import make_adapters
    from hralign_ros.models.backbones import load_backbone

    real = load_backbone('efficientnet_lite0')
    assert isinstance(real, Backbone)
    cache = build(tmp_path, videos, real, clips=videos[1][:2], frames=2, dtype='float32')
    assert cache.map_shape == (1280, 7, 7)
    model = HRAlign(make_adapters(real), real.back('late'), 6, real.channels)
    maps = cache.stack(videos[1][:2], [np.arange(2)] * 2)
    human, _, adapted = tiny_run.streams_of(model, maps, maps, torch.ones(2, 6))
    torch.testing.assert_close(human, adapted, rtol=0, atol=1e-6)
    assert model.frozen_maps(maps) is maps
