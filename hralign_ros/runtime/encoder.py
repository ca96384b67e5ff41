# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The encoder and its episodes: all that happens between pictures and numbers.

The live node, offline runners and the evaluation all call this, and nothing else:

    encoder = Encoder.load('models/default')
    episode = encoder.start_episode('put the marker in the cup')
    tick = episode.step({'wrist': wrist_rgb, 'third_person': third_rgb}, stamp=time_ns)
    print(tick.embedding.shape, tick.success.probability, tick.status)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from threading import Lock
import time
from typing import Any

from hralign_ros.runtime.bundle import Bundle, load_bundle, Manifest, VISUALS
from hralign_ros.runtime.decision import Status
from hralign_ros.runtime.errors import BundleError, InferenceError
from hralign_ros.runtime.graphs import Graph, Tensor
from hralign_ros.runtime.headroom import require_memory
from hralign_ros.runtime.images import as_rgb_image, Image, ViewGeometry
from hralign_ros.runtime.memory import assemble, Clip, EpisodeMemory, FrameSet
from hralign_ros.runtime.providers import Hardware, SessionFactory
from hralign_ros.runtime.tasks import Calibration, load_tasks, TaskTable
from hralign_ros.runtime.text import TaskFeatures, TextEncoder
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

PRECISIONS = tuple(VISUALS)
POOLINGS = ('attention', 'mean')
_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Success:
    """
    What the success head says.

    :param probability: P(accomplished in the newest frame), [0, 1]; None without a task.
    :param progress: [0, 1]; None without a task or from an untrained head.
    :param raw_score: before calibration; None without a task.
    :param failure: P(the attempt has failed by now), [0, 1]; None without a task or from an
        untrained head.
    :param modes: probability of each failure mode in use, given failure; names beside it.
    :param ood_score: None where the bundle has no threshold for it.
    :param video: what all of this is read off: float32 [D] in the text encoder's space, norm 1.
    :param calibration: what made the probability, and the thresholds that go with it; None: it
        is not calibrated for this task with these views.
    """

    probability: float | None
    progress: float | None
    raw_score: float | None
    failure: float | None
    modes: tuple[float, ...]
    mode_names: tuple[str, ...]
    ood_score: float | None
    clip_stamps: tuple[int, ...]
    calibration: Calibration | None
    video: Floats | None

    @property
    def mode_risks(self) -> tuple[float, ...]:
        """Give the probability of having failed in each mode, which is what decides FAILURE."""
        return tuple(p * (self.failure or 0.0) for p in self.modes)


@dataclass(frozen=True)
class Tick:
    """
    The result for one set of frames.

    :param stamp: acquisition time of the newest frame [ns].
    :param view_stamps: per view, of its newest frame [ns], 0 where not valid; int64 [V].
    :param view_valid: bool [V]; a view without a fresh frame is left out.
    :param embedding: float32 [V, C], rows of norm 1, zeros where not valid.
    :param attention: of the newest frame's tokens, float32 [V, N]; uniform for mean pooling.
    :param pooling: one of POOLINGS: attention needs a task.
    :param pictures: per view present in this tick, as it went into preprocessing.
    """

    episode_id: int
    stamp: int
    view_stamps: NDArray[np.int64]
    view_valid: NDArray[np.bool_]
    embedding: Floats
    attention: Floats
    pooling: str
    success: Success
    status: Status
    pictures: Mapping[str, Image]


class Encoder:
    """
    A loaded bundle. Episodes of one encoder may live side by side; step them from one thread.

    Make one with Encoder.load.
    """

    def __init__(
        self,
        bundle: Bundle,
        factory: SessionFactory,
        *,
        precision: str = 'fp32',
        pooling: str = 'attention',
        geometry: Mapping[str, ViewGeometry] | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise BundleError(f"precision is '{precision}'; allowed: {', '.join(PRECISIONS)}")
        if pooling not in POOLINGS:
            raise BundleError(f"pooling is '{pooling}'; allowed: {', '.join(POOLINGS)}")
        if not bundle.has(VISUALS[precision]):
            raise BundleError(
                f"{bundle.path} has no {VISUALS[precision]}; set precision to 'fp32', or export "
                f'the bundle with --{precision}')
        unknown = set(geometry or {}) - set(bundle.manifest.views)
        if unknown:
            raise BundleError(
                f'rotation or crop is given for {", ".join(sorted(unknown))}; the views of this '
                f'bundle are {", ".join(bundle.manifest.views)}')
        self.bundle = bundle
        self.precision = precision
        self.pooling = pooling
        self.tasks: TaskTable = load_tasks(bundle)
        self._factory = factory
        self._geometry = dict(geometry or {})
        self.text = TextEncoder(bundle, self.tasks, factory)
        self._load_graphs()

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        *,
        provider: str = 'auto',
        require_gpu: bool = False,
        cuda_graph: bool = False,
        threads: int = 2,
        precision: str = 'fp32',
        pooling: str = 'attention',
        geometry: Mapping[str, ViewGeometry] | None = None,
        trusted_keys: Sequence[str | PathLike[str]] = (),
        require_signature: bool = False,
    ) -> 'Encoder':
        """
        Load and verify a bundle.

        :param path: the bundle's directory.
        :param provider: auto, cpu or cuda; see SessionFactory.
        :param cuda_graph: on a GPU, record each graph and replay it; see SessionFactory.
        :param geometry: per view, how its camera is mounted.
        :param trusted_keys: PEM files of public keys that a signature is checked with.
        :param require_signature: refuse a bundle that none of them signed.
        :raises BundleError: the bundle is damaged or does not keep its contract, or there is no
            memory for it.
        :raises SignatureError: its signature is missing or wrong, or a key cannot be used.
        :raises ProviderError: the hardware asked for is not to be had.
        """
        require_memory(Path(path))
        factory = SessionFactory(
            provider, require_gpu=require_gpu, cuda_graph=cuda_graph, threads=threads)
        bundle = load_bundle(
            path, trusted_keys=trusted_keys, require_signature=require_signature)
        return cls(bundle, factory, precision=precision, pooling=pooling, geometry=geometry)

    @property
    def manifest(self) -> Manifest:
        """Tell what bundle.yaml says."""
        return self.bundle.manifest

    @property
    def hardware(self) -> Hardware:
        """Which provider was asked for and which was got."""
        return self._factory.hardware

    @property
    def records(self) -> bool:
        """Whether a thread that begins to step episodes should warm up first."""
        return self._factory.records

    @property
    def onnxruntime_version(self) -> str:
        """Version of onnxruntime."""
        return self._factory.version

    def _load_graphs(self) -> None:
        """Load the four graphs of a tick and check them against the manifest."""
        m = self.manifest
        views, length, tokens, channels = len(m.views), m.clip.length, m.tokens, m.channels
        side = m.image_size
        clip = [Tensor('tokens', 'float32', (views, length, tokens, channels)),
                Tensor('mask', 'float32', (views, length))]

        def load(name: str, inputs: list[Tensor], outputs: list[Tensor]) -> Graph:
            return Graph(self.bundle.read(name), name=name, inputs=inputs, outputs=outputs,
                         factory=self._factory)

        self._preprocess = load(
            'preprocess.onnx',
            [Tensor('image', 'uint8', (1, None, None, 3))],
            [Tensor('pixels', 'float32', (1, 3, side, side))])
        self._visual = load(
            VISUALS[self.precision],
            [Tensor('pixels', 'float32', (views, 3, side, side))],
            [Tensor('tokens', 'float32', (views, tokens, channels))])
        self._embed = load(
            'embed.onnx',
            [*clip, Tensor('task', 'float32', (m.text_dim,))],
            [Tensor('embedding', 'float32', (views, channels)),
             Tensor('attention', 'float32', (views, length, tokens))])
        self._success = load(
            'success.onnx',
            [*clip, Tensor('age', 'float32', (views, length)),
             Tensor('text', 'float32', (1 + m.modes, m.text_dim)),
             Tensor('mode_mask', 'float32', (m.modes,))],
            [Tensor('probability', 'float32', (1,)), Tensor('modes', 'float32', (m.modes,)),
             Tensor('progress', 'float32', (1,)), Tensor('score', 'float32', (1,)),
             Tensor('ood', 'float32', (1,)), Tensor('failed', 'float32', (1,)),
             Tensor('video', 'float32', (m.text_dim,))])

    def warm_up(self, *, height: int = 480, width: int = 640, ticks: int = 3) -> float:
        """
        Run every graph on grey pictures, so that the first real frame is not the slow one.

        :returns: seconds that the last tick took.
        :raises InferenceError: a graph does not run, or returns values that are not finite.
        """
        grey = np.full((height, width, 3), 127, np.uint8)
        episode = Episode(self, self.text.encode('warm up'), 0)
        duration = 0.0
        for i in range(max(1, ticks)):
            start = time.perf_counter()
            episode.step(dict.fromkeys(self.manifest.views, grey), stamp=1 + i * _NANOSECONDS)
            duration = time.perf_counter() - start
        return duration

    def start_episode(self, task: str = '') -> 'Episode':
        """
        Start an episode.

        :param task: the instruction; empty: none, the embedding is then the plain mean.
        :raises TaskError: the instruction cannot be used.
        """
        return Episode(self, self.text.encode(task), next_episode_id())

    def encode_images(self, images: Mapping[str, Image]) -> tuple[Floats, dict[str, Image]]:
        """
        Turn one picture per view into tokens, in one batched pass.

        :param images: uint8 [H, W, 3] RGB by view, any size; absent views give zeros as input.
        :returns: tokens float32 [V, N, C], and the pictures as rotated and cropped.
        :raises FrameError: an array that is no such picture.
        """
        m = self.manifest
        side = m.image_size
        pixels = np.zeros((len(m.views), 3, side, side), np.float32)
        pictures = {}
        for row, view in enumerate(m.views):
            if view not in images:
                continue
            image = as_rgb_image(images[view], what=f"view '{view}'")
            if view in self._geometry:
                image = self._geometry[view].apply(image)
            pictures[view] = image
            pixels[row] = self._preprocess.run({'image': image[None]})[0][0]
        tokens = self._visual.run({'pixels': pixels})[0]
        return np.asarray(tokens, np.float32), pictures

    def encode_pictures(self, pictures: Sequence[Image]) -> Floats:
        """
        Turn any number of pictures of any views into tokens, as many a pass as there are views.

        For recorded videos; the numbers are those of `encode_images`.

        :param pictures: uint8 [H, W, 3] RGB each, any size.
        :returns: float32 [n, N, C].
        :raises FrameError: an array that is no such picture.
        """
        m = self.manifest
        side, views = m.image_size, len(m.views)
        tokens = np.zeros((len(pictures), m.tokens, m.channels), np.float32)
        for start in range(0, len(pictures), views):
            some = pictures[start:start + views]
            pixels = np.zeros((views, 3, side, side), np.float32)
            for row, picture in enumerate(some):
                image = as_rgb_image(picture, what=f'picture {start + row}')
                pixels[row] = self._preprocess.run({'image': image[None]})[0][0]
            tokens[start:start + views] = self._visual.run({'pixels': pixels})[0][:len(some)]
        return tokens

    def embed(self, clip: Clip, task: TaskFeatures) -> tuple[Floats, Floats, str]:
        """
        Pool a clip's tokens.

        :returns: embedding float32 [V, C], attention float32 [V, T, N], and the pooling used.
        """
        if self.pooling == 'mean' or not task.text:
            weights = clip.mask / np.maximum(clip.mask.sum(1, keepdims=True), 1.0)
            count_ = clip.tokens.shape[2]
            attention = np.repeat(weights[..., None] / count_, count_, axis=2)
            pooled = np.einsum('vtnc,vtn->vc', clip.tokens, attention, optimize=True)
            norm = np.linalg.norm(pooled, axis=1, keepdims=True)
            return pooled / np.maximum(norm, 1e-12), attention, 'mean'
        embedding, attention = self._embed.run(
            {'tokens': clip.tokens, 'mask': clip.mask, 'task': task.features[0]})
        return embedding, attention, 'attention'

    @property
    def success_scale(self) -> tuple[float, float]:
        """
        Read off the success head what turns a cosine into a raw score.

        :returns: scale and bias: without prompts the score is scale * cos(video, text) + bias.
        """
        m = self.manifest
        views, length = len(m.views), m.clip.length
        feed = {'tokens': np.zeros((views, length, m.tokens, m.channels), np.float32),
                'mask': np.ones((views, length), np.float32),
                'age': np.zeros((views, length), np.float32),
                'text': np.zeros((1 + m.modes, m.text_dim), np.float32),
                'mode_mask': np.zeros(m.modes, np.float32)}
        *_, bias, _, _, video = self._success.run(feed)
        feed['text'][0] = video
        along = self._success.run(feed)[3]
        return float(along[0] - bias[0]), float(bias[0])

    def judge(self, clip: Clip, task: TaskFeatures) -> Success:
        """Run the success head on a clip and calibrate its score."""
        if not task.text:
            return Success(None, None, None, None, (), (), None, clip.stamps, None, None)
        probability, modes, progress, score, ood, failed, video = self._success.run({
            'tokens': clip.tokens, 'mask': clip.mask, 'age': clip.age,
            'text': task.features, 'mode_mask': task.task.mode_mask})
        _require_finite('success.onnx', probability, modes, progress, score, ood, failed, video)
        there = np.atleast_1d(clip.mask.any(axis=1))
        seen = frozenset(view for view, used in zip(
            self.manifest.views, there, strict=True) if used)
        calibration = task.task.calibrations.get(seen)
        raw = float(score[0])
        trained = self.manifest.success_trained
        return Success(
            probability=calibration.apply(raw) if calibration else float(
                np.clip(probability[0], 0.0, 1.0)),
            progress=float(np.clip(progress[0], 0.0, 1.0)) if trained else None,
            raw_score=raw,
            failure=float(np.clip(failed[0], 0.0, 1.0)) if trained else None,
            modes=tuple(float(p) for p in np.clip(modes[:len(task.task.mode_names)], 0.0, 1.0)),
            mode_names=task.task.mode_names,
            ood_score=float(ood[0]) if self.manifest.ood_threshold is not None else None,
            clip_stamps=clip.stamps, calibration=calibration, video=video)


class Episode:
    """
    One attempt at one task: the memory, and nothing that outlives it.

    :param episode_id: start as system time [ns], unique across restarts.
    """

    def __init__(self, encoder: Encoder, task: TaskFeatures, episode_id: int) -> None:
        clip = encoder.manifest.clip
        self.encoder = encoder
        self.task = task
        self.episode_id = episode_id
        self._memory = EpisodeMemory(
            length=clip.length, period=round(clip.period_s * _NANOSECONDS),
            capacity=clip.capacity, stride=round(clip.stride_s * _NANOSECONDS))
        self._newest = np.zeros(len(encoder.manifest.views), np.int64)
        # One for both heads: each clip is assembled when its graph runs.
        self._tokens = np.zeros((len(encoder.manifest.views), clip.length,
                                 encoder.manifest.tokens, encoder.manifest.channels), np.float32)

    def step(
        self,
        images: Mapping[str, Image],
        stamp: int | Mapping[str, int],
        *,
        max_age: float = 0.5,
    ) -> Tick:
        """
        Encode one set of frames and say what follows from the episode so far.

        :param images: uint8 [H, W, 3] RGB by view; at least one.
        :param stamp: acquisition time [ns], one for all views or one each; newer than before.
        :param max_age: a view whose newest frame is older [s] than this set's is left out.
        :raises FrameError: an array that is no picture.
        :raises ValueError: unknown view, no view, or a stamp that is not newer.
        :raises InferenceError: a graph failed or returned values that are not finite.
        """
        manifest = self.encoder.manifest
        unknown = set(images) - set(manifest.views)
        if unknown or not images:
            raise ValueError(
                f'views given: {", ".join(sorted(images)) or "none"}; the views of this bundle '
                f'are {", ".join(manifest.views)}')
        given = stamp if isinstance(stamp, Mapping) else dict.fromkeys(images, stamp)
        without = sorted(set(images) - set(given))
        if without or min(given[view] for view in images) <= 0:
            raise ValueError(
                f'stamp is {given!r}, for the views {", ".join(images)}; each needs its '
                'acquisition time in nanoseconds, greater than 0')
        stamps = np.array(
            [int(given[view]) if view in images else 0 for view in manifest.views], np.int64)
        present = np.array([view in images for view in manifest.views])
        tokens, pictures = self.encoder.encode_images(images)
        _require_finite('visual.onnx', tokens)
        self._memory.add(FrameSet(int(stamps.max()), stamps, present, tokens))
        self._newest = np.asarray(np.where(present, stamps, self._newest), np.int64)
        return self._result(int(stamps.max()), pictures, round(max_age * _NANOSECONDS))

    def _result(self, stamp: int, pictures: Mapping[str, Image], max_age: int) -> Tick:
        """Run both heads on the memory as it is."""
        encoder = self.encoder
        manifest = encoder.manifest
        live = np.asarray((self._newest > 0) & (stamp - self._newest <= max_age), np.bool_)
        length = manifest.clip.length
        clip = assemble(
            self._memory.newest_clip(), length=length, live=live, out=self._tokens)
        valid = np.asarray(clip.mask.any(axis=1), np.bool_)
        embedding, attention, pooling = encoder.embed(clip, self.task)
        _require_finite('embed.onnx', embedding, attention)
        # What a graph pools over nothing is no embedding, whatever numbers come out.
        embedding = np.where(valid[:, None], embedding, np.float32(0.0))
        success = encoder.judge(assemble(
            self._memory.spread_clip(), length=length, live=live, out=self._tokens), self.task)
        return Tick(
            episode_id=self.episode_id, stamp=stamp,
            view_stamps=np.where(valid, self._newest, 0), view_valid=valid,
            embedding=np.ascontiguousarray(embedding, np.float32),
            attention=attention[:, -1], pooling=pooling, success=success,
            status=self._status(success, valid), pictures=pictures)

    def _status(self, success: Success, valid: NDArray[np.bool_]) -> Status:
        """Say why the result should not be taken at face value."""
        manifest = self.encoder.manifest
        status = self.task_status
        if self.task.text and success.calibration is None:
            status |= Status.UNCALIBRATED
        if not valid.all():
            status |= Status.VIEW_MISSING
        if success.ood_score is not None and manifest.ood_threshold is not None \
                and success.ood_score > manifest.ood_threshold:
            status |= Status.OUT_OF_DISTRIBUTION
        return status

    @property
    def task_status(self) -> Status:
        """Tell the bits that follow from the task alone, whatever the cameras see."""
        status = Status.OK
        if not self.task.text:
            status |= Status.NO_TASK
        elif not self.task.known:
            status |= Status.UNKNOWN_TASK
        if not self.encoder.manifest.success_trained or not self.task.task.calibrations:
            status |= Status.UNCALIBRATED
        return status


_episode_lock = Lock()
_newest_episode_id = 0


def next_episode_id() -> int:
    """Make an episode id: system time [ns], always greater than the one before."""
    global _newest_episode_id
    with _episode_lock:
        _newest_episode_id = max(time.time_ns(), _newest_episode_id + 1)
        return _newest_episode_id


def _require_finite(name: str, *arrays: NDArray[Any]) -> None:
    """
    Refuse results that are not numbers.

    :raises InferenceError: one of the arrays holds NaN or infinity.
    """
    if not all(np.isfinite(array).all() for array in arrays):
        raise InferenceError(
            f'{name} returned values that are not finite; nothing is published for this frame. '
            'If this stays, the bundle does not fit this hardware or precision')
