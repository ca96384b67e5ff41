# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A bundle and what its manifest may say; whatever is wrong is one clear BundleError."""

from hashlib import sha256
import tracemalloc

from hralign_ros.runtime import Encoder, load_bundle
import pytest
from support.refusals import MISSING, put, refusal


def test_a_good_bundle_says_what_it_is(tiny):
    """Guards the base of all tests here: unchanged, the tiny bundle loads."""
    bundle = load_bundle(tiny)
    manifest = bundle.manifest
    assert (manifest.name, manifest.views) == ('tiny', ('left', 'middle', 'right'))
    assert (*manifest.tokens.shape, manifest.clip.length) == (4, 4, 3)
    assert manifest.ood_threshold == 5.0 and manifest.success.trained
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


@pytest.mark.parametrize('version', [MISSING, 0, 1, 2, 4, '3', None, True, [3]])
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
    text = manifest.read_text().replace('schema_version: 3', 'schema_version: *a5')
    manifest.write_text('\n'.join(bomb) + '\n' + text)
    refusal(folder, 'bundle.yaml', 'aliases')


@pytest.mark.parametrize('good', ['schema_version: 3', 'name: tiny', 'length: 3'])
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


def test_robots_are_those_of_the_training(tiny, variant):
    """Guards ~/info: the arms that the success head was trained on; none where it does not say."""
    assert load_bundle(tiny).manifest.robots == ('panda',)
    silent = variant(tiny, change=lambda d: put(d, 'success/training', None))
    assert load_bundle(silent).manifest.robots == ()


@pytest.mark.parametrize(('field', 'value'), [
    ('training', 'panda'), ('training', {}), ('training/embodiments', MISSING),
    ('training/embodiments', 'panda'), ('training/embodiments', ['panda', 5]),
    ('training/robots', ['panda'])])
def test_robots_do_not_fall_silently_to_none(tiny, variant, field, value):
    """
    Guards ~/info against a training record that is not as declared.

    The robots were read from whatever stood there, and a key under another name gave none.
    """
    folder = variant(tiny, change=lambda d: put(d, f'success/{field}', value))
    refusal(folder, 'bundle.yaml', field.rsplit('/', 1)[-1], load=load_bundle)


def test_a_key_that_is_not_declared(tiny, variant):
    """Guards against a mistyped key, whose value would silently be the default."""
    folder = variant(tiny, change=lambda d: put(d, 'odd', {'threshold': 5.0}))
    refusal(folder, 'bundle.yaml', "'odd'", 'allowed', load=load_bundle)


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
    'success/dwell_s': [MISSING, -1.0, '0.3', float('nan')],
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


def test_the_hash_names_the_whole_bundle(tiny, variant):
    """Guards what messages carry: embeddings of two different bundles never look alike."""
    other = variant(tiny, files={'card.md': b'# other\n'})
    assert load_bundle(other).sha256 != load_bundle(tiny).sha256
