# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The tasks of a bundle: what an instruction may be, which task it names, what the files hold."""

from dataclasses import replace
import math
import tracemalloc

from hralign_ros.runtime import BundleError, Encoder, load_bundle, TaskError
from hralign_ros.runtime.tasks import (
    Calibration,
    check_task,
    load_tasks,
    MAX_TASK_CHARACTERS,
    normalise_task,
    Task,
    TaskTable,
)
import numpy as np
import pytest
import yaml


@pytest.fixture
def rewritten(tiny, variant):
    """Make a tiny bundle whose tasks.yaml a function has changed."""
    def make(change):
        document = yaml.safe_load((tiny / 'tasks.yaml').read_text('utf-8'))
        document = change(document) or document
        return variant(tiny, files={'tasks.yaml': yaml.safe_dump(document).encode()})
    return make


def refused(folder, *words):
    """Load a bundle whose tasks are wrong; check the sentence."""
    with pytest.raises(BundleError) as caught:
        Encoder.load(folder, provider='cpu')
    text = str(caught.value)
    assert 'tasks' in text and '\n' not in text
    assert all(word in text for word in words), text
    return text


@pytest.mark.parametrize(('text', 'result'), [
    ('', ''), ('   ', ''), ('\t\n', ''), (' pick up the cup \n', 'pick up the cup'),
    ('pick\tup', 'pick\tup'), ('Öffne die Schublade', 'Öffne die Schublade'),
    ('把杯子放进碗里', '把杯子放进碗里'), ('🥤→🗑️', '🥤→🗑️'),
    ('x' * MAX_TASK_CHARACTERS, 'x' * MAX_TASK_CHARACTERS)])
def test_good_instructions(text, result):
    """Guards what is accepted: any language, white space around it stripped."""
    assert check_task(text) == result


@pytest.mark.parametrize('count', [513, 10_000])
def test_too_long_is_refused_not_cut(count):
    """Guards against the end of an instruction, where its goal stands, being cut off silently."""
    with pytest.raises(TaskError, match=f'{count} characters.*512.*not cut'):
        check_task('x' * count)


@pytest.mark.parametrize('text', [
    'a\x00b', 'a\x1b[31mb', 'a\x7fb', 'a\x85b', 'a\ud800b', 'a\x08b'])
def test_control_characters_are_refused(text):
    """Guards logs and terminals, and against text that is really binary data."""
    with pytest.raises(TaskError, match='control'):
        check_task(text)


@pytest.mark.parametrize(('one', 'other'), [
    ('Pick up the Cup', 'pick up the cup'), ('pick  up\tthe \n cup', 'pick up the cup'),
    ('Pick up the cup.', 'pick up the cup'), ('Pick up the cup !..', 'pick up the cup'),
    ('ＰＩＣＫ', 'pick'), ('STRASSE', 'straße'), ('cafe\u0301', 'caf\u00e9')])
def test_normalisation(one, other):
    """Guards matching against case, spacing, a full stop, and Unicode's several spellings."""
    assert normalise_task(one) == normalise_task(other)


@pytest.mark.parametrize(('one', 'other'), [
    ('pick up the cup', 'pick up the cups'), ('left to right', 'right to left'),
    ('pick 1.5', 'pick 15'), ('is it open?', 'is it open')])
def test_normalisation_keeps_meaning(one, other):
    """Guards against two instructions becoming one."""
    assert normalise_task(one) != normalise_task(other)


@pytest.mark.parametrize(('text', 'task'), [
    ('pick up the cup', 'cup'), (' Pick up the CUP. ', 'cup'), ('lift the cup', 'cup'),
    ('cup', 'cup'), ('open the drawer', 'drawer'), ('close the drawer', None),
    ('pick up the', None), ('fallback', None), ('...', None), ('', None)])
def test_matching(tiny, text, task):
    """Guards which task an instruction names: by name, id or alias, and never by likeness."""
    found = load_tasks(load_bundle(tiny)).match(text)
    assert (found.task_id if found else None) == task


def test_what_the_table_holds(tiny):
    """Guards modes, masks and calibration on their way out of the two files."""
    table = load_tasks(load_bundle(tiny))
    cup, drawer = table.tasks
    assert (cup.task_id, cup.name, cup.aliases) == ('cup', 'pick up the cup', ('lift the cup',))
    assert cup.modes == ('dropped', 'never grasped')
    np.testing.assert_array_equal(cup.mode_mask, [1, 1])
    np.testing.assert_array_equal(drawer.mode_mask, [1, 0])
    np.testing.assert_array_equal(table.fallback.mode_mask, [0, 0])
    assert len(cup.calibrations) == 7
    assert cup.calibration(['right', 'left']) == Calibration(
        ('left', 'right'), 'platt', {'scale': 0.5, 'shift': -1.0}, {0.1: 0.7, 0.05: 0.8})
    assert drawer.calibrations == () and table.alphas == (0.05, 0.1)
    assert cup.prompts.shape == (2, 2, 8) and not (cup.prompts == drawer.prompts).all()


@pytest.mark.parametrize(('fields', 'sentence'), [
    ({}, 'SUCCESS can be decided at false-alarm rates of 0.05, 0.1. FAILURE is decided at a risk '
     'above 0.9; no rate is guaranteed.'),
    ({'failed': 20, 'succeeded': 12, 'failure_threshold': 0.6, 'failure_rate': 0.0909},
     'rates of 0.05, 0.1, from 20 failed and 12 successful attempts. FAILURE is decided at a '
     'false-alarm rate of 0.0909.'),
    ({'failed': 20, 'pooled': True, 'failure_threshold': 1.0},
     'from 20 failed and 0 successful attempts of all tasks. FAILURE is decided by time_out_s '
     'alone.'),
    ({'thresholds': {}, 'failure_rate': 0.1},
     'No threshold is calibrated: every decision is ABSTAIN.'),
])
def test_verdict(rewritten, fields, sentence):
    """Guards what ~/info says of a task: whether SUCCESS can come at all, and on what grounds."""
    def change(document):
        for calibration in document['tasks'][0]['calibrations']:
            calibration.update(fields)
    bundle = load_bundle(rewritten(change))
    cup, drawer = load_tasks(bundle).tasks
    assert cup.verdict(bundle.manifest.views).endswith(sentence)
    assert drawer.verdict(bundle.manifest.views) == 'Not calibrated: every decision is ABSTAIN.'


def test_the_rate_of_failure(rewritten):
    """Guards who acts on FAILURE: a bound is told where it holds, and nowhere else."""
    def change(document):
        cup, drawer = document['tasks']
        for calibration in cup['calibrations']:
            calibration.update(failure_threshold=0.6, failure_rate=0.1)
        # Without a threshold every decision is ABSTAIN, FAILURE among them.
        drawer['calibrations'] = [{**one, 'thresholds': {}} for one in cup['calibrations']]
    bundle = load_bundle(rewritten(change))
    views = bundle.manifest.views
    cup, drawer = load_tasks(bundle).tasks
    assert (cup.failure_threshold(views), cup.failure_rate(views)) == (0.6, 0.1)
    assert (cup.failure_threshold(views, 0.7), cup.failure_rate(views, 0.7)) == (0.7, 0.1)
    for asked, dwell_s in ((0.5, 1.0), (None, 0.9), (1.0, 1.0)):
        assert cup.failure_rate(views, asked, dwell_s) is None
    for task, there in ((drawer, views), (cup, ('rear',)), (replace(cup, modes=()), views)):
        assert (task.failure_threshold(there), task.failure_rate(there)) == (1.0, None)


def test_no_parameter_decides_a_failure_that_calibration_ruled_out(rewritten):
    """
    Guards risks that tell no more than the clock: no mode decides by them, docs/guarantee say.

    The node's parameter `failure_threshold` stood above that, so that any value of it brought back
    what the calibration had found to be worth nothing.
    """
    def change(document):
        for calibration in document['tasks'][0]['calibrations']:
            calibration.update(failure_threshold=1.0)
    bundle = load_bundle(rewritten(change))
    cup, _ = load_tasks(bundle).tasks
    assert cup.modes
    assert {cup.failure_threshold(bundle.manifest.views, asked) for asked in (
        None, 0.3, 1.0)} == {1.0}


@pytest.mark.parametrize('count', [-1, 'many', None, 2**40])
def test_attempts_are_counted(rewritten, count):
    """Guards ~/info, which is refused by the middleware where a number does not fit its field."""
    refused(rewritten(lambda document: document['tasks'][0]['calibrations'][0].update(
        failed=count)))


@pytest.mark.parametrize(('score', 'wanted'), [
    (0.0, 1 / (1 + math.e)), (2.0, 0.5), (1e9, 1.0), (-1e9, 0.0)])
def test_calibration(score, wanted):
    """Guards the formula, and against an overflow at scores far out."""
    platt = Calibration(('left',), 'platt', {'scale': 0.5, 'shift': -1.0})
    assert platt.apply(score) == pytest.approx(wanted, abs=1e-12)


def test_beta_and_isotonic():
    """Guards the other two formulas: beta with a = b = 1 is the sigmoid, isotonic a curve."""
    beta = Calibration(('left',), 'beta', {'a': 1.0, 'b': 1.0, 'c': 0.0})
    skewed = Calibration(('left',), 'beta', {'a': 2.0, 'b': 0.5, 'c': 0.3})
    for score in (-700.0, -3.0, 0.0, 0.4, 5.0, 700.0):
        p = 1 / (1 + math.exp(-score)) if score > -500 else 0.0
        assert beta.apply(score) == pytest.approx(p, abs=1e-12)
        if abs(score) < 100:
            odds = 2.0 * math.log(p) - 0.5 * math.log1p(-p) + 0.3
            assert skewed.apply(score) == pytest.approx(1 / (1 + math.exp(-odds)), abs=1e-9)
    curve = Calibration(
        ('left',), 'isotonic', {'scores': [-1.0, 1.0], 'probabilities': [0.1, 0.9]})
    assert [curve.apply(x) for x in (-9.0, -1.0, 0.0, 0.5, 2.0)] == pytest.approx(
        [0.1, 0.1, 0.5, 0.7, 0.9])


@pytest.mark.parametrize('data', [
    b'', b'null', b'5', b'[]', b'text', b'tasks: 5', b'tasks: {}', b'fallback: {}', b'tasks: [5]',
    b'tasks: [null]', b'tasks: ["pick"]', b'tasks: [[]]', b'tasks: [{}]', b'tasks: [',
    b'\x00\xff', b'tasks: !!bool x', b'tasks: []\nfallback: null', b'tasks: []\nfallback: 5',
    b'tasks: []\nfallback: [1]', b'tasks: []\nfallback: {task_id: a, name: a, modes: 5}',
    b'tasks: []\nfallback: {task_id: a, name: a, calibrations: 5}',
    b'tasks: []\nfallback: {task_id: a, name: a, calibrations: {}}',
], ids=repr)
def test_garbage_in_tasks_yaml(tiny, variant, data):
    """Guards the file that people edit by hand: whatever it holds, one sentence."""
    refused(variant(tiny, files={'tasks.yaml': data}))


@pytest.mark.parametrize(('field', 'value'), [
    ('task_id', None), ('name', None), ('aliases', 'lift the cup'), ('aliases', 5),
    ('modes', 'dropped'), ('modes', 5), ('modes', ['a', 'b', 'c']), ('calibrations', 'platt'),
    ('calibrations', {'method': 'platt'}), ('calibrations', [{'method': 'platt'}]),
    ('name', ''), ('name', 'x' * 600),
    ('aliases', ['']),
], ids=lambda value: repr(value)[:20])
def test_bad_fields_of_a_task(rewritten, field, value):
    """Guards each field: a text where a list belongs is no list of its letters."""
    def change(document):
        if value is None:
            del document['tasks'][0][field]
        else:
            document['tasks'][0][field] = value
    refused(rewritten(change))


@pytest.mark.parametrize('method', ['spline', 'Platt', '', None, 5])
def test_unknown_calibration_method(rewritten, method):
    """Guards against a newer bundle's calibration being taken for one that is known here."""
    def change(document):
        document['tasks'][0]['calibrations'][0]['method'] = method
    refused(rewritten(change), 'tasks[0].calibrations[0].method',
            'allowed: temperature, platt, beta, isotonic')


@pytest.mark.parametrize(('field', 'value'), [
    ('scale', float('nan')), ('scale', float('inf')), ('shift', float('nan')), ('scale', -1.0),
    ('views', []), ('views', ['up']), ('views', 'left'),
    ('shift', 'much'), ('thresholds', 5), ('thresholds', [0.1]), ('thresholds', {0.1: None}),
    ('thresholds', {0.0: 0.5}), ('thresholds', {1.5: 0.5}), ('thresholds', {'0.1': 0.5}),
    ('thresholds', {0.1: 1.5}), ('thresholds', {0.1: -0.1}), ('thresholds', {0.1: float('nan')}),
    ('pooled', 'all tasks'), ('never_succeeding', 20),
], ids=repr)
def test_senseless_calibration(rewritten, field, value):
    """Guards against certainty out of a failed fit: NaN as scale would mean probability 1."""
    def change(document):
        calibration = document['tasks'][0]['calibrations'][0]
        place = calibration['parameters'] if field in ('scale', 'shift') else calibration
        place[field] = value
    refused(rewritten(change), field)


@pytest.mark.parametrize('parameters', [
    {'scores': [], 'probabilities': []}, {'scores': [1.0, 0.0], 'probabilities': [0.1, 0.9]},
    {'scores': [0.0, 1.0], 'probabilities': [0.9, 0.1]}, {'scores': [0.0]},
    {'scores': [0.0, 1.0], 'probabilities': [0.5]},
    {'scores': [0.0, 1.0], 'probabilities': [0.5, 1.5]},
    {'scores': [0.0, float('nan')], 'probabilities': [0.5, 0.6]}], ids=repr)
def test_senseless_curve(rewritten, parameters):
    """Guards against a decreasing map: a better score would be a lower probability."""
    def change(document):
        document['tasks'][0]['calibrations'][0] = {
            'views': ['left'], 'method': 'isotonic', 'parameters': parameters}
    refused(rewritten(change))


@pytest.mark.parametrize(('field', 'value'), [
    ('aliases', ['pick up the cup']), ('aliases', ['Pick up the CUP.']), ('task_id', 'cup'),
    ('name', 'lift the cup')])
def test_a_text_that_names_two_tasks(rewritten, tiny, variant, field, value):
    """Guards against an instruction meaning whichever task comes first."""
    def change(document):
        document['tasks'][1][field] = value
    refused(rewritten(change), 'names both')


def test_an_alias_twice_in_one_task(rewritten):
    """Guards against refusing what is harmless: the same text twice for the same task."""
    def change(document):
        document['tasks'][0]['aliases'] = ['lift the cup', 'Lift the cup', 'pick up the cup']
    Encoder.load(rewritten(change), provider='cpu')


@pytest.mark.parametrize('place', ['task_id: cup', 'name: pick up the cup', 'dropped', 'platt'])
def test_texts_that_grow_when_printed(tiny, variant, place):
    """
    Guards the robot's memory: YAML aliases multiply when a list is taken for a text.

    A file of a kilobyte made a text of gigabytes out of a list of lists, before anything was
    checked.
    """
    bomb = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]']
    bomb += [f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * 10)}]' for i in range(1, 6)]
    text = (tiny / 'tasks.yaml').read_text()
    assert place in text
    text = text.replace(place, f'{place.split(":")[0]}: *a5' if ':' in place else '*a5')
    folder = variant(tiny, files={
        'tasks.yaml': ('\n'.join(bomb) + '\n' + text).encode()})
    tracemalloc.start()
    try:
        assert len(refused(folder)) < 1000
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize('place', ['scale: 0.5', '0.1: 0.7'])
def test_a_number_beyond_all_floats(tiny, variant, place):
    """Guards against an OverflowError: YAML reads whole numbers that no float can hold."""
    text = (tiny / 'tasks.yaml').read_text()
    assert place in text
    text = text.replace(place, f'{place.split(":")[0]}: 0x{"f" * 400}')
    refused(variant(tiny, files={'tasks.yaml': text.encode()}))


def test_half_a_character_in_a_name(tiny, variant):
    r"""Guards messages, which are UTF-8: YAML spells "\ud800", and no message could carry it."""
    text = (tiny / 'tasks.yaml').read_text().replace('dropped', '"a\\ud800"')
    refused(variant(tiny, files={'tasks.yaml': text.encode()}))


@pytest.mark.parametrize(('prompts', 'word'), [
    (None, 'missing'), (np.zeros((3, 2, 8), np.float32), '[3, 2, 8]'),
    (np.zeros((2, 8), np.float32), '[2, 8]'), (np.zeros((2, 2, 8), np.float64), 'float64'),
    (np.full((2, 2, 8), np.nan, np.float32), 'cup')],
    ids=['missing', 'modes', 'rank', 'float64', 'nan'])
def test_prompts_that_do_not_fit(tiny, variant, prompts, word):
    """Guards the tensors against the manifest, and against values that are not numbers."""
    from safetensors.numpy import load, save

    tensors = load((tiny / 'tasks.safetensors').read_bytes())
    del tensors['prompts/cup']
    if prompts is not None:
        tensors['prompts/cup'] = prompts
    refused(variant(tiny, files={'tasks.safetensors': save(tensors)}), 'prompts/cup', word)


@pytest.mark.parametrize('data', [b'', b'\x00' * 100, b'PK\x03\x04', b'\x80\x02}q\x00.'],
                         ids=repr)
def test_garbage_in_the_tensors(tiny, variant, data):
    """Guards the other file; a pickle in it is not run."""
    refused(variant(tiny, files={'tasks.safetensors': data}), 'tasks.safetensors')


def test_others_without_a_task():
    """Guards the first instruction: which task is nearest was asked of none, an IndexError."""
    with pytest.raises(ValueError, match='there is no task'):
        TaskTable((), Task('fallback', 'fallback'), (Task('other', 'other'),))
