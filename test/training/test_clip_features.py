# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The feature cache: the same numbers as a live forward, whatever happens while it is built."""

from dataclasses import dataclass, replace
import signal
import subprocess
import sys
from types import SimpleNamespace

from hralign_ros.data.manifest import DataError
from hralign_ros.data.pairs import Clip, Pair
from hralign_ros.models.adapters import late_adapters
from hralign_ros.models.backbones import Backbone, Preprocessing
from hralign_ros.models.hr_align import HRAlign
from hralign_ros.models.onnx_export import preprocessing_graph
from hralign_ros.runtime.providers import SessionFactory
from hralign_ros.runtime.video import read_frames, write_video
from hralign_ros.training.alignment_batches import make_items, PairBatches
from hralign_ros.training.alignment_objective import batch_loss
from hralign_ros.training.alignment_options import TrainOptions
from hralign_ros.training.clip_features import build_cache, FeatureCache, open_cache
from hralign_ros.training.distributed import Ranks
from hralign_ros.training.frame_encoders import preprocess
import numpy as np
import pytest
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
    """Write eight videos, one of them damaged; return their folder and clips."""
    folder = tmp_path_factory.mktemp('videos')
    rng = np.random.default_rng(0)
    clips = []
    for i in range(8):
        low = rng.integers(0, 255, (10, 5, 8, 3), np.uint8)
        write_video(folder / f'{i}.mp4', low.repeat(8, 1).repeat(8, 2), 10.0)
        clips.append(Clip(f'{i}.mp4', 'third_person', 'robot', f'e{i}', 'task', 'do it',
                          'scene', 'cam', 'panda'))
    (folder / '5.mp4').write_bytes((folder / '5.mp4').read_bytes()[:300])
    clips.append(replace(clips[0], file='none.mp4'))
    return folder, clips


def build(tmp_path, videos, backbone, **options):
    folder, clips = videos
    options = {'engine': 'torch', 'frames': FRAMES, 'report': lambda text: None, **options}
    return build_cache(tmp_path, options.pop('clips', clips), folder, backbone, **options)


@pytest.mark.parametrize('fit', ['squash', 'crop'])
def test_preprocessing_is_that_of_the_bundle(fit):
    """Guards train against serve: pixels as the graph on the robot makes them."""
    frames = np.random.default_rng(1).integers(0, 255, (2, 45, 81, 3), np.uint8)
    spec = replace(SPEC, fit=fit)
    graph = SessionFactory('cpu').create(preprocessing_graph(spec), name='preprocess')
    for frame, pixels in zip(frames, preprocess(frames, spec), strict=True):
        expected = graph.run(None, {'image': frame[None]})[0][0]
        np.testing.assert_allclose(pixels, expected, atol=2e-5)


def test_a_float32_cache_is_the_live_forward(tmp_path, videos, backbone):
    """Guards training on the cache: features, shape, times and frames are those of the clip."""
    cache = build(tmp_path, videos, backbone, dtype='float32')
    for clip in (c for c in videos[1] if cache.has(c)):
        frames, times = read_frames(videos[0] / clip.file, count=FRAMES, span_s=())
        with torch.no_grad():
            live = backbone.module(preprocess(frames, SPEC)).numpy()
        assert cache.clip(clip).shape == (FRAMES, CHANNELS, 2, 2) == live.shape
        assert cache.map_shape == (CHANNELS, 2, 2)
        np.testing.assert_allclose(cache.clip(clip.file), live, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(cache.times(clip), times)
    assert not cache.clip('0.mp4').flags.writeable


def test_other_dtypes_and_engines_differ_by_rounding(tmp_path, videos, backbone):
    exact = build(tmp_path, videos, backbone, dtype='float32')
    half = build(tmp_path, videos, backbone, dtype='float16')
    assert half.array.dtype == np.float16
    np.testing.assert_array_equal(half.array, exact.array.astype(np.float16))
    onnx = build(tmp_path, videos, backbone, dtype='float32', engine='onnxruntime')
    np.testing.assert_allclose(onnx.array, exact.array, rtol=0, atol=1e-5)
    assert len({exact.key, half.key, onnx.key}) == 3


@pytest.mark.parametrize(('scale', 'said'), [
    (1e-9, 'too small for float16; use float32'), (1e6, 'do not fit into float16; use float32')])
def test_features_that_float16_cannot_hold(tmp_path, videos, scale, said):
    """
    Guards a cache of zeros, and one of infinities.

    A backbone of random weights gave features of 1e-9. All of them became 0 in float16, without a
    word, and training ended with a loss that was no number.
    """
    def engine(frames):
        return np.full((len(frames), 3, 2, 2), scale, np.float32)

    with pytest.raises(DataError, match=said):
        build(tmp_path, videos, Whole(make_net()), engine=engine, clips=videos[1][:2])


def test_unreadable_clips_are_reported_and_left_out(tmp_path, videos, backbone):
    lines = []
    cache = build(tmp_path, videos, backbone, report=lines.append)
    assert set(cache.missing) == {'5.mp4', 'none.mp4'}
    assert len(cache.rows) == 7
    for name in cache.missing:
        assert any(f'left out {name}: ' in line for line in lines)
        with pytest.raises(DataError, match=f'no features of {name}'):
            cache.clip(name)
    with pytest.raises(DataError, match='not one of the clips'):
        cache.times('other.mp4')
    with pytest.raises(DataError, match='not one of 2 clips could be read'):
        build(tmp_path, videos, backbone, clips=[videos[1][5], videos[1][8]])


def test_spans_of_one_file_are_clips_of_their_own(tmp_path, videos, backbone):
    whole = videos[1][0]
    part = replace(whole, span_s=(0.2, 0.6))
    cache = build(tmp_path, videos, backbone, clips=[whole, part])
    assert cache.times(part)[[0, -1]] == pytest.approx([0.2, 0.6], abs=0.05)
    assert cache.times(whole)[-1] == pytest.approx(0.9, abs=0.05)
    assert not np.array_equal(cache.clip(part), cache.clip(whole))


def test_what_the_numbers_depend_on_is_in_the_key(tmp_path, videos, backbone):
    key = build(tmp_path, videos, backbone).key
    assert build(tmp_path, videos, backbone, clips=videos[1][::-1] * 2).key == key
    other = Whole(make_net())
    other.module[0].bias.data += 1e-3
    crop = replace(backbone, preprocessing=replace(SPEC, fit='crop'))
    keys = [build(tmp_path, videos, b, **o).key for b, o in (
        (other, {}), (crop, {}), (backbone, {'frames': 3}), (backbone, {'clips': videos[1][:3]}))]
    assert len({key, *keys}) == 5


def test_a_data_set_that_grows_is_not_encoded_again(tmp_path, videos, backbone):
    """Guards hours: with one clip more, all clips had to be encoded anew."""
    _, clips = videos
    lines = []
    first = build(tmp_path, videos, backbone, clips=clips[:3])
    grown = build(tmp_path, videos, backbone, clips=clips[:5], report=lines.append)
    assert grown.key != first.key
    assert any('3 clips taken from other caches' in line for line in lines)
    assert any('2 of 5 clips to encode' in line for line in lines)
    fresh = build(tmp_path / 'elsewhere', videos, backbone, clips=clips[:5])
    np.testing.assert_array_equal(grown.array, fresh.array)
    for clip in clips[:5]:
        np.testing.assert_array_equal(grown.times(clip), fresh.times(clip))
    # Another recipe's are of no use.
    build(tmp_path, videos, backbone, clips=clips[:5], dtype='float32', report=lines.append)
    assert '5 of 5 clips to encode' in lines[-2]


def test_changed_contents_make_another_key(tmp_path, backbone):
    """Guards against features of a video that has been rendered anew under the same name."""
    clip = Clip('a.mp4', 'third_person', 'robot', 'e', 'task', 'do it', 's', 'c', 'panda')
    keys = []
    for value in (10, 200):
        write_video(tmp_path / 'a.mp4', np.full((5, 32, 32, 3), value, np.uint8), 10.0)
        cache = build(tmp_path, (tmp_path, [clip]), backbone)
        keys.append(cache.key)
    assert keys[0] != keys[1]


class Counting:
    """Encode, and note every call in a file; die in the given one."""

    def __init__(self, log, die_in=0):
        self.log, self.die_in, self.calls = log, die_in, 0

    def __call__(self, frames):
        import os

        self.calls += 1
        if self.calls == self.die_in:
            os.kill(os.getpid(), signal.SIGKILL)
        with self.log.open('a') as file:
            file.write('x')
        mean = frames.reshape(len(frames), -1, 3).mean(1)[..., None, None]
        return mean.astype(np.float32).repeat(2, 2).repeat(2, 3)


def test_a_killed_build_goes_on(tmp_path, videos):
    """Guards hours of encoding: SIGKILL in the fifth clip costs no clip that was noted."""
    program = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(__file__.rpartition('/')[0])!r})
import hralign_ros.training.clip_features as cache
import test_clip_features as t
cache._SAVE_S = -1
folder, log = Path(sys.argv[1]), Path(sys.argv[2])
clips = [t.Clip(f'{{i}}.mp4', 'third_person', 'robot', f'e{{i}}', 'task', 'do it', 'scene',
                'cam', 'panda') for i in range(8)]
cache.build_cache(Path(sys.argv[3]), clips, folder, t.Whole(t.make_net()), frames=4,
                  engine=t.Counting(log, 5))
"""
    log = tmp_path / 'log'
    done = subprocess.run(
        [sys.executable, '-c', program, str(videos[0]), str(log), str(tmp_path / 'cache')],
        capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(log.read_text()) == 4
    clips = videos[1][:8]
    with pytest.raises(DataError, match='not finished'):
        open_cache(next((tmp_path / 'cache').iterdir()))
    cache = build(tmp_path / 'cache', videos, Whole(make_net()), clips=clips,
                  engine=Counting(log))
    assert len(log.read_text()) == 7  # seven clips can be read
    fresh = build(tmp_path / 'fresh', videos, Whole(make_net()), clips=clips,
                  engine=Counting(tmp_path / 'other'))
    assert cache.key == fresh.key
    np.testing.assert_array_equal(cache.array[:5], fresh.array[:5])
    np.testing.assert_array_equal(cache.array[6:], fresh.array[6:])
    again = build(tmp_path / 'cache', videos, Whole(make_net()), clips=clips,
                  engine=Counting(log))
    assert len(log.read_text()) == 7
    assert isinstance(again, FeatureCache)


def test_several_processes_make_the_same_cache(tmp_path, videos, backbone):
    one = build(tmp_path / 'one', videos, backbone, dtype='float32')
    two = build(tmp_path / 'two', videos, backbone, dtype='float32', workers=2)
    assert one.rows == two.rows
    assert one.missing.keys() == two.missing.keys()
    for name in one.rows:
        np.testing.assert_allclose(one.clip(name), two.clip(name), rtol=0, atol=1e-6)


def test_a_full_disk_is_found_out_at_once(tmp_path, videos, backbone, monkeypatch):
    """Guards against SIGBUS: a memory-mapped file that does not fit kills its process."""
    monkeypatch.setattr('shutil.disk_usage', lambda path: SimpleNamespace(free=100))
    with pytest.raises(DataError, match='GB are free'):
        build(tmp_path, videos, backbone)


def test_wrong_options_are_one_clear_error(tmp_path, videos, backbone):
    for options, words in (
            ({'dtype': 'int8'}, "dtype is 'int8'"), ({'frames': 0}, 'frames 0'),
            ({'clips': []}, 'no clips'), ({'engine': 'x'}, 'onnxruntime, torch'),
            ({'workers': 0}, "workers is '0'"), ({'workers': 'many'}, "workers is 'many'")):
        with pytest.raises(DataError, match=words):
            build(tmp_path, videos, backbone, **options)
    with pytest.raises(DataError, match='no feature cache there'):
        open_cache(tmp_path)


def test_a_step_on_the_cache_is_a_full_forward(tmp_path, videos, backbone):
    """Guards the claim of the cache: same loss as with all three streams from the pixels."""
    folder, clips = videos
    pairs = [Pair(replace(clips[i], domain='human'), clips[i + 1]) for i in (0, 2, 6)]
    pairs.append(Pair(replace(clips[3], domain='human'), clips[4]))
    texts = {'do it': np.ones(6, np.float32)}
    options = TrainOptions(batch=4, length=FRAMES, sampler='segment', mask_same_task=False)
    torch.manual_seed(2)
    model = HRAlign(late_adapters(CHANNELS, 'conv'), nn.Identity(), 6, CHANNELS)
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
    from hralign_ros.training.alignment_losses import alignment_loss

    loss = alignment_loss(
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
    maps = torch.from_numpy(np.stack([cache.clip('0.mp4'), cache.clip('1.mp4')]))
    streams = model(maps, maps, torch.ones(2, 6))
    torch.testing.assert_close(streams.human, streams.robot_adapted, rtol=0, atol=1e-6)
    assert model.frozen_maps(maps) is maps
