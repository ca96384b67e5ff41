# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""When a policy goes on working on another bundle, and what is said where it does not."""

from hralign_ros.runtime import default_bundle, Encoder, load_bundle, PARTS
from hralign_ros.runtime.errors import PolicyError
from hralign_ros.runtime.identity import Identity, ingredients_of
from hralign_ros.runtime.policy import Policy
import numpy as np
import pytest
from support.tiny_policy import TASK, write_tiny_policy
import yaml

VIEWS = ('right', 'left')


def load(bundle, **options):
    return Encoder.load(bundle, provider='cpu', threads=1, **{'parts': PARTS, **options})


def padded(bundle, name):
    """Give a graph of a bundle as another file that makes the same numbers."""
    import onnx

    model = onnx.load_from_string(load_bundle(bundle).read(name))
    model.doc_string = 'another'
    return model.SerializeToString()


def retasked(bundle, change):
    """Change tasks.yaml of a bundle."""
    document = yaml.safe_load(load_bundle(bundle).read('tasks.yaml'))
    change(document)
    return yaml.safe_dump(document).encode()


def embedded(bundle, task=TASK):
    rng = np.random.default_rng(3)
    encoder = load(bundle)
    episode = encoder.start_episode(task)
    for stamp in range(1, 5):
        tick = episode.step({view: rng.integers(0, 256, (20, 30, 3), np.uint8)
                             for view in encoder.manifest.views}, stamp=stamp * 200_000_000)
    return tick.embedding


def policy_of(folder, bundle, parts, **values):
    return write_tiny_policy(folder, load(bundle), parts, VIEWS, **values)


def refusal(folder, encoder):
    with pytest.raises(PolicyError) as caught:
        Policy.load(folder, encoder)
    text = str(caught.value)
    assert '\n' not in text
    return text


def test_what_no_embedding_depends_on(tiny, variant, tmp_path):
    """
    Guards a policy against every change of a bundle that does not touch what it sees.

    Teaching a task, or a new threshold, made another bundle_sha256, and the arm stood still on
    embeddings that were the same to the bit.
    """
    other = variant(
        tiny, change=lambda d: (d.update(name='other', ood={'threshold': 2.0}),
                                d['success'].update(dwell_s=0.5)),
        files={'success.onnx': padded(tiny, 'success.onnx'), 'card.md': b'another',
               'tasks.yaml': retasked(tiny, lambda d: d['tasks'][1].update(
                   name='shut the drawer', aliases=['close the drawer']))})
    one, two = load(tiny), load(other)
    assert one.bundle.sha256 != two.bundle.sha256 and one.identity == two.identity
    np.testing.assert_array_equal(embedded(tiny), embedded(other))
    assert Policy.load(policy_of(tmp_path / 'policy', tiny, PARTS), two)


@pytest.mark.parametrize(('name', 'depending', 'said'), [
    ('preprocess.onnx', PARTS, 'preprocessing (preprocess.onnx is '),
    ('visual.onnx', PARTS, 'visual encoder with its adapters (visual.onnx is '),
    ('spatial.onnx', ('spatial', 'keypoints'), 'basis of spatial and keypoints (spatial.onnx is '),
    ('embed.onnx', ('task', 'clip'), 'attention to the instruction (embed.onnx is '),
    ('text.onnx', ('task', 'clip'), 'text encoder (text.onnx is '),
    ('tokenizer.json', ('task', 'clip'), 'tokenizer (tokenizer.json is '),
])
def test_what_each_part_depends_on(tiny, variant, tmp_path, name, depending, said):
    """Part by part: what depends on the file is refused, which is named, and nothing else is."""
    other = load(variant(tiny, files={name: load_bundle(tiny).read(name) + b' '
                                      if name.endswith('json') else padded(tiny, name)}))
    assert other.identity.sha256 != load(tiny).identity.sha256
    for part in PARTS:
        folder = policy_of(tmp_path / part, tiny, (part,))
        if part not in depending:
            assert Policy.load(folder, other)
            continue
        text = refusal(folder, other)
        assert said in text and 'train the policy again' in text
        assert text.count('.onnx is ') + text.count('.json is ') == 1, 'nothing else is blamed'


def test_clips_and_views(tiny, variant, tmp_path):
    """A clip's length and period are the part `clip`'s alone; views count for all."""
    slower = load(variant(tiny, change=lambda d: d['clip'].update(period_s=0.4)))
    kept = load(variant(tiny, change=lambda d: d['clip'].update(capacity=9, stride_s=0.3)))
    turned = load(variant(tiny, change=lambda d: d['views'].reverse()))
    clip, rest = (policy_of(tmp_path / name, tiny, parts) for name, parts in (
        ('clip', ('clip',)), ('rest', ('spatial', 'keypoints', 'mean', 'task'))))
    assert 'frames of a clip (clip is 3 frames, 0.4 s apart, and not 3 frames, 0.2 s apart)' \
        in refusal(clip, slower)
    assert Policy.load(rest, slower) and Policy.load(clip, kept)
    assert 'views is right, middle, left, and not left, middle, right' in refusal(rest, turned)


def test_words_of_the_instruction(tiny, variant, tmp_path):
    """
    Guards `task` against a task that is taught later and is called by the policy's instruction.

    A name of a task of the bundle is encoded as that task's own name, so that the very same
    instruction attends to something else then. Case is the same to this tokenizer.
    """
    said = 'open the cup'
    known = load(variant(tiny, files={'tasks.yaml': retasked(
        tiny, lambda d: d['tasks'][0].setdefault('aliases', []).append(said))}))
    spelt = load(variant(tiny, files={'tasks.yaml': retasked(
        tiny, lambda d: d['tasks'][0].update(name='Open The CUP'))}))
    pooled, seen = (policy_of(tmp_path / name, tiny, parts, task=said) for name, parts in (
        ('pooled', ('task', 'mean')), ('seen', ('spatial',))))
    assert load(tiny).identity == known.identity == spelt.identity
    assert "in the words 'pick up the cup'" in refusal(pooled, known)
    assert Policy.load(seen, known) and Policy.load(pooled, spelt)
    np.testing.assert_array_equal(embedded(tiny, said), embedded(spelt.bundle.path, said))
    assert (embedded(tiny, said) != embedded(known.bundle.path, said)).any()


def test_what_is_not_known_is_not_blamed(tiny, variant, tmp_path):
    """A policy.yaml that has the hash alone takes nothing else; what differs it cannot say."""
    encoder = load(tiny)
    folder = policy_of(tmp_path / 'short', tiny, ('mean',),
                       embedding={'sha256': encoder.identity.sha256}, bundle_sha256='')
    assert Policy.load(folder, encoder)
    other = load(variant(tiny, files={'spatial.onnx': padded(tiny, 'spatial.onnx')}))
    text = refusal(folder, other)
    assert f'embedding_sha256 is {other.identity.sha256[:12]}' in text and 'basis' not in text


def test_a_policy_that_says_its_bundle_alone(tiny, variant, tmp_path):
    """Guards policies of before: they are read, and take embeddings of their very bundle."""
    folder = policy_of(tmp_path / 'old', tiny, ('mean',), embedding=None)
    assert Policy.load(folder, load(tiny))
    other = load(variant(tiny, change=lambda d: d.update(name='other')))
    assert 'learnt from the bundle' in refusal(folder, other)


def test_lines_give_back_what_they_are_of(tiny):
    """What a message has is what the bundle has."""
    manifest = load_bundle(tiny).manifest
    identity = Identity.of(manifest)
    assert Identity.from_lines(identity.sha256, identity.lines) == identity
    assert set(identity.ingredients) == set(ingredients_of(PARTS))
    with pytest.raises(ValueError, match="there is no part 'grid'"):
        ingredients_of(('grid',))


def test_without_a_basis(tiny, variant):
    """A bundle that has no spatial.onnx has an identity, too: another one."""
    plain = load_bundle(variant(tiny, change=lambda d: d['files'].pop('spatial.onnx')))
    identity = Identity.of(plain.manifest)
    assert 'spatial.onnx' not in identity.ingredients
    assert identity.sha256 != Identity.of(load_bundle(tiny).manifest).sha256


def test_the_shipped_bundle_keeps_its_identity():
    """
    Guards policies on the shipped bundle against a change of what is hashed, and how.

    Where its graphs change this does, too; nothing else may change it.
    """
    assert Identity.of(load_bundle(default_bundle()).manifest).sha256 == (
        'fb6bc0e9f399fcd09dc6ce8bafbf7c4d67943f75fc4ca2d1de530233220254df')
