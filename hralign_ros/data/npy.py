# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
NumPy files of pickled plain data, read without running what a pickle may hold.

A pickle names functions to be called while it is read. Here only those are known that rebuild
arrays and numbers; a file that names anything else is refused before anything of it is called.
"""

from pathlib import Path
import pickle
from typing import Any

from hralign_ros.data.manifest import DataError
import numpy as np


def _latin1(text: str, encoding: str) -> bytes:
    """Rebuild bytes the way old pickles store them."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'bytes in {encoding}')
    return text.encode('latin1')


# Taken from what NumPy itself pickles. The modules that name them differ between its versions.
_HOMES = ('numpy', 'numpy.core.multiarray', 'numpy._core.multiarray', 'numpy.core.numeric',
          'numpy._core.numeric')
_ALLOWED: dict[tuple[str, str], Any] = {
    ('_codecs', 'encode'): _latin1,
    **{(home, name): rebuild for home in _HOMES for name, rebuild in (
        ('ndarray', np.ndarray), ('dtype', np.dtype),
        ('_reconstruct', np.zeros(1).__reduce__()[0]),
        ('scalar', np.float64(0).__reduce__()[0]),
        ('_frombuffer', np.zeros(1).__reduce_ex__(5)[0]))},
}


class _Unpickler(pickle.Unpickler):
    """Knows lists, dicts, numbers, text and NumPy arrays, and no other class or function."""

    def find_class(self, module: str, name: str) -> Any:
        """Look a name up among the few that are allowed."""
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it names '{module}.{name}', and only plain numbers, lists, dicts and NumPy "
                'arrays are read') from None


def load_plain(path: Path) -> Any:
    """
    Read an .npy file: an array, or the object that `numpy.save` pickled into one.

    :returns: an array; for a file of one object, that object.
    :raises DataError: it is not such a file, or holds more than plain data.
    """
    try:
        with open(path, 'rb') as file:
            version = np.lib.format.read_magic(file)
            reader = {(1, 0): np.lib.format.read_array_header_1_0,
                      (2, 0): np.lib.format.read_array_header_2_0}.get(version)
            if reader is None:
                raise ValueError(f'.npy format {version}')
            dtype = reader(file)[2]
            if dtype.hasobject:
                value = _Unpickler(file).load()
                plain = isinstance(value, np.ndarray) and value.shape == ()
                return value.item() if plain else value
        return np.load(path, allow_pickle=False)
    # A damaged pickle raises nearly anything.
    except Exception as error:
        raise DataError(f'{path}: {error or type(error).__name__}') from error
