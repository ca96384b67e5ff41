# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""From an instruction to features: computed once, whole, and untouched by failure prompts."""

from concurrent.futures import ThreadPoolExecutor
import json

from hralign_ros.runtime import Encoder, InferenceError, TaskError
import numpy as np
import pytest
import yaml


@pytest.fixture
def prompted(shipped, variant):
    """Make the shipped bundle with a task and failure prompts that are not zero."""
    from safetensors.numpy import save

    rng = np.random.default_rng(5)
    document = {
        'tasks': [{'task_id': 'cup', 'name': 'put the marker in the cup', 'modes': ['dropped']},
                  {'task_id': 'drawer', 'name': 'open the top drawer'},
                  {'task_id': 'faucet', 'name': 'turn on the faucet'}],
        'fallback': {'task_id': 'fallback', 'name': 'fallback'}}
    prompts = {f'prompts/{name}': rng.standard_normal((3, 4, 384)).astype(np.float32) * 0.3
               for name in ('cup', 'drawer', 'faucet', 'fallback')}
    return Encoder.load(variant(shipped, files={
        'tasks.yaml': yaml.safe_dump(document).encode(), 'tasks.safetensors': save(prompts)}),
        provider='cpu')


@pytest.fixture
def counted(tiny_encoder, monkeypatch):
    """Load the tiny bundle and count how often its text graph runs."""
    calls = []
    run = tiny_encoder.text._graph.run
    monkeypatch.setattr(
        tiny_encoder.text._graph, 'run', lambda feed: calls.append(feed) or run(feed))
    return tiny_encoder, calls


def test_the_plain_text_is_untouched_by_prompts(prompted, encoder):
    """Guards the task's own feature: row 0 is the plain text's, whatever prompts stand behind."""
    text = 'put the marker in the cup'
    with_prompts, without = prompted.text.encode(text), encoder.text.encode(text)
    assert with_prompts.task.task_id == 'cup' and with_prompts.task.prompts.any()
    np.testing.assert_allclose(with_prompts.features[0], without.features[0], atol=2e-6)
    rows = with_prompts.features
    assert rows.shape == (4, 384) and rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    assert (rows[1:] @ rows[0] < 0.999).all(), 'the prompts change nothing at all'
    assert rows[1] @ rows[2] < 0.999


def test_a_second_encode_does_not_run_the_graph(counted):
    """Guards the cache: setting the same task again costs nothing, white space aside."""
    encoder, calls = counted
    first = encoder.text.encode('close the cup')
    assert len(calls) == 1
    assert encoder.text.encode('  close the cup\n') is first
    assert len(calls) == 1
    encoder.text.encode('close the drawer')
    assert len(calls) == 2


def test_the_cache_is_bounded(counted):
    """Guards the robot's memory against a planner that never says the same thing twice."""
    encoder, calls = counted
    for i in range(300):
        encoder.text.encode(f'open {i}')
    assert len(calls) == 300 and len(encoder.text._cache) <= 256
    encoder.text.encode('open 299')
    assert len(calls) == 300
    encoder.text.encode('open 0')
    assert len(calls) == 301


def test_empty_means_zeros(counted):
    """Guards the state without a task: features of zeros, and no run of the graph."""
    encoder, calls = counted
    for text in ('', '  '):
        features = encoder.text.encode(text)
        assert (features.text, features.known) == ('', False)
        assert features.features.shape == (3, 8) and not features.features.any()
    assert not calls


def test_known_and_unknown(tiny_encoder):
    """Guards which prompts and which calibration an instruction gets."""
    encode = tiny_encoder.text.encode
    known, unknown = encode('Lift the cup!'), encode('close the cup')
    assert (known.task.task_id, known.known, known.text) == ('cup', True, 'Lift the cup!')
    assert (unknown.task.task_id, unknown.known) == ('fallback', False)


def test_a_known_task_is_encoded_by_its_own_name(prompted):
    """
    Guards the guarantee of the thresholds: they were fitted to the name, and to no other words.

    An instruction that differs in its capitals, the id or an alias were encoded as they were
    typed, and scored with the name's map: of 28 successes ten were left, without a word.
    """
    own = prompted.text.encode('put the marker in the cup').features
    for text in ('Put the marker in the CUP!', 'cup', '  put the  marker in the cup. '):
        found = prompted.text.encode(text)
        assert found.known and found.text == text.strip()
        np.testing.assert_array_equal(found.features, own)


def test_the_first_instruction_does_not_wait_for_all_names(counted):
    """Guards the cameras: at the first set_task the node's one thread encoded every name."""
    encoder, calls = counted
    encoder.warm_up()
    calls.clear()
    encoder.text.nearest(encoder.text.encode('something else'))
    assert len(calls) == 1


@pytest.mark.parametrize('count', [513, 10_000])
def test_too_many_characters(encoder, count):
    """Guards the guarantee of set_task: refused, not cut."""
    with pytest.raises(TaskError, match='not cut'):
        encoder.start_episode('put the cup on the table ' * (count // 25) + 'x' * (count % 25))


@pytest.mark.parametrize('text', [
    '把' * 512, '😀' * 512, '把杯子放进碗里' * 73, '😀 ' * 256, 'a ' * 256, '-' * 512, 'x' * 512,
    'ẞ' * 512, '\u0301' * 512], ids=lambda t: f'{t[:2]!r}')
def test_the_longest_text_of_any_script(encoder, text):
    """Guards 512 characters that become more tokens than the encoder takes: fine or refused."""
    try:
        features = encoder.text.encode(text)
    except TaskError as error:
        assert 'tokens' in str(error) and 'not cut' in str(error)
        return
    np.testing.assert_allclose(np.linalg.norm(features.features, axis=1), 1.0, atol=1e-4)


def test_the_most_tokens(encoder):
    """Guards the limit itself: as many tokens as fit beside the prompts run through the graph."""
    words = encoder.manifest.text.max_tokens - encoder.manifest.success.prompt_length - 2
    assert np.isfinite(encoder.text.encode('把' * words).features).all()
    with pytest.raises(TaskError, match=f'{words + 3} tokens'):
        encoder.text.encode('把' * (words + 1))


def test_nearest(prompted):
    """Guards the answer of set_task to an unknown instruction: the likest tasks first."""
    found = prompted.text.nearest(prompted.text.encode('place the pen into the mug'), most=2)
    assert [task.task_id for task, _ in found][0] == 'cup' and len(found) == 2
    assert 1.0 >= found[0][1] > found[1][1]
    same = prompted.text.nearest(prompted.text.encode('open the top drawer'), most=1)
    assert same[0][0].task_id == 'drawer' and same[0][1] == pytest.approx(1.0, abs=1e-4)


def test_nearest_of_nothing(prompted, encoder):
    """Guards the same without a task; what is known is nearest to itself."""
    assert prompted.text.nearest(prompted.text.encode('')) == []
    task, cosine = encoder.text.nearest(encoder.text.encode('open the drawer'))[0]
    assert task.name == 'open the drawer' and cosine == pytest.approx(1.0, abs=1e-5)


def test_many_threads(tiny_encoder):
    """Guards set_task, which comes from another thread than the ticks do."""
    texts = [f'open {i % 300}' for i in range(900)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(tiny_encoder.text.encode, texts))
    assert [features.text for features in found] == texts
    assert len(tiny_encoder.text._cache) <= 256


def test_a_tokenizer_that_fails_on_a_word(tiny, variant):
    """
    Guards ~/set_task against a tokenizer that loads and then fails.

    One without its own token for unknown words raises a plain Exception at the first of them,
    which came out of set_task as a fault of the node.
    """
    tokenizer = json.loads((tiny / 'tokenizer.json').read_text('utf-8'))
    tokenizer['model']['unk_token'] = 'nowhere'
    encoder = Encoder.load(variant(
        tiny, files={'tokenizer.json': json.dumps(tokenizer).encode()}), provider='cpu')
    encoder.text.encode('pick up the cup')
    with pytest.raises(InferenceError, match='tokenizer.json failed'):
        encoder.text.encode('wash the dog')


def test_features_that_are_not_finite(tiny_encoder, monkeypatch):
    """Guards every tick of an episode: features without a number in them are refused at once."""
    monkeypatch.setattr(tiny_encoder.text._graph, 'run',
                        lambda feed: [np.full((3, 8), np.nan, np.float32)])
    with pytest.raises(InferenceError, match='text.onnx'):
        tiny_encoder.text.encode('pick up the cup')


def test_features_of_another_number(tiny_encoder, monkeypatch):
    """Guards the success head: one feature for the instruction and one for each prompt."""
    monkeypatch.setattr(tiny_encoder.text._graph, 'run',
                        lambda feed: [np.ones((0, 8), np.float32)])
    with pytest.raises(InferenceError, match='0 features'):
        tiny_encoder.text.encode('pick up the cup')
