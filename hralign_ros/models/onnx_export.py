# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Making ONNX graphs: preprocessing by hand, everything else from torch, all in opset 18."""

from collections.abc import Mapping, Sequence
import logging
from typing import Any
import warnings

from hralign_ros.models.backbones import Preprocessing
import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto
import torch
from torch import nn, Tensor

# CUDA runs the antialiased Resize of opset 18; that of 19 only in releases of 2026.
OPSET = 18
_IR_VERSION = 10


def preprocessing_graph(spec: Preprocessing) -> bytes:
    """
    Make the graph from a camera image to a backbone's input.

    Input image uint8 [1, H, W, 3] RGB, any H and W; output pixels float32 [1, 3, S, S],
    cropped, resized with antialiasing (as Pillow and torchvision do) and normalised as `spec`
    says.

    :raises ValueError: unknown `fit`.
    """
    if spec.fit not in ('squash', 'crop'):
        raise ValueError(f"fit is '{spec.fit}'; allowed: squash, crop")

    def constant(name: str, values: Any, dtype: type) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(values, dtype), name)

    constants = [
        constant('size', [spec.size, spec.size], np.int64),
        constant('mean', np.reshape(spec.mean, (1, 3, 1, 1)) * np.float32(255.0), np.float32),
        constant('std', np.reshape(spec.std, (1, 3, 1, 1)) * np.float32(255.0), np.float32),
    ]
    nodes = []
    image = 'image'
    if spec.fit == 'crop':
        constants += [constant('two', [2], np.int64), constant('sides_axes', [1, 2], np.int64)]
        nodes += [
            helper.make_node('Shape', ['image'], ['sides'], start=1, end=3),
            helper.make_node('ReduceMin', ['sides'], ['short'], keepdims=1),
            helper.make_node('Sub', ['sides', 'short'], ['excess']),
            helper.make_node('Div', ['excess', 'two'], ['first']),
            helper.make_node('Add', ['first', 'short'], ['last']),
            helper.make_node('Slice', ['image', 'first', 'last', 'sides_axes'], ['square']),
        ]
        image = 'square'
    nodes += [
        helper.make_node('Transpose', [image], ['planes'], perm=[0, 3, 1, 2]),
        helper.make_node('Cast', ['planes'], ['floats'], to=TensorProto.FLOAT),
        # Weights outside the image are left out, as torch and Pillow do: with them its borders
        # would be darker.
        helper.make_node(
            'Resize', ['floats', '', '', 'size'], ['resized'], mode='linear', antialias=1,
            exclude_outside=1, axes=[2, 3], coordinate_transformation_mode='half_pixel'),
        helper.make_node('Sub', ['resized', 'mean'], ['centred']),
        helper.make_node('Div', ['centred', 'std'], ['pixels']),
    ]
    graph = helper.make_graph(
        nodes, 'preprocess',
        [helper.make_tensor_value_info('image', TensorProto.UINT8, [1, 'H', 'W', 3])],
        [helper.make_tensor_value_info(
            'pixels', TensorProto.FLOAT, [1, 3, spec.size, spec.size])],
        constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', OPSET)])
    return finish(model)


def torch_graph(
    module: nn.Module,
    example: Sequence[Tensor],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    free: Mapping[str, Mapping[int, str]] | None = None,
) -> bytes:
    """
    Export a torch module.

    :param example: one tensor per input.
    :param free: by input, the axes whose size is free, each with a name.
    """
    dynamic = None
    if free:
        sizes = {name: torch.export.Dim(name, min=1, max=512)
                 for axes in free.values() for name in axes.values()}
        dynamic = tuple(
            {axis: sizes[name] for axis, name in free.get(i, {}).items()} for i in inputs)
    module.eval()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            program = torch.onnx.export(
                module, tuple(example), dynamo=True, opset_version=OPSET, verbose=False,
                input_names=list(inputs), output_names=list(outputs), dynamic_shapes=dynamic,
                optimize=True)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    if program is None:
        raise RuntimeError(f'{type(module).__name__} was not exported')
    return finish(program.model_proto)


def finish(model: onnx.ModelProto) -> bytes:
    """
    Strip what only the exporter needed, check the graph, and serialise it.

    The exporter notes stack traces with the paths of the machine it ran on; they would also make
    two exports of the same weights differ.
    """
    model.ir_version = min(model.ir_version, _IR_VERSION)
    model.producer_name, model.producer_version = 'hralign_ros', ''
    model.doc_string = ''
    del model.metadata_props[:]
    del model.functions[:]
    graph = model.graph
    graph.doc_string = ''
    del graph.metadata_props[:]
    del graph.value_info[:]
    for item in [*graph.node, *graph.initializer, *graph.input, *graph.output]:
        item.doc_string = ''
        del item.metadata_props[:]
    keep = [o for o in model.opset_import if o.domain in ('', 'ai.onnx')]
    used = {node.domain for node in graph.node} - {'', 'ai.onnx'}
    if used:
        raise ValueError(f'the graph uses operators of {", ".join(sorted(used))}')
    del model.opset_import[:]
    model.opset_import.extend(keep)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))
