# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""One ONNX graph with a signature: checked when it is loaded, run by name."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hralign_ros.runtime.errors import BundleError, InferenceError
from hralign_ros.runtime.providers import SessionFactory, Tensor
from numpy.typing import NDArray

Array = NDArray[Any]

_ONNX_TYPE = {'float32': 'tensor(float)', 'int64': 'tensor(int64)', 'uint8': 'tensor(uint8)'}

# Opset 18 is the newest whose antialiased Resize runs on both CPU and CUDA.
OPSETS = range(13, 19)


class Graph:
    """
    A loaded graph.

    :param model: the ONNX file's bytes.
    :param name: file name, for errors.
    :param optional: inputs that it may have beside `inputs`.
    :ivar takes: names of the inputs that it has.
    :raises BundleError: the graph cannot be loaded or has another signature.
    """

    def __init__(
        self,
        model: bytes,
        *,
        name: str,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        factory: SessionFactory,
        optional: Sequence[Tensor] = (),
        on_cpu: bool = False,
    ) -> None:
        require_self_contained(model, name=name)
        self.name = name
        fixed = all(None not in tensor.shape for tensor in (*inputs, *optional, *outputs))
        self._session = factory.create(model, name=name, on_cpu=on_cpu, fixed=fixed)
        self._outputs = tuple(outputs)
        try:
            found = self._session.get_inputs()
            there = {node.name for node in found}
            inputs = (*inputs, *(tensor for tensor in optional if tensor.name in there))
            _check(name, 'input', inputs, found)
            _check(name, 'output', outputs, self._session.get_outputs())
        except UnicodeDecodeError as error:
            raise _damaged(name, error) from error
        self.takes = frozenset(tensor.name for tensor in inputs)
        self._binding = factory.binding(
            self._session, inputs, outputs) if fixed else None

    def run(self, feed: Mapping[str, Array]) -> list[Array]:
        """
        Run the graph.

        :returns: the outputs in the order of the signature.
        :raises InferenceError: onnxruntime failed, or an output has another type or shape.
        """
        names = [tensor.name for tensor in self._outputs]
        try:
            results: list[Array] = self._binding.run(feed) if self._binding else list(
                self._session.run(names, dict(feed)))
        except Exception as error:  # onnxruntime raises a dozen types without a common base
            raise InferenceError(f'{self.name} failed: {str(error).strip()[:300]}') from error
        # What a graph declares is not always what it does; onnxruntime only warns then.
        for tensor, result in zip(self._outputs, results, strict=True):
            if result.dtype != tensor.dtype or len(result.shape) != len(tensor.shape) or any(
                    want not in (None, have)
                    for have, want in zip(result.shape, tensor.shape, strict=True)):
                raise InferenceError(
                    f'{self.name} returned {tensor.name} as {result.dtype} '
                    f'{list(result.shape)}; needed is {tensor.dtype} '
                    f'{[s if s is not None else "any" for s in tensor.shape]}. '
                    'Export the bundle again')
        return results


def _check(
    name: str, kind: str, expected: Sequence[Tensor], found: Sequence[Any],
) -> None:
    by_name = {node.name: node for node in found}
    if set(by_name) != {tensor.name for tensor in expected}:
        raise BundleError(
            f'{name}: its {kind}s are {sorted(by_name)}, needed are '
            f'{sorted(tensor.name for tensor in expected)}; it was exported for another contract')
    for tensor in expected:
        node = by_name[tensor.name]
        fits = len(node.shape) == len(tensor.shape) and all(
            have == want if want is not None else not isinstance(have, int)
            for have, want in zip(node.shape, tensor.shape, strict=True))
        if node.type != _ONNX_TYPE[tensor.dtype] or not fits:
            raise BundleError(
                f'{name}: {kind} {tensor.name} is {node.type} {node.shape}, needed is '
                f'{_ONNX_TYPE[tensor.dtype]} {[s if s else "any" for s in tensor.shape]}; '
                'the YAML file beside it and this graph do not belong together')


def require_self_contained(model: bytes, *, name: str) -> None:
    """
    Refuse an ONNX file of another opset, or that takes in more than itself and onnxruntime's own.

    Weights in another file are vouched for by no hash; operators of other domains are code that
    somebody would have to load; an EPContext is a file, or a blob, that a driver runs.

    The file is a protobuf ModelProto, of which only these fields are decoded.

    :raises BundleError: it does, it ends too early, or declares no standard operator set.
    """
    try:
        imports = [dict(_fields(value)) for number, value in _fields(memoryview(model))
                   if number == _OPSET_IMPORT and isinstance(value, memoryview)]
        found = set(_search(model))
    except (IndexError, ValueError, RecursionError) as error:
        raise _damaged(name, error) from error
    opset = next((entry[2] for entry in imports if entry.get(1, b'') in _DOMAINS[:2]
                  and isinstance(entry.get(2), int)), None)
    if opset is None:
        raise BundleError(f'{name}: it declares no ONNX operator set; it is no ONNX file')
    if opset not in OPSETS:
        raise BundleError(
            f'{name}: it uses opset {opset}; allowed: {OPSETS.start} to {OPSETS.stop - 1}. '
            'Export it again with opset 18')
    if ('tensor', b'', b'') in found:
        raise BundleError(
            f'{name}: it keeps weights in another file, which no hash vouches for. Export it '
            'again as one file')
    foreign = sorted(
        f'{domain.decode(errors="replace")}.{kind.decode(errors="replace")}'[:100]
        for what, domain, kind in found
        if what == 'node' and ('function', domain, kind) not in found
        and (domain not in _DOMAINS or kind in _FOREIGN_OPERATORS))
    if foreign:
        raise BundleError(
            f'{name}: it needs the operators {", ".join(foreign[:3])}; allowed are those of ONNX '
            'and of onnxruntime itself. Export it again without them')


def _damaged(name: str, error: Exception) -> BundleError:
    return BundleError(f'{name}: not a whole ONNX file ({error}); export it again')


# Where tensors and nodes lie in an ONNX file: message -> field number -> message in it
# (onnx.proto).
_NESTED = {
    'model': {7: 'graph', 20: 'training', 25: 'function'},
    'training': {1: 'graph', 2: 'graph'},
    'function': {7: 'node', 11: 'attribute'},
    'graph': {1: 'node', 5: 'tensor', 15: 'sparse tensor'},
    'node': {5: 'attribute'},
    'attribute': {5: 'tensor', 6: 'graph', 10: 'tensor', 11: 'graph', 22: 'sparse tensor',
                  23: 'sparse tensor'},
    'sparse tensor': {1: 'tensor', 2: 'tensor'},
    'tensor': {},
}
_OPSET_IMPORT = 8  # field of the model: 1 domain, 2 version
_EXTERNAL_DATA = 13  # field of a tensor: where in another file its values are
_DATA_LOCATION = 14  # field of a tensor: 1 says the same
# Fields that name an operator: its domain and its kind; a function defines the one it is called.
_OPERATOR = {'node': (7, 4), 'function': (10, 1)}
# The domains of the standard and of what is compiled into onnxruntime.
_DOMAINS = (b'', b'ai.onnx', b'com.microsoft')
_FOREIGN_OPERATORS = (b'EPContext',)


def _search(
    data: memoryview | bytes, message: str = 'model',
) -> Iterator[tuple[str, bytes, bytes]]:
    """
    Walk through an ONNX file and tell what it takes in.

    :yields: 'node', the domain and the kind of its operator; 'function', those that it defines;
        'tensor', b'', b'' where its values are in another file.
    """
    nested = _NESTED[message]
    operator = dict.fromkeys(_OPERATOR.get(message, ()), b'')
    for number, value in _fields(memoryview(data)):
        if message == 'tensor' and (
                number == _EXTERNAL_DATA or number == _DATA_LOCATION and value != 0):
            yield message, b'', b''
        elif isinstance(value, memoryview):
            if number in nested:
                yield from _search(value, nested[number])
            elif number in operator:
                operator[number] = bytes(value)
    if operator:
        domain, kind = operator.values()
        yield message, domain, kind


def _fields(data: memoryview) -> list[tuple[int, Any]]:
    """Split a protobuf message into (field number, value) without decoding nested messages."""
    fields: list[tuple[int, Any]] = []
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key >= 1 << 32:
            # Other readers cut the number off here, and would see another field than we do.
            raise ValueError(f'field number {key >> 3} at byte {at}')
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            fields.append((key >> 3, value))
            continue
        size = {1: 8, 5: 4}.get(kind)
        if kind == 2:
            size, at = _varint(data, at)
        if size is None:
            raise ValueError(f'unknown wire type {kind} at byte {at}')
        if at + size > len(data):
            raise ValueError(f'cut off: {at + size} bytes announced, {len(data)} there')
        fields.append((key >> 3, data[at:at + size]))
        at += size
    return fields


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Read one protobuf varint; return it and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f'a number of more than ten bytes at byte {at}')
