# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Figures: that they come out, the same each time, in the colours that they guarantee."""

import cv2
from hralign_ros.evaluation import figures
from hralign_ros.evaluation.bootstrap import Estimate, EvaluationError
from hralign_ros.evaluation.report import Measured
import numpy as np
import pytest


def figure(png):
    assert png.startswith(b'\x89PNG')
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR),
                        cv2.COLOR_BGR2RGB)


def count(image, colour):
    """Count the pixels of a colour."""
    wanted = [int(colour[i:i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(image.astype(int) - wanted).max(-1) <= 2).sum())


def frames(amount=2, height=24, width=32):
    return np.full((amount, height, width, 3), 90, np.uint8)


def answers(*right):
    return [figures.Answer(frames()[0], f'$task_{i} cos 0.5', r) for i, r in enumerate(right)]


def test_retrieval_shows_right_and_wrong():
    wrong = figures.Example(frames(), 'open $the drawer', answers(False, False))
    mixed = figures.Example(frames(), 'a title that is much too long for the width it has ' * 3,
                            answers(False, True))
    first = figure(figures.retrieval_examples([wrong]))
    assert count(first, figures.WRONG) > 500 and not count(first, figures.RIGHT)
    assert count(first, figures.HUMAN) > 300 and not count(first, figures.ROBOT)
    right = figure(figures.retrieval_examples([figures.Example(frames(), 'x', answers(True))]))
    assert count(right, figures.RIGHT) > 500 and not count(right, figures.WRONG)
    both = figure(figures.retrieval_examples([wrong, mixed]))
    assert count(both, figures.RIGHT) > 300 and count(both, figures.WRONG) > 300


def test_rows_of_unequal_length():
    short = figures.Example(frames(1), 'x', answers(True))
    figure(figures.retrieval_examples(
        [short, figures.Example(frames(9), 'y', answers(True, False, True))]))


@pytest.mark.parametrize('bad', [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_frames_that_are_none(bad):
    with pytest.raises(EvaluationError, match='uint8'):
        figures.retrieval_examples(
            [figures.Example(frames(), 'x', [figures.Answer(bad, 'y', True)])])
    with pytest.raises(EvaluationError, match='no examples'):
        figures.retrieval_examples([])


def test_embeddings_are_the_same_each_time():
    generator = np.random.default_rng(0)
    before, after = generator.normal(size=(24, 5)), generator.normal(size=(24, 7))
    labels = {'tasks': np.repeat([f't{i}_$x' for i in range(12)], 2),
              'domains': np.tile(['human', 'robot'], 12)}
    first = figures.embeddings(before, after, **labels)
    assert first == figures.embeddings(before, after, **labels)
    image = figure(first)
    assert count(image, figures.HUMAN) > 50 and count(image, figures.ROBOT) > 50
    with pytest.raises(EvaluationError, match='differ in length'):
        figures.embeddings(before, after[:-1], **labels)
    with pytest.raises(EvaluationError, match='human and robot'):
        figures.embeddings(before, after, tasks=labels['tasks'], domains=['robo'] * 24)
    with pytest.raises(EvaluationError, match='at least 5'):
        figures.embeddings(before[:3], after[:3], tasks=['a'] * 3, domains=['human'] * 3)
    with pytest.raises(EvaluationError, match='do not vary'):
        figures.embeddings(np.ones((24, 5)), after, **labels)


def test_attention_of_the_whole_figure():
    """Guards the grid: the figure is not cut, as the backbone has seen all of it."""
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, :6] = (0, 255, 0)
    even = np.ones(8, np.float32)
    peak = np.eye(8, dtype=np.float32)[3]
    image = figure(figures.attention_figure(
        [figures.Attention(wide, even, peak, (2, 4), 'open the $ drawer with the left hand')]))
    # The green edge is there three times: cutting to the middle would lose it.
    assert count(image, '#00FF00') > 2000
    with pytest.raises(EvaluationError, match='grid'):
        figures.attention_figure([figures.Attention(wide, even[:-1], peak, (2, 4), '')])


def rows(*values, metric='retrieval_r1', control=None):
    found = Measured()
    for i, v in enumerate(values):
        found.add(metric, f'variant {i}', 'test_task', Estimate(v, v - 0.1, v + 0.1, 30, 10),
                  chance=0.02, control=i == control)
    return found.rows


def test_bars():
    image = figure(figures.bar_chart(rows(0.3, -0.2, control=1), title='R@1'))
    colours = [figures.PALETTE[0], figures.PALETTE[1]]
    assert count(image, colours[0]) > 1000 and not count(image, colours[1])
    gone = rows(0.3, 0.1)
    gone[1] = {**gone[1], 'value': None, 'low': None, 'high': None}
    assert not count(figure(figures.bar_chart(gone, title='')), colours[0]) == 0
    with pytest.raises(EvaluationError, match='one metric'):
        figures.bar_chart(rows(0.1) + rows(0.1, metric='retrieval_map'), title='')
    with pytest.raises(EvaluationError, match='once per split'):
        figures.bar_chart(rows(0.1) + rows(0.1), title='')
    with pytest.raises(EvaluationError, match='no rows'):
        figures.bar_chart([], title='')


def test_training_curve(tmp_path):
    file = tmp_path / 'log.csv'
    file.write_text('step,loss,val_r1,note\n0,3.0,0.1,a\n1,2.0,,b\n2,1.5,0.3,c\n3,nan,0.2,d\n')
    curves = figures._read_curves(file)
    assert set(curves) == {'loss', 'val_r1'}
    assert curves['val_r1'][0].tolist() == [0, 2, 3] and curves['loss'][0].tolist() == [0, 1, 2]
    both = figure(figures.training_curve(file, best='val_r1'))
    file.write_text('step,loss\n0,3.0\n1,2.0\n')
    alone = figure(figures.training_curve(file))
    assert both.shape[1] > 1.5 * alone.shape[1]
    with pytest.raises(EvaluationError, match="no column 'r5'"):
        figures.training_curve(file, best='r5')
    file.write_text('epoch,loss\n0,3.0\n')
    with pytest.raises(EvaluationError, match="column 'step'"):
        figures.training_curve(file)
    with pytest.raises(EvaluationError, match='none.csv'):
        figures.training_curve(tmp_path / 'none.csv')


@pytest.mark.parametrize(('text', 'lines'), [
    ('', ''), ('cost $5', r'cost \$5'), ('one two three', 'one two\nthree'),
    ('aaaa bbbb cccc dddd', 'aaaa\nbbbb cc…'), ('a\nb', 'a\nb')])
def test_wrapped_labels(text, lines):
    assert figures._wrap(text, 8) == lines
