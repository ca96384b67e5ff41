# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The contract of a policy's folder: what is loaded, what is refused, and in which words."""

from dataclasses import replace

from hralign_ros.runtime import Encoder, InferenceError, ViewGeometry
from hralign_ros.runtime.errors import PolicyError
from hralign_ros.runtime.policy import Layout, Policy, read_policy
import numpy as np
import pytest
from support.tiny_policy import CHUNK, PROPRIO, tiny_graph, write_tiny_policy

PARTS = ('mean', 'keypoints')
JOINTS = np.array([1.0, 2.0, 4.0], np.float32)


@pytest.fixture(scope='module')
def seeing(tiny):
    """Load the tiny bundle with more parts than a policy wants, in another order."""
    return Encoder.load(tiny, provider='cpu', threads=1, parts=('keypoints', 'task', 'mean'))


@pytest.fixture
def folder(tmp_path, seeing):
    return write_tiny_policy(tmp_path / 'policy', seeing, PARTS, ('right', 'left'))


def embedding_of(encoder, seed=0):
    last = encoder.parts[-1]
    return np.random.default_rng(seed).normal(
        size=(len(encoder.manifest.views), last.offset + last.size)).astype(np.float32)


def test_it_is_given_what_it_wants(folder, seeing):
    """Guards the slicing: the parts and the views of the policy, whatever else there is."""
    embedding = embedding_of(seeing)
    views = seeing.manifest.views
    wanted = sum(float(seeing.part(embedding, part)[views.index(view)].sum())
                 for part in PARTS for view in ('right', 'left'))
    chunk = Policy.load(folder, seeing).actions(embedding, JOINTS)
    assert chunk.shape == (CHUNK, 2) and chunk.dtype == np.float32
    np.testing.assert_allclose(chunk[:, 0], wanted + 7.0 + np.arange(CHUNK), rtol=1e-5)
    np.testing.assert_array_equal(chunk[:, 0], chunk[:, 1])


def test_rows_are_in_the_policys_order(tmp_path, seeing):
    """Guards the order of parts and views: a graph that weighs each number sees each in place."""
    import onnx
    from onnx import helper, numpy_helper, TensorProto

    size = sum(part.size for part in seeing.parts if part.name in PARTS)
    weights = np.arange(2 * size, dtype=np.float32).reshape(2, size)
    graph = helper.make_graph(
        [helper.make_node('Mul', ['embedding', 'weights'], ['weighed']),
         helper.make_node('ReduceSum', ['weighed'], ['sum'], keepdims=0),
         helper.make_node('Add', ['sum', 'zeros'], ['actions'])], 'policy',
        [helper.make_tensor_value_info('embedding', TensorProto.FLOAT, [2, size])],
        [helper.make_tensor_value_info('actions', TensorProto.FLOAT, [CHUNK, 2])],
        [numpy_helper.from_array(weights, 'weights'),
         numpy_helper.from_array(np.zeros((CHUNK, 2), np.float32), 'zeros')])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    folder = write_tiny_policy(tmp_path / 'policy', seeing, PARTS, ('right', 'left'),
                               graph=model.SerializeToString(), numbers=())
    embedding, views = embedding_of(seeing), seeing.manifest.views
    rows = np.stack([np.concatenate([seeing.part(embedding, part)[views.index(view)].ravel()
                                     for part in PARTS]) for view in ('right', 'left')])
    np.testing.assert_allclose(
        Policy.load(folder, seeing).actions(embedding, ()),
        np.full((CHUNK, 2), (rows * weights).sum()), rtol=1e-4)


def test_chunks_are_run_as_far_as_the_policy_says(folder, seeing):
    """Guards the loop: two of four actions, then another look; a new look replaces the rest."""
    attempt = Policy.load(folder, seeing).start_attempt()
    embedding = embedding_of(seeing)
    assert attempt.due
    with pytest.raises(ValueError, match='observe first'):
        attempt.next_action()
    attempt.observe(embedding, JOINTS)
    first, second = attempt.next_action(), attempt.next_action()
    np.testing.assert_allclose(second - first, 1.0, atol=1e-5)
    assert attempt.due and attempt.left == 0
    attempt.observe(embedding, JOINTS)
    attempt.next_action()
    attempt.observe(embedding, JOINTS)
    assert attempt.left == 2
    np.testing.assert_array_equal(attempt.next_action(), first)


def test_a_policy_without_parts_needs_no_encoder(tmp_path):
    """Guards baselines that see nothing."""
    policy = Policy.load(write_tiny_policy(tmp_path / 'blind'))
    np.testing.assert_allclose(policy.actions(None, JOINTS)[0], 7.0)


def test_inputs_of_another_shape(folder, seeing):
    policy = Policy.load(folder, seeing)
    with pytest.raises(ValueError, match='needed are 3 numbers: joint_0, joint_1, joint_2'):
        policy.actions(embedding_of(seeing), JOINTS[:2])
    for wrong in (None, np.zeros((3, 5), np.float32)):
        with pytest.raises(ValueError, match='needed is that of the encoder'):
            policy.actions(wrong, JOINTS)


def test_actions_that_are_no_numbers(folder, seeing):
    """Guards the arm: nothing that is not finite becomes a command."""
    with pytest.raises(InferenceError, match='policy.onnx returned values that are not finite'):
        Policy.load(folder, seeing).actions(
            np.full_like(embedding_of(seeing), np.finfo(np.float32).max), JOINTS)


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_inputs_that_are_no_numbers(tmp_path, seeing, bad):
    """
    Guards the arm: a graph that bounds its actions makes finite ones even of infinity.

    Only what came out was looked at, and that was a full stroke.
    """
    import onnx

    size = sum(part.size for part in seeing.parts if part.name in PARTS)
    model = onnx.load_from_string(tiny_graph(2, size))
    model.graph.node[-1].output[0] = 'unbounded'
    model.graph.node.append(onnx.helper.make_node('Clip', ['unbounded', 'low', 'high'],
                                                  ['actions']))
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.float32(limit), name)
                                   for limit, name in ((-1.0, 'low'), (1.0, 'high')))
    policy = Policy.load(write_tiny_policy(
        tmp_path / 'bounded', seeing, PARTS, ('right', 'left'),
        graph=model.SerializeToString()), seeing)
    embedding = embedding_of(seeing)
    assert np.abs(policy.actions(embedding, JOINTS)).max() <= 1.0
    with pytest.raises(ValueError, match='proprio holds values that are not finite'):
        policy.actions(embedding, [bad, 0.0, 0.0])
    embedding[:] = bad
    with pytest.raises(ValueError, match='embedding holds values that are not finite'):
        policy.actions(embedding, JOINTS)


def refused(folder, encoder, *words):
    with pytest.raises(PolicyError) as caught:
        Policy.load(folder, encoder)
    text = str(caught.value)
    assert '\n' not in text and all(word in text for word in words), text


def test_other_parts_and_views(tmp_path, folder, tiny, seeing):
    """Guards against an encoder that was started with other parts."""
    refused(folder, Encoder.load(tiny, provider='cpu', threads=1, parts=('mean',)),
            'wants the part keypoints', "parts=['mean', 'keypoints']")
    refused(folder, None, 'needs an embedding with the parts mean, keypoints')
    refused(write_tiny_policy(
        tmp_path / 'a', seeing, PARTS, ('left',), change=lambda d: d.update(views=['rear'])),
        seeing, 'wants the view rear', 'left, middle, right')
    refused(write_tiny_policy(
        tmp_path / 'b', seeing, ('mean',), ('left',),
        change=lambda d: d['parts'][0].update(shape=[9])), seeing, 'mean as [9]', '[4]')


def test_images_that_are_turned_or_cropped_otherwise(tmp_path, tiny, seeing):
    """
    Guards the arm: an encoder with another crop shows a policy things where they are not.

    Of the views that the policy looks at; by the encoder, and in both directions.
    """
    whole = write_tiny_policy(tmp_path / 'whole', seeing, PARTS, ('left', 'right'))

    def mounted(**geometry):
        return Encoder.load(tiny, provider='cpu', threads=1, parts=('mean', 'keypoints', 'task'),
                            geometry=geometry)

    part = ViewGeometry(180, (0.1, 0.0, 0.9, 1.0))
    refused(whole, mounted(left=ViewGeometry(180)), 'images of left with rotation 0 and crop [0.0',
            'takes them with rotation 180', 'Set left.rotation and left.crop')
    refused(whole, mounted(right=ViewGeometry(0, (0.1, 0.0, 0.9, 1.0))), 'crop [0.1, 0.0, 0.9')
    assert Policy.load(whole, mounted(middle=part)).remark == ''
    policy = write_tiny_policy(
        tmp_path / 'part', seeing, PARTS, ('left', 'right'),
        change=lambda d: d['embedding'].update(
            rotation={'left': 180}, crop={'left': [0.1 + 1e-9, 0, 0.9, 1]}))
    refused(policy, seeing, 'with rotation 180 and crop [0.1, 0.0, 0.9, 1.0]')
    found = Policy.load(policy, Encoder.load(
        tiny, provider='cpu', threads=1, **read_policy(policy).encoder_options))
    assert found.remark.startswith(str(policy)) and 'how images of right were turned' \
        in found.remark
    layout = replace(Layout.of(seeing), geometry={})
    refused(whole, layout, 'with what it does not tell')


def test_another_precision_is_remarked_on(tmp_path, tiny, variant, seeing):
    """It is not refused: how much it matters is said in figures, as far as there are any."""
    folder = write_tiny_policy(tmp_path / 'policy', seeing, PARTS, ('left',))
    assert Policy.load(folder, seeing).remark == ''
    visual = (tiny / 'visual.onnx').read_bytes()
    for metrics, said in (({}, 'learnt from fp32. What'),
                          ({'visual_int8_cosine': {'mean': 0.9931, 'min': 0.98}}, ' is 0.9931.')):
        small = variant(tiny, change=lambda d, m=metrics: d.update(metrics=m),
                        files={'visual.int8.onnx': visual})
        encoder = Encoder.load(small, provider='cpu', threads=1, parts=PARTS, precision='int8')
        assert encoder.identity == seeing.identity
        remark = Policy.load(folder, encoder).remark
        assert 'the encoder runs int8' in remark and said in remark
        assert Policy.load(folder, Encoder.load(
            small, provider='cpu', **read_policy(folder).encoder_options)).remark == ''


def test_another_pooling(tmp_path, tiny, seeing):
    """Of parts that attend to the instruction; the others do not care."""
    mean = Encoder.load(tiny, provider='cpu', threads=1, parts=('task', 'spatial'),
                        pooling='mean')
    parts = {name: write_tiny_policy(tmp_path / name, seeing, (name,), ('left',))
             for name in ('task', 'keypoints')}
    refused(parts['task'], mean, 'learnt task with pooling attention', 'has mean')
    assert Policy.load(parts['keypoints'], Encoder.load(
        tiny, provider='cpu', threads=1, parts=('keypoints',), pooling='mean')).remark == ''
    even = write_tiny_policy(tmp_path / 'even', mean, ('task',), ('left',),
                             change=lambda d: d['embedding'].update(pooling='mean'))
    assert Policy.load(even, mean) and not read_policy(even).attends
    refused(even, seeing, 'with pooling mean')


def test_what_policies_of_before_do_not_say(tmp_path, seeing):
    """They run on their own bundle, with a remark."""
    folder = write_tiny_policy(tmp_path / 'old', seeing, PARTS, ('left',), embedding=None)
    assert 'does not say how images of left' in Policy.load(folder, seeing).remark
    assert read_policy(folder).encoder_options == {'parts': PARTS}


@pytest.mark.parametrize(('values', 'words'), [
    ({'schema_version': 2}, ('schema_version is 2', 'reads 1')),
    ({'chunk': 0}, ('chunk is 0', 'needed is a whole number from 1')),
    ({'execute': 9}, ('execute is 9', 'at most')),
    ({'period_s': 'soon'}, ("period_s is 'soon'",)),
    ({'colour': 'red'}, ("has 'colour'", 'allowed are')),
    ({'actions': []}, ('actions is []',)),
    ({'actions': [{'name': 'x'}, {'name': 'x'}]}, ('actions are x, x', 'different names')),
    ({'bundle_sha256': '', 'embedding': None}, ('embedding or bundle_sha256 go together',)),
    ({'embedding': {'sha256': 'abc'}}, ("embedding.sha256 is 'abc'",)),
    ({'embedding': {'sha256': 'a' * 64, 'ingredients': {'visual.onnx': 'b' * 64}}},
     ('embedding.ingredients are visual.onnx; needed are', 'spatial.onnx, or none at all')),
    ({'embedding': {'sha256': 'a' * 64, 'precision': 'int4'}},
     ("precision is 'int4'", 'fp32, fp16, int8')),
    ({'embedding': {'sha256': 'a' * 64, 'rotation': {'left': 0}}}, ('crop of no view',)),
    ({'embedding': {'sha256': 'a' * 64, 'rotation': {'left': 45}, 'crop': {'left': [0, 0, 1, 1]}}},
     ('rotation is 45',)),
    ({'embedding': {'sha256': 'a' * 64, 'rotation': {'left': 0}, 'crop': {'left': [0, 0, 1]}}},
     ('crop has 3 numbers',)),
    ({'graph_sha256': 'abc'}, ("graph_sha256 is 'abc'",)),
    ({'proprio': [{'unit': 'm'}]}, ('proprio[0].name is missing',)),
])
def test_a_policy_yaml_that_is_wrong(tmp_path, seeing, values, words):
    """Guards who writes a policy: one sentence says what came and what is needed."""
    refused(write_tiny_policy(tmp_path / 'p', seeing, PARTS, ('left',), **values), seeing,
            'policy.yaml', *words)


def test_files_that_are_missing_or_damaged(tmp_path, folder, seeing):
    refused(tmp_path / 'nowhere', seeing, 'cannot be read', 'hralign policy train')
    (folder / 'policy.yaml').write_text('{', 'utf-8')
    refused(folder, seeing, 'not YAML as a policy has it')
    (folder / 'policy.yaml').write_text('- 1', 'utf-8')
    refused(folder, seeing, 'it is not a mapping')
    again = write_tiny_policy(tmp_path / 'again', seeing, PARTS, ('left',))
    (again / 'policy.onnx').write_bytes(tiny_graph(1, 12)[:-3] + b'abc')
    refused(again, seeing, 'policy.onnx', 'SHA-256', 'Copy or export')
    (again / 'policy.onnx').unlink()
    refused(again, seeing, 'policy.onnx', 'cannot be read')


@pytest.mark.parametrize(('graph', 'words'), [
    (lambda row: tiny_graph(2, row), ('input embedding', 'needed is')),
    (lambda row: tiny_graph(1, row, proprio=0), ("inputs are ['embedding']", 'proprio')),
    (lambda row: tiny_graph(1, row, chunk=5), ('output actions', 'needed is')),
    (lambda row: b'no graph', ('policy.onnx',)),
], ids=['views', 'inputs', 'chunk', 'no_onnx'])
def test_a_graph_that_does_not_keep_the_contract(tmp_path, seeing, graph, words):
    """Guards who exports a policy from elsewhere."""
    row = sum(part.size for part in seeing.parts if part.name in PARTS)
    refused(write_tiny_policy(tmp_path / 'p', seeing, PARTS, ('left',), graph=graph(row)),
            seeing, *words)


def test_what_it_says_is_read(folder):
    spec = read_policy(folder)
    assert spec.part_names == PARTS and spec.views == ('right', 'left')
    assert [one.unit for one in spec.proprio] == ['rad'] * PROPRIO
