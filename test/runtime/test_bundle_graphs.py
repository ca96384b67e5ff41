# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Graphs that are damaged, hostile or of another bundle are one clear BundleError."""

import shutil

from hralign_ros.runtime import BundleError, Encoder, InferenceError
from hralign_ros.runtime.graphs import require_self_contained
import numpy as np
import pytest
from support.refusals import GRAPHS, put, refusal


@pytest.mark.parametrize('name', GRAPHS)
@pytest.mark.parametrize('damage', ['empty', 'zeros', 'noise', 'text', 'half', 'head', 'one less'])
def test_a_damaged_graph_with_the_right_hash(tiny, variant, name, damage):
    """Guards against trusting a graph because its hash fits: it was damaged before the export."""
    good = (tiny / name).read_bytes()
    data = {
        'empty': b'', 'zeros': bytes(1000), 'noise': np.random.default_rng(0).bytes(1000),
        'text': b'<!DOCTYPE html><html>404 not found</html>', 'half': good[:len(good) // 2],
        'head': good[:10], 'one less': good[:-1]}[damage]
    refusal(variant(tiny, files={name: data}), name)


def test_bits_flipped_anywhere_in_a_graph(tiny, variant):
    """Guards against a damaged graph raising something else than a BundleError."""
    good = (tiny / 'embed.onnx').read_bytes()
    rng = np.random.default_rng(3)
    refused = 0
    for place in rng.choice(len(good), 60, replace=False):
        data = bytearray(good)
        data[place] ^= 0xFF
        try:
            Encoder.load(variant(tiny, files={'embed.onnx': bytes(data)}), provider='cpu')
        except BundleError as error:
            assert 'embed.onnx' in str(error)
            refused += 1
    assert refused > 20


def test_an_opset_entry_that_announces_gigabytes():
    """Guards against a few bytes making the loader ask for exbibytes of memory."""
    entry = bytes([0x08]) + bytes([0xFF] * 8) + bytes([0x3F])
    with pytest.raises(BundleError, match='ONNX'):
        require_self_contained(bytes([0x42, len(entry)]) + entry, name='x.onnx')


@pytest.mark.parametrize('opset', [1, 12, 19, 25])
@pytest.mark.parametrize('name', GRAPHS)
def test_a_wrong_opset(tiny, variant, name, opset):
    """Guards against graphs that only some of our hardware can run."""
    onnx = pytest.importorskip('onnx')
    model = onnx.load_from_string((tiny / name).read_bytes())
    model.opset_import[0].version = opset
    folder = variant(tiny, files={name: model.SerializeToString()})
    refusal(folder, name, f'opset {opset}', 'opset 18')


def test_unknown_operators(tiny, variant):
    """Guards against a graph that needs operators which this onnxruntime does not have."""
    onnx = pytest.importorskip('onnx')
    model = onnx.load_from_string((tiny / 'visual.onnx').read_bytes())
    model.graph.node[0].op_type = 'Teleport'
    refusal(variant(tiny, files={'visual.onnx': model.SerializeToString()}), 'visual.onnx')


def test_weights_outside_the_bundle(tiny, variant, tmp_path, monkeypatch):
    """Guards against a graph that reads weights from a file which no hash vouches for."""
    onnx = pytest.importorskip('onnx')
    (tmp_path / 'weights.bin').write_bytes(np.full(3 * 3 * 4, 2.0, np.float32).tobytes())
    model = onnx.load_from_string((tiny / 'visual.onnx').read_bytes())
    ones = next(t for t in model.graph.initializer if t.name == 'ones')
    ones.ClearField('raw_data')
    ones.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (('location', 'weights.bin'), ('offset', '0'), ('length', '48')):
        entry = ones.external_data.add()
        entry.key, entry.value = key, value
    folder = variant(tiny, files={'visual.onnx': model.SerializeToString()})
    monkeypatch.chdir(tmp_path)
    shutil.copy(tmp_path / 'weights.bin', folder)
    refusal(folder, 'visual.onnx')


@pytest.mark.parametrize('place', ['attribute', 'location only', 'function', 'training'])
def test_weights_outside_in_every_place(tiny, variant, place):
    """Guards the search for such weights: wherever a tensor may be, and however it says so."""
    onnx = pytest.importorskip('onnx')
    model = onnx.load_from_string((tiny / 'visual.onnx').read_bytes())
    tensor = onnx.TensorProto(name='w', data_type=1, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    if place != 'location only':
        entry = tensor.external_data.add()
        entry.key, entry.value = 'location', '/etc/hostname'
    node = onnx.helper.make_node('Constant', [], ['w'])
    node.attribute.append(onnx.helper.make_attribute('value', tensor))
    graph = onnx.helper.make_graph([node], 'inner', [], [])
    if place == 'function':
        model.functions.append(onnx.helper.make_function(
            'local', 'F', [], ['w'], [node], model.opset_import))
    elif place == 'training':
        model.training_info.add().initialization.CopyFrom(graph)
    else:
        model.graph.node.append(node)
    folder = variant(tiny, files={'visual.onnx': model.SerializeToString()})
    refusal(folder, 'visual.onnx', 'another file')


def test_a_field_that_other_readers_see_as_another(tiny, variant):
    """
    Guards the same search against a field number of more than 32 bits.

    Protobuf's own reader drops the bits beyond them: what looks like field 536870919 to one that
    keeps them is field 7, the graph, to onnxruntime.
    """
    data = bytearray((tiny / 'visual.onnx').read_bytes())
    for place in range(len(data)):
        if data[place] == 7 << 3 | 2 and data[place + 1:].find(b'tiny') > 0:
            data[place:place + 1] = bytes([data[place] | 0x80, 0x80, 0x80, 0x80, 0x10])
            break
    refusal(variant(tiny, files={'visual.onnx': bytes(data)}), 'visual.onnx', 'field number')


@pytest.mark.parametrize(('domain', 'kind'), [
    ('ai.onnx.contrib', 'PyOp'), ('robot.example', 'Identity'), ('com.microsoft', 'EPContext')])
def test_operators_that_are_code_of_somebody_else(tiny, variant, domain, kind):
    """Guards against operators that a library has to bring, and blobs that a driver runs."""
    onnx = pytest.importorskip('onnx')
    model = onnx.load_from_string((tiny / 'visual.onnx').read_bytes())
    model.graph.node.append(onnx.helper.make_node(kind, ['pixels'], ['other'], domain=domain))
    model.opset_import.append(onnx.helper.make_opsetid(domain, 1))
    folder = variant(tiny, files={'visual.onnx': model.SerializeToString()})
    refusal(folder, 'visual.onnx', f'{domain}.{kind}')


def test_functions_of_the_file_itself_are_no_foreign_operators(tiny, variant):
    """Guards exported graphs: torch writes functions under domains of their own into them."""
    onnx = pytest.importorskip('onnx')
    model = onnx.load_from_string((tiny / 'embed.onnx').read_bytes())
    opset = onnx.helper.make_opsetid('', 18)
    model.functions.append(onnx.helper.make_function(
        'pkg.local', 'Same', ['x'], ['y'],
        [onnx.helper.make_node('Identity', ['x'], ['y'])], [opset]))
    model.opset_import.append(onnx.helper.make_opsetid('pkg.local', 1))
    model.graph.node[0].output[0] = 'query0'
    model.graph.node.insert(1, onnx.helper.make_node(
        'Same', ['query0'], ['query'], domain='pkg.local'))
    Encoder.load(variant(tiny, files={'embed.onnx': model.SerializeToString()}), provider='cpu')


@pytest.mark.parametrize('name', ['preprocess.onnx', 'visual.onnx', 'embed.onnx', 'text.onnx'])
def test_an_output_that_is_not_as_declared(tiny, variant, name):
    """
    Guards against a graph that declares one shape and returns another.

    Onnxruntime only warns of it; the numbers then met arrays of the declared shape, and a numpy
    error came out of the tick, which the node counted as a fault of its own.
    """
    onnx = pytest.importorskip('onnx')
    model = onnx.load_from_string((tiny / name).read_bytes())
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ['inside' if each == output else each for each in node.output]
    # How much Compress leaves is only known when the graph runs.
    model.graph.node.append(
        onnx.helper.make_node('Compress', ['inside', 'chosen'], [output], axis=1))
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array([True]), 'chosen'))
    encoder = Encoder.load(
        variant(tiny, files={name: model.SerializeToString()}), provider='cpu', threads=1)
    with pytest.raises(InferenceError, match=f'{name} returned {output} as float32'):
        encoder.warm_up()


@pytest.mark.parametrize('old', [b'input_ids', b'tokens', b'features'])
def test_names_that_are_not_utf8(tiny, variant, old):
    """
    Guards against a UnicodeDecodeError.

    A fuzzer found it: onnxruntime takes any bytes for the name of an input or of a size, and only
    fails when Python asks for them.
    """
    data = (tiny / 'text.onnx').read_bytes()
    assert old in data
    refusal(variant(tiny, files={
        'text.onnx': data.replace(old, b'\xd8' + old[1:])}), 'text.onnx')


def test_graphs_nested_without_end(tiny, variant):
    """Guards the search for such weights against a graph in a graph in a graph."""
    def field(number, data):
        size = b''
        length = len(data)
        while length >= 0x80:
            size += bytes([length & 0x7F | 0x80])
            length >>= 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + data

    graph = b''
    for _ in range(800):
        graph = field(1, field(5, field(6, graph)))
    folder = variant(tiny, files={
        'visual.onnx': (tiny / 'visual.onnx').read_bytes() + field(7, graph)})
    refusal(folder, 'visual.onnx')


@pytest.mark.parametrize(('field', 'value', 'name'), [
    ('tokens/channels', 5, 'visual.onnx'),
    ('tokens/rows', 3, 'visual.onnx'),
    ('views', ['left', 'right'], 'tasks.yaml'),
    ('image_size', 32, 'preprocess.onnx'),
    ('clip/length', 4, 'embed.onnx'),
    ('text/dim', 9, '.'),
    ('success/modes', 3, '.'),
    ('success/prompt_length', 3, '.'),
])
def test_dimensions_that_do_not_fit(tiny, variant, field, value, name):
    """Guards against a manifest and graphs of two different exports."""
    refusal(variant(tiny, change=lambda d: put(d, field, value)), name)


@pytest.mark.parametrize(('one', 'other'), [
    ('embed.onnx', 'success.onnx'), ('preprocess.onnx', 'visual.onnx'),
    ('text.onnx', 'embed.onnx'),
])
def test_swapped_graphs(tiny, variant, one, other):
    """Guards against two files under each other's name."""
    folder = variant(tiny, files={
        one: (tiny / other).read_bytes(), other: (tiny / one).read_bytes()})
    text = refusal(folder)
    assert one in text or other in text


def test_a_graph_for_one_image_size_only(tiny, variant):
    """Guards against preprocessing that fits one camera and fails at the first frame of others."""
    onnx = pytest.importorskip('onnx')
    model = onnx.load_from_string((tiny / 'preprocess.onnx').read_bytes())
    shape = model.graph.input[0].type.tensor_type.shape
    shape.dim[1].dim_value, shape.dim[2].dim_value = 480, 640
    folder = variant(tiny, files={'preprocess.onnx': model.SerializeToString()})
    refusal(folder, 'preprocess.onnx', 'image')


def test_another_element_type(tiny, variant):
    """Guards against a graph that takes images as floats."""
    onnx = pytest.importorskip('onnx')
    model = onnx.load_from_string((tiny / 'preprocess.onnx').read_bytes())
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    folder = variant(tiny, files={'preprocess.onnx': model.SerializeToString()})
    refusal(folder, 'preprocess.onnx', 'image')


@pytest.mark.parametrize('data', [b'', b'{}', b'not json', b'\xff\xfe', b'{"model": 5}'])
def test_a_tokenizer_that_is_none(tiny, variant, data):
    """Guards against a damaged tokenizer."""
    with pytest.raises(BundleError, match='tokenizer.json'):
        Encoder.load(variant(tiny, files={'tokenizer.json': data}), provider='cpu')


def test_int8_is_verified_too(tiny, variant):
    """Guards against the optional graph escaping the checks of the others."""
    folder = variant(tiny, files={'visual.int8.onnx': (tiny / 'embed.onnx').read_bytes()})
    refusal(folder, 'visual.int8.onnx',
            load=lambda path: Encoder.load(path, provider='cpu', precision='int8'))
