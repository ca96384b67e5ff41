# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Where things are in images: written and read, and what is no such file."""

from hralign_ros.data.manifest import DataError
from hralign_ros.data.things import FILE_NAME, Places, read_things, write_things
import numpy as np
import pytest


def test_written_and_read(tmp_path):
    """Guards the order of numbers: x before y, frame by frame, of each episode its own."""
    first = [Places('red-mug', 'wrist', np.array([[0.1, 0.2], [np.nan, np.nan]], np.float32)),
             Places('red-mug', 'third_person', np.array([[0.3, 1.4], [0.5, 0.6]], np.float32))]
    second = [Places('blue', 'wrist', np.array([[0.7, 0.8]], np.float32))]
    write_things(tmp_path, [('a', first), ('b', second), ('c', [])])
    found = read_things(tmp_path)
    assert set(found) == {'a', 'b'}
    for given, read in ((first, found['a']), (second, found['b'])):
        assert [(one.thing, one.view) for one in read] == [(p.thing, p.view) for p in given]
        for one, other in zip(given, read, strict=True):
            assert other.at.dtype == np.float32
            np.testing.assert_array_equal(one.at, other.at)
    write_things(tmp_path, [('b', second)])
    assert set(read_things(tmp_path)) == {'b'}
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_no_such_file(tmp_path):
    """Guards a sentence in place of a traceback."""
    with pytest.raises(DataError, match='no things.parquet there; `hralign data simulate'):
        read_things(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(b'no parquet')
    with pytest.raises(DataError, match=FILE_NAME):
        read_things(tmp_path)
