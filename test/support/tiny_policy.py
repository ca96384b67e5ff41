# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A tiny policy whose actions can be told by hand, and demonstrations to train one on.

Every number of the first action of the tiny policy is the sum of the embedding plus the sum of
proprioception, and every later action is one more.
"""

from hashlib import sha256

from hralign_ros.data.manifest import Episode, write_manifest
from hralign_ros.runtime.video import RecordingWriter
import numpy as np
import yaml

CHUNK, ACTIONS, PROPRIO = 4, 2, 3
TASK = 'pick up the cup'


def tiny_graph(views, row, proprio=PROPRIO, chunk=CHUNK, actions=ACTIONS):
    """Make policy.onnx; 0 of `row` or `proprio`: it has no such input."""
    import onnx
    from onnx import helper, numpy_helper, TensorProto

    inputs, nodes, sums = [], [], []
    for name, shape in (('embedding', [views, row]), ('proprio', [proprio])):
        if np.prod(shape):
            inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
            nodes.append(helper.make_node('ReduceSum', [name], [f'sum_{name}'], keepdims=0))
            sums.append(f'sum_{name}')
    steps = np.arange(chunk, dtype=np.float32)[:, None].repeat(actions, 1)
    total = sums[0]
    if len(sums) > 1:
        nodes.append(helper.make_node('Add', sums, ['total']))
        total = 'total'
    nodes.append(helper.make_node('Add', [total, 'steps'], ['actions']))
    graph = helper.make_graph(
        nodes, 'policy', inputs,
        [helper.make_tensor_value_info('actions', TensorProto.FLOAT, [chunk, actions])],
        [numpy_helper.from_array(steps, 'steps')])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_tiny_policy(folder, encoder=None, parts=(), views=(), change=None, graph=None,
                      numbers=None, **values):
    """
    Write a policy for an encoder, or one without parts.

    :param change: edits the document in place.
    :param graph: in place of the one that fits.
    :param numbers: names of proprioception.
    :param values: keys of the document to set.
    """
    there = {part.name: part for part in encoder.parts} if encoder else {}
    chosen = [there[name] for name in parts]
    proprio = [{'name': f'joint_{i}', 'unit': 'rad'} for i in range(PROPRIO)] \
        if numbers is None else [{'name': name} for name in numbers]
    data = graph or tiny_graph(len(views), sum(part.size for part in chosen), len(proprio))
    document = {
        'schema_version': 1, 'task': TASK, 'graph_sha256': sha256(data).hexdigest(),
        'views': list(views), 'parts': [{'name': p.name, 'shape': list(p.shape)} for p in chosen],
        'proprio': proprio,
        'actions': [{'name': f'move_{i}', 'unit': 'm'} for i in range(ACTIONS)],
        'chunk': CHUNK, 'execute': 2, 'period_s': 0.1,
        'bundle_sha256': encoder.bundle.sha256 if chosen else '', **values}
    if chosen and 'embedding' not in values:
        document['embedding'] = {
            'sha256': encoder.identity.sha256, 'ingredients': encoder.identity.only(parts),
            'instruction_sha256': encoder.text.encode(document['task']).instruction_sha256,
            'precision': 'fp32', 'pooling': 'attention', 'rotation': dict.fromkeys(views, 0),
            'crop': {view: [0.0, 0.0, 1.0, 1.0] for view in views}}
    if change:
        change(document)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'policy.onnx').write_bytes(data)
    (folder / 'policy.yaml').write_text(yaml.safe_dump(document), 'utf-8')
    return folder


def write_demonstrations(folder, count=4, frames=12, hz=10.0, views=('left', 'right')):
    """
    Write a data set whose actions can be told from the images and from proprioception.

    An image of a view is of one grey, other in each frame; the actions are 0.01 times the grey
    of the first view, and the first joint.
    """
    rng = np.random.default_rng(0)
    episodes = []
    for number in range(count):
        greys = rng.integers(20, 230, (frames, len(views)))
        joints = rng.normal(size=(frames, PROPRIO))
        files = {}
        for column, view in enumerate(views):
            files[view] = f'videos/{number}_{view}.mp4'
            with RecordingWriter(folder / files[view]) as video:
                for frame in range(frames):
                    video.add(np.full((16, 16, 3), greys[frame, column], np.uint8), frame / hz)
        episodes.append(Episode(
            episode_id=f'demo_{number}', task_id='cup', task_text=TASK, scene='bench',
            camera='c', embodiment='arm', source='folder', license_id='Apache-2.0', success=True,
            robot_videos=files, time_s=[i / hz for i in range(frames)],
            actions=[[0.01 * float(g), float(j)] for g, j in zip(
                greys[:, 0], joints[:, 0], strict=True)],
            proprio=joints.tolist()))
    write_manifest(folder, episodes)
    return folder
