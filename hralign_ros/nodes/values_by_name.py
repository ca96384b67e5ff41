# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Numbers of our messages by name, for programs that select them in a file.

    keypoints.wrist.0        element 0 of the part keypoints of the view wrist
    probability              a field of a result; True is 1

Needs numpy alone, neither ROS nor onnxruntime: it runs inside other people's programs.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Fields of a result that are a number, and the flag without which each means nothing.
RESULT_FIELDS: dict[str, str] = {
    'probability': 'probability_valid', 'progress': 'progress_valid',
    'raw_score': 'raw_score_valid', 'failure_probability': 'failure_valid',
    'ood_score': 'ood_valid', 'ood_threshold': 'ood_valid',
    'decision_threshold': 'decision_threshold_valid', 'decision_alpha': 'decision_threshold_valid',
    'decision': '', 'status': ''} | dict.fromkeys((
        'probability_valid', 'progress_valid', 'raw_score_valid', 'failure_valid', 'ood_valid',
        'decision_threshold_valid'), '')


def element_name(part: str, view: str, element: int) -> str:
    """Name one number of an embedding; `element` counts in the part's slice of a row."""
    return f'{part}.{view}.{element}'


def embedding_values(message: Any, names: Sequence[str]) -> NDArray[np.float32]:
    """
    Take numbers of an embedding.

    :param message: hralign_msgs/TaskEmbedding.
    :param names: as element_name makes them.
    :returns: float32 [N], in the order of the names.
    :raises ValueError: no name is given; the embedding has no such number; or its view is missing
        in this message, so that zeros stand in its row.
    """
    _check_given(names)
    views, rows = _layout(tuple(names), tuple(message.view_names), tuple(message.part_names),
                          tuple(message.part_offsets), message.dim)
    missing = [message.view_names[view] for view in views if not message.view_valid[view]]
    if missing:
        raise ValueError(f'the view {", ".join(missing)} is missing in this embedding, so its '
                         'numbers are not known')
    return np.asarray(message.data, np.float32)[rows]


@lru_cache(maxsize=16)
def _layout(
    names: tuple[str, ...], views: tuple[str, ...], parts: tuple[str, ...],
    offsets: tuple[int, ...], dim: int,
) -> tuple[tuple[int, ...], NDArray[np.intp]]:
    """Return the views that names are of, and each name's place in data, intp [N]."""
    ends = dict(zip(parts, zip(offsets, (*offsets[1:], dim), strict=True), strict=True))
    used, places = set(), []
    for name in names:
        part, _, rest = name.partition('.')
        view, _, element = rest.partition('.')
        if part not in ends or view not in views or not element.isdecimal():
            raise ValueError(
                f"there is no '{name}' in this embedding; names are PART.VIEW.ELEMENT, with the "
                f'parts {", ".join(parts)} and the views {", ".join(views)}. Parts are chosen by '
                "the encoder's parameter embedding_parts")
        begin, end = ends[part]
        if int(element) >= end - begin:
            raise ValueError(f"there is no '{name}' in this embedding: the part {part} has "
                             f'{end - begin} elements a view, from 0 on')
        row = views.index(view)
        used.add(row)
        places.append(row * dim + begin + int(element))
    return tuple(sorted(used)), np.array(places, np.intp)


def result_values(message: Any, names: Sequence[str]) -> NDArray[np.float32]:
    """
    Take numbers of a result.

    :param message: hralign_msgs/SuccessProbability.
    :param names: of RESULT_FIELDS. A number whose flag is not among them (`probability` without
        `probability_valid`) is asked for where it is known only.
    :returns: float32 [N], in the order of the names; 0 where it is not known and its flag is there
        to say so.
    :raises ValueError: no name is given; there is no such field; or its value is not known and no
        flag says so.
    """
    _check_given(names)
    unknown = [name for name in names if name not in RESULT_FIELDS]
    if unknown:
        raise ValueError(f"a result has no number '{unknown[0]}'; there are "
                         f'{", ".join(sorted(RESULT_FIELDS))}')
    for name in names:
        flag = RESULT_FIELDS[name]
        if flag and flag not in names and not getattr(message, flag):
            raise ValueError(f'{name} is not known in this result ({flag} is false); select '
                             f'{flag} as well to have 0 and this flag')
    return np.array([getattr(message, name) for name in names], np.float32)


def _check_given(names: Sequence[str]) -> None:
    if not names:
        raise ValueError('no number is selected; name them, as `hralign bundle contract` writes '
                         'them under select')
