# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A policy: a folder with `policy.onnx` and `policy.yaml`, from an embedding to a chunk of actions.

    encoder = Encoder.load(bundle, **read_policy(folder).encoder_options)
    policy = Policy.load(folder, encoder)
    attempt = policy.start_attempt()
    episode = encoder.start_episode(policy.spec.task)
    while True:
        tick = episode.step(images, stamp=time_ns)
        if attempt.due:
            attempt.observe(tick.embedding, proprio)
        command = attempt.next_action()

The graph takes `embedding`, float32 [V, D], the parts that the policy wants of the views that it
wants, in its own order; and `proprio`, float32 [P]. It returns `actions`, float32 [chunk, A], in
the units that policy.yaml names: normalisation is inside. An input that a policy does not want, it
does not have.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
import math
import os
from pathlib import Path
from typing import Annotated, Any

from hralign_ros.runtime.encoder import Encoder, POOLINGS, PRECISIONS
from hralign_ros.runtime.episode import require_finite
from hralign_ros.runtime.errors import BundleError, PolicyError
from hralign_ros.runtime.files import load_yaml, MAX_YAML_BYTES, read_bounded
from hralign_ros.runtime.graphs import Graph
from hralign_ros.runtime.identity import Identity, ingredients_of, POOLED
from hralign_ros.runtime.images import ViewGeometry
from hralign_ros.runtime.parts import EmbeddingPart
from hralign_ros.runtime.providers import SessionFactory, Tensor
from hralign_ros.runtime.schema import in_brief, Limits, parse, Text
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SCHEMA_VERSION = 1
MANIFEST, GRAPH = 'policy.yaml', 'policy.onnx'
MAX_GRAPH_BYTES = 512 << 20
# Crops that differ by less are one: a hundredth of a pixel.
_SAME_CROP = 1e-6


@dataclass(frozen=True)
class Channel:
    """One number: its name, and the unit it is in."""

    name: Text
    unit: str = ''


@dataclass(frozen=True)
class PartSpec:
    """A part of an embedding that a policy wants: its name and its shape in each view."""

    name: Text
    shape: Annotated[tuple[int, ...], Limits(1, 8)]

    @property
    def size(self) -> int:
        """Length of the part in a row."""
        return math.prod(self.shape)


# 64 hexadecimal digits.
Hash = Annotated[str, Limits(64, 64)]


@dataclass(frozen=True)
class EmbeddingSpec:
    """
    What the embeddings were made by that a policy learnt from.

    :param sha256: the encoder's embedding_sha256.
    :param ingredients: those that the policy's parts depend on, see identity.Identity. With them,
        what its parts do not depend on may change. Empty: nothing may.
    :param instruction_sha256: of the instruction, see text.TaskFeatures; '': any, as it is for
        parts that do not depend on it.
    :param precision: of the encoder, see Encoder; '': not said.
    :param pooling: of the encoder, likewise; of no account without the parts `task` and `clip`.
    :param rotation: by view, how images were turned, see ViewGeometry.
    :param crop: by view, what of them was used; a view that is in neither: not said.
    """

    sha256: Hash
    ingredients: Mapping[str, str] = field(default_factory=dict)
    instruction_sha256: str = ''
    precision: str = ''
    pooling: str = ''
    rotation: Mapping[str, int] = field(default_factory=dict)
    crop: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, allowed in (('precision', PRECISIONS), ('pooling', POOLINGS)):
            if getattr(self, name) not in ('', *allowed):
                raise ValueError(f"{name} is '{getattr(self, name)}'; allowed: "
                                 f'{", ".join(allowed)}')
        if set(self.rotation) != set(self.crop):
            raise ValueError(
                f'rotation is of {", ".join(self.rotation) or "no view"}, and crop of '
                f'{", ".join(self.crop) or "no view"}; needed are the same views')
        self.geometry  # noqa: B018  # raises what is wrong with it

    @property
    def geometry(self) -> dict[str, ViewGeometry]:
        """By view, how its images were turned and cropped; others: not said."""
        return {view: ViewGeometry(self.rotation[view], self.crop[view])  # type: ignore[arg-type]
                for view in self.rotation}


@dataclass(frozen=True)
class PolicySpec:
    """
    What policy.yaml says.

    :param task: the instruction that the encoder is given.
    :param graph_sha256: of policy.onnx.
    :param views: V names, in the order of the graph's rows; none where `parts` is empty.
    :param parts: in the order of a row.
    :param proprio: P numbers, in order.
    :param actions: A numbers of each action, in order.
    :param chunk: actions that the graph returns.
    :param execute: so many of them are run before it is asked again.
    :param period_s: time between two actions [s].
    :param bundle_sha256: of the bundle whose embeddings it learnt from; '' without parts.
    :param embedding: what these were made by; None: policy.yaml does not say, and the policy takes
        embeddings of that bundle alone.
    :param training: for people: what it was trained on, and how.
    """

    task: Text
    graph_sha256: Hash
    views: Annotated[tuple[Text, ...], Limits(0, 8)]
    parts: Annotated[tuple[PartSpec, ...], Limits(0, 16)]
    proprio: Annotated[tuple[Channel, ...], Limits(0, 256)]
    actions: Annotated[tuple[Channel, ...], Limits(1, 256)]
    chunk: Annotated[int, Limits(1, 256)]
    execute: Annotated[int, Limits(1, 256)]
    period_s: Annotated[float, Limits(1e-3, 60.0)]
    bundle_sha256: str = ''
    embedding: EmbeddingSpec | None = None
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.execute > self.chunk:
            raise ValueError(f'execute is {self.execute}; allowed is chunk, {self.chunk}, at most')
        known = bool(self.bundle_sha256 or self.embedding)
        if bool(self.parts) != bool(self.views) or bool(self.parts) != known:
            raise ValueError('parts, views and embedding or bundle_sha256 go together: needed are '
                             'all or none')
        if not self.parts and not self.proprio:
            raise ValueError('parts and proprio are both empty; needed is one of them')
        for what, names in (('views', self.views), ('parts', self.part_names),
                            ('proprio', [one.name for one in self.proprio]),
                            ('actions', [one.name for one in self.actions])):
            if len(set(names)) != len(names):
                raise ValueError(f'{what} are {", ".join(names)}; needed are different names')
        if self.embedding is not None and self.embedding.ingredients:
            wanted, given = ingredients_of(self.part_names), self.embedding.ingredients
            if set(given) != set(wanted):
                raise ValueError(
                    f'embedding.ingredients are {", ".join(given)}; needed are those of the parts,'
                    f' {", ".join(wanted)}, or none at all')

    @property
    def encoder_options(self) -> dict[str, Any]:
        """
        Give the options with which Encoder.load makes what the policy learnt from.

        Parts, and precision, pooling and geometry as far as policy.yaml says them.
        """
        learnt = self.embedding or EmbeddingSpec('')
        said = {'precision': learnt.precision, 'pooling': learnt.pooling,
                'geometry': learnt.geometry}
        return {'parts': self.part_names, **{
            name: value for name, value in said.items() if value}}

    @property
    def pooled(self) -> tuple[str, ...]:
        """Names of the parts that depend on the instruction."""
        return tuple(name for name in self.part_names if name in POOLED)

    @property
    def attends(self) -> bool:
        """Whether a part that it wants attends to the instruction."""
        return bool(self.pooled) and (
            self.embedding is None or self.embedding.pooling != 'mean')

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the parts, for Encoder.load."""
        return tuple(part.name for part in self.parts)

    @property
    def row(self) -> int:
        """D, length of a view's row of the graph's input."""
        return sum(part.size for part in self.parts)


def read_policy(folder: str | os.PathLike[str]) -> PolicySpec:
    """
    Read and check policy.yaml.

    :raises PolicyError: it is not there, or not as it should be.
    """
    path = Path(folder) / MANIFEST
    data = _read(path, MAX_YAML_BYTES)
    try:
        document = load_yaml(data)
    except Exception as error:  # PyYAML's constructors raise whatever they run into
        reason = (str(error) or type(error).__name__).splitlines()[0][:300]
        raise PolicyError(f'{path}: not YAML as a policy has it ({reason})') from error
    try:
        if not isinstance(document, dict):
            raise ValueError('it is not a mapping')
        version = document.pop('schema_version', None)
        if version != SCHEMA_VERSION:
            raise ValueError(f'schema_version is {in_brief(version)}; this package reads '
                             f'{SCHEMA_VERSION}')
        return parse(PolicySpec, document)
    except ValueError as error:
        raise PolicyError(f'{path}: {error}') from error


@dataclass(frozen=True)
class Layout:
    """
    What an embedding consists of, as an encoder makes it or as a message says.

    :param bundle_sha256: of the bundle that makes it.
    :param views: names of the rows.
    :param parts: the slices of a row.
    :param source: where the bundle lies, for errors.
    :param identity: what the embedding is made by.
    :param precision: of the encoder; `precision_cosine` see Encoder.
    :param pooling: of the encoder.
    :param geometry: by view, how its images are turned and cropped; others: not told.
    :param configuration_id: of the encoder.
    """

    bundle_sha256: str
    views: tuple[str, ...]
    parts: tuple[EmbeddingPart, ...]
    source: str
    identity: Identity
    precision: str = ''
    precision_cosine: float | None = None
    pooling: str = ''
    geometry: Mapping[str, ViewGeometry] = field(default_factory=dict)
    configuration_id: int = 0

    @classmethod
    def of(cls, encoder: Encoder) -> 'Layout':
        """Tell how the embeddings of an encoder are laid out."""
        return cls(encoder.bundle.sha256, tuple(encoder.manifest.views), tuple(encoder.parts),
                   str(encoder.bundle.path), encoder.identity, precision=encoder.precision,
                   precision_cosine=encoder.precision_cosine, pooling=encoder.pooling,
                   geometry=encoder.geometry, configuration_id=encoder.configuration_id)


class Policy:
    """
    A loaded policy; make one with Policy.load.

    :ivar folder: where it was loaded from.
    :ivar spec: what policy.yaml says.
    :ivar remark: how the encoder is set otherwise than for what the policy learnt from, where that
        may do no harm, and what is not known of it; '': nothing.
    """

    def __init__(
        self, folder: Path, spec: PolicySpec, graph: Graph, columns: NDArray[np.int64],
        rows: Sequence[int], remark: str = '',
    ) -> None:
        self.folder, self.spec, self.remark = folder, spec, remark
        self._graph, self._columns, self._rows = graph, columns, list(rows)

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], encoder: Encoder | Layout | None = None, *,
        threads: int = 1,
    ) -> 'Policy':
        """
        Load a policy and see that it belongs to an encoder.

        :param encoder: whose embeddings it will be given, or how they are laid out; None: a policy
            without parts.
        :raises PolicyError: a file is missing or damaged, the graph does not keep the contract, or
            the policy learnt from other embeddings, parts or views, or from images that were
            turned or cropped otherwise. What else differs, `remark` says.
        :raises ProviderError: onnxruntime is not installed.
        :raises TaskError: the encoder cannot use the policy's instruction.
        """
        folder = Path(folder)
        spec = read_policy(folder)
        layout = Layout.of(encoder) if isinstance(encoder, Encoder) else encoder
        places = _places(folder, spec, layout)
        if isinstance(encoder, Encoder):
            _require_instruction(folder, spec, encoder)
        return cls(folder, spec, _load_graph(folder, spec, threads), *places,
                   _remark(folder, spec, layout))

    @classmethod
    def read(cls, folder: str | os.PathLike[str], *, threads: int = 1) -> 'Policy':
        """
        Load a policy that is told later whose embeddings it will be given, see `placed`.

        :raises PolicyError: see `load`; an encoder is not asked for.
        :raises ProviderError: onnxruntime is not installed.
        """
        folder = Path(folder)
        spec = read_policy(folder)
        return cls(folder, spec, _load_graph(folder, spec, threads), np.zeros(0, np.int64), [])

    def placed(self, layout: Layout) -> 'Policy':
        """
        Give this policy for embeddings that are laid out so; its graph is shared.

        :raises PolicyError: see `load`.
        """
        return Policy(self.folder, self.spec, self._graph,
                      *_places(self.folder, self.spec, layout),
                      _remark(self.folder, self.spec, layout))

    def actions(self, embedding: Floats | None, proprio: Sequence[float] | Floats) -> Floats:
        """
        Ask for a chunk of actions.

        :param embedding: of the encoder that it was loaded with, float32 [V, dim]; None: the
            policy has no parts.
        :param proprio: P numbers, in the order and units of `spec.proprio`.
        :returns: float32 [chunk, A], in the units of `spec.actions`.
        :raises ValueError: an input of another shape, or one that is not finite: what a graph
            makes of that may be finite all the same.
        :raises InferenceError: the graph failed or returned values that are not finite.
        """
        spec, feed = self.spec, {}
        if spec.parts:
            if embedding is None or embedding.ndim != 2 or not self._rows \
                    or len(embedding) <= max(self._rows) \
                    or embedding.shape[1] <= self._columns.max():
                came = None if embedding is None else list(embedding.shape)
                raise ValueError(f'the embedding is {came}; needed is that of the encoder that '
                                 'the policy was loaded with')
            feed['embedding'] = np.ascontiguousarray(
                embedding[self._rows][:, self._columns], np.float32)
        numbers = np.asarray(proprio, np.float32)
        if numbers.shape != (len(spec.proprio),):
            raise ValueError(
                f'proprio has shape {list(numbers.shape)}; needed are {len(spec.proprio)} numbers'
                f': {", ".join(one.name for one in spec.proprio) or "none"}')
        if spec.proprio:
            feed['proprio'] = numbers
        if wrong := [name for name, values in feed.items() if not np.isfinite(values).all()]:
            raise ValueError(f'{" and ".join(wrong)} holds values that are not finite; nothing is '
                             'decided on it. Look at who sends it')
        chunk: Floats = self._graph.run(feed)[0]
        require_finite(GRAPH, chunk)
        return chunk

    def start_attempt(self) -> 'Attempt':
        """Start an attempt at the task."""
        return Attempt(self)


class Attempt:
    """One attempt of a policy: its chunks of actions, each run as far as the policy says."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._left: deque[Floats] = deque()

    @property
    def left(self) -> int:
        """Actions that are left of the last chunk."""
        return len(self._left)

    @property
    def due(self) -> bool:
        """Tell whether the next action has to be asked for."""
        return not self._left

    def observe(self, embedding: Floats | None, proprio: Sequence[float] | Floats) -> Floats:
        """
        Ask for the next chunk, in place of what is left of the last; see Policy.actions.

        :returns: all of it, float32 [chunk, A].
        """
        chunk = self._policy.actions(embedding, proprio)
        self._left = deque(chunk[:self._policy.spec.execute])
        return chunk

    def next_action(self) -> Floats:
        """
        Give the action for the next period, float32 [A].

        :raises ValueError: none is left; observe first.
        """
        if not self._left:
            raise ValueError('no action is left of the chunk; observe first')
        return self._left.popleft()


def _load_graph(folder: Path, spec: PolicySpec, threads: int) -> Graph:
    """Load policy.onnx and see that it keeps the contract."""
    model = _read(folder / GRAPH, MAX_GRAPH_BYTES)
    if (found := sha256(model).hexdigest()) != spec.graph_sha256:
        raise PolicyError(
            f'{folder / GRAPH}: SHA-256 is {found[:12]}..., but {MANIFEST} says '
            f'{spec.graph_sha256[:12]}...; the file was damaged or replaced. Copy or export '
            'the policy again')
    inputs = [Tensor('embedding', 'float32', (len(spec.views), spec.row))] \
        if spec.parts else []
    if spec.proprio:
        inputs.append(Tensor('proprio', 'float32', (len(spec.proprio),)))
    try:
        graph = Graph(
            model, name=GRAPH, inputs=inputs,
            outputs=[Tensor('actions', 'float32', (spec.chunk, len(spec.actions)))],
            factory=SessionFactory('cpu', threads=threads))
    except BundleError as error:
        raise PolicyError(f'{folder}: {error}') from error
    return graph


def _places(
    folder: Path, spec: PolicySpec, layout: Layout | None,
) -> tuple[NDArray[np.int64], list[int]]:
    """Find in an embedding what a policy wants: columns and rows."""
    if not spec.parts:
        return np.zeros(0, np.int64), []
    if layout is None:
        raise PolicyError(f'{folder}: the policy needs an embedding with the parts '
                          f'{", ".join(spec.part_names)}; give the encoder that makes it')
    _require_same(folder, spec, layout)
    views = layout.views
    if missing := [view for view in spec.views if view not in views]:
        raise PolicyError(f'{folder}: the policy wants the view {", ".join(missing)}; the encoder '
                          f'has {", ".join(views)}')
    there = {part.name: part for part in layout.parts}
    if missing := [name for name in spec.part_names if name not in there]:
        raise PolicyError(
            f'{folder}: the policy wants the part {", ".join(missing)}; the encoder makes '
            f'{", ".join(there)}. Load it with parts={list(spec.part_names)}')
    for part in spec.parts:
        if there[part.name].shape != part.shape:
            raise PolicyError(
                f'{folder}: the policy wants the part {part.name} as {list(part.shape)}; the '
                f'encoder makes {list(there[part.name].shape)}')
    _require_setting(folder, spec, layout)
    columns = np.concatenate([
        np.arange(there[name].offset, there[name].offset + there[name].size)
        for name in spec.part_names])
    return columns, [views.index(view) for view in spec.views]


def _require_same(folder: Path, spec: PolicySpec, layout: Layout) -> None:
    """See that an encoder's embeddings are made as those that a policy learnt from."""
    learnt, found = spec.embedding, layout.identity
    if learnt is None:
        if layout.bundle_sha256 != spec.bundle_sha256:
            raise PolicyError(
                f'{folder}: the policy learnt from the bundle {spec.bundle_sha256[:12]}, and the '
                f'encoder has {layout.bundle_sha256[:12]} ({layout.source}); load that bundle, '
                'or train the policy again')
        return
    if found.sha256 == learnt.sha256:
        return
    differences = [f'embedding_sha256 is {found.sha256[:12] or "not told"}, and not '
                   f'{learnt.sha256[:12]}']
    if learnt.ingredients and found.ingredients:
        differences = found.differences(learnt.ingredients)
    if differences:
        raise PolicyError(
            f'{folder}: the policy learnt from other embeddings than the encoder makes '
            f'({layout.source}): {"; ".join(differences)}. Load the bundle that it learnt from, '
            'or train the policy again')


def _require_setting(folder: Path, spec: PolicySpec, layout: Layout) -> None:
    """See that an encoder turns, crops and pools as it was done for what a policy learnt from."""
    learnt = spec.embedding
    if learnt is None:
        return
    for view in (view for view in spec.views if view in learnt.geometry):
        wanted, found = learnt.geometry[view], layout.geometry.get(view)
        if found is None or found.rotation != wanted.rotation or max(
                abs(a - b) for a, b in zip(found.crop, wanted.crop, strict=True)) > _SAME_CROP:
            raise PolicyError(
                f'{folder}: the policy learnt from images of {view} with {_in_words(wanted)}; the '
                f'encoder takes them with {_in_words(found)}. Set {view}.rotation and '
                f'{view}.crop of the encoder so. (Where its demonstrations were turned or cropped '
                f'before they were imported, say in {MANIFEST} what the encoder has to do with '
                'images of the camera)')
    if spec.pooled and learnt.pooling and layout.pooling != learnt.pooling:
        raise PolicyError(
            f'{folder}: the policy learnt {", ".join(spec.pooled)} with pooling {learnt.pooling}; '
            f'the encoder has {layout.pooling or "not told which"}. Set pooling of the encoder')


def _in_words(geometry: ViewGeometry | None) -> str:
    return 'what it does not tell' if geometry is None else \
        f'rotation {geometry.rotation} and crop {[round(side, 6) for side in geometry.crop]}'


def _remark(folder: Path, spec: PolicySpec, layout: Layout | None) -> str:
    """Say what of an encoder's setting differs or is not known, and is allowed all the same."""
    if layout is None or not spec.parts:
        return ''
    learnt, remarks = spec.embedding or EmbeddingSpec(''), []
    unsaid = [view for view in spec.views if view not in learnt.geometry]
    if unsaid:
        remarks.append(f'{folder / MANIFEST} does not say how images of {", ".join(unsaid)} were '
                       'turned and cropped: see to it that the encoder does the same')
    if learnt.precision and layout.precision != learnt.precision:
        cosine = f'; on average the cosine of {layout.precision} with fp32 is ' \
            f'{layout.precision_cosine:.4f}' if layout.precision_cosine not in (None, 1.0) else ''
        remarks.append(
            f'the encoder runs {layout.precision or "an unknown precision"}, and the policy '
            f'learnt from {learnt.precision}{cosine}. What it makes of the difference was not '
            f'measured: set precision of the encoder to {learnt.precision}, or try it out')
    return '; '.join(remarks)


def _require_instruction(folder: Path, spec: PolicySpec, encoder: Encoder) -> None:
    """See that an encoder reads the instruction in the words that a policy learnt with."""
    learnt = spec.embedding
    if learnt is None or not learnt.instruction_sha256 or not spec.attends:
        return
    found = encoder.text.encode(spec.task)
    if found.instruction_sha256 != learnt.instruction_sha256:
        said = found.task.name if found.known else found.text
        raise PolicyError(f'{folder}: {other_words(spec, said)}')


def other_words(spec: PolicySpec, said: str) -> str:
    """
    Say that an instruction is read in other words than those that a policy learnt with.

    :param said: the words; '': not known.
    """
    words = f"in the words '{said[:80]}'" if said else 'in other words'
    return (f"the encoder reads the instruction '{spec.task[:80]}' {words}, and the policy learnt "
            f'{", ".join(spec.pooled)} with others. Which words, the bundle decides, by its tasks '
            'and their aliases: load the bundle that it learnt from, or train the policy again')


def _read(path: Path, limit: int) -> bytes:
    try:
        data = read_bounded(path, limit)
    except OSError as error:
        raise PolicyError(
            f'{path}: cannot be read ({error.strerror}); a policy is a folder with {MANIFEST} and '
            f'{GRAPH} in it, as `hralign policy train` writes it') from error
    if len(data) > limit:
        raise PolicyError(f'{path}: larger than {limit} bytes; no policy is')
    return data
