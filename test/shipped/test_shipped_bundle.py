# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the shipped bundle guarantees, whichever weights are in it."""

from hralign_ros.runtime import Encoder, load_bundle, Status
import numpy as np
import pytest
from support.images import image, START
from support.refusals import refusal
import yaml

LIMIT = 48_000_000
# Beginnings of their SHA-256.
MEASURED = {
    'embed.onnx': '6735d59e3cfe5c74',
    'preprocess.onnx': '9aa99778915e0f8a',
    'success.onnx': 'f07f91028be557bc',
    'text.onnx': '7319c6c4c75c84bf',
    'tokenizer.json': '5fd1c882abbd3051',
    'visual.onnx': 'c87e95ba92e4bc3f',
}


@pytest.fixture(scope='module')
def encoder(shipped):
    """Load the shipped bundle once; not to be changed."""
    return Encoder.load(shipped, provider='cpu')


def both():
    return {'wrist': image(0), 'third_person': image(100)}


def test_it_is_small_and_holds_nothing_else(shipped):
    """Guards the limit of 45 MB, and that nothing lies in it by mistake."""
    listed = yaml.safe_load((shipped / 'bundle.yaml').read_text('utf-8'))['files']
    sizes = {path.name: path.stat().st_size for path in shipped.iterdir()}
    assert sum(sizes.values()) <= LIMIT
    assert set(sizes) == {*listed, 'bundle.yaml'}


def test_the_measured_graphs_are_the_shipped_ones(shipped):
    """
    Guards results/: embeddings, thresholds and decisions were measured with these bytes.

    spatial.onnx and shared heads came beside them and changed none; fine tokens came into
    visual.onnx, whose tokens stayed the same to the bit. Whoever trains anew measures anew.
    """
    files = load_bundle(shipped).manifest.files
    assert {name: files[name].sha256[:16] for name in MEASURED} == MEASURED


def test_no_path_of_the_machine_it_was_made_on(shipped):
    bundle = load_bundle(shipped)
    for name in bundle.manifest.files:
        data = bundle.read(name)
        for trace in (b'/home/', b'site-packages', b'.venv'):
            assert trace not in data, f'{name} holds {trace.decode()}'


def test_the_card_says_what_was_measured_and_how_it_was_made(shipped):
    """Guards whoever relies on it: licence, seed, commands, and a row for each metric."""
    card = load_bundle(shipped).read('card.md').decode()
    for fact in ('Apache-2.0', 'UNKNOWN_TASK', 'RH20T', 'seed', 'hralign encoder train --data',
                 'hralign success train --data', 'hralign success calibrate', '`retrieval_r1`',
                 '`proxy_a_distance`', '| `auroc` |  | test_seen |', '`false_alarm_rate`',
                 '`missed_success_rate`'):
        assert fact in card, fact


@pytest.mark.parametrize('name', ['visual.onnx', 'text.onnx', 'tokenizer.json'])
def test_damage_is_found(shipped, variant, name):
    """Guards real files: a cut and a flipped bit, found before anything runs."""
    data = bytearray((shipped / name).read_bytes())
    refusal(variant(shipped, files={name: bytes(data[:-1000])}, rehash=False), name, 'again')
    data[len(data) // 2] ^= 4
    refusal(variant(shipped, files={name: bytes(data)}, rehash=False), name, 'SHA-256')


def test_status_of_known_and_unknown_tasks(encoder):
    """Guards honesty: a task that it was trained on, one that it was not, none at all."""
    assert encoder.start_episode(encoder.tasks.tasks[0].name).task_status == Status.OK
    assert encoder.start_episode('put the marker in the cup').task_status & Status.UNKNOWN_TASK
    assert encoder.start_episode('').task_status & Status.NO_TASK
    tick = encoder.start_episode('').step(both(), START)
    assert tick.status & Status.NO_TASK
    success = tick.success
    assert (success.probability, success.progress, success.raw_score) == (None, None, None)
    assert success.clip_stamps == (START,)


def test_tokens_have_the_form_of_the_manifest(encoder):
    """Guards the figures that the messages carry: grid and dimensions."""
    manifest = encoder.manifest
    tokens, _, _ = encoder.encode_images(both())
    assert tokens.dtype == np.float32
    assert tokens.shape == (2, int(np.prod(manifest.tokens.grid)), manifest.tokens.channels)


def test_threads_change_nothing_that_counts(shipped):
    """Guards the number of threads as a matter of speed alone."""
    one, other = (Encoder.load(shipped, provider='cpu', threads=threads).start_episode('open it')
                  .step(both(), START).embedding for threads in (1, 2))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_texts_that_mean_the_same_are_close(encoder):
    """Guards the text encoder, its int8 weights and the tokenizer."""
    encode = encoder.text.encode
    one, like, other = (encode(t).features[0] for t in (
        'put the marker in the cup', 'place the pen into the mug', 'close the bottom drawer'))
    assert one @ like > one @ other + 0.2
