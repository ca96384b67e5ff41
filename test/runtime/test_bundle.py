# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Whatever is wrong with a bundle is one clear BundleError before a camera is opened."""

import functools
from hashlib import sha256
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys
import tracemalloc
from typing import Any

from hralign_ros.runtime import bundle as bundle_module
from hralign_ros.runtime import (
    BundleError,
    default_bundle,
    Encoder,
    InferenceError,
    load_bundle,
)
from hralign_ros.runtime.bundle import REQUIRED_FILES
from hralign_ros.runtime.graphs import read_opset
import numpy as np
import pytest
import yaml

GRAPHS = ('preprocess.onnx', 'visual.onnx', 'embed.onnx', 'success.onnx', 'text.onnx')
MISSING = object()
# What an error may offer: how to mend it, or what is needed in place of what came.
REMEDY = re.compile(
    r'again|needed|allowed|update|is .* a bundle\?|a bundle is the directory|export|set '
    r'|belong together|another version|no ONNX file|not YAML|not a mapping|only|no bundle is',
    re.IGNORECASE)


def refusal(path: Any, *names: str, load: Any = None) -> str:
    """Load a bundle that must be refused; check that the error is one line, named and of use."""
    with pytest.raises(BundleError) as caught:
        (load or functools.partial(Encoder.load, provider='cpu', threads=1))(path)
    text = str(caught.value)
    assert '\n' not in text.strip(), text
    assert len(text) < 1000, text
    for name in names:
        assert name in text, text
    assert REMEDY.search(text), text
    return text


def put(document: dict[str, Any], dotted: str, value: Any) -> None:
    """Set or, with MISSING, delete one field."""
    *path, last = dotted.split('/')
    for key in path:
        document = document[key]
    if value is MISSING:
        del document[last]
    else:
        document[last] = value


def test_a_good_bundle_says_what_it_is(tiny):
    """Guards the base of all tests here: unchanged, the tiny bundle loads."""
    bundle = load_bundle(tiny)
    manifest = bundle.manifest
    assert (manifest.name, manifest.views) == ('tiny', ('left', 'middle', 'right'))
    assert (manifest.tokens, manifest.channels, manifest.clip.length) == (4, 4, 3)
    assert manifest.ood_threshold == 5.0 and manifest.success_trained
    assert bundle.sha256 == sha256((tiny / 'bundle.yaml').read_bytes()).hexdigest()
    assert bundle.has('visual.onnx') and not bundle.has('visual.int8.onnx')
    Encoder.load(tiny, provider='cpu')


def test_no_directory(tmp_path):
    """Guards against a mistyped path ending in a traceback."""
    refusal(tmp_path / 'nowhere', 'nowhere', 'bundle.yaml')


def test_a_file_in_place_of_the_directory(tmp_path):
    """Guards against somebody naming bundle.yaml, or an archive, in place of the directory."""
    (tmp_path / 'file').write_text('x')
    refusal(tmp_path / 'file', 'file', 'bundle.yaml')


def test_a_home_that_does_not_exist():
    """Guards against ~name of a user whom this machine does not know."""
    refusal('~no_such_user_at_all/bundle', 'no_such_user_at_all')


def test_a_directory_without_manifest(tmp_path):
    """Guards against the directory above or below the bundle being named."""
    refusal(tmp_path, 'bundle.yaml')


def test_a_huge_manifest_is_not_read(tmp_path):
    """Guards the robot's memory against a file that is no manifest."""
    with (tmp_path / 'bundle.yaml').open('wb') as file:
        file.truncate(2 << 20)
    refusal(tmp_path, 'bundle.yaml')


@pytest.mark.parametrize('data', [
    b'a: [1, 2', b'\x00\x01\x02', b'\xff\xfe\xfd', b'a: b: c', b'!!python/object:os.system {}',
    b'a: 2001-99-99', b'name: !!bool x', b'name: !!timestamp x', b'name: !!int ""', b'[' * 5000,
], ids=lambda data: repr(data[:16]))
def test_a_manifest_that_is_not_yaml(tmp_path, data):
    """Guards against what a YAML reader raises beside its own errors, and against its tags."""
    (tmp_path / 'bundle.yaml').write_bytes(data)
    refusal(tmp_path, 'bundle.yaml')


@pytest.mark.parametrize('data', [b'', b'5', b'text', b'[1, 2]', b'null'])
def test_a_manifest_that_is_no_mapping(tmp_path, data):
    """Guards against taking any YAML file for a manifest."""
    (tmp_path / 'bundle.yaml').write_bytes(data)
    refusal(tmp_path, 'bundle.yaml')


def test_a_value_that_grows_when_printed(tiny, variant):
    """Guards against an error message that takes gigabytes: YAML aliases multiply when printed."""
    folder = variant(tiny)
    add_aliases(folder, 4, 'name: tiny', 'name: *a4')
    tracemalloc.start()
    try:
        refusal(folder, '.yaml: name')
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000, f'{peak} bytes to say that a name is wrong'


def add_aliases(folder, lines, old, new):
    """Put lists of lists into bundle.yaml, each ten times the one before; change a field."""
    bomb = [f'a0: &a0 [{", ".join(["x" * 60] * 10)}]']
    bomb += [f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * 10)}]' for i in range(1, lines + 1)]
    manifest = folder / 'bundle.yaml'
    text = manifest.read_text()
    assert old in text
    manifest.write_text('\n'.join(bomb) + '\n' + text.replace(old, new))


def test_a_value_that_grows_when_walked_through(tiny, variant):
    """Guards against half a kilobyte of aliases that is a billion values to whoever reads on."""
    folder = variant(tiny)
    add_aliases(folder, 9, 'views:', 'others: *a9\nviews:')
    refusal(folder, 'aliases', load=load_bundle)


@pytest.mark.parametrize('version', [MISSING, 0, 1, 3, '2', None, True, [2]])
def test_another_schema_version(tiny, variant, version):
    """Guards against reading a newer bundle as if it were this version's."""
    folder = variant(tiny, change=lambda d: put(d, 'schema_version', version))
    refusal(folder, 'bundle.yaml', 'schema_version')


def test_a_version_that_grows_when_printed(tiny, variant):
    """Guards the one field whose error printed the value in full, aliases multiplied."""
    bomb = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]']
    bomb += [f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * 10)}]' for i in range(1, 6)]
    folder = variant(tiny)
    manifest = folder / 'bundle.yaml'
    text = manifest.read_text().replace('schema_version: 2', 'schema_version: *a5')
    manifest.write_text('\n'.join(bomb) + '\n' + text)
    refusal(folder, 'bundle.yaml', 'aliases')


@pytest.mark.parametrize('good', ['schema_version: 2', 'name: tiny', 'length: 3'])
def test_a_number_that_cannot_be_printed(tiny, variant, good):
    """
    Guards the error message against Python's own limit.

    A fuzzer found it: YAML reads hexadecimal numbers of any length, and Python refuses to print
    one of more than 4300 digits with a ValueError, which came out instead of a BundleError.
    """
    folder = variant(tiny)
    manifest = folder / 'bundle.yaml'
    key = good.partition(':')[0]
    manifest.write_text(manifest.read_text().replace(good, f'{key}: 0x{"f" * 5000}', 1))
    refusal(folder, 'bundle.yaml', '5002 digits', load=load_bundle)


def test_a_file_name_that_is_an_endless_number(tiny, variant):
    """Guards the same where the number is a key."""
    folder = variant(tiny)
    manifest = folder / 'bundle.yaml'
    manifest.write_text(manifest.read_text().replace(
        'files:', f'files:\n  ? 0x{"f" * 5000}\n  : {{bytes: 1}}'))
    refusal(folder, 'bundle.yaml', 'digits', load=load_bundle)


@pytest.mark.parametrize('field', ['name', 'views', 'licenses'])
def test_half_a_character(tiny, variant, field):
    r"""
    Guards messages and logs, which are UTF-8.

    YAML spells "\ud800" without complaint; Python keeps it, and EncoderInfo could not be sent.
    """
    value = {'name': 'a\ud800', 'views': ['a\ud800'], 'licenses': {'all': '\ud800'}}[field]
    refusal(variant(tiny, change=lambda d: put(d, field, value)), field, load=load_bundle)


FIELDS = {
    'name': [MISSING, 5, '', None],
    'views': [MISSING, 'left', [], ['left', 'left'], ['left', 5], ['left', ''],
              [f'v{i}' for i in range(9)]],
    'reference_view': [MISSING, 5, 'ceiling'],
    'image_size': [MISSING, '16', 8, 4096, True, 16.0],
    'clip': [MISSING, 5, []],
    'clip/length': [MISSING, 0, -1, 65, '3', True],
    'clip/period_s': [MISSING, 0, -0.2, '0.2', float('nan'), float('inf'), True],
    'clip/capacity': [MISSING, 5, 100_000, '8'],
    'clip/stride_s': [MISSING, 0, float('nan'), None],
    'tokens': [MISSING, 4],
    'tokens/rows': [MISSING, 0, 65, '2'],
    'tokens/columns': [MISSING, 0, 65, 2.0],
    'tokens/channels': [MISSING, 0, 10_000, 'many'],
    'text': [MISSING, 'words'],
    'text/encoder': [MISSING, 3],
    'text/dim': [MISSING, 0, '8'],
    'text/max_tokens': [MISSING, 0, '32'],
    'success': [MISSING, False],
    'success/modes': [MISSING, 0, 17, '2'],
    'success/prompt_length': [MISSING, 0, 65],
    'success/trained': [MISSING, 'yes', 1, None],
    'ood': [5, 'none'],
    'ood/threshold': [MISSING, 'high', float('nan')],
    'backbone': [MISSING, 'resnet50'],
    'backbone/name': [MISSING, 50],
    'adapter': [MISSING, None],
    'adapter/name': [MISSING, ''],
    'licenses': [MISSING, 'Apache-2.0', {'all': 2}, ['Apache-2.0']],
    'files': [MISSING, [], 'all'],
    'files/visual.onnx': [MISSING, 5, None],
    'files/visual.onnx/bytes': [MISSING, -1, '5', 3 << 30],
    'files/visual.onnx/sha256': [MISSING, 5, 'abc'],
    'files/tasks.yaml/bytes': [2 << 20],
    'files/tasks.safetensors/bytes': [1 << 30],
    'files/tokenizer.json/bytes': [1 << 30],
}


@pytest.mark.parametrize(
    ('field', 'value'), [(f, v) for f, values in FIELDS.items() for v in values],
    ids=lambda x: 'missing' if x is MISSING else str(x)[:24])
def test_each_field_is_checked(tiny, variant, field, value):
    """Guards against a missing or senseless field being met only when it is used."""
    folder = variant(tiny, change=lambda d: put(d, field, value))
    refusal(folder, 'bundle.yaml', field.rsplit('/', 1)[-1], load=load_bundle)


def test_no_room_for_the_task_beside_the_prompts(tiny, variant):
    """Guards against a bundle that refuses every instruction as too long for the encoder."""
    def change(document):
        document['text']['max_tokens'] = 8
        document['success']['prompt_length'] = 64
    refusal(variant(tiny, change=change), 'bundle.yaml', load=load_bundle)


@pytest.mark.parametrize('name', [
    '../secret', '/etc/passwd', 'sub/visual.onnx', '.', '..', '', 'bundle.yaml', 'bundle.sig',
    'visual.onnx\0', 5,
])
def test_only_plain_file_names(tiny, variant, name):
    """Guards against a bundle reading files that are not its own."""
    def change(document):
        document['files'][name] = {'bytes': 1, 'sha256': '0' * 64}
    refusal(variant(tiny, change=change), 'bundle.yaml', 'files', load=load_bundle)


@pytest.mark.parametrize('name', REQUIRED_FILES)
def test_every_required_file_must_be_listed(tiny, variant, name):
    """Guards against a graph that no hash vouches for."""
    folder = variant(tiny, change=lambda d: put(d, f'files/{name}', MISSING))
    refusal(folder, 'bundle.yaml', name)


@pytest.mark.parametrize('name', [n for n in REQUIRED_FILES if n != 'card.md'])
def test_a_missing_file(tiny, variant, name):
    """Guards against a copy that lost a file."""
    refusal(variant(tiny, files={name: None}), name, 'again')


def test_reading_what_is_not_listed(tiny):
    """Guards against reading a file that no hash vouches for."""
    with pytest.raises(BundleError, match='does not list'):
        load_bundle(tiny).read('other.onnx')


@pytest.mark.parametrize('name', GRAPHS)
def test_a_truncated_file(tiny, variant, name):
    """Guards against a copy that was cut off."""
    data = (tiny / name).read_bytes()
    folder = variant(tiny, files={name: data[:len(data) // 2]}, rehash=False)
    refusal(folder, name, 'bytes', 'again')


@pytest.mark.parametrize('name', [n for n in REQUIRED_FILES if n != 'card.md'])
def test_a_wrong_hash(tiny, variant, name):
    """Guards against a single changed bit in a file of the right size."""
    data = bytearray((tiny / name).read_bytes())
    data[len(data) // 2] ^= 1
    folder = variant(tiny, files={name: bytes(data)}, rehash=False)
    refusal(folder, name, 'SHA-256', 'again')


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
        read_opset(bytes([0x42, len(entry)]) + entry, name='x.onnx')


def test_the_opset_of_the_shipped_graphs(shipped):
    """Guards our own reading of the opset against what the graphs were exported with."""
    for name in GRAPHS:
        assert read_opset((shipped / name).read_bytes(), name=name) == 18


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


def test_a_graph_for_one_picture_size_only(tiny, variant):
    """Guards against preprocessing that fits one camera and fails at the first frame of others."""
    onnx = pytest.importorskip('onnx')
    model = onnx.load_from_string((tiny / 'preprocess.onnx').read_bytes())
    shape = model.graph.input[0].type.tensor_type.shape
    shape.dim[1].dim_value, shape.dim[2].dim_value = 480, 640
    folder = variant(tiny, files={'preprocess.onnx': model.SerializeToString()})
    refusal(folder, 'preprocess.onnx', 'image')


def test_another_element_type(tiny, variant):
    """Guards against a graph that takes pictures as floats."""
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


def test_precision_and_pooling_are_checked(tiny, variant):
    """Guards the options that a user sets in a parameter file."""
    def load(**options):
        return lambda path: Encoder.load(path, provider='cpu', **options)

    refusal(tiny, 'fp8', 'fp32', 'fp16', 'int8', load=load(precision='fp8'))
    refusal(tiny, 'max', 'attention', 'mean', load=load(pooling='max'))
    refusal(tiny, 'visual.int8.onnx', '--int8', load=load(precision='int8'))
    refusal(tiny, 'visual.fp16.onnx', '--fp16', load=load(precision='fp16'))
    quantised = variant(tiny, files={'visual.int8.onnx': (tiny / 'visual.onnx').read_bytes()})
    assert Encoder.load(quantised, provider='cpu', precision='int8').precision == 'int8'


def test_int8_is_verified_too(tiny, variant):
    """Guards against the optional graph escaping the checks of the others."""
    folder = variant(tiny, files={'visual.int8.onnx': (tiny / 'embed.onnx').read_bytes()})
    refusal(folder, 'visual.int8.onnx',
            load=lambda path: Encoder.load(path, provider='cpu', precision='int8'))


def test_the_hash_names_the_whole_bundle(tiny, variant):
    """Guards what messages carry: embeddings of two different bundles never look alike."""
    other = variant(tiny, files={'card.md': b'# other\n'})
    assert load_bundle(other).sha256 != load_bundle(tiny).sha256


def test_the_shipped_bundle_is_found_and_small(shipped, monkeypatch, tmp_path):
    """Guards the limit of 45 MB, and that installed bundles go before the source tree's."""
    listed = yaml.safe_load((shipped / 'bundle.yaml').read_text('utf-8'))['files']
    sizes = {path.name: path.stat().st_size for path in shipped.iterdir()}
    assert sum(sizes.values()) <= 45_000_000
    assert set(sizes) == {*listed, 'bundle.yaml'}
    place = tmp_path / 'share/hralign_ros/models/default'
    place.mkdir(parents=True)
    shutil.copy(shipped / 'bundle.yaml', place)
    monkeypatch.setenv('AMENT_PREFIX_PATH', os.pathsep.join(['', '/nowhere', str(tmp_path)]))
    assert default_bundle() == place


def test_no_shipped_bundle(monkeypatch, tmp_path):
    """Guards the message of an installation without its data files."""
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    monkeypatch.setattr(bundle_module, '__file__', str(tmp_path / 'a/b/c/bundle.py'))
    with pytest.raises(BundleError, match='no default bundle') as caught:
        default_bundle()
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize('name', ['visual.onnx', 'text.onnx', 'tokenizer.json'])
def test_damage_to_the_shipped_bundle(shipped, variant, name):
    """Guards the same on real files: a cut and a flipped bit, found before anything runs."""
    data = bytearray((shipped / name).read_bytes())
    refusal(variant(shipped, files={name: bytes(data[:-1000])}, rehash=False), name, 'again')
    data[len(data) // 2] ^= 4
    refusal(variant(shipped, files={name: bytes(data)}, rehash=False), name, 'SHA-256')


def test_a_bundle_behind_a_link(tiny, tmp_path):
    """Guards colcon's --symlink-install, where every file of a bundle is a link."""
    folder = tmp_path / 'linked'
    folder.mkdir()
    for path in tiny.iterdir():
        (folder / path.name).symlink_to(path)
    assert Encoder.load(str(folder), provider='cpu').bundle.path == Path(folder)
    again = tmp_path / 'again'
    again.symlink_to(folder)
    Encoder.load(again, provider='cpu')


def test_a_file_that_is_a_link_elsewhere(tiny, variant, tmp_path):
    """Guards against a bundle that has somebody else's files read, hashed and complained about."""
    folder = variant(tiny)
    shutil.copy(tiny / 'visual.onnx', tmp_path / 'secret')
    (folder / 'visual.onnx').unlink()
    (folder / 'visual.onnx').symlink_to(tmp_path / 'secret')
    refusal(folder, 'visual.onnx', 'symbolic link', 'cp -rL')


def test_a_manifest_that_is_a_link_to_nowhere(tmp_path):
    """Guards against a link in a circle, and one whose end is gone."""
    for target in ('bundle.yaml', 'away.yaml'):
        folder = tmp_path / target.removesuffix('.yaml')
        folder.mkdir()
        (folder / 'bundle.yaml').symlink_to(folder / target)
        refusal(folder)


@pytest.mark.parametrize('kind', ['pipe', 'folder', 'device'])
def test_a_file_that_is_none(tiny, variant, kind):
    """
    Guards configure against waiting for ever.

    A pipe has 0 bytes until somebody writes into it: listed with 0 bytes it passed for a file of
    the right size, and reading it never came back.
    """
    folder = variant(tiny, change=lambda d: put(d, 'files/visual.onnx/bytes', 0))
    path = folder / 'visual.onnx'
    path.unlink()
    if kind == 'pipe':
        os.mkfifo(path)
    elif kind == 'folder':
        path.mkdir()
    else:
        path.symlink_to('/dev/zero')
    refusal(folder, 'visual.onnx')


def test_a_huge_file_is_not_read(tiny, variant):
    """
    Guards the robot's memory: of a file that is larger than listed, the listed size is read.

    Not larger than this: where three times as much is not free, that is what is refused first.
    """
    folder = variant(tiny)
    path = folder / 'visual.onnx'
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    with path.open('r+b') as file:
        file.truncate(200 << 20)
    tracemalloc.start()
    try:
        refusal(folder, 'visual.onnx', 'more bytes')
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000, f'{peak} bytes to refuse a file'


def test_a_bundle_that_is_too_large_together(tiny, variant):
    """Guards the robot's disk and memory against many files that are each within the limit."""
    def change(document):
        for i in range(5):
            document['files'][f'part{i}'] = {'bytes': 2 << 30, 'sha256': '0' * 64}
    refusal(variant(tiny, change=change), 'together', load=load_bundle)


@pytest.mark.parametrize('length', [1 << 63, 1 << 30, (1 << 20) + 1])
def test_a_header_that_announces_gigabytes(tiny, variant, length):
    """Guards against eight bytes making the reader of the prompts ask for all memory."""
    data = length.to_bytes(8, 'little') + bytes(2 << 20)
    refusal(variant(tiny, files={'tasks.safetensors': data}), 'tasks.safetensors', 'header')


def test_every_byte_used_was_verified_and_read_once(tiny, tmp_path):
    """
    Guards the chain from bundle.yaml to what runs, seen from outside.

    Every file of the bundle that a load opens is bundle.yaml or listed in it, and is opened once:
    between a check and a use there is nothing that could be exchanged.
    """
    program = """
import collections, os, sys
from hralign_ros.runtime import Encoder
opened = collections.Counter()
folder = os.path.realpath(sys.argv[1])
def hook(event, arguments):
    if event == 'open' and isinstance(arguments[0], str) and arguments[0].startswith(folder):
        opened[os.path.basename(arguments[0])] += 1
sys.addaudithook(hook)
Encoder.load(sys.argv[1], provider='cpu').warm_up()
print(sorted(opened.items()))
"""
    done = subprocess.run([sys.executable, '-c', program, str(tiny)], capture_output=True,
                          text=True, timeout=120, check=True)
    used = {'bundle.yaml', *REQUIRED_FILES} - {'card.md'}
    assert done.stdout.strip() == str(sorted((name, 1) for name in used))
