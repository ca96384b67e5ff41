# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The encoder: a loaded bundle, and what its graphs make of images.

The live node, offline runners and the evaluation all call this, and nothing else:

    encoder = Encoder.load('models/default')
    episode = encoder.start_episode('put the marker in the cup')
    tick = episode.step({'wrist': wrist_rgb, 'third_person': third_rgb}, stamp=time_ns)
    print(tick.part('spatial').shape, tick.success.probability, tick.decision.name, tick.status)
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
import math
from os import PathLike
import time
from typing import Any

from hralign_ros.runtime.bundle import Bundle, load_bundle, SPATIAL, VISUALS
from hralign_ros.runtime.decision import DecisionRules, DEFAULT_RULES
from hralign_ros.runtime.episode import Episode, next_episode_id, require_finite, Success
from hralign_ros.runtime.errors import BundleError
from hralign_ros.runtime.graphs import Graph
from hralign_ros.runtime.identity import Identity
from hralign_ros.runtime.images import AS_IT_COMES, as_rgb_image, Image, ViewGeometry
from hralign_ros.runtime.memory import Clip, Recent
from hralign_ros.runtime.memory_limit import require_memory
from hralign_ros.runtime.parts import (
    choose_parts,
    keypoints_shape,
    part_named,
    spatial_shape,
)
from hralign_ros.runtime.providers import SessionFactory, Tensor
from hralign_ros.runtime.tasks import load_tasks, TaskTable
from hralign_ros.runtime.text import TaskFeatures, TextEncoder
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

PRECISIONS = tuple(VISUALS)
POOLINGS = ('attention', 'mean')
_NANOSECONDS = 1_000_000_000


class Encoder:
    """
    A loaded bundle. Episodes of one encoder may live side by side; step them from one thread.

    Make one with Encoder.load.

    :ivar manifest: what bundle.yaml says.
    :ivar configuration_id: when it was loaded, as system time [ns]; no two have the same.
    :ivar parts: of an embedding, in the order of a row, without gaps.
    :ivar identity: what its embeddings are made by.
    :ivar precision: of the visual graph, one of PRECISIONS.
    :ivar pooling: one of POOLINGS.
    :ivar geometry: how the camera of each view is mounted, of all views.
    :ivar hardware: which provider was asked for and which was got.
    :ivar records: whether a thread that begins to step episodes should warm up first.
    """

    def __init__(
        self,
        bundle: Bundle,
        factory: SessionFactory,
        *,
        precision: str = 'fp32',
        pooling: str = 'attention',
        parts: Sequence[str] = (),
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
        self.configuration_id = time.time_ns()
        self.bundle = bundle
        self.precision = precision
        self.pooling = pooling
        self.tasks: TaskTable = load_tasks(bundle)
        self.manifest = bundle.manifest
        self.parts = choose_parts(tuple(parts), bundle, pooling)
        self.identity = Identity.of(bundle.manifest)
        self.geometry = {view: (geometry or {}).get(view, AS_IT_COMES)
                         for view in bundle.manifest.views}
        self.text = TextEncoder(bundle, self.tasks, factory)
        self._load_graphs(factory)
        self.hardware, self.records = factory.hardware, factory.records
        self.onnxruntime_version = factory.version

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
        parts: Sequence[str] = (),
        geometry: Mapping[str, ViewGeometry] | None = None,
        trusted_keys: Sequence[str | PathLike[str]] = (),
        require_signature: bool = False,
    ) -> 'Encoder':
        """
        Load and verify a bundle.

        :param path: the bundle's directory.
        :param provider: auto, cpu or cuda; see SessionFactory.
        :param cuda_graph: on a GPU, record each graph and replay it; see SessionFactory.
        :param parts: of an embedding, in the order of its rows, see parts.PARTS; none: those of
            parts.DEFAULT_PARTS that the bundle has.
        :param geometry: per view, how its camera is mounted.
        :param trusted_keys: PEM files of public keys that a signature is checked with.
        :param require_signature: refuse a bundle that none of them signed.
        :raises BundleError: the bundle is damaged or does not keep its contract, it cannot make
            one of the parts, or there is no memory for it.
        :raises SignatureError: its signature is missing or wrong, or a key cannot be used.
        :raises ProviderError: the hardware asked for is not to be had.
        """
        bundle = load_bundle(
            path, trusted_keys=trusted_keys, require_signature=require_signature)
        # Before anything of onnxruntime is set up: it ends the process where memory does.
        require_memory(bundle.path, bundle.size)
        factory = SessionFactory(
            provider, require_gpu=require_gpu, cuda_graph=cuda_graph, threads=threads)
        return cls(bundle, factory, precision=precision, pooling=pooling, parts=parts,
                   geometry=geometry)

    def _load_graphs(self, factory: SessionFactory) -> None:
        """Load the graphs of a tick and check them against the manifest."""
        m = self.manifest
        views, length, side = len(m.views), m.clip.length, m.image_size
        tokens, channels = m.tokens.shape
        clip = [Tensor('tokens', 'float32', (views, length, tokens, channels)),
                Tensor('mask', 'float32', (views, length))]

        def load(name: str, inputs: list[Tensor], outputs: list[Tensor],
                 optional: Sequence[Tensor] = ()) -> Graph:
            return Graph(self.bundle.read(name), name=name, inputs=inputs, outputs=outputs,
                         optional=optional, factory=factory)

        self._preprocess = load(
            'preprocess.onnx',
            [Tensor('image', 'uint8', (1, None, None, 3))],
            [Tensor('pixels', 'float32', (1, 3, side, side))])
        self._visual = load(
            VISUALS[self.precision],
            [Tensor('pixels', 'float32', (views, 3, side, side))],
            [Tensor('tokens', 'float32', (views, tokens, channels)),
             *([Tensor('fine', 'float32', (views, *m.fine.shape))] if m.fine else [])])
        self._embed = load(
            'embed.onnx',
            [*clip, Tensor('task', 'float32', (m.text.dim,))],
            [Tensor('embedding', 'float32', (views, channels)),
             Tensor('attention', 'float32', (views, length, tokens))])
        # A graph that no part needs is not loaded.
        self._spatial = load(
            SPATIAL,
            [Tensor('tokens', 'float32', (views, tokens, channels))],
            [Tensor('spatial', 'float32', (views, math.prod(spatial_shape(m.tokens)))),
             Tensor('keypoints', 'float32', (views, math.prod(keypoints_shape(m.tokens))))],
        ) if {'spatial', 'keypoints'} & {part.name for part in self.parts} else None
        age = Tensor('age', 'float32', (views, length))
        fine = [Tensor('fine', 'float32', (2, *m.fine.shape))] if m.fine else []
        self._success = load(
            'success.onnx',
            [*clip, age,
             Tensor('text', 'float32', (1 + m.success.modes, m.text.dim)),
             Tensor('mode_mask', 'float32', (m.success.modes,)),
             *(fine if m.success.grounded else [])],
            [Tensor('probability', 'float32', (1,)),
             Tensor('modes', 'float32', (m.success.modes,)), Tensor('progress', 'float32', (1,)),
             Tensor('score', 'float32', (1,)), Tensor('ood', 'float32', (1,)),
             Tensor('failed', 'float32', (1,)), Tensor('video', 'float32', (m.text.dim,))])
        self._heads = {head: load(
            head, clip,
            [Tensor('score', 'float32', (1,)), Tensor('failure', 'float32', (1,)),
             Tensor('ood', 'float32', (1,))],
            # Each takes what it looks at.
            [age, Tensor('text', 'float32', (m.text.dim,)),
             Tensor('video', 'float32', (m.text.dim,)), *fine])
            for head in sorted({task.head for task in self.tasks.everyone} - {''})}

    def warm_up(self, *, height: int = 480, width: int = 640, ticks: int = 3) -> float:
        """
        Run every graph on grey images, so that the first real frame is not the slow one.

        :returns: seconds that the last tick took.
        :raises InferenceError: a graph does not run, or returns values that are not finite.
        """
        self.text.encode_names()
        grey = np.full((height, width, 3), 127, np.uint8)
        episode = Episode(self, self.text.encode('warm up'), 0)
        duration = 0.0
        for i in range(max(1, ticks)):
            start = time.perf_counter()
            episode.step(dict.fromkeys(self.manifest.views, grey), stamp=1 + i * _NANOSECONDS)
            duration = time.perf_counter() - start
        # Of each head some task: the words above go to one of them.
        words = episode.task
        for one in {one.head: one for one in self.tasks.tasks}.values():
            episode.task = replace(words, task=one)
            episode.score(self.manifest.views)
        return duration

    def start_episode(self, task: str = '', rules: DecisionRules = DEFAULT_RULES) -> Episode:
        """
        Start an episode.

        :param task: the instruction; empty: none, the embedding is then the plain mean.
        :param rules: when a probability becomes a decision.
        :raises TaskError: the instruction cannot be used.
        """
        return Episode(self, self.text.encode(task), next_episode_id(), rules)

    def encode_images(
        self, images: Mapping[str, Image],
    ) -> tuple[Floats, Floats | None, dict[str, Image]]:
        """
        Turn one image per view into tokens, in one batched pass.

        :param images: uint8 [H, W, 3] RGB by view, any size; absent views give zeros as input.
        :returns: tokens float32 [V, N, C]; the reference view's fine tokens float32 [M, R], None
            where the bundle has none; and the images as rotated and cropped.
        :raises FrameError: an array that is no such image.
        """
        views = self.manifest.views
        shown = {view: self.geometry[view].apply(
            as_rgb_image(images[view], what=f"view '{view}'")) for view in views if view in images}
        tokens, fine = self._tokens([shown.get(view) for view in views])
        return tokens, None if fine is None else fine[-1], shown

    def _tokens(self, images: Sequence[Image | None]) -> tuple[Floats, Floats | None]:
        """Turn one image per view, or fewer, into tokens [V, N, C] and fine ones [V, M, R]."""
        missing = len(self.manifest.views) - len(images)
        made = self._visual.run({'pixels': self.preprocess([*images, *[None] * missing])})
        return made[0], made[1] if len(made) > 1 else None

    def preprocess(self, images: Sequence[Image | None]) -> Floats:
        """
        Turn images into what the visual graph takes.

        :param images: n of uint8 [H, W, 3] RGB, any size; None gives zeros.
        :returns: float32 [n, 3, S, S].
        """
        side = self.manifest.image_size
        pixels = np.zeros((len(images), 3, side, side), np.float32)
        for row, image in enumerate(images):
            if image is not None:
                pixels[row] = self._preprocess.run({'image': image[None]})[0][0]
        return pixels

    def encode_batch(self, images: Sequence[Image]) -> tuple[Floats, Floats | None]:
        """
        Turn any number of images of any views into tokens, as many a pass as there are views.

        For recorded videos; the numbers are those of `encode_images`.

        :param images: uint8 [H, W, 3] RGB each, any size.
        :returns: tokens float32 [n, N, C]; fine tokens float32 [n, M, R], None where the bundle
            has none.
        :raises FrameError: an array that is no such image.
        """
        m = self.manifest
        tokens = np.zeros((len(images), *m.tokens.shape), np.float32)
        fine = np.zeros((len(images), *m.fine.shape), np.float32) if m.fine else None
        for start in range(0, len(images), len(m.views)):
            some = [as_rgb_image(image, what=f'image {row}')
                    for row, image in enumerate(images[start:start + len(m.views)], start)]
            made, finer = self._tokens(some)
            tokens[start:start + len(some)] = made[:len(some)]
            if fine is not None and finer is not None:
                fine[start:start + len(some)] = finer[:len(some)]
        return tokens, fine

    def part(self, embedding: Floats, name: str) -> Floats:
        """
        Take one part of an embedding.

        :param embedding: float32 [V, dim], of this encoder.
        :returns: float32 [V, *shape], a view and no copy; `self.parts` has the shapes.
        :raises ValueError: the encoder was not asked for this part.
        """
        return part_named(self.parts, name).of(embedding)

    def embed(self, recent: Recent, task: TaskFeatures) -> tuple[Floats, Floats, str]:
        """
        Make the parts of an embedding.

        :returns: embedding float32 [V, dim], zeros where a view is not valid; attention float32
            [V, N] to the tokens of the newest frame, uniform where no part attends; and how the
            parts that depend on the instruction are pooled.
        :raises InferenceError: a graph failed or returned values that are not finite.
        """
        pooling = 'attention' if self.pooling == 'attention' and task.text else 'mean'
        valid, last = recent.valid[:, None], self.parts[-1]
        embedding = np.empty((len(recent.valid), last.offset + last.size), np.float32)
        attention: Floats | None = None
        made: dict[str, Floats] = {}
        if self._spatial:
            made['spatial'], made['keypoints'] = self._spatial.run({'tokens': recent.tokens})
            require_finite(SPATIAL, *made.values())
        for part in self.parts:
            if part.name == 'clip':
                values, looked = self._pool(recent.clip(), task, pooling)
                # Of the newest frame alone it says more.
                attention = looked if attention is None else attention
            elif part.name == 'task' and pooling == 'attention':
                values, attention = self._pool(recent.newest(), task, pooling)
            else:
                values = made[part.name] if part.name in made else _unit(recent.tokens.mean(1))
            # What a graph makes of nothing is no embedding, whatever numbers come out.
            embedding[:, part.offset:part.offset + part.size] = np.where(
                valid, values, np.float32(0.0))
        if attention is None:
            count = recent.tokens.shape[1]
            attention = np.repeat(valid.astype(np.float32) / np.float32(count), count, axis=1)
        return embedding, attention, pooling

    def _pool(self, clip: Clip, task: TaskFeatures, pooling: str) -> tuple[Floats, Floats]:
        """Pool a clip's tokens: float32 [V, C], and attention to the newest frame's [V, N]."""
        if pooling == 'mean':
            weights = clip.mask / np.maximum(clip.mask.sum(1, keepdims=True), 1.0)
            count = clip.tokens.shape[2]
            attention = np.repeat(weights[..., None] / count, count, axis=2)
            embedding = _unit(np.einsum('vtnc,vtn->vc', clip.tokens, attention, optimize=True))
        else:
            embedding, attention = self._embed.run(
                {'tokens': clip.tokens, 'mask': clip.mask, 'task': task.features[0]})
        require_finite('embed.onnx', embedding, attention)
        return embedding, attention[:, -1]

    @property
    def precision_cosine(self) -> float | None:
        """
        Tell how near the tokens of `precision` come to those of float32.

        :returns: the mean cosine of an image's mean token, as the bundle's export measured it on
            a few images; 1 for fp32; None: not measured.
        """
        if self.precision == 'fp32':
            return 1.0
        found = self.manifest.metrics.get(f'visual_{self.precision}_cosine')
        mean = found.get('mean') if isinstance(found, Mapping) else None
        return float(mean) if isinstance(mean, (int, float)) and 0.0 < mean <= 1.0 else None

    def score(self, clip: Clip, task: TaskFeatures) -> Success:
        """Run the task's head on a clip and calibrate its score."""
        if not task.text:
            return Success(None, None, None, None, (), (), None, None, clip.stamps, None, None)
        head = self._heads.get(task.task.head)
        feed = {'tokens': clip.tokens, 'mask': clip.mask, 'age': clip.age}
        if clip.fine is not None:
            feed['fine'] = clip.fine
        video: Floats | None = None
        trained, ood_threshold = self.manifest.success.trained, self.manifest.ood_threshold
        if head is None or 'video' in head.takes:
            _, modes, progress, score, ood, failed, video = made = _run(self._success, {
                **feed, 'text': task.features, 'mode_mask': task.task.mode_mask})
            require_finite('success.onnx', *made)
        if head is not None:
            # Where it was taught, or of what else it learned, the bundle's own means little.
            score, failed, ood = made = _run(head, {
                **feed, 'text': task.features[0], 'video': video})
            require_finite(task.task.head, *made)
            modes, ood_threshold = np.ones(1, np.float32), task.task.ood_threshold
        there = np.atleast_1d(clip.mask.any(axis=1))
        # What a view says that the task's head was not taught does not matter.
        taught = {view for one in task.task.calibrations for view in one.views} \
            if task.task.head else set(self.manifest.views)
        seen = frozenset(view for view, used in zip(
            self.manifest.views, there, strict=True) if used and view in taught)
        calibration = task.task.calibration(seen)
        raw = float(score[0])
        return Success(
            # The graph's own is not calibrated, and nothing to act on.
            probability=calibration.apply(raw) if calibration else None,
            progress=float(np.clip(progress[0], 0.0, 1.0)) if trained and head is None else None,
            raw_score=raw,
            failure=float(np.clip(failed[0], 0.0, 1.0))
            if (trained if head is None else task.task.modes) else None,
            modes=tuple(float(p) for p in np.clip(modes[:len(task.task.modes)], 0.0, 1.0)),
            mode_names=task.task.modes,
            ood_score=float(ood[0]) if ood_threshold is not None else None,
            ood_threshold=ood_threshold,
            clip_stamps=clip.stamps, calibration=calibration, video=video)


def _run(graph: Graph, feed: Mapping[str, Any]) -> list[Floats]:
    """Run a graph on as much of this as it takes."""
    return graph.run({name: feed[name] for name in graph.takes})


def _unit(rows: Floats) -> Floats:
    """Scale rows to norm 1; zeros stay."""
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(norm, 1e-12), np.float32)
