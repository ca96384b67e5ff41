# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""NumPy files: plain data of every age is read, and nothing that a file names is called."""

from collections import OrderedDict
import io
import pickle

from hralign_ros.data.manifest import DataError
from hralign_ros.data.npy import load_plain
import numpy as np
import pytest


def write(path, value, protocol=4):
    """Write an object as numpy.save does, by any pickle protocol."""
    with open(path, 'wb') as file:
        np.lib.format.write_array_header_1_0(
            file, {'descr': '|O', 'fortran_order': False, 'shape': ()})
        pickle.dump(np.array(value, object), file, protocol=protocol)
    return path


PLAIN = {'color': [1, 2**40], 'table': np.arange(6.0).reshape(2, 3), 'one': np.float32(0.5),
         'text': 'a', 'raw': b'\x80\xff', 'deep': [{'t': np.int64(3), 'x': (1, None, True)}]}


@pytest.mark.parametrize('protocol', range(6))
def test_plain_data(tmp_path, protocol):
    """Guards the real files: old pickles and new ones."""
    read = load_plain(write(tmp_path / 'a.npy', PLAIN, protocol))
    assert read['color'] == PLAIN['color'] and read['deep'] == PLAIN['deep']
    assert np.array_equal(read['table'], PLAIN['table']) and read['one'] == 0.5
    assert (read['text'], read['raw']) == ('a', b'\x80\xff')


def test_what_numpy_itself_writes(tmp_path):
    """Guards both kinds of file that numpy.save makes."""
    np.save(tmp_path / 'a.npy', {'color': [1]})
    np.save(tmp_path / 'b.npy', np.arange(3))
    assert load_plain(tmp_path / 'a.npy') == {'color': [1]}
    assert load_plain(tmp_path / 'b.npy').tolist() == [0, 1, 2]


def test_the_names_of_older_numpy(tmp_path):
    """Guards files from before NumPy 2, whose functions lived in another module."""
    data = write(tmp_path / 'a.npy', PLAIN, 3).read_bytes()
    old = data.replace(b'numpy._core.', b'numpy.core.')
    assert old != data
    (tmp_path / 'a.npy').write_bytes(old)
    assert np.array_equal(load_plain(tmp_path / 'a.npy')['table'], PLAIN['table'])


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call

    def __repr__(self):
        return f'call of {self.call[0].__name__}'


@pytest.mark.parametrize('evil', [
    Call(print, 'x'), Call(eval, '1'), Call(getattr, 'x', 'y'), Call(np.load, 'x'),
    Call(io.open, 'x'), OrderedDict(a=1), np.array, DataError('x')], ids=repr)
def test_what_is_refused(tmp_path, evil, capsys):
    """Guards the machine: only rebuilding of plain data is known."""
    with pytest.raises(DataError, match='only plain numbers'):
        load_plain(write(tmp_path / 'a.npy', {'color': [evil]}))
    assert capsys.readouterr().out == ''


def test_damaged_files(tmp_path):
    """Guards the reports: whatever is wrong with a file is a DataError that names it."""
    whole = write(tmp_path / 'whole.npy', PLAIN).read_bytes()
    path = tmp_path / 'a.npy'
    for data in (b'', b'text', whole[:40], whole[:-9], b'\x93NUMPY\x09\x00' + whole[8:]):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r'a\.npy'):
            load_plain(path)
    with pytest.raises(DataError, match=r'none\.npy'):
        load_plain(tmp_path / 'none.npy')
