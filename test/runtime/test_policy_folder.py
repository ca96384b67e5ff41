# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The contract of a policy's folder: what is loaded, what is refused, and in which words."""

from hralign_ros.runtime import Encoder, InferenceError
from hralign_ros.runtime.errors import PolicyError
from hralign_ros.runtime.policy import Policy, read_policy
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
