# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A tiny bundle whose every number can be told by hand.

It has the signatures of a real one and graphs of a few kilobytes, made without torch.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from hashlib import sha256
from itertools import combinations
from pathlib import Path
import tempfile
from typing import Any

from hralign_ros.export.writer import graphs_of, write_bundle
from hralign_ros.runtime.bundle import (
    AdapterSpec,
    BackboneSpec,
    ClipSpec,
    HeadSpec,
    load_bundle,
    Manifest,
    OodSpec,
    SuccessSpec,
    SuccessTraining,
    TextSpec,
    TokenSpec,
)
from hralign_ros.runtime.tasks import Calibration, FALLBACK, load_tasks, Task, TaskTable
import numpy as np

VIEWS = ('left', 'middle', 'right')
ROBOT_VIEWS = ('wrist', 'third_person')
SIDE, GRID, CHANNELS, LENGTH = 16, 2, 4, 3
# Fine tokens: rows and columns, and numbers of each.
FINE, FINE_CHANNELS = 4, 3
DIM, MODES, PROMPT = 8, 2, 2
# x and y of the middle of each quarter of an image.
PLACES = np.array([[-.5, -.5], [.5, -.5], [-.5, .5], [.5, .5]], np.float32)
WORDS = ('[UNK]', 'pick', 'up', 'the', 'cup', 'open', 'drawer', 'close', 'shared', 'warm')


def _model(nodes: list[Any], inputs: Any, outputs: Any, constants: Mapping[str, Any]) -> bytes:
    """Make an opset 18 graph; inputs and outputs are name -> (element type, shape)."""
    import onnx
    from onnx import helper, numpy_helper

    def infos(described: Any) -> list[Any]:
        return [helper.make_tensor_value_info(name, getattr(onnx.TensorProto, kind), shape)
                for name, (kind, shape) in described.items()]

    graph = helper.make_graph(
        nodes, 'tiny', infos(inputs), infos(outputs),
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)])
    model.ir_version = 10
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _preprocess() -> bytes:
    """Resize as the real one does; pixels are in [0, 1]."""
    from onnx import helper

    return _model(
        [helper.make_node('Transpose', ['image'], ['planes'], perm=[0, 3, 1, 2]),
         helper.make_node('Cast', ['planes'], ['floats'], to=1),
         helper.make_node('Resize', ['floats', '', '', 'size'], ['resized'], mode='linear',
                          antialias=1, axes=[2, 3]),
         helper.make_node('Div', ['resized', 'most'], ['pixels'])],
        {'image': ('UINT8', [1, 'H', 'W', 3])}, {'pixels': ('FLOAT', [1, 3, SIDE, SIDE])},
        {'size': np.array([SIDE, SIDE], np.int64), 'most': np.float32(255.0)})


def _visual(views: int, fine: bool) -> bytes:
    """
    Mean red, green and blue of each quarter of the image, and a constant 1.

    Fine tokens: the mean colours of each sixteenth.
    """
    from onnx import helper

    finer = [
        helper.make_node('AveragePool', ['pixels'], ['sixteenths'], kernel_shape=[4, 4],
                         strides=[4, 4]),
        helper.make_node('Reshape', ['sixteenths', 'fine_flat'], ['fine_rows']),
        helper.make_node('Transpose', ['fine_rows'], ['fine'], perm=[0, 2, 1])] if fine else []
    return _model(
        [helper.make_node('AveragePool', ['pixels'], ['pooled'], kernel_shape=[8, 8],
                          strides=[8, 8]),
         helper.make_node('Concat', ['pooled', 'ones'], ['map'], axis=1),
         helper.make_node('Reshape', ['map', 'flat'], ['rows']),
         helper.make_node('Transpose', ['rows'], ['tokens'], perm=[0, 2, 1]), *finer],
        {'pixels': ('FLOAT', [views, 3, SIDE, SIDE])},
        {'tokens': ('FLOAT', [views, GRID * GRID, CHANNELS]),
         **({'fine': ('FLOAT', [views, FINE * FINE, FINE_CHANNELS])} if fine else {})},
        {'ones': np.ones((views, 1, GRID, GRID), np.float32),
         'flat': np.array([views, CHANNELS, GRID * GRID], np.int64),
         **({'fine_flat': np.array([views, FINE_CHANNELS, FINE * FINE], np.int64)}
            if fine else {})})


def _embed(views: int) -> bytes:
    """Attend as HR-Align does; the query is the first C values of the task's feature."""
    from onnx import helper

    node, count = helper.make_node, GRID * GRID
    return _model(
        [node('MatMul', ['weight', 'task'], ['query']),
         node('MatMul', ['tokens', 'query'], ['scores']),
         node('Unsqueeze', ['mask', 'last'], ['wide_mask']),
         node('Sub', ['wide_mask', 'one'], ['missing']),
         node('Mul', ['missing', 'large'], ['penalty']),
         node('Add', ['scores', 'penalty'], ['masked']),
         node('Reshape', ['masked', 'flat'], ['flat_scores']),
         node('Softmax', ['flat_scores'], ['weights'], axis=1),
         node('Reshape', ['weights', 'clip'], ['even']),
         node('Mul', ['even', 'wide_mask'], ['attention']),
         node('Unsqueeze', ['attention', 'end'], ['wide']),
         node('Mul', ['tokens', 'wide'], ['weighed']),
         node('ReduceSum', ['weighed', 'over'], ['pooled'], keepdims=0),
         node('ReduceL2', ['pooled', 'last_axis'], ['norm'], keepdims=1),
         node('Max', ['norm', 'least'], ['safe']),
         node('Div', ['pooled', 'safe'], ['embedding'])],
        {'tokens': ('FLOAT', [views, LENGTH, count, CHANNELS]),
         'mask': ('FLOAT', [views, LENGTH]), 'task': ('FLOAT', [DIM])},
        {'embedding': ('FLOAT', [views, CHANNELS]),
         'attention': ('FLOAT', [views, LENGTH, count])},
        {'weight': np.eye(CHANNELS, DIM, dtype=np.float32) * 4.0,
         'one': np.float32(1.0), 'large': np.float32(1e9), 'least': np.float32(1e-12),
         'last': np.array([2], np.int64), 'end': np.array([3], np.int64),
         'over': np.array([1, 2], np.int64), 'last_axis': np.array([1], np.int64),
         'flat': np.array([views, -1], np.int64),
         'clip': np.array([views, LENGTH, count], np.int64)})


def _spatial(views: int) -> bytes:
    """
    Take the channels themselves as components.

    So `spatial` is the tokens as they are, and a keypoint is where its colour is bright.
    """
    from onnx import helper

    node, count = helper.make_node, GRID * GRID
    return _model(
        [node('Reshape', ['tokens', 'flat'], ['spatial']),
         node('Softmax', ['tokens'], ['weights'], axis=1),
         node('Transpose', ['weights'], ['turned'], perm=[0, 2, 1]),
         node('MatMul', ['turned', 'places'], ['points']),
         node('Reshape', ['points', 'flat'], ['keypoints'])],
        {'tokens': ('FLOAT', [views, count, CHANNELS])},
        {'spatial': ('FLOAT', [views, count * CHANNELS]),
         'keypoints': ('FLOAT', [views, CHANNELS * 2])},
        {'flat': np.array([views, -1], np.int64), 'places': PLACES})


def _success(views: int, grounded: bool) -> bytes:
    """
    Say what can be told by hand.

    The score is the number of frames that are not masked, over all views; progress is their share
    of the clip, and so is the probability of having failed; modes are even; the OOD score is the
    largest age; the video's vector is the task's own.

    Grounded, the score is ten times the mean of the first fine tokens and that of the newest,
    wherever the last view takes part.
    """
    from onnx import helper

    node = helper.make_node
    looks = [
        node('ReduceMean', ['fine', 'over'], ['each'], keepdims=0),
        node('Mul', ['each', 'weights'], ['weighed']),
        node('ReduceSum', ['weighed'], ['seen'], keepdims=0),
        node('Gather', ['mask', 'view'], ['own'], axis=0),
        node('ReduceMax', ['own'], ['there'], keepdims=0),
        node('Greater', ['there', 'none'], ['some_of_it']),
        node('Where', ['some_of_it', 'seen', 'frames'], ['said']),
        node('Reshape', ['said', 'single'], ['score'])] if grounded else [
        node('Reshape', ['frames', 'single'], ['score'])]
    return _model(
        [node('ReduceSum', ['mask'], ['frames'], keepdims=0),
         *looks,
         node('Sigmoid', ['score'], ['probability']),
         node('Div', ['frames', 'slots'], ['progress']),
         node('ReduceSum', ['mode_mask'], ['used'], keepdims=1),
         node('Max', ['used', 'one'], ['some']),
         node('Div', ['mode_mask', 'some'], ['modes']),
         node('ReduceMax', ['age'], ['oldest'], keepdims=0),
         node('Reshape', ['oldest', 'single'], ['ood']),
         node('Identity', ['progress'], ['failed']),
         node('Gather', ['text', 'first'], ['video'], axis=0)],
        {'tokens': ('FLOAT', [views, LENGTH, GRID * GRID, CHANNELS]),
         'mask': ('FLOAT', [views, LENGTH]), 'age': ('FLOAT', [views, LENGTH]),
         'text': ('FLOAT', [1 + MODES, DIM]), 'mode_mask': ('FLOAT', [MODES]),
         **({'fine': ('FLOAT', [2, FINE * FINE, FINE_CHANNELS])} if grounded else {})},
        {'probability': ('FLOAT', [1]), 'modes': ('FLOAT', [MODES]), 'progress': ('FLOAT', [1]),
         'score': ('FLOAT', [1]), 'ood': ('FLOAT', [1]),
         'failed': ('FLOAT', [1]), 'video': ('FLOAT', [DIM])},
        {'single': np.array([1], np.int64), 'first': np.int64(0),
         'one': np.array([1.0], np.float32), 'slots': np.array([views * LENGTH], np.float32),
         **({'over': np.array([1, 2], np.int64), 'weights': np.array([10.0, 1.0], np.float32),
             'view': np.int64(views - 1), 'none': np.float32(0.0)} if grounded else {})})


def _text() -> bytes:
    """Mean of the words' vectors; a prompt's vectors count as further words. Norm 1."""
    from onnx import helper

    node = helper.make_node
    table = np.random.default_rng(7).standard_normal((len(WORDS), DIM)).astype(np.float32)
    return _model(
        [node('Gather', ['table', 'input_ids'], ['words']),
         node('ReduceSum', ['words', 'axis_one'], ['sum'], keepdims=0),
         node('ReduceSum', ['prompts', 'axis_one'], ['prompt_sum'], keepdims=0),
         node('Add', ['sum', 'prompt_sum'], ['with_prompts']),
         node('Concat', ['sum', 'with_prompts'], ['all'], axis=0),
         node('LpNormalization', ['all'], ['features'], axis=1, p=2)],
        {'input_ids': ('INT64', [1, 'tokens']), 'attention_mask': ('INT64', [1, 'tokens']),
         'prompts': ('FLOAT', ['modes', 'length', DIM]),
         'prompt_mask': ('INT64', ['modes', 'length'])},
        {'features': ('FLOAT', ['rows', DIM])},
        {'table': table, 'axis_one': np.array([1], np.int64)})


def _tokenizer() -> bytes:
    from tokenizers import normalizers, pre_tokenizers, Tokenizer
    from tokenizers.models import WordLevel

    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, '[UNK]'))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer.to_str().encode()


def _tasks(all_views: tuple[str, ...]) -> TaskTable:
    rng = np.random.default_rng(11)

    def task(task_id: str, name: str, **values: Any) -> Task:
        return Task(task_id, name, **values, prompts=rng.standard_normal(
            (MODES, PROMPT, DIM)).astype(np.float32))

    # The same for every set of views.
    calibrations = tuple(
        Calibration(views, 'platt', {'scale': 0.5, 'shift': -1.0}, {0.1: 0.7, 0.05: 0.8})
        for n in range(1, 1 + len(all_views)) for views in combinations(all_views, n))
    return TaskTable(
        (task('cup', 'pick up the cup', aliases=('lift the cup',),
              modes=('dropped', 'never grasped'), calibrations=calibrations),
         task('drawer', 'open the drawer', modes=('stuck',))), task(FALLBACK, FALLBACK))


def listing(folder: Path, names: list[str]) -> dict[str, Any]:
    return {name: {'bytes': (folder / name).stat().st_size,
                   'sha256': sha256((folder / name).read_bytes()).hexdigest()}
            for name in sorted(names)}


def write_tiny_bundle(
    folder: Path, views: tuple[str, ...] = VIEWS, *, ood_threshold: float = 5.0,
    fine: bool = False, grounded: bool = False,
) -> None:
    """
    Write the tiny bundle in place of an empty folder; its last view is the reference.

    :param ood_threshold: an episode that is as many seconds long is out of distribution.
    :param fine: whether it has fine tokens.
    :param grounded: whether its success head looks at them.
    """
    write_bundle(folder, Manifest(
        name='tiny', views=views, reference_view=views[-1], image_size=SIDE,
        clip=ClipSpec(LENGTH, 0.2, 8, 0.1), tokens=TokenSpec(GRID, GRID, CHANNELS),
        text=TextSpec('words', DIM, 32),
        fine=TokenSpec(FINE, FINE, FINE_CHANNELS) if fine else None,
        success=SuccessSpec(MODES, PROMPT, trained=True, dwell_s=0.3, grounded=grounded, training=(
            SuccessTraining(
                episodes=9, successes=4, human_recordings=0, scenes=1, embodiments=('panda',),
                sources=('hand',), licenses=('Apache-2.0',), tasks=2, seed=0, command='none',
                head_sha256='', all_robots=True))),
        ood=OodSpec(ood_threshold), backbone=BackboneSpec('quarters'), adapter=AdapterSpec('none'),
        licenses={'all': 'Apache-2.0'}), {
            'preprocess.onnx': _preprocess(), 'visual.onnx': _visual(len(views), fine),
            'embed.onnx': _embed(len(views)), 'success.onnx': _success(len(views), grounded),
            'spatial.onnx': _spatial(len(views)),
            'text.onnx': _text(), 'tokenizer.json': _tokenizer()}, _tasks(views))


def write_beside(folder: Path, name: str, *, limit: float = 9.0, calibrated: bool = True) -> None:
    """
    Write the tiny bundle of a robot with a shared head, whose one task has this name.

    Its score is that of the first head, and its OOD score 5 for ever.

    :param limit: of the OOD score.
    :param calibrated: whether what is nearest to its task has thresholds.
    """
    from onnx import helper

    source, file = load_bundle(robot_bundle()), 'shared_head.more.onnx'
    table, views = load_tasks(source), source.manifest.views
    graph = _model(
        [helper.make_node('ReduceSum', ['mask'], ['frames'], keepdims=0),
         helper.make_node('Reshape', ['frames', 'single'], ['score']),
         helper.make_node('Identity', ['five'], ['ood']),
         helper.make_node('Sigmoid', ['five'], ['failure'])],
        {'tokens': ('FLOAT', [len(views), LENGTH, GRID * GRID, CHANNELS]),
         'mask': ('FLOAT', [len(views), LENGTH]), 'text': ('FLOAT', [DIM])},
        {'score': ('FLOAT', [1]), 'failure': ('FLOAT', [1]), 'ood': ('FLOAT', [1])},
        {'single': np.array([1], np.int64), 'five': np.array([5.0], np.float32)})
    own = replace(table.tasks[0], task_id='more', name=name, aliases=(), modes=(), head=file,
                  ood_threshold=limit)
    training = source.manifest.success.training
    assert training is not None
    write_bundle(folder, replace(
        source.manifest, heads={file: HeadSpec(training)}), {**graphs_of(source), file: graph},
        TaskTable((*table.tasks, own), replace(
            table.fallback, calibrations=own.calibrations), (replace(
                own, task_id='fallback.more', name='fallback more',
                calibrations=own.calibrations if calibrated else ()),)))


@cache
def _robot_bundle() -> tempfile.TemporaryDirectory[str]:
    """Write it once; the folder goes when Python ends."""
    folder = tempfile.TemporaryDirectory(prefix='hralign_bundle_')
    write_tiny_bundle(Path(folder.name), ROBOT_VIEWS)
    return folder


def robot_bundle() -> Path:
    """Give the tiny bundle of a robot's two cameras; not to be changed."""
    return Path(_robot_bundle().name)
