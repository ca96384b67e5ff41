# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Smaller graphs: int8 weights for the text encoder, int8 or float16 for the visual one."""

from collections.abc import Iterable
from pathlib import Path
import tempfile
from typing import Any

from hralign_ros.models.onnx_export import finish
import numpy as np
from numpy.typing import NDArray
import onnx
from onnx import helper, numpy_helper, TensorProto
import torch
from torch import nn

# Weights with fewer elements are left in float32: they cost nothing.
_SMALLEST = 4096


def quantise_weights(model: bytes, *, unfused: bool = False) -> bytes:
    """
    Store the large weights of a graph as int8, and compute in float32 as before.

    Weights of MatMul and Gemm get one scale per output column and a DequantizeLinear; tables of
    Gather get one scale per row, and only the rows looked up are multiplied. A quarter of the
    size; activations are not touched, so the cost in accuracy is that of rounding the weights.

    :param unfused: Cast and Mul in the place of DequantizeLinear. onnxruntime makes float32 of
        them when it loads the graph; newer releases fuse the other with MatMul into an operator
        that rounds activations too.
    """
    proto = onnx.load_from_string(model)
    graph = proto.graph
    weights = {t.name: t for t in graph.initializer
               if t.data_type == TensorProto.FLOAT and np.prod(t.dims) >= _SMALLEST}
    users: dict[str, list[tuple[Any, int]]] = {}
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in weights:
                users.setdefault(name, []).append((node, position))
    before: dict[int, list[onnx.NodeProto]] = {}
    for name, uses in users.items():
        node, position = uses[0]
        values = numpy_helper.to_array(weights[name])
        if len(uses) != 1 or values.ndim != 2:
            continue
        if node.op_type == 'Gather' and position == 0:
            axis = 0
        elif node.op_type == 'MatMul' and position == 1:
            axis = 1
        elif node.op_type == 'Gemm' and position == 1:
            transposed = any(a.name == 'transB' and a.i for a in node.attribute)
            axis = 0 if transposed else 1
        else:
            continue
        scale = np.maximum(np.abs(values).max(1 - axis, keepdims=True), 1e-12) / 127.0
        stored = np.rint(values / scale).astype(np.int8)
        graph.initializer.remove(weights[name])
        graph.initializer.append(numpy_helper.from_array(stored, f'{name}_int8'))
        if node.op_type == 'Gather':
            scale_name = f'{name}_scale'
            graph.initializer.append(
                numpy_helper.from_array(scale.astype(np.float32), scale_name))
            ids, output = node.input[1], node.output[0]
            node.input[0] = f'{name}_int8'
            node.output[0] = f'{output}_int8'
            after = [
                helper.make_node('Cast', [f'{output}_int8'], [f'{output}_float'],
                                 to=TensorProto.FLOAT),
                helper.make_node('Gather', [scale_name, ids], [f'{output}_scale']),
                helper.make_node('Mul', [f'{output}_float', f'{output}_scale'], [output]),
            ]
            at = list(graph.node).index(node)
            for offset, extra in enumerate(after, start=1):
                graph.node.insert(at + offset, extra)
        else:
            graph.initializer.append(numpy_helper.from_array(
                (scale if unfused else scale.reshape(-1)).astype(np.float32), f'{name}_scale'))
            before.setdefault(id(node), []).extend([
                helper.make_node('Cast', [f'{name}_int8'], [f'{name}_steps'],
                                 to=TensorProto.FLOAT),
                helper.make_node('Mul', [f'{name}_steps', f'{name}_scale'], [f'{name}_float']),
            ] if unfused else [helper.make_node(
                'DequantizeLinear', [f'{name}_int8', f'{name}_scale'], [f'{name}_float'],
                axis=axis)])
            node.input[position] = f'{name}_float'
    ordered = []
    for node in graph.node:
        ordered += [*before.get(id(node), []), node]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)
    return finish(proto)


@torch.no_grad()
def round_weights(module: nn.Module, *, basis: bool = False) -> None:
    """
    Round the weights of linear layers in place as `quantise_weights` would store them.

    What is measured of the module then holds for its graph.

    :param basis: round the basis of tokens, too. Stored features are in the exact one; scores of
        the shipped head differ by .01 for it, where attempts' scores spread by 2 to 8.
    """
    for weight in module.parameters():
        if weight.dim() == 2 and weight.numel() >= _SMALLEST:
            scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127.0
            weight.copy_((weight / scale).round() * scale)
    for name, matrix in module.named_buffers():
        # Multiplied from the right, so that its columns are what comes out.
        if basis and name.endswith('basis_matrix') and matrix.numel() >= _SMALLEST:
            scale = matrix.abs().amax(0, keepdim=True).clamp(min=1e-12) / 127.0
            matrix.copy_((matrix / scale).round() * scale)


def halve(model: bytes) -> bytes:
    """
    Store and compute a visual graph in float16; its inputs and outputs stay float32.

    It gains where there are kernels for it, which is on GPUs.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    half = OnnxModel(convert_float_to_float16(
        onnx.load_from_string(model), keep_io_types=True))
    # The casts of the inputs were put last.
    half.topological_sort()
    return finish(half.model)


def quantise_static(
    model: bytes, batches: Iterable[NDArray[np.float32]], *, keep_first: int = 6,
) -> bytes | None:
    """
    Quantise weights and activations of a visual graph to int8 (QDQ, per channel).

    :param batches: representative inputs, float32 as the graph takes them.
    :param keep_first: convolutions at the start that stay in float32; they are the ones that
        cost most accuracy and gain least time.
    :returns: None where no convolution is left, as in a ViT.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        quantize_static,
        QuantType,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types

        def __init__(self) -> None:
            self._batches = iter(list(batches))

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {'pixels': batch}

    with tempfile.TemporaryDirectory() as folder:
        source, prepared, target = (
            Path(folder) / name for name in ('source.onnx', 'prepared.onnx', 'int8.onnx'))
        source.write_bytes(model)
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        convolutions = [n.name for n in onnx.load(str(prepared)).graph.node
                        if n.op_type == 'Conv']
        if len(convolutions) <= keep_first:
            return None
        quantize_static(
            str(prepared), str(target), Reader(), quant_format=QuantFormat.QDQ,
            per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax, op_types_to_quantize=['Conv'],
            nodes_to_exclude=convolutions[:keep_first])
        return finish(onnx.load(str(target)))
