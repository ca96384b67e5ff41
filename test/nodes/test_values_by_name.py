# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Numbers of our messages by name, as rosetta's decoders hand them on."""

from importlib.metadata import entry_points
from importlib.util import find_spec
import subprocess
import sys
from typing import Any

from hralign_msgs.msg import SuccessProbability, TaskEmbedding
from hralign_ros.nodes.values_by_name import embedding_values, RESULT_FIELDS, result_values
import numpy as np
import pytest


def embedding(**changes: Any) -> TaskEmbedding:
    """Make an embedding of two views and the parts a (2 elements) and b (3)."""
    return TaskEmbedding(**{
        'view_names': ['wrist', 'third_person'], 'view_valid': [True, True], 'dim': 5,
        'part_names': ['a', 'b'], 'part_offsets': [0, 2],
        'data': np.arange(10, dtype=np.float32), **changes})


def test_elements_by_name() -> None:
    """In the order that was asked for, whatever the order of parts and views in the message."""
    names = ('b.third_person.2', 'a.wrist.1', 'b.wrist.0')
    values = embedding_values(embedding(), names)
    assert values.dtype == np.float32 and values.tolist() == [9.0, 1.0, 2.0]
    turned = embedding(part_names=['b', 'a'], part_offsets=[0, 3])
    assert embedding_values(turned, names).tolist() == [7.0, 4.0, 0.0]


def test_a_view_that_is_missing() -> None:
    """Zeros that stand for a missing view are not handed on; who does not use it has no loss."""
    lacking = embedding(view_valid=[False, True])
    with pytest.raises(ValueError, match='the view wrist is missing'):
        embedding_values(lacking, ('a.third_person.0', 'a.wrist.0'))
    assert embedding_values(lacking, ('a.third_person.0',)).tolist() == [5.0]


@pytest.mark.parametrize('name', ['c.wrist.0', 'a.left.0', 'a.wrist', 'a.wrist.-1', 'a', ''])
def test_a_name_of_nothing(name: str) -> None:
    """Says what there is, and who chooses the parts."""
    with pytest.raises(ValueError, match='parts a, b and the views wrist, third_person.*'
                                         'embedding_parts'):
        embedding_values(embedding(), (name,))


def test_an_element_beyond_its_part() -> None:
    """Guards against the next part's numbers under this one's name."""
    with pytest.raises(ValueError, match='the part a has 2 elements'):
        embedding_values(embedding(), ('a.wrist.2',))


def test_fields_with_their_flags() -> None:
    """A probability of 0 is known or not; the flag beside it tells."""
    names = ('probability', 'probability_valid', 'decision', 'status')
    known = SuccessProbability(
        probability=0.75, probability_valid=True,
        decision=SuccessProbability.DECISION_SUCCESS,
        status=SuccessProbability.STATUS_VIEW_MISSING)
    values = result_values(known, names)
    assert values.dtype == np.float32 and values.tolist() == [0.75, 1.0, 2.0, 32.0]
    stale = SuccessProbability(status=SuccessProbability.STATUS_STALE_VIEW)
    assert result_values(stale, names).tolist() == [0.0, 0.0, 0.0, 16.0]


def test_a_field_without_its_flag() -> None:
    """Guards a reward made of `probability` alone against the 0 that means nothing is known."""
    with pytest.raises(ValueError, match='progress is not known.*progress_valid'):
        result_values(SuccessProbability(probability_valid=True),
                      ('probability', 'progress'))
    with pytest.raises(ValueError, match="no number 'task'"):
        result_values(SuccessProbability(), ('task',))


def test_nothing_selected() -> None:
    """Rosetta takes a stream without `select` for one number; which one, it cannot know."""
    for take, message in ((embedding_values, embedding()),
                          (result_values, SuccessProbability())):
        with pytest.raises(ValueError, match='no number is selected'):
            take(message, ())


def test_every_number_of_a_result_can_be_had() -> None:
    """Guards the table against a field that the message gains."""
    numbers = {name for name, kind in SuccessProbability.get_fields_and_field_types().items()
               if kind in ('float', 'double', 'boolean', 'uint8', 'uint32')}
    assert set(RESULT_FIELDS) == numbers
    assert {flag for flag in RESULT_FIELDS.values() if flag} <= numbers


def test_the_entry_point() -> None:
    """
    Guards every contract of a rosetta beside us.

    It refuses them all where one module of the group cannot be imported. So ours is there, and the
    modules it stands on need nothing that a computer without our runtime lacks.
    """
    found = {one.value for one in entry_points(group='rosetta.codecs') if one.name == 'hralign'}
    assert found == {'hralign_ros.nodes.rosetta_codecs'}
    assert find_spec('hralign_ros.nodes.rosetta_codecs')
    program = ('import sys, hralign_ros.nodes.values_by_name; print(sorted('
               '{"onnxruntime", "rclpy", "cv2", "yaml", "hralign_msgs"} & set(sys.modules)))')
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True,
                          timeout=60, check=True)
    assert done.stdout.strip() == '[]'
